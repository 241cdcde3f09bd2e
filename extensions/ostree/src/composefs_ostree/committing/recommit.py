"""The tree of a commit that is here, as a tree to commit again."""

from __future__ import annotations

from composefs_ext import Core
from composefs_ostree.committing.inodes import Inode, Meta
from composefs_ostree.committing.layers import Layers
from composefs_ostree.committing.listed import Listed, TreeBuilder, require_objects
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.fileheader import head_size, parse_head
from composefs_ostree.held.refs import find_stream
from composefs_ostree.held.streams import open_commit
from composefs_ostree.held.tree import load

__all__ = ["commit_listing"]

_REMEDY = "pull that commit with --repair, or commit its tree again"


def commit_listing(core: Core, name: str, layers: Layers) -> Listed:
    """Lay the tree of a commit, given by ref, id or the beginning of one, over the others.

    Raises NotFoundError if there is no such commit, UnsupportedError for one that is here in part, and
    MissingObjectError if its contents are not here.
    """
    held, _ = open_commit(core, find_stream(core, name))
    commit, trees, metas, files = load(held)
    inodes: dict[bytes, Inode] = {}
    tree = TreeBuilder(layers)
    waiting = [(b"", commit.root_tree, commit.root_meta)]
    while waiting:
        path, tree_id, meta_id = waiting.pop()
        tree.directory(path, metas[meta_id])
        below = path + b"/" if path else b""
        for file_name, file_id in trees[tree_id].files:
            inode = inodes.get(file_id)
            if inode is None:
                inode = inodes[file_id] = _inode(files[file_id])
            tree.file(below + file_name, inode)
        waiting += [(below + each, subtree_id, its_meta) for each, subtree_id, its_meta in trees[tree_id].directories]
    require_objects(core, tree, _REMEDY)
    return Listed(core, tree)


def _inode(entry: Entry) -> Inode:
    end = head_size(entry.data)
    head = parse_head(entry.data[:end])
    meta = Meta(head.uid, head.gid, head.mode, head.xattrs)
    if entry.content is not None:
        return Inode(meta, head.size, object_id=entry.content)
    return Inode(meta, head.size, head.target, entry.data[end:])
