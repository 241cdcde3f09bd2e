"""The escaping of composefs-dump(5), case by case, for the two programs that write it: core and SDK.

Each case has the bytes, and their spelling as a path, as an optional field (PAYLOAD, CONTENT), and in an extended
attribute's name or value.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """One content and its three spellings."""

    data: bytes
    path: bytes
    optional: bytes
    xattr: bytes


def _same(data: bytes, text: bytes) -> Case:
    return Case(data, text, text, text)


CASES = [
    _same(b"plain", b"plain"),
    _same(b"/usr/bin/[", b"/usr/bin/["),
    _same(b"!~", b"!~"),
    _same(b"a b", rb"a\x20b"),
    _same(b" ", rb"\x20"),
    _same(b"\\", rb"\\"),
    _same(b"\\n", rb"\\n"),
    _same(b"\n\r\t", rb"\n\r\t"),
    _same(b"\0", rb"\x00"),
    _same(b"\x1f\x7f\x80\xff", rb"\x1f\x7f\x80\xff"),
    _same("ä".encode(), rb"\xc3\xa4"),
    _same(b"\x0b\x0c\x1b", rb"\x0b\x0c\x1b"),
    _same(b"\"'#$%", b"\"'#$%"),
    Case(b"-", b"-", rb"\x2d", b"-"),
    _same(b"--", b"--"),
    _same(b"-a", b"-a"),
    Case(b"=", b"=", b"=", rb"\x3d"),
    Case(b"a=b=", b"a=b=", b"a=b=", rb"a\x3db\x3d"),
    _same(b"", b""),
]
