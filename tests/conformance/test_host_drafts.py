"""Dumps in parts: what is read ahead gives what the whole would, and what is wrong with it is told."""

from __future__ import annotations

from typing import Any

import pytest

from composefs.protocol.limits import Limits
from support.calls import BIG, BIG_ID, ROOT, call, kind_of, put
from support.hosting import Host

LINES = [
    ROOT,
    "/later 0 @120000 1 0 0 0 0.0 /z/real - -\n",
    "/z 0 40755 2 0 0 0 0.0 - - - user.a=b\n",
    f"/z/big {len(BIG)} 100644 1 0 0 0 0.0 {BIG_ID[:2]}/{BIG_ID[2:]} - {BIG_ID}\n",
    "/z/real 2 100644 2 0 0 0 0.0 - ab -\n",
    "/a\\x20b 0 100644 1 0 0 0 0.0 - - -\n",
]


def draft(part: Any, name: Any = "tree") -> list[Any]:
    return call("image.draft", draft=name, part=part)


@pytest.fixture
def big(host: Host) -> Host:
    """A host whose repository has the object of LINES."""
    host.do(["write", "big", BIG.decode()], put("big"))
    return host


@pytest.mark.parametrize("cut", range(len(LINES) + 1))
def test_parts_give_what_the_whole_does(big: Host, cut: int) -> None:
    """P-46, P-16: wherever the dump is cut, in every call that takes one."""
    transforms = {"xattrs": "allowlist-only"}
    answers = big.do(
        ["write", "whole", "".join(LINES)],
        *(["write", f"part{number}", line] for number, line in enumerate(LINES[:cut])),
        ["write", "empty", ""],
        ["write", "rest", "".join(LINES[cut:])],
        *(draft(f"part{number}", name) for name in ("1", "2", "3") for number in range(cut)),
        *(draft("empty", name) for name in ("1", "2", "3")),
        call("image.put", dump="rest", draft="1"),
        call("image.put", dump="whole"),
        call("image.digest", dump="rest", draft="2", transforms=transforms, format=2),
        call("image.digest", dump="whole", transforms=transforms, format=2),
        call("image.dump", dump="rest", draft="3", into="in-parts"),
        call("image.dump", dump="whole", into="at-once"),
        ["read", "in-parts"],
        ["read", "at-once"],
        ["list"],
    )
    drafted, (one, same, other, as_well, _, _, text, whole, left) = answers[:-9], answers[-9:]
    assert drafted == [{}] * (3 * cut + 3)
    assert one == same
    assert other == as_well
    assert text == whole
    assert {"rest", "empty", "whole"} <= set(left)
    big.assert_clean()


def test_a_draft_is_used_once(host: Host) -> None:
    """P-46: by a call that fails too; then its name is free again."""
    answers = host.do(
        ["write", "root", ROOT],
        ["write", "empty", ""],
        ["write", "wrong", "wrong\n"],
        call("image.digest", dump="root", draft="tree"),
        draft("root"),
        call("image.digest", dump="empty", draft="tree"),
        call("image.digest", dump="empty", draft="tree"),
        draft("root"),
        call("image.digest", dump="wrong", draft="tree"),
        call("image.digest", dump="empty", draft="tree"),
        draft("root"),
        call("image.digest", dump="empty", draft="tree"),
    )
    assert kind_of(answers[0]) == kind_of(answers[3]) == kind_of(answers[6]) == "not_found"
    assert answers[0]["data"]["hint"].startswith("image.draft begins one, ")
    assert kind_of(answers[5]) == "invalid"
    assert answers[2] == answers[8]


@pytest.mark.parametrize(
    ("part", "kind", "said"),
    [
        (ROOT[:20], "invalid", "end with a newline"),
        ("/a 0 100644 1 0 0 0 0.0 - - -", "invalid", "end with a newline"),
        (
            "/a 0 100644 1 0 0 0 0.0 - - -\n/a 0 100644 1 0 0 0 0.0 - - -\n",
            "invalid",
            "dump line 3: /a: the path occurs",
        ),
        ("/a\\q 0 100644 1 0 0 0 0.0 - - -\n", "invalid", "dump line 2: /a\\q: illegal escape"),
        (ROOT, "invalid", "dump line 2: /: the path occurs twice"),
        ("\n", "invalid", "dump line 2: (no path)"),
    ],
)
def test_a_part_that_is_refused_ends_its_draft(host: Host, part: str, kind: str, said: str) -> None:
    """P-46: whatever names it is answered with that, once more in the call that uses it; others are not touched."""
    answers = host.do(
        ["write", "root", ROOT],
        ["write", "wrong", part],
        ["write", "empty", ""],
        draft("root"),
        draft("root", "other"),
        draft("wrong"),
        draft("empty"),
        call("image.digest", dump="empty", draft="tree"),
        call("image.digest", dump="empty", draft="tree"),
        call("image.digest", dump="empty", draft="other"),
    )
    refused, again, used = answers[2:5]
    assert refused == again == used
    assert kind_of(refused) == kind
    assert said in refused["message"]
    assert refused["data"]["subject"] == "wrong"
    assert kind_of(answers[5]) == "not_found"
    assert "id" in answers[6]
    host.assert_nothing_left()


def test_what_shows_at_the_end_has_its_line(host: Host) -> None:
    """P-46: a hard link's target may be in any part, or in none; the root must be the first of all lines."""
    link = "/l 0 @120000 1 0 0 0 0.0 /nowhere - -\n"
    file = "/ 0 100644 1 0 0 0 0.0 - - -\n"
    answers = host.do(
        *(["write", name, text] for name, text in (("root", ROOT), ("link", link), ("file", file), ("empty", ""))),
        draft("root"),
        draft("link"),
        call("image.digest", dump="empty", draft="tree"),
        draft("file"),
        call("image.digest", dump="empty", draft="tree"),
        draft("empty"),
        call("image.digest", dump="empty", draft="tree"),
    )
    messages = [answer["message"] for answer in answers if answer]
    assert messages == [
        "dump line 2: /l: the target of the hard link is not in the dump",
        "dump line 1: /: the root is not a directory",
        "no files in the dump",
    ]


@pytest.mark.parametrize("name", ["", "n" * 129, None, 7, ["tree"], {}])
def test_names_that_no_draft_has(host: Host, name: Any) -> None:
    """P-43."""
    answers = host.do(
        ["write", "root", ROOT],
        draft("root", name),
        call("image.digest", dump="root", draft=name),
        draft("../root"),
        draft("missing"),
        call("image.draft", draft="x"),
        call("image.draft", part="root"),
        strict=False,
    )
    kinds = [kind_of(answer) for answer in answers if "data" in answer]
    assert kinds == ["usage"] * (5 if name is None else 6)  # null is as if it were not there


@pytest.mark.parametrize("name", ["soft", "hard", "fifo", "dir"])
def test_a_part_is_a_regular_file_with_one_link(host: Host, name: str) -> None:
    """P-12."""
    answers = host.do(
        ["symlink", "/etc/passwd", "soft"],
        ["write", "hard", ROOT],
        ["link", "hard", "also-hard"],
        ["fifo", "fifo"],
        ["mkdir", "dir"],
        draft(name),
        strict=False,
        hard_links=True,
    )
    assert kind_of(answers[0]) == "usage"


def test_drafts_are_bounded(host: Host) -> None:
    """P-46: all together, and in number; what is dropped counts no longer."""
    limits = Limits(dump_bytes=1000)
    long = "/" + "a" * 200 + " 0 100644 1 0 0 0 0.0 - - -\n"
    answers = host.do(
        ["write", "root", ROOT + long],
        ["write", "long", long.replace("a", "b") * 3],
        ["write", "empty", ""],
        *(draft("root", f"{number}") for number in range(3)),
        draft("long", "0"),
        call("image.digest", dump="long", draft="1"),
        call("image.digest", dump="empty", draft="2"),
        *(draft("empty", f"many{number}") for number in range(16)),
        limits=limits,
    )
    assert answers[:3] == [{}] * 3
    assert [kind_of(answers[3]), kind_of(answers[4])] == ["too_large"] * 2
    assert "id" in answers[5]
    made = answers[6:]
    assert made[:15] == [{}] * 15  # the one that was refused is kept, for who names it
    assert kind_of(made[15]) == "too_large"


def test_a_draft_is_not_of_the_protocol_unless_it_was_picked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-9, P-10: the call is unknown, and the field is ignored."""
    monkeypatch.setenv("BAD_BEFORE", "no-features")
    answers = host.do(
        ["write", "root", ROOT],
        draft("root"),
        call("image.digest", dump="root", draft="tree"),
        call("image.digest", dump="root"),
    )
    assert kind_of(answers[0]) == "unsupported"
    assert answers[1] == answers[2]


def test_the_lines_and_attributes_of_drafts_are_bounded(host: Host) -> None:
    """P-46: whatever their bytes, for memory follows these; what is dropped counts no longer."""
    three = "".join(f"/{name} 0 100644 1 0 0 0 0.0 - - - user.a=1 user.b=1\n" for name in "abc")
    answers = host.do(
        ["write", "root", ROOT],
        ["write", "three", three],
        ["write", "other", three.replace("user.b", "user.c")],
        ["write", "four", "".join(f"/{name} 0 100644 1 0 0 0 0.0 - - -\n" for name in "defg")],
        ["write", "empty", ""],
        draft("root", "0"),
        draft("three", "0"),
        draft("root", "1"),
        draft("other", "1"),
        call("image.digest", dump="empty", draft="0"),
        draft("root", "2"),
        call("image.digest", dump="other", draft="2"),
        *(draft(part, "3") for part in ("root", "three", "four")),
        limits=Limits(dump_entries=10),
    )
    assert answers[:3] == [{}] * 3
    assert kind_of(answers[3]) == "too_large"
    assert "id" in answers[4]
    assert answers[5] == {}
    assert "id" in answers[6]
    assert answers[7:] == [{}] * 3  # which have all ten
