"""Files of a tree to be committed that change between being listed and being read."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from composefs_ext import Core, Request
from composefs_ext.packs import Packs
from composefs_ext.testing import MemoryCore
from composefs_ostree.committing.contents import JOB_SIZE, Maker
from composefs_ostree.committing.directory import DirectoryListing
from composefs_ostree.committing.inodes import Inode, Meta
from composefs_ostree.committing.layers import Layers

SIZE = 100_000
META = Meta(0, 0, stat.S_IFREG | 0o644, ())
JOB = (0).to_bytes(JOB_SIZE, "big")
CHANGED = "it: it was changed while it was read, or ends too early"


class OneFile:
    """A tree that has one file."""

    jobs = 1

    def __init__(self, inode: Inode) -> None:
        self._inode = inode

    def read(self, _job: int) -> Inode:
        return self._inode

    def where(self, _job: int) -> str:
        return "it"

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("limit", [64, 2 * SIZE], ids=["staged", "inline"])
@pytest.mark.parametrize(
    ("told", "how"),
    [
        (SIZE + 1, {}),
        (SIZE - 1, {}),
        (SIZE + 1, {"pieces": ((10, SIZE + 1),)}),
        (SIZE, {"object_id": "ab" * 32}),
        (SIZE + 1, {"object_id": "ab" * 32}),
    ],
    ids=["shorter", "longer", "an archive that ends", "another object", "a shorter object"],
)
def test_a_file_that_is_not_what_was_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, told: int, how: dict[str, Any]
) -> None:
    (tmp_path / "file").write_bytes(b"x" * SIZE)
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "file").open("rb") as file:
        tree = OneFile(Inode(META, told, fd=file.fileno(), **how))
        maker = Maker(tree, Packs(None, ()), limit, "sha256")  # type: ignore[arg-type]  # none is made
        maker.start(JOB, "staged")
        [(_, error)] = maker.step()
    object_id = how.get("object_id")
    if object_id is None:
        expected = "it: the archive ends inside of it" if how and limit < SIZE else CHANGED
    elif told == SIZE:
        expected = f"it: its object {object_id} is damaged"
    else:
        expected = CHANGED if limit > SIZE else f"it: its object {object_id} has {SIZE} bytes, not {told}"
    assert error["message"] == expected
    assert not (tmp_path / "staged").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
def test_a_reflink_that_fails_where_it_would_be_is_not_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Of EIO nobody knows whose it is."""

    def ioctl(*_arguments: int) -> int:
        raise OSError(number, os.strerror(number))

    (tmp_path / "file").write_bytes(b"x" * SIZE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with (tmp_path / "file").open("rb") as file:
        tree = OneFile(Inode(META, SIZE, fd=file.fileno()))
        maker = Maker(tree, Packs(None, ()), 64, "sha256")  # type: ignore[arg-type]  # none is made
        maker.start(JOB, "staged")
        [(_, error)] = maker.step()
    it = "it:" if number == errno.EIO else "it cannot be stored:"
    assert error["message"] == f"{it} {os.strerror(number)}"
    assert not (tmp_path / "staged").exists()


def test_a_staging_that_is_gone_is_not_taken_for_a_file_that_is() -> None:
    maker = Maker(OneFile(Inode(META, SIZE)), Packs(None, ()), 64, "sha256")  # type: ignore[arg-type]  # none is made
    maker.start(JOB, "gone/staged")
    [(_, error)] = maker.step()
    assert error["message"] == "it cannot be stored: No such file or directory"


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_what_is_no_file_any_more(tmp_path: Path, kind: str) -> None:
    (tmp_path / "tree").mkdir()
    place = tmp_path / "tree/file"
    place.touch()

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        layers = Layers()
        layers.add(DirectoryListing(core, str(tmp_path / "tree"), layers))
        place.unlink()
        os.mkfifo(place) if kind == "pipe" else place.mkdir()
        maker = Maker(layers, Packs(core.staging, ()), 64, None)
        maker.start(JOB, "staged")
        [(_, error)] = maker.step()
        assert error["message"] == f"{place}: it was replaced while the directory was read"
        return {}

    MemoryCore(tmp_path / "core").run(handler, ["commit"])


def test_a_directory_that_is_a_symlink_by_now_is_not_followed(tmp_path: Path) -> None:
    for place in ("tree/directory", "elsewhere"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "file").write_text(place)

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        layers = Layers()
        layers.add(DirectoryListing(core, str(tmp_path / "tree"), layers))
        (tmp_path / "tree/directory").rename(tmp_path / "moved")
        (tmp_path / "tree/directory").symlink_to(tmp_path / "elsewhere")
        maker = Maker(layers, Packs(core.staging, ()), 64, None)
        maker.start(JOB, "staged")
        [(_, error)] = maker.step()
        assert error["message"] == f"{tmp_path}/tree/directory/file: Not a directory"
        return {}

    MemoryCore(tmp_path / "core").run(handler, ["commit"])
