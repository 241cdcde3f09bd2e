"""Which trees a repository of a mode can keep, seen before anything of it is made.

archive and bare-user keep everything.  bare has files with all that they have, as far as a file system keeps it;
bare-user-only gives them to whoever writes them.  What is lost would have another id there: ostree makes such
repositories, and its ``fsck`` then calls them corrupt.
"""

from __future__ import annotations

from composefs_ext.errors import UnsupportedError
from composefs_ostree.formats.fileheader import FileHead, head_size, parse_head
from composefs_ostree.held.tree import Tree

__all__ = ["require_fit"]

_SYMLINK_MODE = 0o120777
_USER_MODES = 0o775


def require_fit(tree: Tree, mode: str) -> None:
    """Raise UnsupportedError, with the path of such a file, for a tree of which the mode loses something."""
    if mode not in _LOST:
        return
    lost, hint = _LOST[mode]
    sound: set[bytes] = set()
    for listing in tree.trees.values():
        for _, file_id in listing.files:
            data = tree.files[file_id].data
            end = head_size(data)
            kind = data[:8] + data[16:end]  # all but the size: most files have few heads
            if kind in sound:
                continue
            if (what := lost(parse_head(data[:end]))) is not None:
                raise UnsupportedError.at(tree.path_of(file_id), what, hint=hint)
            sound.add(kind)


def _lost_in_bare(head: FileHead) -> str | None:
    if not all(value for _, value in head.xattrs):
        return "it has an extended attribute without a value, which is lost in a bare repository"
    if head.is_symlink and head.mode != _SYMLINK_MODE:
        return f"it has a symlink's mode of {head.mode & 0o7777:04o}, which is lost in a bare repository"
    return None


def _lost_in_user_only(head: FileHead) -> str | None:
    fits = head.mode == _SYMLINK_MODE if head.is_symlink else not head.mode & 0o7777 & ~_USER_MODES
    if fits and not (head.uid or head.gid or head.xattrs):
        return None
    return "bare-user-only keeps neither owners nor attributes nor modes beyond 0775, and of symlinks 0777 alone"


_LOST = {
    "bare": (_lost_in_bare, "export to a repository of the mode archive or bare-user"),
    "bare-user-only": (
        _lost_in_user_only,
        "commit with --canonical-permissions --no-xattrs, or export to a repository of another mode",
    ),
}
