"""Taking objects in and giving them out: staged files, rows, lists in files, and their limits."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from composefs.digest import SHA256
from composefs.fsverity import digest_bytes
from composefs.protocol.limits import Limits
from support.calls import HELLO, HELLO_WORLD, KIND, NOWHERE, ROOT, WORLD, call, kind_of, put
from support.hosting import Host


def test_object_put_answers_each_row_by_itself(host: Host) -> None:
    """P-32, P-16, P-18."""
    [answer, left] = host.do(
        ["write", "a", "hello"],
        ["write", "b", "world"],
        ["write", "c", "again"],
        ["write", "d", "again"],
        ["write", "e", "hello"],
        call(
            "object.put",
            files=[
                {"name": "a", "size": 5, "expect": HELLO},
                {"name": "b", "size": 6},
                {"name": "c", "expect": HELLO},
                {"name": "missing"},
                {"name": "e", "size": "5"},
                {"name": "e", "expect": "../a"},
                {"name": "d"},
            ],
        ),
        ["list"],
        strict=False,
    )
    first, wrong_size, wrong_id, missing, no_size, no_id, last = answer["objects"]
    assert first == {"id": HELLO, "size": 5, "stored": "moved"}
    assert wrong_size["error"]["kind"] == wrong_id["error"]["kind"] == "corrupt"
    assert missing["error"]["kind"] == "not_found"
    assert no_size["error"]["kind"] == no_id["error"]["kind"] == "usage"
    assert last["stored"] == "moved"
    assert left == ["b", "c", "e"]  # what was refused stays the extension's
    host.assert_clean()


def test_nothing_is_taken_in_where_the_disk_is_nearly_full(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = os.statvfs(host.path).f_flag
    full = SimpleNamespace(f_blocks=1000, f_bavail=9, f_frsize=4096, f_flag=flags)
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: full)
    answer, left = host.do(["write", "a", "hello"], put("a"), ["list"])
    assert (kind_of(answer), left) == ("no_space", ["a"])


def test_object_that_is_there_already_is_present(host: Host) -> None:
    host.do(["write", "a", "hello"], put("a"))
    [answer, left] = host.do(["write", "a", "hello"], put("a"), ["list"])
    assert answer["objects"] == [{"id": HELLO, "size": 5, "stored": "present"}]
    assert left == []


@pytest.mark.parametrize(
    "name", ["../a", "/absolute", ".hidden", "core-secret", "", "a" * 129, "a\nb", "a\0b", "é", 7, None, ["a"], {}]
)
def test_names_that_are_no_staged_names(host: Host, name: Any) -> None:
    """P-12."""
    answer, dump = host.do(
        ["symlink", "/etc/passwd", "core-secret"],
        call("object.put", files=[{"name": name}]),
        call("image.put", dump=name),
        strict=False,
    )
    error = answer["objects"][0]["error"]
    assert error["kind"] == "usage"
    # Of a list or object in a row only is kept that it is one.
    shown = repr(name[:140]) if isinstance(name, str) else json.dumps([] if isinstance(name, list) else name)
    assert error["message"] == f"name: {shown} is not the name of a staged file"
    assert kind_of(dump) == "usage"
    host.assert_clean()


@pytest.mark.parametrize("name", ["soft", "hard", "also-hard", "fifo", "dir"])
def test_only_regular_files_with_one_link_are_taken(host: Host, name: str) -> None:
    """P-12."""
    [row, dump, inline] = host.do(
        ["symlink", "/etc/passwd", "soft"],
        ["write", "hard", "x"],
        ["link", "hard", "also-hard"],
        ["fifo", "fifo"],
        ["mkdir", "dir"],
        put(name),
        call("image.put", dump=name),
        call("stream.put", content_type=KIND, inline=name, chunks=[-1]),
        hard_links=True,
    )
    assert row["objects"][0]["error"]["kind"] == "usage"
    assert kind_of(dump) == kind_of(inline) == "usage"
    host.assert_clean()


def test_file_kept_open_for_writing_is_copied(host: Host) -> None:
    [answer] = host.do(["write", "a", "hello"], ["keep-open", "a"], put("a"), ["overwrite", "EVIL!"])
    assert answer["objects"][0]["id"] == HELLO
    assert answer["objects"][0]["stored"] in ("copied", "reflinked")
    assert (host.path / "objects" / HELLO[:2] / HELLO[2:]).read_text() == "hello"


def test_object_has_and_get(host: Host) -> None:
    """P-13."""
    has, size, content, exists, missing, reserved = host.do(
        *HELLO_WORLD[:2],
        put("a"),
        call("object.has", ids=[WORLD, HELLO, NOWHERE]),
        call("object.get", id=HELLO, into="copy"),
        ["read", "copy"],
        call("object.get", id=HELLO, into="b"),
        call("object.get", id=WORLD, into="c"),
        call("object.get", id=HELLO, into="core-x"),
        strict=False,
    )[1:]
    assert has == {"present": [False, True, False]}
    assert (size, content) == ({"size": 5}, "hello")
    assert kind_of(exists) == "exists"
    assert kind_of(missing) == "missing_object"
    assert kind_of(reserved) == "usage"


def test_object_has_of_a_size(host: Host) -> None:
    stored, right, wrong, any_size, mismatch, in_a_file = host.do(
        *HELLO_WORLD,
        call("object.has", ids=[HELLO, WORLD], sizes=[5, 5]),
        call("object.has", ids=[HELLO, WORLD, NOWHERE], sizes=[5, 6, 5]),
        call("object.has", ids=[HELLO, NOWHERE], sizes=[None, None]),
        call("object.has", ids=[HELLO, WORLD], sizes=[5]),
        ["write", "sizes", "4\n5\n"],
        call("object.has", ids=[HELLO, WORLD], sizes_file="sizes"),
    )
    refused = host.do(*(call("object.has", ids=[HELLO], sizes=[size]) for size in ("5", -1, True)), strict=False)
    assert [kind_of(answer) for answer in refused] == ["usage"] * 3
    assert [row["size"] for row in stored["objects"]] == [5, 5]
    assert right == {"present": [True, True]}
    assert wrong == {"present": [True, False, False]}
    assert any_size == {"present": [True, False]}
    assert kind_of(mismatch) == "usage"
    assert in_a_file == {"present": [False, True]}


def test_into_does_not_write_through_a_planted_link(host: Host, tmp_path: Path) -> None:
    """P-13."""
    victim = tmp_path / "victim"
    [_, answer] = host.do(
        ["write", "a", "hello"],
        put("a"),
        ["symlink", str(victim), "trap"],
        call("object.get", id=HELLO, into="trap"),
    )
    assert kind_of(answer) == "exists"
    assert not victim.exists()


def test_lists_in_files(host: Host) -> None:
    """P-14, P-15."""
    ids = "".join(json.dumps(each) + "\n" for each in [HELLO, NOWHERE] * 600)
    answers = host.do(
        ["write", "a", "hello"],
        put("a"),
        ["write", "ids", ids],
        call("object.has", ids_file="ids", present_into="present"),
        ["read", "present"],
        call("object.has", ids_file="ids"),
        call("object.has", ids=[], ids_file="ids"),
        ["write", "torn", f'"{HELLO}",\n"{HELLO}" "{HELLO}"\n'],
        call("object.has", ids_file="torn"),
        ["write", "two", f'"{HELLO}","{HELLO}"\n'],
        call("object.has", ids_file="two"),
        ["write", "number", "7\n"],
        call("object.has", ids_file="number"),
        ["write", "unended", f'"{HELLO}"'],
        call("object.has", ids_file="unended"),
        strict=False,
    )[1:]
    into, present, too_large, both, torn, two, number, unended = answers
    assert into == {}
    assert present == "true\nfalse\n" * 600
    assert kind_of(too_large) == "too_large"
    assert kind_of(both) == "usage"
    assert kind_of(torn) == kind_of(two) == "invalid"
    assert kind_of(number) == "usage"
    assert unended == {"present": [True]}


def test_too_many_rows_for_a_message(host: Host) -> None:
    """P-14."""
    [has, files] = host.do(
        call("object.has", ids=[HELLO] * 1001), call("object.put", files=[{"name": "a"}] * 1001), strict=False
    )
    assert kind_of(has) == kind_of(files) == "too_large"


def test_files_and_rows_above_the_limits(host: Host) -> None:
    rows, size, inline = host.do(
        ["write", "ids", f'"{HELLO}"\n' * 11],
        call("object.has", ids_file="ids"),
        ["write", "dump", ROOT * 100],
        call("image.put", dump="dump"),
        ["write", "inline", "x" * 2001],
        call("stream.put", content_type=KIND, inline="inline", chunks=[-2001]),
        limits=Limits(file_rows=10, dump_bytes=1000, stream_bytes=2000),
    )
    assert kind_of(rows) == kind_of(size) == kind_of(inline) == "too_large"


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ("", "0 JSON elements, not one"),
        ("{} {}", "Expecting ',' delimiter: line 1 column 5 (char 4)"),
        ("{},{}", "2 JSON elements, not one"),
        ('{"name":', "Expecting value: line 1 column 10 (char 9)"),
    ],
    ids=["empty", "two", "two-with-a-comma", "half"],
)
def test_of_a_list_in_a_file_the_line_is_told_that_is_no_element(host: Host, last: str, reason: str) -> None:
    """P-14."""
    good = '{"name": "missing"}\n'
    [answer] = host.do(["write", "rows", good * 3 + last + "\n" + good], call("object.put", files_file="rows"))
    assert (kind_of(answer), answer["message"]) == ("invalid", f"rows, line 4: {reason}")


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("object.has", {"ids": ["abc"]}, "ids: 'abc' is not an id of 64 lower-case hex digits"),
        ("object.has", {"ids": [5]}, "ids: 5 is not an id of 64 lower-case hex digits"),
        ("object.has", {"ids": ["a" * 140]}, f"ids: '{'a' * 140}' is not an id of 64 lower-case hex digits"),
        ("object.has", {"ids": ["a" * 141]}, f"ids: '{'a' * 140}'… is not an id of 64 lower-case hex digits"),
        ("object.has", {"ids": [["a" * 141]]}, f'ids: ["{"a" * 138}… is not an id of 64 lower-case hex digits'),
        ("object.get", {"into": "x"}, "id: null is not an id of 64 lower-case hex digits"),
        ("object.get", {"id": NOWHERE, "into": "a b"}, "into: 'a b' is not the name of a staged file"),
        ("object.has", {}, "give exactly one of ids, ids_file"),
        ("object.put", {}, "give exactly one of files, files_file"),
        ("object.put", {"file": [{"name": "a"}]}, "give exactly one of files, files_file"),
        ("object.put", {"files": ["a"]}, "files holds something that is not an object: 'a'"),
        ("object.put", {"files_file": {"name": "a"}}, 'files_file: {"name":"a"} is not the name of a staged file'),
        ("stream.put", {"content_type": "Tar"}, "content_type: 'Tar' is not 16 lower-case hex digits"),
        ("stream.put", {"content_type": KIND, "chunks": ["0"]}, "chunks: '0' is not an integer"),
        ("stream.put", {"content_type": KIND, "chunks": [True]}, "chunks: true is not an integer"),
        ("stream.put", {"content_type": KIND, "named_refs": [["x", "y"]]}, "named_refs: 'y' is not an id of 64 "),
        ("stream.put", {"content_type": KIND, "inline": 7}, "inline: 7 is not the name of a staged file"),
        ("image.draft", {"draft": "d"}, "part: null is not the name of a staged file"),
        ("publish", {"images": [{"id": "x"}]}, "id: 'x' is not an id of 64 lower-case hex digits"),
    ],
)
def test_what_is_refused_is_told_with_its_field(host: Host, method: str, params: dict[str, Any], message: str) -> None:
    """P-43."""
    [answer] = host.do(call(method, **params), strict=False)
    assert (kind_of(answer), answer["message"].startswith(message)) == ("usage", True)


def test_of_a_list_in_a_file_nothing_is_done_before_all_of_it_was_checked(host: Host) -> None:
    """P-14, P-15: its last line may be wrong, or the answers without a place to go."""
    rows = '{"name": "a"}\n' + '{"name": "missing"}\n' * 1001
    taken, wrong, homeless, exists, present, done, files = host.do(
        ["write", "a", "hello"],
        ["write", "rows", rows],
        ["write", "odd", rows + "{"],
        ["write", "wrong", rows + "7"],
        call("object.put", files_file="odd", objects_into="out"),
        call("object.put", files_file="wrong", objects_into="out"),
        call("object.put", files_file="rows"),
        call("object.put", files_file="rows", objects_into="a"),
        call("object.has", ids=[HELLO]),
        call("object.put", files_file="rows", objects_into="out"),
        ["list"],
    )
    assert [kind_of(answer) for answer in (taken, wrong, homeless, exists)] == [
        "invalid",
        "usage",
        "too_large",
        "exists",
    ]
    assert present == {"present": [False]}
    assert done == {}
    assert files == ["odd", "out", "rows", "wrong"]


def test_memory_does_not_follow_the_rows_of_a_list(host: Host) -> None:
    """P-14, P-45: kept whole, these would be 14 MB with what is answered."""
    rows = '{"name": "missing", "size": 1, "expect": "' + HELLO + '"}\n{"name": "missing", "size": 1, "offset": 7}\n'
    steps = [
        ["write-long", "rows", "", rows, 10_000, ""],
        ["write-long", "ids", "", f'"{NOWHERE}"\n', 20_000, ""],
        ["write-long", "sizes", "", "12345678\n", 20_000, ""],
        call("object.put", files_file="rows", objects_into="stored"),
        call("object.has", ids_file="ids", sizes_file="sizes", present_into="present"),
    ]
    host.do(call("object.put"), call("object.has", ids=[]))  # imports what it takes
    tracemalloc.start()
    try:
        assert host.do(*steps, strict=False) == [{}, {}]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def ranges(*rows: tuple[Any, Any], name: Any = "p", **more: Any) -> list[Any]:
    return call("object.put", files=[{"name": name, "offset": offset, "size": size, **more} for offset, size in rows])


def test_a_pack_holds_many_objects(host: Host) -> None:
    """P-45, P-16."""
    whole = host.do(
        ["write", "p", "xhelloworldhello"],
        call(
            "object.put",
            files=[
                {"name": "p", "offset": 1, "size": 5, "expect": HELLO},
                {"name": "p", "offset": 6, "size": 5, "expect": HELLO},
                {"name": "p", "offset": 6, "size": 5},
                {"name": "p", "offset": 11, "size": 5},
                {"name": "p", "offset": 16, "size": 0},
            ],
        ),
        ["read", "p"],
        put("p"),
        ["list"],
    )
    hello, wrong_id, again, present, empty = whole[0]["objects"]
    assert hello == {"id": HELLO, "size": 5, "stored": "copied"}
    assert wrong_id["error"]["kind"] == "corrupt"
    assert again["error"]["kind"] == "usage"  # the row before it had this range
    assert present == {"id": HELLO, "size": 5, "stored": "present"}
    assert empty == {"id": digest_bytes(b"", SHA256).hex(), "size": 0, "stored": "copied"}
    assert whole[1] == "xhelloworldhello"
    assert whole[2]["objects"][0]["size"] == 16
    assert whole[3] == []
    host.assert_clean()


def test_the_largest_range_and_one_more(host: Host) -> None:
    """P-45."""
    limit = Limits().range_bytes
    [answer] = host.do(["write-long", "p", "a", "b", 2 * limit, ""], ranges((0, limit), (limit, limit + 1)))
    large, larger = answer["objects"]
    content = b"a" + b"b" * (limit - 1)
    assert large == {"id": digest_bytes(content, SHA256).hex(), "size": limit, "stored": "copied"}
    assert (host.path / "objects" / large["id"][:2] / large["id"][2:]).read_bytes() == content
    assert larger["error"]["kind"] == "too_large"


def test_the_id_that_a_range_is_to_have(host: Host) -> None:
    """P-45, P-18."""
    rows = [{"name": "p", "offset": 0, "size": 5, "expect": each} for each in ("../a", NOWHERE)]
    answers = host.do(["write", "p", "hello"], *(call("object.put", files=[row]) for row in rows), strict=False)
    assert [answer["objects"][0]["error"]["kind"] for answer in answers] == ["usage", "corrupt"]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ((-1, 2), "usage"),
        ((0, -1), "usage"),
        ((0, None), "usage"),
        ((1.0, 2), "usage"),
        (("0", 2), "usage"),
        ((True, 2), "usage"),
        (([], 2), "usage"),
        (({}, 2), "usage"),
        ((0, "2"), "usage"),
        ((0, 6), "corrupt"),
        ((5, 1), "corrupt"),
        ((6, 1), "corrupt"),
        ((2**53 - 1, 1), "corrupt"),
        ((2**53 - 1, 2**53 - 1), "too_large"),
    ],
)
def test_ranges_that_are_none(host: Host, row: tuple[Any, Any], kind: str) -> None:
    """P-45, P-32: each is answered by itself, and those around it are stored."""
    [answer] = host.do(["write", "p", "hello"], ranges((0, 0), row, (0, 5)), strict=False)
    first, wrong, last = answer["objects"]
    assert first["size"] == 0
    assert wrong["error"]["kind"] == kind
    is_before = type(row[0]) is int and row[0] >= 0 and kind == "corrupt"
    assert last["error"]["kind"] == "usage" if is_before else last["id"] == HELLO
    host.assert_nothing_left()


@pytest.mark.parametrize("name", ["soft", "hard", "also-hard", "fifo", "dir", "missing", "../objects", 7, ["a"]])
def test_a_pack_is_a_regular_file_with_one_link(host: Host, name: Any) -> None:
    """P-12, P-45."""
    [answer] = host.do(
        ["symlink", "/etc/passwd", "soft"],
        ["write", "hard", "x"],
        ["link", "hard", "also-hard"],
        ["fifo", "fifo"],
        ["mkdir", "dir"],
        ranges((0, 0), (0, 1), name=name),
        strict=False,
        hard_links=True,
    )
    assert [row["error"]["kind"] for row in answer["objects"]] == ["usage"] * 2
    host.assert_clean()


def test_ranges_only_if_packs_were_picked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-10, P-45: who did not ask for them may mean something else by the field."""
    monkeypatch.setenv("BAD_BEFORE", "no-features")
    [answer, left] = host.do(["write", "p", "hello"], ranges((0, 5)), ["list"])
    assert answer["objects"][0]["error"]["kind"] == "usage"
    assert left == ["p"]


def test_ranges_between_files_and_in_a_list_of_their_own(host: Host) -> None:
    """P-14, P-45: rows of several packs and of files, in the order asked."""
    names = ["p", "a", "q", "p", "b"]
    offsets = [0, None, 0, 5, None]
    rows = [
        {"name": name, "size": 5, **({} if offset is None else {"offset": offset})}
        for name, offset in zip(names, offsets, strict=True)
    ]
    [_, answer, left] = host.do(
        ["write", "a", "hello"],
        ["write", "b", "world"],
        ["write", "p", "helloworld"],
        ["write", "q", "world"],
        ["write", "rows", "".join(json.dumps(row) + "\n" for row in rows)],
        call("object.put", files_file="rows", objects_into="out"),
        ["read", "out"],
        ["list"],
    )
    stored = [json.loads(line) for line in answer.splitlines()]
    assert [row["id"] for row in stored] == [HELLO, HELLO, WORLD, WORLD, WORLD]
    assert left == ["out", "p", "q", "rows"]


def test_ranges_do_not_overlap_whatever_stands_between_them(host: Host) -> None:
    """P-45: else two packs that take turns have the core read them a thousand times for each call."""
    places = [("p", 0), ("q", 0), ("p", 4), ("q", 5), ("p", 5), ("q", 0)]
    files = [{"name": name, "offset": offset, "size": 5} for name, offset in places]
    [answer] = host.do(
        ["write", "p", "helloworld"], ["write", "q", "worldhello"], call("object.put", files=files), strict=False
    )
    ids = [row.get("id") for row in answer["objects"]]
    assert ids == [HELLO, WORLD, None, HELLO, WORLD, None]
    assert {row["error"]["kind"] for row in answer["objects"] if "error" in row} == {"usage"}


def test_a_pack_that_is_written_to_and_cut_meanwhile(host: Host) -> None:
    """P-45: whatever was read, its object is under its own id."""
    size = 1 << 18
    take = ranges(*((start, 512) for start in range(0, size, 512)))
    answers = host.do(["write-long", "p", "", "x", size, ""], ["scribble", "p"], *[take] * 3, ["stop-scribbling"])
    rows = [row for answer in answers for row in answer["objects"]]
    assert len(rows) == 3 * size // 512
    assert {row["error"]["kind"] for row in rows if "error" in row} <= {"corrupt"}
    for row in rows:
        if "id" in row:
            content = (host.path / "objects" / row["id"][:2] / row["id"][2:]).read_bytes()
            assert digest_bytes(content, SHA256).hex() == row["id"]
    host.assert_clean()
