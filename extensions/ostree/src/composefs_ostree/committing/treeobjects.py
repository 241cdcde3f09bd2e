"""From a listing whose files are made to dirtrees, dirmetas and the commit: the objects that make up its stream."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from composefs_ostree.committing.inodes import Directory, Meta
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.objects import (
    Commit,
    Dirmeta,
    Dirtree,
    make_commit,
    make_dirmeta,
    make_dirtree,
    parse_commit,
    parse_dirmeta,
    parse_dirtree,
)
from composefs_ostree.held.tree import Tree

__all__ = ["MadeCommit", "TreeObjects", "finish"]


class TreeObjects:
    """The metadata objects of a tree, by id; ``root`` and ``root_meta`` are the ids that the commit names."""

    def __init__(self, root: Directory, ids: list[bytes], files: dict[bytes, Entry]) -> None:
        """``ids`` are the file ids by job, and each directory has its metadata."""
        self.entries: dict[bytes, Entry] = {}
        self.trees: dict[bytes, Dirtree] = {}
        self.metas: dict[bytes, Dirmeta] = {}
        self.files: dict[bytes, Entry] = {}
        self._ids = ids
        self._made = files
        self._meta_ids: dict[Meta, bytes] = {}
        below: dict[int, tuple[bytes, bytes]] = {}  # by the directory's identity
        # Each directory comes up twice: before what is in it, and behind it.
        stack = [(root, False)]
        while stack:
            directory, is_left = stack.pop()
            if is_left:
                below[id(directory)] = self._add(directory, below)
            else:
                stack.append((directory, True))
                stack += [(each, False) for each in directory.directories.values()]
        self.root, self.root_meta = below[id(root)]

    def _add(self, directory: Directory, below: dict[int, tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        files = sorted((name, self._ids[job]) for name, job in directory.files.items())
        for _, file_id in files:
            self.files[file_id] = self._made[file_id]
        listing = Dirtree(files, sorted((name, *below.pop(id(each))) for name, each in directory.directories.items()))
        data = make_dirtree(listing)
        tree_id = sha256(data).digest()
        if tree_id not in self.trees:
            parse_dirtree(data)  # all that a reader will check: names, above all
            self.trees[tree_id] = listing
            self.entries[tree_id] = Entry(data, None)
        assert directory.meta is not None
        return tree_id, self._meta(directory.meta)

    def _meta(self, meta: Meta) -> bytes:
        found = self._meta_ids.get(meta)
        if found is None:
            data = make_dirmeta(meta)
            found = self._meta_ids[meta] = sha256(data).digest()
            self.metas[found] = parse_dirmeta(data)
            self.entries[found] = Entry(data, None)
        return found


class MadeCommit(NamedTuple):
    """A commit with its id and its bytes, all objects of its stream by their ids, and its tree."""

    commit_id: bytes
    data: bytes
    entries: dict[bytes, Entry]
    tree: Tree


def finish(objects: TreeObjects, commit: Commit) -> MadeCommit:
    """Make the commit, which names the tree of these objects; raise FormatError for one that nobody could read."""
    data = make_commit(commit)
    parse_commit(data)
    commit_id = sha256(data).digest()
    entries = {commit_id: Entry(data, None), **objects.entries, **objects.files}
    return MadeCommit(commit_id, data, entries, Tree(commit, objects.trees, objects.metas, objects.files))
