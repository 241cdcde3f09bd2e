"""Files in staging: the flat directory through which everything bulky travels (docs/protocol.md, "Files and lists").

The core takes staged files by name.  A list of more rows than fit a message travels as JSON Lines, one element a line.
"""

from __future__ import annotations

import os
from io import BufferedWriter, FileIO
from itertools import islice

from composefs_ext.files import Naming

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, BinaryIO

__all__ = ["Staging"]

_BLOCK = 4096
"""Rows that are encoded at a time."""

_SCALARS = {str, int, type(None)}


class Staging:
    """The staging directory of a run, and names in it that no other file has.

    ``path`` is its absolute path.  Names made here are the prefix and a running number; those that an extension makes
    up itself are free as long as they do not collide: ``[A-Za-z0-9._-]``, not starting with a dot or ``core-``.
    """

    def __init__(self, path: str, tag: str = "") -> None:
        """``tag`` sets the names of one process apart from those of another that stages in the same directory."""
        self.path = path
        self._tag = tag
        self._count = 0

    def new_name(self, prefix: str = "f") -> str:
        """Return a name that has not been handed out before."""
        self._count += 1
        return f"{prefix}{self._tag}-{self._count}"

    def path_of(self, name: str) -> str:
        """Return the absolute path of a staged file."""
        return f"{self.path}/{name}"

    def create(self, name: str) -> BinaryIO:
        """Open a new staged file for writing; an existing name is an error."""
        return BufferedWriter(_File(self.path_of(name), "xb"))

    def write(self, data: bytes, prefix: str = "f") -> str:
        """Stage a new file with this content and return its name."""
        name = self.new_name(prefix)
        with self.create(name) as file:
            file.write(data)
        return name

    def write_rows(self, rows: Iterable[Any], prefix: str = "rows") -> str:
        """Stage a list as JSON Lines and return the file's name."""
        name = self.new_name(prefix)
        iterator = iter(rows)
        with self.create(name) as file:
            while block := list(islice(iterator, _BLOCK)):
                file.write(_lines(block))
        return name

    def read(self, name: str) -> bytes:
        """Return a staged file's content and remove the file."""
        path = self.path_of(name)
        with open(path, "rb") as file:
            data = file.read()
        os.unlink(path)
        return data

    def read_rows(self, name: str) -> list[Any]:
        """Return the list in a JSON Lines file and remove the file."""
        import json  # which loads re: 5 ms that a run without lists need not cost

        # One call for the whole list: a call for each row costs more than the parsing.  An end of line is nothing else
        # in JSON Lines.
        rows: list[Any] = json.loads(b"[" + self.read(name).rstrip(b"\n").replace(b"\n", b",") + b"]")
        return rows


class _File(FileIO):
    """A file that is named in the errors of writing to it, as it is in that of opening it."""

    name: str

    def write(self, data: Any, /) -> int:
        """Write as much as there is room for."""
        with Naming(self.name):
            return super().write(data)

    def close(self) -> None:
        """Close the file."""
        with Naming(self.name):
            super().close()


def _lines(block: list[Any]) -> bytes:
    """Return rows as JSON Lines; ids and numbers, of which pulls have tens of thousands, in one call."""
    import json

    if set(map(type, block)) <= _SCALARS:
        # The encoder puts ends of lines between the elements; inside of a string it always escapes them.
        text = json.JSONEncoder(separators=("\n", ":")).encode(block)[1:-1]
    else:
        text = "\n".join(map(json.JSONEncoder(separators=(",", ":")).encode, block))
    return text.encode() + b"\n"
