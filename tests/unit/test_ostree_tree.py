"""From a commit to dump lines: order, hard links, extended attributes, and trees that are too large."""

from __future__ import annotations

import io
import itertools
import struct

import pytest

from composefs_ext.errors import FormatError, TooLargeError
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.objects import MAX_DEPTH, Commit, Dirmeta, Dirtree
from composefs_ostree.held import dumptext, tree
from composefs_ostree.held.links import count_links

ROOT, SUB, META, FILE, LINK, LARGE = (bytes([number]) * 32 for number in range(1, 7))
DIGEST = "ab" * 32


def head(mode: int, size: int = 0, target: str = "", xattrs: list[tuple[bytes, bytes]] | None = None) -> bytes:
    numbers = [int.from_bytes(number.to_bytes(4, "big"), "little") for number in (10, 20, mode, 0)]
    told = int.from_bytes(size.to_bytes(8, "big"), "little")
    z = gvariant.encode("(tuuuusa(ayay))", (told, *numbers, target, xattrs or []))
    return struct.pack(">II", len(z), 0) + z


def make(trees: dict[bytes, Dirtree], files: dict[bytes, Entry] | None = None, mode: int = 0o40755) -> tree.Tree:
    commit = Commit({}, None, "", "", 0, ROOT, META)
    return tree.Tree(commit, trees, {META: Dirmeta(1, 2, mode, ((b"user.d", b"a b"),))}, files or {})


def dump(of: tree.Tree, *, keep_nul: bool = False) -> list[str]:
    out = io.BytesIO()
    dumptext.DumpText(of, out, keep_nul=keep_nul).finish()
    return out.getvalue().decode().splitlines()


def test_every_kind_of_line() -> None:
    files = {
        FILE: Entry(head(0o100644, 3) + b"-\n\\", None),
        LINK: Entry(head(0o120777, target="../a b"), None),
        LARGE: Entry(head(0o104755, 5000, xattrs=[(b"security.selinux\0", b"l\0")]), DIGEST),
    }
    root = Dirtree([(b"f", FILE), (b"l", LINK), (b"x y", LARGE)], [(b"s", SUB, META)])
    lines = dump(make({ROOT: root, SUB: Dirtree([(b"g", FILE)], [])}, files))
    assert lines == [
        "/ 0 40755 3 1 2 0 0.0 - - - user.d=a\\x20b",
        "/f 3 100644 2 10 20 0 0.0 - -\\n\\\\ -",
        "/l 6 120777 1 10 20 0 0.0 ../a\\x20b - -",
        f"/x\\x20y 5000 104755 1 10 20 0 0.0 {DIGEST[:2]}/{DIGEST[2:]} - {DIGEST} security.selinux=l\\x00",
        "/s 0 40755 2 1 2 0 0.0 - - - user.d=a\\x20b",
        "/s/g 0 @120000 1 0 0 0 0.0 /f - -",
    ]
    with_nul = dump(make({ROOT: root, SUB: Dirtree([(b"g", FILE)], [])}, files), keep_nul=True)
    assert with_nul[3].endswith(" security.selinux\\x00=l\\x00")
    assert with_nul[0].endswith(" user.d\\x00=a\\x20b")


def test_an_empty_file_has_no_content_and_a_dash_is_escaped() -> None:
    files = {FILE: Entry(head(0o100644), None), LARGE: Entry(head(0o100644, 1) + b"-", None)}
    lines = dump(make({ROOT: Dirtree([(b"e", FILE), (b"m", LARGE)], [])}, files))
    assert lines[1:] == ["/e 0 100644 1 10 20 0 0.0 - - -", "/m 1 100644 1 10 20 0 0.0 - \\x2d -"]


def test_names_are_counted_in_the_whole_tree() -> None:
    # SUB occurs three times with two names of one file each, and the root has one more.
    sub = Dirtree([(b"1", FILE), (b"2", FILE)], [])
    root = Dirtree([(b"0", FILE)], [(name, SUB, META) for name in (b"a", b"b", b"c")])
    lines = dump(make({ROOT: root, SUB: sub}, {FILE: Entry(head(0o100600), None)}))
    assert lines[1].split()[3] == "7"
    assert sum("@120000" in line for line in lines) == 6


def test_content_must_have_the_size_of_the_head() -> None:
    with pytest.raises(FormatError, match="2 of its 3 bytes"):
        dump(make({ROOT: Dirtree([(b"f", FILE)], [])}, {FILE: Entry(head(0o100644, 3) + b"ab", None)}))


def chain(levels: int, fanout: int) -> dict[bytes, Dirtree]:
    ids = [ROOT, *(struct.pack(">I", number) * 8 for number in range(1000, 1000 + levels))]
    trees = {
        parent: Dirtree([], [(b"%d" % number, child, META) for number in range(fanout)])
        for parent, child in itertools.pairwise(ids)
    }
    trees[ids[-1]] = Dirtree([], [])
    return trees


def test_a_few_objects_cannot_stand_for_endless_inodes() -> None:
    with pytest.raises(TooLargeError, match="files"):
        dump(make(chain(levels=40, fanout=2)))


def test_nesting_is_bounded() -> None:
    assert len(dump(make(chain(levels=MAX_DEPTH - 1, fanout=1)))) == MAX_DEPTH
    with pytest.raises(TooLargeError, match="nested"):
        dump(make(chain(levels=MAX_DEPTH + 1, fanout=1)))


def test_the_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumptext, "_WRITE_SIZE", 1000)
    names = [(b"%0200d" % number, FILE) for number in range(100)]
    of = make({ROOT: Dirtree(names, [])}, {FILE: Entry(head(0o100644), None)})
    with pytest.raises(TooLargeError, match="description"):
        dumptext.DumpText(of, io.BytesIO(), keep_nul=False, limit=10_000).finish()


def test_of_paths_that_are_too_long_nothing_is_written() -> None:
    directory = b"below" + bytes(27)
    files = [(b"%d" % number, FILE) for number in range(100)]
    trees = {ROOT: Dirtree([], [(b"d" * 200, directory, META)]), directory: Dirtree(files, [])}
    out = io.BytesIO()
    with pytest.raises(TooLargeError, match="description"):
        dumptext.DumpText(make(trees, {}), out, keep_nul=False, limit=20_000)
    assert not out.getvalue()


def test_the_text_of_directories_that_are_met_by_many_ways_is_counted_before_it_is_made() -> None:
    of = make(chain(levels=8, fanout=3))
    paths = [line.partition(" ")[0] for line in dump(of)[1:]]
    size = sum(len(path.rpartition("/")[0]) + 1 for path in paths)
    count_links(of, size)
    with pytest.raises(TooLargeError, match="description"):
        count_links(of, size - 1)


def test_text_that_is_made_while_files_are_missing_is_the_same() -> None:
    # FILE has its first name in the directory that is written first, of which another file comes last.
    names = {LINK: Entry(head(0o120777, target="t"), None), LARGE: Entry(head(0o100644, 5000), DIGEST)}
    root = Dirtree([(b"l", LINK)], [(b"early", META, META), (b"late", SUB, META)])
    trees = {ROOT: root, SUB: Dirtree([(b"a", FILE), (b"b", LARGE)], []), META: Dirtree([(b"c", FILE)], [])}
    whole = dump(make(trees, {**names, FILE: Entry(head(0o100644), None)}))
    for known in ((), (FILE,), (LINK, FILE), (LARGE,), (LINK, LARGE, FILE)):
        every = {**names, FILE: Entry(head(0o100644), None)}
        files = {file_id: every[file_id] for file_id in known}
        out = io.BytesIO()
        text = dumptext.DumpText(make(trees)._replace(files=files), out, keep_nul=False)
        while text.prepare():
            pass
        files.update(every)
        text.finish()
        assert sorted(out.getvalue().decode().splitlines()) == sorted(whole)


class Written:
    """Keeps nothing but how much came at once."""

    def __init__(self) -> None:
        self.most = 0

    def write(self, data: bytes) -> None:
        self.most = max(self.most, len(data))


def test_text_that_is_made_early_is_bounded() -> None:
    value = b"\xff" * 65536
    meta = Dirmeta(0, 0, 0o40755, tuple((b"user.%d" % number, value) for number in range(10)))
    root = Dirtree([], [(b"%d" % number, SUB, META) for number in range(1000)])
    of = make({ROOT: root, SUB: Dirtree([], [])})._replace(metas={META: meta})
    out = Written()
    with pytest.raises(TooLargeError):
        dumptext.DumpText(of, out, keep_nul=False, limit=20_000_000).prepare()
    assert 0 < out.most < 10_000_000
