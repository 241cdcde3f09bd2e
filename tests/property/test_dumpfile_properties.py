"""Properties of the dump reader and writer over arbitrary trees and mutilated text."""

from __future__ import annotations

import contextlib
import io
import stat

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from composefs import dumpfile, erofs
from composefs.digest import SHA256, SHA512, Algorithm
from composefs.dumpfile.escape import escape, escape_attribute, find_bad_escape, unescape
from composefs.errors import FormatError, TooLargeError
from composefs.tree import TYPE_MASK, Node, Tree, sort_children, walk

names = st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))
u32 = st.integers(0, 2**32 - 1)
mtimes = st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1))
xattrs = st.dictionaries(st.binary(min_size=1, max_size=20).filter(lambda name: 0 not in name), st.binary(max_size=40))
targets = st.binary(min_size=1, max_size=30).filter(lambda target: 0 not in target)


@st.composite
def leaves(draw: st.DrawFn, algorithm: Algorithm) -> Node:
    kind = draw(st.sampled_from([stat.S_IFREG, stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO]))
    node = Node(kind | draw(st.integers(0, 0o7777)), 1, draw(u32), draw(u32), 0, draw(mtimes), xattrs=draw(xattrs))
    if kind == stat.S_IFLNK:
        node.payload = draw(targets)
        node.size = len(node.payload)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        node.rdev = draw(u32)
    elif kind == stat.S_IFREG and draw(st.booleans()):
        node.content = draw(st.binary(min_size=1, max_size=100))
        node.size = len(node.content)
    elif kind == stat.S_IFREG and draw(st.booleans()):
        node.size = draw(st.integers(1, 2**53))
        node.digest = draw(st.binary(min_size=algorithm.size, max_size=algorithm.size))
    return node


@st.composite
def trees(draw: st.DrawFn, algorithm: Algorithm) -> Tree:
    """A tree of up to some twenty nodes, with hard links anywhere."""
    root = Node(0o40755, xattrs=draw(xattrs), children={})
    directories, placed = [root], []
    for _ in range(draw(st.integers(0, 20))):
        directory = draw(st.sampled_from(directories))
        name = draw(names)
        assert directory.children is not None
        if name in directory.children:
            continue
        choice = draw(st.integers(0, 9))
        if choice < 2:
            node = Node(0o40000 | draw(st.integers(0, 0o7777)), mtime=draw(mtimes), xattrs=draw(xattrs), children={})
            directories.append(node)
        elif choice < 4 and placed:
            node = draw(st.sampled_from(placed))
            node.home = node.home or next(
                (d, n) for d in directories for n, c in (d.children or {}).items() if c is node
            )
        else:
            node = draw(leaves(algorithm))
            placed.append(node)
        directory.children[name] = node
    for directory in directories:
        sort_children(directory, directory.children or {})
    return Tree(root, algorithm)


def dump(tree: Tree) -> bytes:
    text = io.BytesIO()
    dumpfile.write(tree, text)
    return text.getvalue()


@given(st.data(), st.sampled_from([SHA256, SHA512]))
@settings(max_examples=150, deadline=None)
def test_a_written_dump_reads_back_as_the_same_tree(data: st.DataObject, algorithm: Algorithm) -> None:
    tree = data.draw(trees(algorithm))
    text = dump(tree)
    again = dumpfile.parse(text, algorithm, strict=True)
    assert dump(again) == text
    assert again.object_ids() == tree.object_ids()
    for (path, _, _, node), (path_again, _, _, node_again) in zip(walk(tree), walk(again), strict=True):
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
@settings(max_examples=500, deadline=None)
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
    assert sorted({node.mode & TYPE_MASK for *_, node in walk(tree)}) == [0o20000, 0o40000, 0o100000, 0o120000]
