"""The command line in a unified kernel image: the section ``.cmdline`` of a PE file (UAPI Group, UKI specification;
Microsoft, "PE Format": the offset of the header at 0x3c, then the COFF header, then the table of sections).
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from composefs_ext.errors import FormatError

__all__ = ["command_line"]

_COFF = struct.Struct("<4sHH12xH2x")  # signature, machine, number of sections, size of the optional header
_SECTION = struct.Struct("<8sIIII16x")  # name, size in memory, address, size and offset in the file
_MAX_SECTIONS = 96
_MAX_COMMAND_LINE = 64 << 10


def command_line(file: BinaryIO, name: str) -> str:
    """Return the command line; empty if there is none.  Raises FormatError."""
    try:
        file.seek(0x3C)
        [start] = struct.unpack("<I", file.read(4))
        file.seek(start)
        signature, _, sections, optional = _COFF.unpack(file.read(_COFF.size))
        if signature != b"PE\0\0" or sections > _MAX_SECTIONS:
            raise FormatError(f"{name} is not a PE file", subject=name)
        file.seek(start + _COFF.size + optional)
        table = file.read(sections * _SECTION.size)
        for each, memory, _, size, offset in _SECTION.iter_unpack(table):
            if each.rstrip(b"\0") == b".cmdline":
                file.seek(offset)
                return file.read(min(memory, size, _MAX_COMMAND_LINE)).rstrip(b"\0").decode()
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise FormatError(f"{name} is not a PE file that can be read: {error}", subject=name) from None
    return ""
