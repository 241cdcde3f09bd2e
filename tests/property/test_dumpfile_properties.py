"""Properties of the dump reader and writer over arbitrary trees and mutilated text."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from composefs import dumpfile, erofs
from composefs.digest import SHA256, SHA512, Algorithm
from composefs.dumpfile.escape import escape, escape_attribute, find_bad_escape, unescape
from composefs.errors import FormatError, TooLargeError
from composefs.tree import TYPE_MASK, Tree, walk
from support.strategies import trees


def dump(tree: Tree) -> bytes:
    text = io.BytesIO()
    dumpfile.write(tree, text.write)
    return text.getvalue()


@given(st.data(), st.sampled_from([SHA256, SHA512]))
@settings(max_examples=150)
def test_a_written_dump_reads_back_as_the_same_tree(data: st.DataObject, algorithm: Algorithm) -> None:
    tree = data.draw(trees(algorithm))
    text = dump(tree)
    again = dumpfile.parse(text, algorithm, strict=True)
    assert dump(again) == text
    assert again.objects().keys() == tree.objects().keys()
    for (path, _, _, node), (path_again, _, _, node_again) in zip(walk(tree.root), walk(again.root), strict=True):
        assert path == path_again
        assert (node.mode, node.uid, node.gid, node.mtime) == (
            node_again.mode,
            node_again.uid,
            node_again.gid,
            node_again.mtime,
        )
        assert dict(node.xattrs) == dict(node_again.xattrs)
        assert (node.content or None) == node_again.content
    # And so the images are the same: this compares all that reaches one.
    for version in (0, 1, 2):
        assert b"".join(erofs.write(again, version=version)) == b"".join(erofs.write(tree, version=version))


@given(st.binary())
def test_escapes_are_undone(raw: bytes) -> None:
    for text in (escape(raw), escape_attribute(raw)):
        assert find_bad_escape(text) is None
        assert unescape(text) == raw
        assert set(text) <= set(range(0x21, 0x7F))
    assert b"=" not in escape_attribute(raw)


@given(st.text(alphabet="\\xXnrt0aAgG~\x00é", max_size=30))
def test_the_proof_of_escapes_agrees_with_reading_them_one_by_one(text: str) -> None:
    raw = text.encode("latin-1")
    position: int | None = 0
    while position is not None and position < len(raw):
        if raw[position] == 0:
            break
        if raw[position] != 0x5C:
            position += 1
        elif raw[position + 1 : position + 2] in (b"\\", b"n", b"r", b"t"):
            position += 2
        elif raw[position + 1 : position + 2] == b"x" and _is_hex(raw[position + 2 : position + 4]):
            position += 4
        else:
            break
    expected = position if position is not None and position < len(raw) else None
    assert find_bad_escape(raw) == expected


def test_escaped_backslashes_without_number_hide_no_illegal_escape() -> None:
    for count in (4_999, 5_000, 5_001, 20_000):
        text = b"\\\\" * count
        assert find_bad_escape(text + rb"n\x41") is None
        assert find_bad_escape(text + rb"n\y") == len(text) + 1
        assert find_bad_escape(text + b"\\") == len(text)


def _is_hex(digits: bytes) -> bool:
    return len(digits) == 2 and all(byte in b"0123456789abcdefABCDEF" for byte in digits)


SAMPLE = b"""\
/ 4096 40755 3 0 0 0 1695372970.944925700 - - - security.selinux=system_u:object_r:root_t:s0\\x00
/dir 27 40755 2 0 0 0 1695372970.0 - - -
/dir/big 259 100644 2 0 0 0 1.385062094 35/d02f - 35d02f81325122d77ec1d11baba655bc9bf8a891ab26119a41c50fa03ddfb408 u.k=v
/hard 259 @100644 2 0 0 0 1695368732.385062094 /dir/big - - user.k=v
/small 10 100644 1 0 0 0 0.0 - some-text\\n -
/link 5 120777 1 0 0 0 0.0 small - -
/null 0 20666 1 0 0 259 0.0 - - -
/gone 0 20644 1 0 0 0 0.0 - - -
"""


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(SAMPLE)),
            st.integers(0, 20),
            st.one_of(
                st.binary(max_size=6), st.sampled_from([b" ", b"\n", b"\\x", b"@", b"/", b"-", b"99999999999999999999"])
            ),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=500)
def test_mutilated_text_is_a_tree_or_a_format_error(edits: list[tuple[int, int, bytes]]) -> None:
    text = SAMPLE
    for position, removed, inserted in edits:
        text = text[:position] + inserted + text[position + removed :]
    bad_line = None
    try:
        tree = dumpfile.parse(text, SHA256)
    except FormatError as error:
        bad_line = error.offset or 0
    if bad_line is not None:
        assert 1 <= bad_line <= text.count(b"\n") + 1
        return
    # A dump can hold sizes that an image cannot.
    with contextlib.suppress(TooLargeError):
        assert len(b"".join(erofs.write(tree, version=1, compat="c"))) % 4096 == 0
    dumpfile.parse(dump(tree), SHA256, strict=True)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_format_error(text: bytes) -> None:
    assume(not text.startswith(b"/ "))
    with pytest.raises(FormatError):
        dumpfile.parse(text, SHA256)


def test_the_sample_is_good() -> None:
    tree = dumpfile.parse(SAMPLE, SHA256)
    assert sorted({node.mode & TYPE_MASK for *_, node in walk(tree.root)}) == [0o20000, 0o40000, 0o100000, 0o120000]
