"""The reading rules of composefs-dump(5), one by one, and what is refused with which words."""

from __future__ import annotations

import stat

import pytest

from composefs import dumpfile, erofs
from composefs.digest import SHA256, SHA512
from composefs.errors import FormatError
from composefs.tree import Node, Tree, walk
from support.escapes import CASES, Case

ROOT = b"/ 0 40755 2 0 0 0 0.0 - - -\n"
DIGEST = b"35d02f81325122d77ec1d11baba655bc9bf8a891ab26119a41c50fa03ddfb408"


def read(*lines: bytes, **options: bool) -> Tree:
    return dumpfile.parse(ROOT + b"".join(line + b"\n" for line in lines), SHA256, **options)


def node(*lines: bytes, name: bytes = b"a", **options: bool) -> Node:
    tree = read(*lines, **options)
    assert tree.root.children is not None
    return tree.root.children[name]


def test_all_fields() -> None:
    line = b"/a 259 104755 7 1 4294967295 0 -5.999999999 35/d0 - " + DIGEST + b" user.k=v=w security.x=\\x00\\xFf"
    file = node(line)
    assert (file.size, file.mode, file.nlink, file.uid, file.gid) == (259, 0o104755, 7, 1, 2**32 - 1)
    assert file.mtime == (-5, 999999999)
    assert (file.payload, file.content, file.digest) == (b"35/d0", None, bytes.fromhex(DIGEST.decode()))
    assert dict(file.xattrs) == {b"user.k": b"v=w", b"security.x": b"\0\xff"}
    assert file.external
    assert read(line).objects().keys() == {DIGEST.decode()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case.data))
def test_the_escapes_that_writers_use_are_undone(case: Case) -> None:
    file = node(b"/a %d 100644 1 0 0 0 0.0 - %b - user.x=%b" % (len(case.data), case.optional, case.xattr))
    assert (file.content, file.xattrs[b"user.x"]) == (case.data, case.data)


def test_escapes_of_either_case_and_raw_bytes() -> None:
    tree = read(rb"/\xC3\xbc\\\n " + b"0 100644 1 0 0 0 0.0 - - -", b"/\xff 0 100644 1 0 0 0 0.0 - - -")
    assert set(tree.root.children or ()) == {b"\xc3\xbc\\\n", b"\xff"}


def test_unset_and_minus_and_empty() -> None:
    assert node(b"/a 1 120777 1 0 0 0 0.0 \\x2d - -").payload == b"-"
    assert node(b"/a 1 100644 1 0 0 0 0.0 - \\x2d -").content == b"-"
    assert node(b"/a 0 100644 1 0 0 0 0.0  - -").payload == b""
    assert node(b"/- 0 100644 1 0 0 0 0.0 - - - -=-", name=b"-").xattrs == {b"-": b"-"}


def test_paths_may_lack_or_repeat_slashes_and_directories_come_first() -> None:
    tree = read(
        b"d 0 40755 2 0 0 0 0.0 - - -",
        b"//d///z 0 100644 1 0 0 0 0.0 - - -",
        b"//d//" + b"n" * 255 + b" 0 100644 1 0 0 0 0.0 - - -",
        rb"/d\x2fa 0 100644 1 0 0 0 0.0 - - -",
        b"/c 0 100644 1 0 0 0 0.0 - - -",
    )
    assert [path for path, *_ in walk(tree.root)] == [b"/c", b"/d", b"/d/a", b"/d/" + b"n" * 255, b"/d/z"]


def test_hard_links_may_name_later_lines_and_each_other() -> None:
    tree = read(
        b"/a 0 @100644 - - - - - /b - -",
        b"/b 0 @120000 x y z w v d/c",
        b"/d 0 40755 2 0 0 0 0.0 - - -",
        b"/d/c 0 100644 9 0 0 0 0.0 - - - user.k=v",
        b"/e 0 @100644 1 0 0 0 0.0 //d//c - - trailing =fields  are not looked at",
    )
    assert tree.root.children is not None
    directory = tree.root.children[b"d"]
    assert directory.children is not None
    real = directory.children[b"c"]
    assert [tree.root.children[name] is real for name in (b"a", b"b", b"e")] == [True] * 3
    assert real.home == (directory, b"c")
    assert real.nlink == 9


def test_the_real_name_is_no_link_whatever_the_order() -> None:
    tree = read(
        b"/a 0 100644 1 0 0 0 0.0 - - -",
        b"/b 0 @100644 - - - - - /a - -",
        b"/c 0 @100644 - - - - - /b - -",
        b"/d 0 @100644 - - - - - /c - -",
    )
    assert tree.root.children is not None
    assert tree.root.children[b"d"].home == (tree.root, b"a")


def test_a_line_may_end_before_its_digest() -> None:
    assert node(b"/a 0 100644 1 0 0 0 0.0 - -").digest is None
    assert node(b"/a 0 120777 1 0 0 0 0.0 abc").payload == b"abc"
    with pytest.raises(FormatError, match="CONTENT has 0 bytes"):
        node(b"/a 3 120777 1 0 0 0 0.0 abc")
    assert node(b"/a 0 40755 1 0 0 0 0.0").children == {}


def test_what_is_ignored_by_type() -> None:
    directory = node(b"/a 77 40755 9 0 0 5 0.0 ignored - -")
    assert (directory.payload, directory.children) == (None, {})
    assert node(b"/a 77 120777 1 0 0 0 0.0 target - -").size == 6
    assert node(b"/a 2 120777 1 0 0 0 0.0 target xy -").content is None
    assert node(b"/a 6 120777 1 0 0 0 0.0 target - -", strict=True).payload == b"target"
    assert not node(b"/a 0 100644 1 0 0 0 0.0 - - " + DIGEST).external


def test_only_devices_have_a_device_number() -> None:
    assert node(b"/a 0 100644 1 0 0 5 0.0 - - -").rdev == 0
    assert node(b"/a 0 20644 1 0 0 5 0.0 - - -").rdev == 5
    assert node(b"/a 0 60644 1 0 0 5 0.0 - - -", strict=True).rdev == 5


def test_the_last_of_equal_attributes_and_a_space_at_the_end() -> None:
    assert node(b"/a 0 100644 1 0 0 0 0.0 - - - user.k=1 user.k=2 ").xattrs == {b"user.k": b"2"}
    assert node(b"/a 0 100644 1 0 0 0 0.0 - - - ").xattrs == {}


def test_equal_attributes_share_one_mapping() -> None:
    tree = read(*[b"/%d 0 100644 1 0 0 0 0.0 - - - user.k=v" % number for number in range(3)])
    assert len({id(child.xattrs) for child in (tree.root.children or {}).values()}) == 1


def test_numbers_at_their_limits() -> None:
    line = b"/a 18446744073709551615 20644 4294967295 0 0 4294967295 9223372036854775807.0 - - -"
    assert node(line).size == 2**64 - 1
    assert node(b"/a 0 100644 1 0 0 0 -9223372036854775808.0 - - -").mtime == (-(2**63), 0)
    assert node(b"/a 000 0100644 01 00 0 0 00.01 - - -").mtime == (0, 1)


def test_sha512_digests() -> None:
    text = ROOT + b"/a 65 100644 1 0 0 0 0.0 - - " + b"ab" * 64 + b"\n"
    assert dumpfile.parse(text, SHA512).objects().keys() == {"ab" * 64}


def test_the_newline_at_the_end_is_only_wanted_in_strict_mode() -> None:
    assert stat.S_ISDIR(dumpfile.parse(ROOT[:-1], SHA256).root.mode)
    with pytest.raises(FormatError, match="newline"):
        dumpfile.parse(ROOT[:-1], SHA256, strict=True)


BAD_LINES = [
    (b"", "the path is empty"),
    (b" 0 100644 1 0 0 0 0.0 - - -", "the path is empty"),
    (b"/a", "MODE '' is not an octal number"),
    (b"/a 0 100644 1 0 0", "RDEV '' is not a number"),
    (b"/a/b 0 100644 1 0 0 0 0.0 - - -", "no earlier line gives its directory"),
    (b"/f/b 0 100644 1 0 0 0 0.0 - - -", "no earlier line gives its directory"),
    (b"/a/ 0 40755 1 0 0 0 0.0 - - -", "ends in a slash"),
    (b"// 0 40755 1 0 0 0 0.0 - - -", "ends in a slash"),
    (b"/. 0 40755 1 0 0 0 0.0 - - -", "not . or .."),
    (b"/.. 0 40755 1 0 0 0 0.0 - - -", "not . or .."),
    (b"/" + b"n" * 256 + b" 0 40755 1 0 0 0 0.0 - - -", "1 to 255 bytes"),
    (b"/f 0 40755 1 0 0 0 0.0 - - -", "the path occurs twice"),
    (b"/ 0 40755 1 0 0 0 0.0 - - -", "the path occurs twice"),
    (b"/f 0 @100644 1 0 0 0 0.0 /f - -", "the path occurs twice"),
    (rb"/a\x00b 0 100644 1 0 0 0 0.0 - - -", "NUL byte in a path"),
    (b"/a\0b 0 100644 1 0 0 0 0.0 - - -", "NUL byte"),
    (rb"/\q 0 100644 1 0 0 0 0.0 - - -", "illegal escape"),
    (rb"/\x4 0 100644 1 0 0 0 0.0 - - -", "illegal escape"),
    (rb"/\x4\\1 0 100644 1 0 0 0 0.0 - - -", "illegal escape"),
    (rb"/\x\\41 0 100644 1 0 0 0 0.0 - - -", "illegal escape"),
    (rb"/\X41 0 100644 1 0 0 0 0.0 - - -", "illegal escape"),
    (rb"/\u0041 0 100644 1 0 0 0 0.0 - - -", "illegal escape"),
    (rb"/\101 0 100644 1 0 0 0 0.0 - - -", "illegal escape"),
    (rb"/a 0 100644 1 0 0 0 0.0 - - - user.x=\\\ ", "illegal escape"),
    (b"/a x 100644 1 0 0 0 0.0 - - -", "SIZE 'x' is not a number"),
    (b"/a -1 100644 1 0 0 0 0.0 - - -", "SIZE '-1' is not a number"),
    (b"/a +1 100644 1 0 0 0 0.0 - - -", "SIZE '+1' is not a number"),
    (b"/a 1_0 100644 1 0 0 0 0.0 - - -", "SIZE '1_0' is not a number"),
    (b"/a \xb2 100644 1 0 0 0 0.0 - - -", "SIZE '\\xb2' is not a number"),
    (b"/a 18446744073709551616 100644 1 0 0 0 0.0 - - -", "is larger than 18446744073709551615"),
    (b"/a 0 100644 4294967296 0 0 0 0.0 - - -", "NLINK '4294967296' is larger"),
    (b"/a 0 100644 1 1x 0 0 0.0 - - -", "UID '1x' is not a number"),
    (b"/a 0 100644 1 7 x 0 0.0 - - -", "GID 'x' is not a number"),
    (b"/a 0 100644 1 7 0 x 0.0 - - -", "RDEV 'x' is not a number"),
    (b"/a 0 100648 1 0 0 0 0.0 - - -", "MODE '100648' is not an octal number"),
    (b"/a 0 0o644 1 0 0 0 0.0 - - -", "MODE '0o644' is not an octal number"),
    (b"/a 0 644 1 0 0 0 0.0 - - -", "MODE '644' has no known file type (as in 100644 for a file"),
    (b"/a 0 @1755 1 0 0 0 0.0 /f - -", "MODE '@1755' has no known file type (as in 100644 "),
    (b"/a b 10 100644 1 0 0 0 0.0 - - -", "MODE '10' has no known file type (a blank in a path is written \\x20)"),
    (b"/a 8 9 100644 1 0 0 0 0.0 - - -", "MODE '9' is not an octal number (a blank in a path is written \\x20)"),
    (b"/a 0 170644 1 0 0 0 0.0 - - -", "has no known file type"),
    (b"/a 0 40000100644 1 0 0 0 0.0 - - -", "has no known file type"),
    (b"/a 0 @ 1 0 0 0 0.0 /f - -", "MODE '@' is not an octal number"),
    (b"/a 0 @@100644 1 0 0 0 0.0 /f - -", "is not an octal number"),
    (b"/a 0 100644 1 0 0 0 0 - - -", "MTIME '0' is not SECONDS.NANOSECONDS"),
    (b"/a 0 100644 1 0 0 0 0.0.0 - - -", "is not SECONDS.NANOSECONDS"),
    (b"/a 0 100644 1 0 0 0 0.-1 - - -", "is not SECONDS.NANOSECONDS"),
    (b"/a 0 100644 1 0 0 0 0.1000000000 - - -", "nanoseconds below 10^9"),
    (b"/a 0 100644 1 0 0 0 9223372036854775808.0 - - -", "does not fit 64-bit seconds"),
    (b"/a 0 100644 1 0 0 0 -9223372036854775809.0 - - -", "does not fit 64-bit seconds"),
    (b"/a 0 120777 1 0 0 0 0.0 - - -", "a symlink needs a target"),
    (b"/a 0 120777 1 0 0 0 0.0  - -", "a symlink needs a target"),
    (b"/a 0 120777 1 0 0 0 0.0 " + b"t" * 4096 + b" - -", "PAYLOAD has 4096 bytes"),
    (b"/a 1 100644 1 0 0 0 0.0 " + b"p" * 4096 + b" - -", "PAYLOAD has 4096 bytes"),
    (rb"/a 0 120777 1 0 0 0 0.0 a\x00b - -", "NUL byte"),
    (b"/a 2 100644 1 0 0 0 0.0 - x -", "SIZE is 2, but CONTENT has 1 bytes"),
    (b"/a 2 120777 1 0 0 0 0.0 tt x -", "SIZE is 2, but CONTENT has 1 bytes"),
    (b"/a 2 40755 1 0 0 0 0.0 - x -", "SIZE is 2, but CONTENT has 1 bytes"),
    (b"/a 5001 100644 1 0 0 0 0.0 - " + b"c" * 5001 + b" -", "CONTENT has 5001 bytes"),
    (b"/a 9 100644 1 0 0 0 0.0 - - 00", "DIGEST is not 64 hexadecimal digits"),
    (b"/a 9 100644 1 0 0 0 0.0 - - " + b"0" * 65, "DIGEST is not 64 hexadecimal digits"),
    (b"/a 9 100644 1 0 0 0 0.0 - - " + b"0" * 128, "DIGEST is not 64 hexadecimal digits"),
    (b"/a 9 100644 1 0 0 0 0.0 - - " + b"g" * 64, "DIGEST is not 64 hexadecimal digits"),
    (b"/a 0 100644 1 0 0 0 0.0 - - - user.x", "has no '='"),
    (b"/a 0 100644 1 0 0 0 0.0 - - - user.x=1  user.y=2", "has no '='"),
    (b"/a 0 100644 1 0 0 0 0.0 - - -  ", "has no '='"),
    (b"/a 0 100644 1 0 0 0 0.0 - - - =v", "0 bytes, not 1 to 255"),
    (b"/a 0 100644 1 0 0 0 0.0 - - - " + b"k" * 256 + b"=v", "256 bytes, not 1 to 255"),
    (b"/a 0 100644 1 0 0 0 0.0 - - - user.k=" + b"v" * 65536, "65536 bytes, more than 65535"),
    (b"/a 0 @40755 1 0 0 0 0.0 /d - -", "a directory cannot be a hard link"),
    (b"/a 0 @100644 1 0 0 0 0.0 /d - -", "a hard link to a directory"),
    (b"/a 0 @100644 1 0 0 0 0.0 / - -", "not in the dump"),
    (b"/a 0 @100644 1 0 0 0 0.0 - - -", "needs the path of its target"),
    (b"/a 0 @100644 1 0 0 0 0.0", "needs the path of its target"),
    (b"/a 0 @100644 1 0 0 0 0.0 /gone - -", "not in the dump"),
    (b"/a 0 @100644 1 0 0 0 0.0 /f/x - -", "not in the dump"),
    (b"/a 0 @100644 1 0 0 0 0.0 /a - -", "a loop of hard links"),
    (b"/a 0 100644 1 0 0 0 0.0 - - -\r", "DIGEST is not"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=[repr(line[:60]) for line, _ in BAD_LINES])
def test_bad_lines_are_refused_with_line_number_and_reason(line: bytes, message: str) -> None:
    before = ROOT + b"/d 0 40755 2 0 0 0 0.0 - - -\n/f 0 100644 1 0 0 0 0.0 - - -\n"
    with pytest.raises(FormatError) as caught:
        dumpfile.parse(before + line + b"\n/z 0 100644 1 0 0 0 0.0 - - -\n", SHA256)
    assert message in str(caught.value)
    assert str(caught.value).startswith("dump line 4: ")
    assert caught.value.offset == 4
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no files in the dump"),
        (b"\n", "line 1: .*the path is empty"),
        (b"/a 0 100644 1 0 0 0 0.0 - - -\n", "line 1: /a: no earlier line"),
        (b"/ 0 100644 1 0 0 0 0.0 - - -\n", "line 1: /: the root is not a directory"),
        (b"/ 0 @100644 1 0 0 0 0.0 /a - -\n", "line 1: /: the root is not a directory"),
        (b"/ 0 100644 1 0 0 0 0.0 - - -\n/a 0 100644 1 0 0 0 0.0 - - -\n", "line 2: /a: no earlier line"),
    ],
)
def test_bad_roots(text: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        dumpfile.parse(text, SHA256)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"/a 0 100644 1 0 0 5 0.0 - - -", "only a device has an RDEV"),
        (b"/a 0 10644 1 0 0 5 0.0 - - -", "only a device has an RDEV"),
        (b"/a 0 40755 1 0 0 5 0.0 - - -", "only a device has an RDEV"),
        (b"/a 5 120777 1 0 0 0 0.0 target - -", "SIZE is 5, but the symlink's target has 6 bytes"),
        (b"/a 6 120777 1 0 0 0 0.0 target target -", "a symlink has no CONTENT"),
    ],
)
def test_strict_mode_refuses_what_is_otherwise_ignored(line: bytes, message: str) -> None:
    read(line)
    with pytest.raises(FormatError, match=message):
        read(line, strict=True)


def test_the_limits_of_the_c_library_are_optional() -> None:
    long_text = b"/a 0 100644 1 0 0 0 0.0 - - - user.k=" + rb"\x00" * 16400
    much = b"/a 0 100644 1 0 0 0 0.0 - - - user.k=" + b"v" * 32743
    nul = rb"/a 0 100644 1 0 0 0 0.0 - - - user.k\x00=v"
    fits = b"/a 0 100644 1 0 0 0 0.0 - - - user.k=" + b"v" * 32742
    for line, message in ((long_text, "bytes of text"), (much, "more than 32767 bytes"), (nul, "NUL")):
        read(line)
        with pytest.raises(FormatError, match=message):
            read(line, c_limits=True)
    read(fits, c_limits=True)


def test_a_loop_of_links_names_one_of_them() -> None:
    with pytest.raises(FormatError, match=r"line 2: /a: a loop"):
        read(b"/a 0 @100644 - - - - - /b - -", b"/b 0 @100644 - - - - - /c - -", b"/c 0 @100644 - - - - - /a - -")


def test_a_long_chain_of_links_costs_no_recursion_and_no_square() -> None:
    count = 20_000
    lines = [b"/%d 0 @100644 - - - - - /%d - -" % (number, number + 1) for number in range(count)]
    tree = read(*lines, b"/%d 0 100644 1 0 0 0 0.0 - - -" % count)
    assert len(set((tree.root.children or {}).values())) == 1


def test_ten_megabytes_of_digits_are_refused_at_once() -> None:
    digits = b"9" * 10_000_000
    for field in range(1, 8):
        fields = b"/a 0 100644 1 0 0 0 0.0 - - -".split(b" ")
        fields[field] = digits
        with pytest.raises(FormatError):  # int() would need hours, where it does not refuse.
            read(b" ".join(fields))


def test_very_deep_trees_cost_no_recursion() -> None:
    depth = 2500
    lines = [b"/d" * (level + 1) + b" 0 40755 2 0 0 0 0.0 - - -" for level in range(depth)]
    tree = read(*lines)
    assert sum(1 for _ in walk(tree.root)) == depth
    for version in (0, 1, 2):
        assert len(b"".join(erofs.write(tree, version=version))) > depth * 64
