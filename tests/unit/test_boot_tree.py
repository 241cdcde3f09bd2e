"""Bootable trees: what must be in them, what is looked at, what is emptied, and how files are found and read."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest

from composefs.boot import make_bootable
from composefs.boot.entries import check_entries
from composefs.boot.lookup import Files
from composefs.digest import SHA256
from composefs.errors import ComposefsError, ConflictError, FormatError, NotFoundError, TooLargeError
from composefs.fsverity import digest_bytes
from composefs.tree import Node, Tree, find

BIG = b"x" * 100


def directory() -> Node:
    return Node(0o40755, mtime=(5, 6), children={})


def file(data: bytes) -> Node:
    return Node(0o100644, size=len(data), content=data or None)


def external(data: bytes) -> Node:
    return Node(0o100644, size=len(data), digest=digest_bytes(data, SHA256))


def link(target: bytes) -> Node:
    return Node(0o120777, size=len(target), payload=target)


def tree(files: dict[str, Node]) -> Tree:
    """A tree with /usr, /boot and /sysroot and these files; directories on the way are made."""
    root = directory()
    for path, node in sorted({"boot": directory(), "sysroot": directory(), "usr": directory(), **files}.items()):
        at = root
        *above, name = path.encode("utf-8", "surrogateescape").split(b"/")
        for part in above:
            assert at.children is not None
            at = at.children.setdefault(part, directory())
        assert at.children is not None
        at.children[name] = node
    return Tree(root, SHA256)


def nothing(path: bytes, node: Node) -> bytes:
    raise AssertionError((path, node))


def files(members: dict[str, Node], *, follow: bool = False) -> Files:
    return Files(tree(members), nothing, follow=follow)


def test_boot_and_sysroot_are_emptied_and_take_the_seconds_of_usr() -> None:
    made = tree({"boot/vmlinuz": file(b"k"), "sysroot/x/y": file(b""), "etc/hosts": file(b"h")})
    for path, mtime in ((b"/usr", (70, 71)), (b"/boot", (1, 2)), (b"/sysroot", (3, 4))):
        find(made, path).mtime = mtime
    make_bootable(made, nothing)
    assert find(made, b"/boot").children == find(made, b"/sysroot").children == {}
    assert find(made, b"/boot").mtime == (70, 2)
    assert find(made, b"/sysroot").mtime == (70, 4)
    assert find(made, b"/etc/hosts").content == b"h"
    make_bootable(made, nothing)  # once more changes nothing
    assert find(made, b"/boot").mtime == (70, 2)


@pytest.mark.parametrize("name", ["usr", "boot", "sysroot"])
def test_three_directories_must_be_there(name: str) -> None:
    made = tree({})
    assert made.root.children is not None
    made.root.children[name.encode()] = link(b"etc")
    with pytest.raises(FormatError, match=f"/{name} is not a directory"):
        make_bootable(made, nothing)
    del made.root.children[name.encode()]
    with pytest.raises(FormatError, match=f"no /{name}") as caught:
        make_bootable(made, nothing)
    assert caught.value.hint == f"make it: mkdir {name}"


def test_a_refused_tree_is_as_it_was() -> None:
    made = tree({"boot/loader/entries/a.conf": file(b"linux /none\n")})
    with pytest.raises(NotFoundError):
        make_bootable(made, nothing)
    assert find(made, b"/boot/loader/entries/a.conf").content == b"linux /none\n"
    make_bootable(made, nothing, stored=False)  # only the id is computed: entries are not looked at
    assert find(made, b"/boot").children == {}


@pytest.mark.parametrize("missing", [None, "boot/k", "usr/lib/i", "usr/lib/j", "boot/EFI/Linux/u.efi"])
def test_what_entries_name_must_be_there(missing: str | None) -> None:
    entry = (
        b"# c\ntitle T\nlinux /boot/k\n\ninitrd\t/usr/lib/i\ninitrd /usr/lib/j\r\n"
        b"efi  /boot/EFI/Linux/u.efi \noptions linux /x\nlinux\ninitrd \t\n"
    )
    members = {
        "boot/k": external(BIG),
        "boot/loader/entries/t.conf": file(entry),
        "boot/loader/entries/notes.txt": link(b"x"),
        "boot/EFI/Linux/u.efi": external(BIG),
        "usr/lib/i": file(b"i"),
        "usr/lib/j": file(b"j"),
        "usr/lib/modules/6.1/vmlinuz": external(BIG),
        "usr/lib/modules/6.1/u.efi": external(BIG),
        "usr/lib/modules/6.2/vmlinuz": external(BIG),
        "usr/lib/modules/6.2/initramfs.img": external(BIG),
        "usr/lib/modules/6.3/extra/x.ko": external(BIG),
        "usr/lib/modules/file": file(b""),
    }
    if missing is None:
        check_entries(files(members))
        return
    del members[missing]
    with pytest.raises(NotFoundError, match=f"t.conf names /{missing}, which does not exist"):
        check_entries(files(members))


@pytest.mark.parametrize(
    ("members", "error", "words"),
    [
        ({"boot/loader/entries/a.conf": file(b"linux /k\n")}, NotFoundError, "/k, which does not exist"),
        ({"boot/loader/entries/a.conf": file(b"initrd /usr\n")}, FormatError, "/usr, which is not a regular file"),
        ({"boot/loader/entries/a.conf": file(b"efi /f/x\n"), "f": file(b"")}, FormatError, "a.conf: /f is not a dir"),
        ({"boot/loader/entries/a.conf": file(b"title \xff\n")}, FormatError, "UTF-8"),
        ({"boot/loader/entries/a.conf": link(b"b")}, FormatError, "not a regular file"),
        ({"boot/loader/entries/a.conf": directory()}, FormatError, "not a regular file"),
        ({"boot/loader/entries/a.conf": file(b"#" * 70_000)}, TooLargeError, "70000"),
        ({"boot/loader/entries": file(b"")}, FormatError, "not a directory"),
        ({"boot/loader": link(b"/usr")}, FormatError, "not a directory"),
        ({"boot/EFI/Linux/a.efi": link(b"b")}, FormatError, "not a regular file"),
        ({"boot/EFI/Linux/a.efi": directory()}, FormatError, "not a regular file"),
        ({"usr/lib/modules/1/a.efi": link(b"b")}, FormatError, "not a regular file"),
        ({"usr/lib/modules/1/vmlinuz": link(b"/boot/k")}, FormatError, "not a regular file"),
        (
            {"usr/lib/modules/1/vmlinuz": file(b"k"), "usr/lib/modules/1/initramfs.img": link(b"x")},
            FormatError,
            "not a",
        ),
        ({"usr/lib/modules/\udcff/vmlinuz": file(b"k")}, FormatError, "UTF-8"),
    ],
)
def test_malformed_entries_are_refused(members: dict[str, Node], error: type[ComposefsError], words: str) -> None:
    with pytest.raises(error, match=words):
        check_entries(files(members))


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"boot/loader/entries/a.conf": file(b"linux /k\n"), "boot/k": file(b"k")}, True),
        ({"boot/loader/entries/a.conf": file(b"linux /d\n"), "d": directory()}, True),
        ({"boot/loader/entries/a.conf": file(b"linux /f/k\n"), "f": file(b"")}, True),
        ({"boot/EFI/Linux/a.efi": directory()}, False),
        ({"usr/lib/modules/1/vmlinuz": file(b"k"), "usr/lib/modules/1/initramfs.img": directory()}, False),
    ],
)
def test_whose_entry_names_files_is_told_where_paths_begin(members: dict[str, Node], told: bool) -> None:
    """The specification has them begin at the boot partition."""
    with pytest.raises(ComposefsError) as caught:
        check_entries(files(members))
    hint = "paths in entries begin at the image's root: /boot/vmlinuz, not /vmlinuz"
    assert caught.value.hint == (hint if told else None)


def test_paths_without_following() -> None:
    there = files({"a/b/c": file(b"1"), "a/l": link(b"b")})
    found = there.find(b"//a/./b/../b//c/")
    assert found is not None
    assert (found[0], found[1].content) == (b"/a/b/c", b"1")
    assert there.find(b"/a/none/c") is None
    root = there.find(b"/../..")
    assert root is not None
    assert root[0] == b"/"
    with pytest.raises(FormatError, match=r"/a/b/c is not a directory"):
        there.find(b"/a/b/c/d")
    with pytest.raises(FormatError, match=r"/a/l is not a directory"):
        there.read(b"/a/l/c", 9)
    found = there.find(b"/a/l")
    assert found is not None
    assert stat.S_ISLNK(found[1].mode)


@pytest.mark.parametrize(
    ("target", "place"),
    [
        (b"b", b"/a/b"),
        (b"./b/.", b"/a/b"),
        (b"../a/b", b"/a/b"),
        (b"/a/b", b"/a/b"),
        (b"../../../../a/b", b"/a/b"),
        (b"m", b"/a/b"),
        (b"/", b"/"),
        (b"none", None),
    ],
)
def test_links_are_followed_inside_of_the_tree(target: bytes, place: bytes | None) -> None:
    there = files({"a/b/c": file(b"1"), "a/l": link(target), "a/m": link(b"/a/../a/b")}, follow=True)
    found = there.find(b"/a/l")
    assert (found and found[0]) == place
    if place == b"/a/b":
        assert there.read(b"/a/l/c", 9) == b"1"


def test_links_in_a_circle_are_an_error() -> None:
    there = files({"a": link(b"b"), "b": link(b"/a"), "c": link(b"c/c")}, follow=True)
    for path in (b"/a", b"/c"):
        with pytest.raises(FormatError, match="more than 40 symlinks"):
            there.find(path)


@pytest.mark.parametrize(
    ("contents", "error"),
    [
        (lambda _path, _node: BIG, None),
        (lambda _path, _node: BIG + b"x", ConflictError),
        (lambda _path, _node: BIG[:-1] + b"y", ConflictError),
        (lambda _path, _node: b"", ConflictError),
    ],
)
def test_what_is_read_has_the_digest_of_the_tree(
    contents: Callable[[bytes, Node], bytes], error: type[ComposefsError] | None
) -> None:
    there = Files(tree({"a": external(BIG)}), contents)
    if error is None:
        assert there.read(b"/a", 100) == BIG
        with pytest.raises(TooLargeError):
            there.read(b"/a", 99)
        return
    with pytest.raises(error):
        there.read(b"/a", 100)


def test_a_file_without_digest_cannot_be_read() -> None:
    with pytest.raises(NotFoundError, match="not known"):
        files({"a": Node(0o100644, size=5)}).read(b"/a", 9)
    assert files({"a": file(b"")}).read(b"/a", 9) == b""
    assert files({}).read(b"/a", 9) is None


def test_without_a_policy_no_label_stays() -> None:
    made = tree({"etc/hosts": file(b"h")})
    find(made, b"/etc/hosts").xattrs = {b"security.selinux": b"a:b:c", b"user.x": b"y"}
    make_bootable(made, nothing)
    assert find(made, b"/etc/hosts").xattrs == {b"user.x": b"y"}


def test_a_policy_beyond_symlinks_is_followed_for_an_id_and_refused_for_an_image() -> None:
    members = {
        "etc/selinux/config": link(b"/../c"),
        "c": file(b"SELINUXTYPE=t\n"),
        "etc/selinux/t": link(b"../../p"),
        "p/contexts/files/file_contexts": file(b"/.* a:b:c\n"),
    }
    made = tree(members)
    make_bootable(made, nothing, stored=False)
    assert made.root.xattrs == {b"security.selinux": b"a:b:c"}
    with pytest.raises(FormatError, match="/etc/selinux/config is not a regular file"):
        make_bootable(tree(members), nothing)
