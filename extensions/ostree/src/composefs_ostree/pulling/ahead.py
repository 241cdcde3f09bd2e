"""The tree of a held commit, walked before it is known how much of it stays.

While the first part of a static delta is decoded, nothing is known of the new tree, and both the coordinator and the
core would have nothing to do.  Most directories will be those of the old commit: meanwhile they are read, checked and
parsed, and the core is asked for their files.  What turns out to be of no use costs nothing but that time.
"""

from __future__ import annotations

from hashlib import sha256

from composefs_ext.errors import FormatError
from composefs_ostree.formats.commit_stream import CommitStream, Entry
from composefs_ostree.formats.objects import Dirtree, parse_commit, parse_dirtree

__all__ = ["Ahead"]

_DIRECTORIES = 64
"""How many are read in a step: some milliseconds, for which what has come of the part may have to wait."""


class Ahead:
    """What has been read of a commit: ``trees`` are its dirtrees by id, the bytes and what they list.

    ``files`` are the file objects that they list, without those whose content has turned out to be gone.
    """

    def __init__(self, base: CommitStream) -> None:
        """``base`` is a whole commit."""
        self.trees: dict[bytes, tuple[bytes, Dirtree]] = {}
        self.files: dict[bytes, Entry] = {}
        self._base = base
        self._wanted: list[bytes] | None = None

    def step(self) -> dict[bytes, Entry] | None:
        """Read some more directories; return the files that are new in them, None if everything has been read.

        What is damaged is left out: that is of no consequence unless a pull needs it, which will find it out.
        """
        if self._wanted is None:
            self._wanted = self._root()
        if not self._wanted:
            return None
        found: dict[bytes, Entry] = {}
        for _ in range(min(_DIRECTORIES, len(self._wanted))):
            self._read(self._wanted.pop(), self._wanted, found)
        self.files.update(found)
        return found

    def _root(self) -> list[bytes]:
        data = self._verified(self._base.commit_id)
        try:
            return [] if data is None else [parse_commit(data).root_tree]
        except FormatError:
            return []

    def _read(self, tree_id: bytes, wanted: list[bytes], found: dict[bytes, Entry]) -> None:
        if tree_id in self.trees or (data := self._verified(tree_id)) is None:
            return
        get, files = self._base.get, self.files
        try:
            listing = parse_dirtree(data)
            for _, file_id in listing.files:
                if file_id not in files and (entry := get(file_id)) is not None:
                    found[file_id] = entry
        except FormatError:
            return
        self.trees[tree_id] = data, listing
        wanted += [subtree_id for _, subtree_id, _ in listing.directories]

    def _verified(self, object_id: bytes) -> bytes | None:
        """Return the bytes of a metadata object, None if the stream does not have it or has others under its id."""
        try:
            entry = self._base.get(object_id)
        except FormatError:
            return None
        if entry is None or entry.content is not None or sha256(entry.data).digest() != object_id:
            return None
        return entry.data
