"""``fsck`` of commits: every object of each against its id, and the image against the tree.

A file's content is read and hashed as ostree does it, which finds what the repository's own digests cannot: an object
that is whole but belongs to another file.  The digests are checked too, by the core.
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Any

from composefs_ext import Core, Request
from composefs_ext.errors import ExtError, NotFoundError
from composefs_ext.workers import in_threads
from composefs_ostree.formats.commit_stream import Entry, commit_of_stream
from composefs_ostree.formats.fileheader import checksum_header, head_size, parse_head
from composefs_ostree.held.dumptext import is_image_of
from composefs_ostree.held.refs import commit_streams, find_stream
from composefs_ostree.held.streams import image_of, open_commit, partly, read_detached
from composefs_ostree.held.tree import Tree, load, load_commit

__all__ = ["fsck"]

_PIECE = 256 << 10
_REMEDY = "cfsctl ostree pull --repair fetches again what is damaged"


def fsck(request: Request, core: Core) -> dict[str, Any]:
    """Check the commits that the request names, or all; print and return what is wrong."""
    names = [find_stream(core, name) for name in request.get("refs", [])]
    names = list(dict.fromkeys(names)) or list(commit_streams(core).values())
    check = _Check(core)
    with core.progress("commits", total=len(names)) as progress:
        for name in names:
            check.commit(name)
            progress.advance()
        found = core.repo_fsck(names).result()
    errors = check.errors + [error.removeprefix("fsck: ") for error in found["errors"]]
    lines = [f"commits {len(names)}"]
    lines += [f"partial {commit} ({partly(paths)})" for commit, paths in check.partial.items()]
    lines += [f"objects {check.metadata} metadata + {check.files} files"]
    lines += [f"error   {error}" for error in errors]
    lines += ["status: corrupted", _REMEDY] if errors else ["status: ok"]
    core.output("\n".join(lines) + "\n")
    return {
        "ok": not errors,
        "commits": [commit_of_stream(name).hex() for name in names],
        "partial": check.partial,
        "metadata_checked": check.metadata,
        "files_checked": check.files,
        "errors": errors,
        "affected": found.get("affected"),
        "status": 1 if errors else 0,
    }


class _Check:
    """Checks commits, each object once; ``errors`` has a line for everything that is wrong."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._repository = core.repo
        self._good: set[tuple[bytes, str | None]] = set()
        self.errors: list[str] = []
        self.partial: dict[str, list[str]] = {}
        self.metadata = 0
        self.files = 0

    def commit(self, name: str) -> None:
        """Check one commit by the name of its stream."""
        commit = commit_of_stream(name).hex()
        try:
            held, stream = open_commit(self._core, name, partial=True)
            if held.subpaths is not None:
                self.partial[commit] = held.subpaths
            read_detached(self._core, stream, held.commit_id)
            if held.subpaths is not None and not held.subpaths:
                load_commit(held)
                self.metadata += 1
                return
            tree = load(held)
            self.metadata += 1 + len(tree.trees) + len(tree.metas)
            self._check_files(commit, tree)
            self._check_image(commit, tree, image_of(stream))
        except ExtError as error:
            self.errors.append(f"commit {commit}: {error.message.removeprefix(f'commit {commit}: ')}")

    def _check_files(self, commit: str, tree: Tree) -> None:
        todo = ((each, entry) for each, entry in tree.files.items() if (each, entry.content) not in self._good)
        for (file_id, entry), problem in in_threads(self._core, self._check_file, todo):
            self.files += 1
            if problem is None:
                self._good.add((file_id, entry.content))
            else:
                self.errors.append(f"commit {commit}: {tree.path_of(file_id)} (file {file_id.hex()}): {problem}")

    def _check_file(self, row: tuple[bytes, Entry]) -> str | None:
        file_id, (data, content) = row
        try:
            end = head_size(data)
            head = parse_head(data[:end])
            digest = sha256(checksum_header(data[:end]))
            digest.update(data[end:])
            if content is not None:
                with open(self._repository.open(content, head.size), "rb", buffering=0) as file:
                    while piece := file.read(_PIECE):
                        digest.update(piece)
        except ExtError as error:
            return error.message
        except OSError as error:
            return f"object {content}: {os.strerror(error.errno or 0)}"
        if digest.digest() == file_id:
            return None
        return "its checksum is another one" + ("" if content is None else f", its content is object {content}")

    def _check_image(self, commit: str, tree: Tree, image: str | None) -> None:
        if image is None:
            raise NotFoundError("its stream names no image")
        if not is_image_of(self._core, tree, image):
            self.errors.append(f"commit {commit}: the image {image} is not that of its tree")
