"""The SDK's dump lines."""

from __future__ import annotations

import pytest

from composefs_ext import dump
from support.escapes import CASES, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case.data))
def test_escaping_follows_the_table(case: Case) -> None:
    assert dump.escape(case.data) == case.path
    assert dump.optional(case.data) == case.optional
    assert dump.xattrs([(case.data, case.data)]) == b" " + case.xattr + b"=" + case.xattr


def test_a_field_that_is_not_set_is_a_minus_sign() -> None:
    assert dump.optional(None) == b"-"


def test_the_lines_of_a_small_tree() -> None:
    digest = "35" + "d0" * 31
    label = dump.xattrs([(b"security.selinux", b"root_t\0"), (b"user.k", b"v=w")])
    lines = [
        dump.entry(b"/", 0o40755, nlink=3, mtime=(1695372970, 944925700), xattrs=label),
        dump.entry(b"/big", 0o100644, size=259, uid=1, gid=2, mtime=(-1, 0), digest=digest),
        dump.entry(b"/small", 0o100644, size=3, content=b"a b"),
        dump.entry(b"/link", 0o120777, size=1, payload=b"-"),
        dump.entry(b"/null", 0o20666, rdev=259),
        dump.hardlink(b"/hard", b"/big"),
    ]
    assert b"".join(lines).splitlines() == [
        rb"/ 0 40755 3 0 0 0 1695372970.944925700 - - - security.selinux=root_t\x00 user.k=v\x3dw",
        b"/big 259 100644 1 1 2 0 -1.0 35/" + b"d0" * 31 + b" - " + digest.encode(),
        rb"/small 3 100644 1 0 0 0 0.0 - a\x20b -",
        rb"/link 1 120777 1 0 0 0 0.0 \x2d - -",
        b"/null 0 20666 1 0 0 259 0.0 - - -",
        b"/hard 0 @100644 1 0 0 0 0.0 /big - -",
    ]
