"""A commit's tree: its directories and files by id, and how they are taken out of the stream of a held commit."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from composefs_ext.errors import CorruptError, NotFoundError
from composefs_ostree.formats.commit_stream import CommitStream, Entry
from composefs_ostree.formats.names import ObjectType
from composefs_ostree.formats.objects import Commit, Dirmeta, Dirtree, parse_commit, parse_dirmeta, parse_dirtree
from composefs_ostree.held.excerpt import Excerpt, find_excerpt

__all__ = ["Tree", "commit_bytes", "load", "load_commit"]

_REMEDY = "the repository is damaged: run cfsctl fsck, remove the stream's refs, run cfsctl gc and pull again"


class Tree(NamedTuple):
    """A commit with all that it is made of, by object id."""

    commit: Commit
    trees: dict[bytes, Dirtree]
    metas: dict[bytes, Dirmeta]
    files: dict[bytes, Entry]

    def grafted(self, excerpt: Excerpt) -> Tree:
        """Return the tree of an excerpt, from one with all that is below its paths."""
        if not excerpt.trees:  # it is everything
            return self
        return self._replace(commit=self.commit._replace(root_tree=excerpt.root), trees={**self.trees, **excerpt.trees})

    def path_of(self, file_id: bytes) -> str:
        """Return the first path of a file, for people: what is not ASCII is escaped."""
        pending = [("", self.commit.root_tree)]
        seen = set()
        while pending:
            path, tree_id = pending.pop()
            if tree_id in seen:
                continue
            seen.add(tree_id)
            listing = self.trees[tree_id]
            for name, each in listing.files:
                if each == file_id:
                    return ascii(f"{path}/{name.decode()}")[1:-1]
            pending += [(f"{path}/{name.decode()}", subtree) for name, subtree, _ in listing.directories]
        return "?"


def load_commit(stream: CommitStream) -> Commit:
    """Take the commit object out of its stream; raise CorruptError or FormatError."""
    return parse_commit(commit_bytes(stream))


def commit_bytes(stream: CommitStream) -> bytes:
    """Take the commit object's bytes out of its stream, checked against its id."""
    return _metadata(stream, ObjectType.COMMIT, stream.commit_id)


def load(stream: CommitStream) -> Tree:
    """Take a commit with its tree, or what is here of it, out of its stream.

    Raises CorruptError or FormatError, and NotFoundError if only the commit object is here.
    """
    commit = load_commit(stream)
    if stream.subpaths == []:
        raise NotFoundError(
            f"of commit {stream.commit_id.hex()} only the commit object is here",
            hint="pull it again without --commit-metadata-only",
            subject=stream.commit_id.hex(),
        )
    excerpt = find_excerpt(commit, stream.subpaths, lambda tree_id: _metadata(stream, ObjectType.DIRTREE, tree_id))
    tree = Tree(commit, {}, {}, {})
    wanted, named = list(excerpt.roots), list(excerpt.files)
    while wanted:
        kind, object_id = wanted.pop()
        if object_id in (tree.metas if kind is ObjectType.DIRMETA else tree.trees):
            continue
        data = _metadata(stream, kind, object_id)
        if kind is ObjectType.DIRMETA:
            tree.metas[object_id] = parse_dirmeta(data)
            continue
        listing = tree.trees[object_id] = parse_dirtree(data)
        named += [file_id for _, file_id in listing.files]
        for _, tree_id, meta_id in listing.directories:
            wanted += ((ObjectType.DIRTREE, tree_id), (ObjectType.DIRMETA, meta_id))
    tree.files.update((file_id, _object(stream, ObjectType.FILE, file_id)) for file_id in dict.fromkeys(named))
    return tree.grafted(excerpt)


def _metadata(stream: CommitStream, kind: ObjectType, object_id: bytes) -> bytes:
    entry = _object(stream, kind, object_id)
    if entry.content is not None or sha256(entry.data).digest() != object_id:
        raise CorruptError(f"{_where(stream)}: {kind.word} {object_id.hex()} has another checksum", hint=_REMEDY)
    return entry.data


def _object(stream: CommitStream, kind: ObjectType, object_id: bytes) -> Entry:
    entry = stream.get(object_id)
    if entry is None:
        raise CorruptError(f"{_where(stream)} lacks {kind.word} {object_id.hex()}", hint=_REMEDY)
    return entry


def _where(stream: CommitStream) -> str:
    return f"the stream of commit {stream.commit_id.hex()}"
