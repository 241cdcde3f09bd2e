"""How libcomposefs and composefs-rs read images, where they differ from each other."""

from __future__ import annotations

import io
from typing import Literal

import pytest

from composefs import dumpfile
from composefs.digest import SHA256, SHA512
from composefs.erofs.layout import BLOCK
from composefs.erofs.reader import Image, Lookup, ReadRules, read_objects, read_tree
from composefs.errors import FormatError, NotFoundError
from composefs.tree import Node, find
from support.images import DIGEST, Patch, make_image

WHITEOUT = "/d/w 0 20600 1 0 0 0 0.0 - - - user.w=x"
DIRECTORY = "/d 0 40755 2 0 0 0 0.0 - - -"


def lines(image: bytes, compat: Literal["rs", "c"]) -> list[str]:
    text = io.BytesIO()
    dumpfile.write(read_tree(Image(image), ReadRules(compat)), text.write, style=compat)
    return text.getvalue().decode().splitlines()


def image(*given: str, version: int = 1, compat: str = "rs") -> bytes:
    return bytes(make_image(*given, version=version, compat=compat))


def node(data: bytes, path: bytes, compat: Literal["rs", "c"] = "rs") -> Node:
    return find(read_tree(Image(data), ReadRules(compat)), path)


def test_whiteouts_come_back_as_devices() -> None:
    for version, opaque in ((0, {}), (1, {b"trusted.overlay.opaque": b"x", b"user.overlay.opaque": b"x"})):
        for compat in ("c", "rs"):
            data = image(DIRECTORY, WHITEOUT, version=version, compat=compat)
            assert b"user.overlay.whiteout" not in node(data, b"/d/w", "c").xattrs
            for way in ("c", "rs"):
                assert way in ("c", "rs")
                found = node(data, b"/d/w", "c" if way == "c" else "rs")
                assert (found.mode, found.rdev, found.size, found.xattrs) == (0o20600, 0, 0, {b"user.w": b"x"})
            assert node(data, b"/d", "c").xattrs == opaque
            assert node(data, b"/d", "rs").xattrs == {}


def test_whiteouts_of_format_2_are_kept_by_composefs_rs_only() -> None:
    data = image(DIRECTORY, WHITEOUT, version=2)
    assert node(data, b"/d/w").mode == 0o20600
    assert lines(data, "c")[1:] == ["/d 40 40755 2 0 0 0 0.0 - - -"]
    assert Lookup(Image(data)).node(b"/d/w").mode == 0o20600
    with pytest.raises(NotFoundError):
        Lookup(Image(data), ReadRules("c")).node(b"/d/w")


def test_marks_that_the_user_gave() -> None:
    line = "/d 0 40755 2 0 0 0 0.0 - - - trusted.overlay.opaque=x user.overlay.opaque=x"
    given = {b"trusted.overlay.opaque": b"x", b"user.overlay.opaque": b"x"}
    for version, kept in ((0, {}), (1, {}), (2, given)):
        assert node(image(line, version=version), b"/d", "c").xattrs == given
        assert node(image(line, version=version), b"/d", "rs").xattrs == kept
    line = "/d 0 40755 2 0 0 0 0.0 - - - trusted.overlay.whiteout= user.overlay.whiteout= user.overlay.whiteouts="
    assert node(image(line), b"/d").xattrs == {b"trusted.overlay.whiteout": b""}
    assert set(node(image(line, version=2), b"/d").xattrs) == {
        b"trusted.overlay.whiteout",
        b"user.overlay.whiteout",
        b"user.overlay.whiteouts",
    }


def test_a_file_marked_like_a_whiteout() -> None:
    line = "/f 0 100644 1 0 0 0 0.0 - - - trusted.overlay.whiteout="
    assert node(image(line), b"/f").mode == 0o20644
    assert node(image(line), b"/f").xattrs == {}
    assert node(image(line, version=2), b"/f").mode == 0o100644
    assert node(image(line, version=2), b"/f").xattrs == {b"trusted.overlay.whiteout": b""}
    assert node(image(line, version=2), b"/f", "c").mode == 0o20644


def test_a_file_with_bytes_that_is_marked_like_a_whiteout_stays_a_file() -> None:
    # Overlayfs takes no file for a whiteout that has a size, so what is mounted has the file.
    marked = "trusted.overlay.whiteout=x"
    small = f"/f 1 100644 1 0 0 0 0.0 - x - {marked}"
    large = f"/f 9 100644 1 0 0 0 0.0 {DIGEST[:2]}/{DIGEST[2:]} - {DIGEST} {marked}"
    for line in (small, large):
        for compat in ("c", "rs"):
            data = image(line, version=1, compat=compat)
            assert lines(data, "c")[1:] == lines(data, "rs")[1:] == [line]
            assert Lookup(Image(data)).node(b"/f").xattrs == {b"trusted.overlay.whiteout": b"x"}


def test_escaped_attributes_lose_one_escape() -> None:
    line = "/f 0 100644 1 0 0 0 0.0 - - - trusted.overlay.metacopy=m trusted.overlay.overlay.redirect=r trusted.x="
    for version in (0, 1, 2):
        for compat in ("c", "rs"):
            assert compat in ("c", "rs")
            assert node(image(line, version=version), b"/f", "c" if compat == "c" else "rs").xattrs == {
                b"trusted.overlay.metacopy": b"m",
                b"trusted.overlay.overlay.redirect": b"r",
                b"trusted.x": b"",
            }


def test_the_longest_names_may_be_longer_while_they_are_escaped() -> None:
    name = "trusted.overlay.".ljust(255, "x")
    for version in (0, 1, 2):
        data = image(f"/f 0 100644 1 0 0 0 0.0 - - - {name}=v", version=version)
        assert node(data, b"/f").xattrs == node(data, b"/f", "c").xattrs == {name.encode(): b"v"}
    other = data.replace(b"overlay.overlay.xxx", b"Overlay.overlay.xxx")
    assert other != data
    with pytest.raises(FormatError, match="the name of an extended attribute has 263 bytes"):
        node(other, b"/f")


def test_stubs_are_no_files() -> None:
    for version in (0, 1):
        for compat in ("c", "rs"):
            assert compat in ("c", "rs")
            assert (
                len(lines(image("/00 0 100644 1 0 0 0 0.0 - - -", version=version), "c" if compat == "c" else "rs"))
                == 2
            )
        with pytest.raises(NotFoundError):
            Lookup(Image(image(version=version))).node(b"/ff")
        assert Lookup(Image(image(version=version))).children(b"/") == {}


def test_other_whiteouts_are_no_stubs() -> None:
    """Of another program: ours makes files of them."""
    given = (DIRECTORY, "/d/ab 0 20600 1 0 0 305419896 0.0 - - -", "/x 0 20600 1 0 0 305419897 0.0 - - -")
    data = image(*given)
    for number in (305419896, 305419897):
        assert data.count(number.to_bytes(4, "little")) == 1
        data = data.replace(number.to_bytes(4, "little"), bytes(4))
    assert lines(data, "rs")[2:] == [line.replace(line.split()[6], "0") for line in given[1:]]
    assert lines(data, "c")[2:] == []


def test_a_whiteout_of_the_root_that_is_called_like_a_stub() -> None:
    line = "/ab 0 20600 1 5 0 0 0.0 - - -"
    assert lines(image(line), "rs")[1:] == ["/ab 0 20600 1 5 0 0 0.0 - - -"]
    assert lines(image(line), "c")[1:] == ["/ab 0 20600 1 5 0 0 0.0 - - -"]
    assert lines(image(line, version=2), "rs")[1:] == ["/ab 0 20600 1 5 0 0 0.0 - - -"]


def test_link_counts() -> None:
    hard = ("/a 0 100644 7 0 0 0 0.0 - - -", "/b 0 @100644 - - - - - /a - -")
    data = image(*hard, compat="c")
    assert lines(data, "c")[1:] == ["/a 0 100644 7 0 0 0 0.0 - - -", "/b 0 @100644 7 0 0 0 0.0 /a - -"]
    with pytest.raises(FormatError, match="2 names has 7 links"):
        read_tree(Image(data))
    assert Lookup(Image(data)).node(b"/b").nlink == 7  # One path says nothing of the other names.


def test_a_device_with_two_names_that_c_would_drop() -> None:
    line = "/n 0 20644 1 0 0 259 0.0 - - -"
    patch = Patch(make_image(line))
    assert lines(bytes(patch.image), "c")[1:] == [line]
    patch.put(patch.inode("/n") + 16, "<I", 0)
    assert lines(bytes(patch.image), "c")[1:] == []
    patch.put(patch.inode("/n") + 44, "<I", 2)
    with pytest.raises(FormatError, match="more than one link"):
        lines(bytes(patch.image), "c")


def test_digests() -> None:
    line = f"/f 9 100644 1 0 0 0 0.0 aa/bb - {DIGEST}"
    data = image(line, compat="c")
    assert node(data, b"/f").digest == bytes.fromhex(DIGEST)
    assert lines(data, "c")[1] == line
    assert lines(data, "rs")[1] == line.replace("aa/bb", f"{DIGEST[:2]}/{DIGEST[2:]}")
    odd = data.replace(b"\x00\x24\x00\x01" + bytes.fromhex(DIGEST), b"\x00\x24\x07\x01" + bytes.fromhex(DIGEST))
    assert lines(odd, "c")[1] == line
    with pytest.raises(FormatError, match="holds no digest"):
        read_tree(Image(odd))
    with pytest.raises(FormatError, match="a sha256 digest among sha512 digests"):
        read_tree(Image(data), ReadRules("rs", SHA512))
    with pytest.raises(FormatError, match="a sha256 digest among sha512 digests"):
        read_objects(Image(data), SHA512)
    with pytest.raises(FormatError):
        read_objects(Image(odd), SHA256)


def test_files_without_digest_or_path() -> None:
    given = (
        "/a 9 100644 1 0 0 0 0.0 - - -",
        "/b 9 100644 1 0 0 0 0.0 x/y - -",
        f"/c 9 100644 1 0 0 0 0.0 - - {DIGEST}",
    )
    data = image(*given, compat="c")
    assert lines(data, "c")[1:] == list(given)
    assert lines(data, "rs")[1:] == [*given[:2], given[2].replace("- - ", f"{DIGEST[:2]}/{DIGEST[2:]} - ")]
    assert read_objects(Image(data), SHA256) == {DIGEST: 9}
    assert read_objects(Image(image("/i 4 100644 1 0 0 0 0.0 - text -")), SHA256, strict=True) == {}
    for line, message in zip(given, ("'a' has content outside", "'b' has a path", "'c' has a path"), strict=True):
        with pytest.raises(FormatError, match=message):
            read_objects(Image(image(line, compat="c")), SHA256, strict=True)


def test_files_of_one_digest_have_one_size() -> None:
    path = f"{DIGEST[:2]}/{DIGEST[2:]}"
    same = image(f"/a 9 100644 1 0 0 0 0.0 {path} - {DIGEST}", f"/b 9 100644 1 0 0 0 0.0 {path} - {DIGEST}")
    assert read_objects(Image(same), SHA256, strict=True) == {DIGEST: 9}
    other = image(f"/a 9 100644 1 0 0 0 0.0 {path} - {DIGEST}", f"/b 8 100644 1 0 0 0 0.0 {path} - {DIGEST}")
    with pytest.raises(FormatError, match="'b' has not the size of another with its digest"):
        read_objects(Image(other), SHA256, strict=True)


@pytest.mark.parametrize("last", ["/a", "/b"], ids=["attributes", "inode"])
def test_what_ends_where_the_image_does(last: str) -> None:
    def given(size: int) -> list[str]:
        file = f"/a 0 100644 1 0 0 0 0.0 - - - user.k={size * 'v'}"
        return [file] if last == "/a" else [file, "/b 0 100644 1 0 0 0 0.0 - - -"]

    patch = Patch(make_image(*given(3)))
    more = -patch.tail(patch.inode(last))[0] % BLOCK
    patch = Patch(make_image(*given(3 + more)))
    assert patch.tail(patch.inode(last))[0] == len(patch.image)
    assert lines(bytes(patch.image), "rs")[1:] == given(3 + more)


def test_a_block_of_a_directory_may_have_one_name() -> None:
    given = [f"/{number:0255} 0 10644 1 0 0 0 0.0 - - -" for number in range(16)]  # of which 15 fit in the first block
    assert lines(image(*given, version=2), "rs")[1:] == given


def test_what_is_as_long_as_it_may_be() -> None:
    given = [
        "/d 0 40755 2 0 0 0 0.0 - - -",
        "/d/" + "n" * 255 + " 0 10644 1 0 0 0 0.0 - - -",
        "/f 5000 100644 1 0 0 0 0.0 - " + "c" * 5000 + " -",
        "/o 9 100644 1 0 0 0 0.0 " + "p" * 4095 + " - -",
        "/x 0 100644 1 0 0 0 0.0 - - - user.k=" + "v" * 65535,
        "/z 4095 120777 1 0 0 0 0.0 " + "t" * 4095 + " - -",
    ]
    for version, fits in ((0, given), (1, given), (2, given[:-1])):  # format 2 has no room for such a symlink
        data = image(*fits, version=version)
        for compat in ("c", "rs"):
            assert lines(data, "c" if compat == "c" else "rs")[2:] == fits[1:]


def test_paths_whose_length_needs_no_padding() -> None:
    # libcomposefs 1.0.8 reads such a path on into the next attribute.
    given = "/f 9 100644 1 0 0 0 0.0 abc - - user.foo=x"
    assert lines(image(given, compat="c"), "c")[1] == given


def test_sha512_digests_show_in_the_text_of_c_too() -> None:
    digest = "cd" * 64
    data = bytes(make_image(f"/f 9 100644 1 0 0 0 0.0 - - {digest}", version=1, algorithm=SHA512))
    assert lines(data, "c")[1].endswith(f" - {digest}")
    assert read_objects(Image(data), SHA512).keys() == {digest}


def test_the_order_of_attributes() -> None:
    given = (
        "/a 0 100644 1 0 0 0 0.0 - - - user.z=shared user.b=1 user.a=2",
        "/b 0 100644 1 0 0 0 0.0 - - - user.z=shared user.c=1",
        "/c 0 100644 1 0 0 0 0.0 - - - user.a0=shared user.b=3",
        "/d 0 100644 1 0 0 0 0.0 - - - user.a0=shared user.z=shared",
    )
    data = image(*given)
    assert [line.split()[11:] for line in lines(data, "c")[1:]] == [
        ["user.a=2", "user.b=1", "user.z=shared"],
        ["user.c=1", "user.z=shared"],
        ["user.b=3", "user.a0=shared"],
        ["user.a0=shared", "user.z=shared"],
    ]
    assert [line.split()[11:] for line in lines(data, "rs")[1:]][2] == ["user.a0=shared", "user.b=3"]


def test_names_of_attributes_may_end_in_a_nul() -> None:
    # As in images that composefs-rs 0.9.0 makes of ostree commits.
    given = "/f 0 100644 1 0 0 0 0.0 - - - user.k\\x00=v"
    assert lines(image(given), "rs")[1] == given
    assert lines(image(given), "c")[1] == given


def test_text_of_part_of_a_tree() -> None:
    data = image(DIRECTORY, "/d/x\\x20y 0 100644 2 0 0 0 0.0 - - -", "/e 0 @100644 - - - - - /d/x\\x20y - -")
    text = io.BytesIO()
    dumpfile.write_below(b"/d", Lookup(Image(data)).below(b"/d"), text.write)
    assert text.getvalue() == b"/d 0 40755 2 0 0 0 0.0 - - -\n/d/x\\x20y 0 100644 2 0 0 0 0.0 - - -\n"
    text = io.BytesIO()
    dumpfile.write_below(b"/e", Lookup(Image(data)).below(b"/e"), text.write)
    assert text.getvalue() == b"/e 0 100644 2 0 0 0 0.0 - - -\n"
