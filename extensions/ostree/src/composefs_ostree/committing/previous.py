"""The commit that the new one follows: which it is, and what of it is kept or compared."""

from __future__ import annotations

from typing import NamedTuple

from composefs_ext import Core, Request
from composefs_ext.errors import NotFoundError, UsageError
from composefs_ostree.committing.treeobjects import TreeObjects
from composefs_ostree.formats.commit_stream import commit_of_stream
from composefs_ostree.formats.names import is_commit_id
from composefs_ostree.formats.objects import Commit
from composefs_ostree.held.refs import find_stream
from composefs_ostree.held.streams import image_of, open_commit
from composefs_ostree.held.tree import load_commit

__all__ = ["Previous", "given_parent", "read_previous"]


class Previous(NamedTuple):
    """A commit that is here, with the id of its stream and that of its image."""

    commit_id: bytes
    commit: Commit
    verity: str
    image: str | None

    def has_tree_of(self, objects: TreeObjects) -> bool:
        """Tell whether its tree is this one, the root's metadata included."""
        return (self.commit.root_tree, self.commit.root_meta) == (objects.root, objects.root_meta)


def given_parent(request: Request, current: str | None) -> bytes | None:
    """Return the commit id that ``--parent`` says, None for ``none``; else that of the branch's stream, if any."""
    text = request.get("parent")
    if text is None:
        return None if current is None else commit_of_stream(current)
    if text != "none" and not is_commit_id(text):
        raise UsageError(f"--parent {text[:80]!r} is neither a commit id nor none")
    return None if text == "none" else bytes.fromhex(text)


def read_previous(request: Request, core: Core, parent: bytes | None) -> Previous | None:
    """Read the parent, if an option needs more of it than its id; None if none does, or there is no parent.

    For metadata the commit object will do; what may be told to be as before must be here whole.
    """
    compares = bool(request.get("skip_if_unchanged"))
    if parent is None or not (compares or request.get("keep_metadata")):
        return None
    try:
        held, stream = open_commit(core, find_stream(core, parent.hex()), partial=not compares)
    except NotFoundError as error:
        error.message = f"the parent, commit {parent.hex()}, is not here"
        error.hint = f"pull it, or leave out {'--skip-if-unchanged' if compares else '--keep-metadata'}"
        raise
    return Previous(parent, load_commit(held), stream.id, image_of(stream))
