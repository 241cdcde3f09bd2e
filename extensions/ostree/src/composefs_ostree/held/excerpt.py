"""A commit in part: the directories and files that some paths name, and the directories that lead there.

On the way to a path, directories are taken without what else is in them.  So the objects that are needed are those on
the way, which are looked up one after the other, and all that is below (``roots``), which an ordinary pull fetches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from composefs_ext.errors import NotFoundError, UsageError
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.names import ObjectType
from composefs_ostree.formats.objects import MAX_DEPTH, MAX_NAME, Commit, Dirtree, parse_dirtree

__all__ = ["Excerpt", "existing", "find_excerpt", "joined_subpaths", "parse_subpaths"]

_NODE = bytes(33)
"""Begins the keys under which directories on the way stand in a tree; no object id is that long."""


class NoSuchPathError(NotFoundError):
    """A commit does not have a path; nothing says that anything is missing of what it has."""


class Excerpt(NamedTuple):
    """What some paths of a commit lead to: objects by type and id, file ids, and the objects on the way themselves.

    ``trees`` are the directories on the way, each with only what is wanted of it, ``root`` the one at the top.
    """

    root: bytes
    roots: list[tuple[ObjectType, bytes]]
    files: list[bytes]
    entries: dict[bytes, Entry]
    trees: dict[bytes, Dirtree]


def parse_subpaths(texts: Iterable[str]) -> list[str] | None:
    """Check and sort the paths a user gave, without those that lie in others; None if they mean the whole commit.

    Raises UsageError.
    """
    paths = set()
    for text in texts:
        parts = [part for part in text.split("/") if part]
        if not text.startswith("/") or {".", ".."}.intersection(parts) or "\0" in text or len(parts) > MAX_DEPTH:
            raise UsageError(
                f"{text[:200]!r} is not the path of something in a commit",
                hint="give it from the root on, as /usr/share",
                subject=text[:200],
            )
        if any(len(part.encode()) > MAX_NAME for part in parts):
            raise UsageError(f"the path {text[:200]!r} has a name of more than {MAX_NAME} bytes")
        paths.add("/" + "/".join(parts))
    return joined_subpaths(paths)


def joined_subpaths(paths: Iterable[str]) -> list[str] | None:
    """Sort paths and leave out those that lie in others; None if that is everything."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda path: path.split("/")):
        if path == "/":
            return None
        if not kept or (path != kept[-1] and not path.startswith(kept[-1] + "/")):
            kept.append(path)
    return kept


def existing(commit: Commit, subpaths: Iterable[str], load: Callable[[bytes], bytes]) -> list[str]:
    """Return those of the paths that a commit has; ``load`` is as for :func:`find_excerpt`."""
    found = []
    for path in subpaths:
        try:
            find_excerpt(commit, [path], load)
        except NoSuchPathError:
            continue
        found.append(path)
    return found


def find_excerpt(commit: Commit, subpaths: Iterable[str] | None, load: Callable[[bytes], bytes]) -> Excerpt:
    """Walk to what the paths name, None for everything; ``load`` returns the bytes of a dirtree, or raises.

    Raises NoSuchPathError when the commit does not have one of them.
    """
    root_meta = (ObjectType.DIRMETA, commit.root_meta)
    if subpaths is None:
        return Excerpt(commit.root_tree, [(ObjectType.DIRTREE, commit.root_tree), root_meta], [], {}, {})
    excerpt = Excerpt(_NODE + b"/", [root_meta], [], {}, {})
    pending = [("", commit.root_tree, [path.split("/")[1:] for path in subpaths])]
    while pending:
        path, tree_id, wanted = pending.pop()
        data = load(tree_id)
        excerpt.entries[tree_id] = Entry(data, None)
        listing = parse_dirtree(data)
        rests: dict[bytes, list[list[str]]] = {}
        for first, *rest in wanted:
            rests.setdefault(first.encode(), []).append(rest)
        files = [row for row in listing.files if rests.get(row[0]) == [[]]]
        excerpt.files.extend(file_id for _, file_id in files)
        directories = []
        for name, subtree_id, meta_id in listing.directories:
            below = rests.get(name)
            if below is None:
                continue
            excerpt.roots.append((ObjectType.DIRMETA, meta_id))
            if [] in below:
                excerpt.roots.append((ObjectType.DIRTREE, subtree_id))
                directories.append((name, subtree_id, meta_id))
            else:
                subpath = f"{path}/{name.decode()}"
                directories.append((name, _NODE + subpath.encode(), meta_id))
                pending.append((subpath, subtree_id, below))
        found = {row[0] for row in files} | {row[0] for row in directories}
        for name, below in rests.items():
            if name not in found:
                missing = "/".join([path, name.decode(), *below[0]])
                raise NoSuchPathError(
                    f"the commit has no {missing!r}", hint="check the paths given as --subpath", subject=missing
                )
        excerpt.trees[_NODE + (path or "/").encode()] = Dirtree(files, directories)
    return excerpt
