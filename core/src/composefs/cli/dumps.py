"""Dumps that commands are given: files, pipes, and standard input."""

from __future__ import annotations

from composefs.errors import TooLargeError, from_os_error

__all__ = ["read_dump"]

MAX_DUMP = 1 << 30
"""Bytes of the largest dump, some millions of lines.  What is endless, such as /dev/zero, must not fill the memory.

Lines are not counted, as those of extensions are: what `create-dumpfile` makes of the user's own tree can be read.
"""

_PIECE = 16 << 20
_STDIN = 0


def read_dump(path: str) -> bytes:
    """Read a dump whole, ``-`` from standard input; raise TooLargeError for more than MAX_DUMP bytes.

    It is read and not mapped, because somebody could make a mapped file shorter, which kills the process.
    """
    what = "standard input" if path == "-" else path
    pieces = []
    size = 0
    try:
        with open(_STDIN if path == "-" else path, "rb", closefd=path != "-") as file:
            while piece := file.read(_PIECE):
                size += len(piece)
                if size > MAX_DUMP:
                    raise TooLargeError(f"{what} has more than {MAX_DUMP} bytes, too many for a dump", subject=what)
                pieces.append(piece)
    except OSError as error:
        raise from_os_error(error, f"reading {what}") from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
