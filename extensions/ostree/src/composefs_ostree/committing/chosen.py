"""What ``--statoverride`` and ``--skip-list`` say of single paths.

Each line holds for one entry, as in ``ostree commit``: that of the first tree which has the path.  A mode that is
replaced, by a line with "=", is replaced in later trees too.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from composefs_ext import Core, Request
from composefs_ext.errors import FormatError, TooLargeError, UsageError
from composefs_ostree.committing.inodes import shown

__all__ = ["NOTHING", "ChosenPaths", "NewMode", "read_chosen"]

_MAX_LIST = 4 << 20
_SHOWN = 8


class NewMode(NamedTuple):
    """Permissions that an entry gets, added to its own or instead of them."""

    bits: int
    replaces: bool

    def of(self, mode: int) -> int:
        """Return what a mode becomes."""
        return (stat.S_IFMT(mode) if self.replaces else mode) | self.bits


class ChosenPaths:
    """Paths with new modes, and paths that are left out; all begin with a slash, and the root is one alone.

    Whoever lists a tree asks for each of its entries, once.  That uses up what is said of the entry, as it does not
    hold for the next tree's; only modes that replace do.  ``jobs`` has the new modes of files by their jobs,
    ``left_out`` the paths that the next tree to have them has to do without.
    """

    def __init__(self, modes: dict[bytes, NewMode], replaced: dict[bytes, NewMode], left_out: set[bytes]) -> None:
        """Take modes to add, modes to set, and what is to be left out."""
        self.jobs: dict[int, NewMode] = {}
        self._modes = modes
        self._replaced = replaced
        self.left_out = left_out
        self._unseen = set(replaced)

    def pop_left_out(self, path: bytes) -> bool:
        """Tell whether an entry is to be left out; its new mode, if it has one, is used up too."""
        if path not in self.left_out:
            return False
        self.left_out.remove(path)
        self.pop_mode(path)
        return True

    def pop_mode(self, path: bytes) -> NewMode | None:
        """Return an entry's new mode, None for one that keeps its own."""
        added = self._modes.pop(path, None)
        self._unseen.discard(path)
        return self._replaced.get(path) if added is None else added

    def note(self, path: bytes, job: int) -> None:
        """Note the new mode of a file that is read later."""
        found = self.pop_mode(path)
        if found is not None:
            self.jobs[job] = found

    def check_used(self) -> None:
        """Raise UsageError for paths that no tree had."""
        for option, paths in (
            ("--statoverride", self._unseen.union(self._modes)),
            ("--skip-list", self.left_out),
        ):
            if paths:
                names = ", ".join(map(shown, sorted(paths)[:_SHOWN]))
                raise UsageError(
                    f"{option} names what no tree has: {names}{' …' if len(paths) > _SHOWN else ''}",
                    hint="paths begin with / at the tree's root and end without one; a hard link has its file's mode",
                )


NOTHING = ChosenPaths({}, {}, set())
"""No path in particular."""


def read_chosen(request: Request, core: Core) -> ChosenPaths:
    """Read the lists that a request names, if any; raise FormatError, TooLargeError or OSError."""
    modes_file, skip_file = request.get("statoverride"), request.get("skip_list")
    modes: dict[bytes, NewMode] = {}
    replaced: dict[bytes, NewMode] = {}
    for line in _lines(core, modes_file):
        text, space, path = line.partition(b" ")
        new = _new_mode(text) if space else None
        if new is None:
            raise FormatError.at(
                modes_file,
                f"{shown(line[:80])!r} is not a mode and a path",
                hint="write [=]MODE PATH with the mode in decimal, 2048 for setuid: 2048 /usr/bin/su",
            )
        (replaced if new.replaces else modes)[path] = new
    left_out = set(_lines(core, skip_file))
    if b"/" in left_out:
        raise FormatError.at(skip_file, "the root cannot be left out")
    return ChosenPaths(modes, replaced, left_out)


def _new_mode(text: bytes) -> NewMode | None:
    number = text.removeprefix(b"=")
    # One with a zero before it is meant to be octal, and would be read as decimal.
    if not number.isdigit() or len(number) > 4 or (len(number) > 1 and number.startswith(b"0")):
        return None
    bits = int(number)
    return NewMode(bits, text.startswith(b"=")) if bits <= 0o7777 else None


def _lines(core: Core, path: str | None) -> list[bytes]:
    if path is None:
        return []
    from composefs_ext.aside import open_aside

    with open_aside(core, path) as file:
        data = file.read(_MAX_LIST + 1)
    if len(data) > _MAX_LIST:
        raise TooLargeError(f"{path} has more than {_MAX_LIST} bytes, too many for a list of paths", subject=path)
    return [line for line in data.split(b"\n") if line]
