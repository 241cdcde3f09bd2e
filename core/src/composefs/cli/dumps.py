"""Dumps that commands are given: files, pipes, and standard input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composefs import dumpfile
from composefs.errors import FormatError, NotFoundError, TooLargeError
from composefs.systemerrors import from_os_error

if TYPE_CHECKING:
    from composefs.digest import Algorithm
    from composefs.tree import Tree

__all__ = ["read_dump"]

MAX_DUMP = 1 << 30
"""Bytes of the largest dump, some millions of lines, so that /dev/zero or an endless pipe does not fill the memory.

Lines are not counted, as those of extensions are: what `create-dumpfile` makes of the user's own tree can be read.
"""

_PIECE = 16 << 20
_STDIN = 0


def read_dump(path: str, algorithm: Algorithm, *, c_limits: bool = False, strict: bool = False) -> Tree:
    """Return the tree of a dump, ``-`` from standard input; the options are those of ``dumpfile.Parser``.

    Raises FormatError, and TooLargeError for more than MAX_DUMP bytes.
    """
    what = "standard input" if path == "-" else path
    text = _read(path, what)
    try:
        return dumpfile.parse(text, algorithm, c_limits=c_limits, strict=strict)
    except FormatError as error:
        error.message = f"{what}: {error.message}"
        if not text.startswith(b"/"):  # as the line of the root does
            error.hint = (
                "a dump is text with a line for each file, that of / first, as cfsctl create-dumpfile writes it: "
                "see composefs-dump(5)"
            )
        raise


def _read(path: str, what: str) -> bytes:
    """Read a file whole; not mapped, because somebody could make a mapped file shorter, which kills the process."""
    pieces = []
    size = 0
    try:
        with open(_STDIN if path == "-" else path, "rb", closefd=path != "-") as file:
            while piece := file.read(_PIECE):
                size += len(piece)
                if size > MAX_DUMP:
                    raise TooLargeError(f"{what} has more than {MAX_DUMP} bytes, too many for a dump", subject=what)
                pieces.append(piece)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{what} does not exist", subject=what, hint="check the path") from error
    except OSError as error:
        raise from_os_error(error, f"reading {what}") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
