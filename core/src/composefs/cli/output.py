"""Results on standard output, as bytes, lines, tables and JSON, and messages on standard error.

Everything goes out as bytes and is flushed, so that an error of the descriptor (full disk, closed pipe) is met here and
not at the interpreter's exit, and so that a name which is not UTF-8 leaves as it came.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from composefs.cli.text import escaped, one_line, printable, size_text
from composefs.errors import ComposefsError, UsageError
from composefs.systemerrors import from_os_error

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = [
    "STDERR",
    "STDOUT",
    "line",
    "nowhere",
    "print_json",
    "print_json_file",
    "print_json_rows",
    "refuse_terminal",
    "say",
    "settle",
    "size_shown",
    "table",
    "unwritten",
    "write",
    "write_piece",
]

STDOUT = 1
STDERR = 2
_PIECE = 1 << 16


def write(data: bytes | memoryview, *, flush: bool = True) -> None:
    """Write bytes to standard output; raise BrokenPipeError, or an error of ours for any other failure.

    For many small pieces, leave out ``flush``, and call once with it in the end.
    """
    try:
        if sys.stdout is None:  # what Python makes of a closed descriptor
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sys.stdout.buffer.write(data)
        if flush:
            sys.stdout.buffer.flush()
    except OSError as error:
        failure = unwritten(error)
        settle()
        if isinstance(error, BrokenPipeError):
            raise
        raise failure from error


def unwritten(error: OSError) -> ComposefsError:
    """Make our error for one of the system's met in writing to standard output; call it before :func:`settle`."""
    error.filename = os.path.realpath("/dev/stdout")  # the one that is full, if it is
    failure = from_os_error(error, "writing to standard output")
    if error.errno == errno.EBADF:
        failure.hint = "it is not open for writing: redirect it, to /dev/null if nobody is to see it"
    return failure


def settle() -> None:
    """Write out what is buffered, or throw it away: the interpreter's own flush at exit must not fail."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(nowhere(), STDOUT)


def nowhere() -> int:
    """Open something empty that takes whatever is written: /dev/null, or memory where that is missing."""
    try:
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.memfd_create("null")


def write_piece(data: bytes | memoryview) -> None:
    """Write one of many pieces; in the end, an empty `write` flushes them."""
    write(data, flush=False)


def line(text: str) -> None:
    """Write a line; newlines in it become spaces, and on a terminal, what the terminal would obey is taken out."""
    if os.isatty(STDOUT):
        text = printable(text)
    write(text.replace("\n", " ").encode("utf-8", "surrogateescape") + b"\n")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write left-aligned columns, two spaces apart; a cell never breaks its line."""
    cells = [list(headings), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def size_shown(count: int) -> str:
    """Return bytes as scripts read them, ``1234567 bytes``, or as ``1.2 MiB`` on a terminal."""
    return size_text(count) if os.isatty(STDOUT) else f"{count} bytes"


def print_json(document: object) -> None:
    """Write a JSON document, indented by two; a byte XX of a name that is not UTF-8 becomes the escape of U+DCXX."""
    import json

    text = json.dumps(document, indent=2, ensure_ascii=False)
    write(escaped(text).encode("utf-8", "backslashreplace") + b"\n")


def print_json_rows(document: dict[str, object], key: str, rows: Iterable[object]) -> None:
    """Write the document with the list ``key`` at its end, as `print_json` would, with one row in memory at a time."""
    import json

    head = escaped(json.dumps({**document, key: []}, indent=2, ensure_ascii=False)).removesuffix("]\n}")
    write(head.encode("utf-8", "backslashreplace"), flush=False)
    end = ""
    for row in rows:
        text = escaped(json.dumps(row, indent=2, ensure_ascii=False)).replace("\n", "\n    ")
        write(f"{',' if end else ''}\n    {text}".encode("utf-8", "backslashreplace"), flush=False)
        end = "\n  "
    write(f"{end}]\n}}\n".encode())


def print_json_file(file: BinaryIO) -> None:
    """Write the JSON object in a file, as `print_json` would; raise ValueError where it turns out to be none."""
    from composefs.protocol.jsontext import indented

    for text in indented(iter(lambda: file.read(_PIECE), b"")):
        write(escaped(text).encode(), flush=False)
    write(b"\n")


def refuse_terminal(what: str) -> None:
    """Raise UsageError when standard output is a terminal, which raw bytes would upset."""
    if os.isatty(STDOUT):
        raise UsageError(f"{what} is not written to a terminal", hint="redirect it to a file or a pipe")


def say(text: str) -> None:
    """Write lines to standard error; if that fails, the work goes on."""
    with contextlib.suppress(OSError):
        os.write(STDERR, text.encode("utf-8", "surrogateescape") + b"\n")
