"""What several checks use: a tree with files that become objects, a repository of it, what the kernel sees."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from composefs.digest import Algorithm
from composefs.linux import verity
from vm.lab import cfsctl

__all__ = [
    "BIG",
    "SOME",
    "error_of",
    "fails",
    "measured",
    "objects_of",
    "replace",
    "repository_with_image",
]

E = TypeVar("E", bound=BaseException)

BIG = bytes(range(251)) * 400
"""25 pages."""

SOME = b"longer than what is kept inline in an image, which is sixty-four bytes at most\n"


def measured(path: Path) -> str | None:
    """Return the digest that the kernel enforces for a file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        found = verity.measure(fd)
    finally:
        os.close(fd)
    return found and found[1].hex()


def objects_of(repository: Path) -> dict[str, Path]:
    """Return the files below objects/ by the digest that their names are."""
    return {path.parent.name + path.name: path for path in repository.glob("objects/??/*")}


def replace(path: Path, content: bytes, algorithm: Algorithm | None = None) -> None:
    """Put another file in the place of an object, with or without fs-verity."""
    path.unlink()
    path.write_bytes(content)
    if algorithm is not None:
        with path.open("rb") as file:
            verity.enable(file.fileno(), algorithm)


def repository_with_image(directory: Path, *options: str) -> tuple[Path, str]:
    """Make DIRECTORY/tree and, in DIRECTORY/repo, an image of it that is named "it"; return repository and id.

    The image is the same every time.
    """
    share = directory / "tree/usr/share"
    share.mkdir(parents=True)
    (share / "big").write_bytes(BIG)
    (share / "some").write_bytes(SOME)
    (share / "tiny").write_bytes(b"tiny")
    for path in (directory / "tree", *(directory / "tree").rglob("*")):
        os.utime(path, (1, 1))
    repository = directory / "repo"
    cfsctl("init", *options, repository)
    printed = cfsctl("--repo", repository, "create-image", directory / "tree", "it").stdout
    return repository, printed.strip().rpartition(":")[2]


def fails(error: type[E], call: Callable[[], object]) -> E:
    """Call, and return the error that comes; there is no pytest in the machine."""
    try:
        call()
    except error as found:
        return found
    raise AssertionError(f"{error.__name__} did not come")


def error_of(call: Callable[[], object]) -> int | None:
    """Return the errno with which a call fails."""
    try:
        call()
    except OSError as error:
        return error.errno
    return None
