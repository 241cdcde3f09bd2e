"""Images: made of dumps, read back, and mounted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from composefs.protocol.limits import Limits
from support.calls import BIG, BIG_ID, HELLO, HELLO_WORLD, NOWHERE, ROOT, call, dump_of, kind_of, put
from support.hosting import Host


def test_image_put_digest_and_dump(host: Host) -> None:
    """P-18, P-21."""
    first, stored, expected, wrong, wrong_digest, second_format, canonical, text = (
        host.do(
            ["write", "a", BIG.decode()],
            ["write", "dump", dump_of(BIG_ID, len(BIG))],
            call("image.digest", dump="dump"),
            put("a"),
            call("image.put", dump="dump"),
            call("image.put", dump="dump", expect=NOWHERE),
            call("image.digest", dump="dump", format=2),
            call("image.dump", dump="dump", into="canonical"),
            ["read", "canonical"],
        )[0:1]
        + host.do(
            ["write", "a", BIG.decode()],
            ["write", "dump", dump_of(BIG_ID, len(BIG))],
            put("a"),
            call("image.put", dump="dump"),
            call("image.digest", dump="dump"),
            call("image.put", dump="dump", expect=NOWHERE),
            call("image.digest", dump="dump", expect=NOWHERE),
            call("image.digest", dump="dump", format=2),
            call("image.dump", dump="dump", into="canonical"),
            ["read", "canonical"],
        )[1:]
    )
    assert kind_of(first) == "missing_object"
    assert stored == expected
    assert kind_of(wrong) == kind_of(wrong_digest) == "corrupt"
    assert second_format["id"] != stored["id"]
    assert canonical["size"] == len(text)
    assert BIG_ID in text
    host.assert_clean()


@pytest.mark.parametrize(
    ("entries", "kinds"),
    [(6, [None, None, None]), (5, [None, None, "too_large"]), (2, [None, "too_large", "too_large"])],
)
def test_lines_and_attributes_of_a_dump_are_bounded(host: Host, entries: int, kinds: list[str | None]) -> None:
    """The shortest lines of as many bytes as a dump may have would take tens of gigabytes."""
    lines = "".join(f"/{name} 0 100644 1 0 0 0 0.0 - - -{{0}}\n" for name in "ab")
    answers = host.do(
        ["write", "one", ROOT],
        ["write", "three", ROOT + lines.format("")],
        ["write", "six", ROOT + lines.format(" a= b= c=")],
        *(call("image.digest", dump=name) for name in ("one", "three", "six")),
        limits=Limits(dump_entries=entries),
    )
    assert [None if "id" in answer else kind_of(answer) for answer in answers] == kinds
    refused = [answer["message"] for answer in answers if "id" not in answer]
    assert [message for message in refused if f"more than {entries} lines" not in message] == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (dump_of(BIG_ID, 5000, "ab/cdef"), "invalid"),
        (dump_of(BIG_ID, 5000).replace(f" - {BIG_ID}", " - -"), "invalid"),
        (dump_of(BIG_ID, len(BIG) + 1), "corrupt"),
        ("no dump\n", "invalid"),
        ("", "invalid"),
    ],
)
def test_dumps_that_are_refused(host: Host, text: str, kind: str) -> None:
    """P-19, P-20."""
    answers = host.do(
        ["write", "a", BIG.decode()],
        put("a"),
        ["write", "dump", text],
        call("image.put", dump="dump"),
        call("image.put", dump="dump", format=3),
        call("image.put", dump="dump", transforms=["usr"]),
        strict=False,
    )
    assert kind_of(answers[1]) == kind
    assert kind_of(answers[2]) in ("usage", kind)
    assert kind_of(answers[3]) == "usage"
    host.assert_clean()


def test_formats_that_there_are_not(host: Host) -> None:
    answers = host.do(
        ["write", "dump", ROOT],
        *(call("image.digest", dump="dump", format=each) for each in (3, -1, "1", True)),
        strict=False,
    )
    assert [answer["message"] for answer in answers] == ["format is not 0, 1 or 2"] * 4


PARTS = f"""\
/d 0 40755 3 0 0 0 0.0 - - -
/d/e 0 40755 2 0 0 0 0.0 - - -
/d/e/big {len(BIG)} 100644 1 0 0 0 0.0 {BIG_ID[:2]}/{BIG_ID[2:]} - {BIG_ID}
/d/e/sp\\x20ace 0 100644 1 0 0 0 0.0 - - -
/z 2 100644 1 0 0 0 0.0 - ab -
"""


@pytest.mark.parametrize("erofs_format", [0, 1, 2])
def test_images_are_read_back(host: Host, erofs_format: int) -> None:
    """P-19."""
    [image] = host.do(
        ["write", "dump", ROOT + PARTS],
        ["write", "a", BIG.decode()],
        put("a"),
        call("image.put", dump="dump", format=erofs_format),
    )[-1:]
    text = (ROOT.replace("4096 40755 2", "0 40755 3") + PARTS).replace("/d 0 40755 3", "/d 0 40755 3")
    answers = host.do(
        ["write", "dump", text],
        call("publish", images=[{"id": image["id"], "ref": "bad/1"}]),
        call("image.dump", id=image["id"], into="all"),
        ["read", "all"],
        call("image.dump", name="bad/1", into="some", paths=["/z", "/d/e", "/d/e/sp\\x20ace", "//z/"]),
        ["read", "some"],
        call("image.dump", dump="dump", into="same", paths=["/z", "/d/e", "/d/e/sp\\x20ace", "//z/"]),
        ["read", "same"],
        call("image.dump", id=image["id"], into="root", paths=["/"]),
        ["read", "root"],
        call("image.objects", id=image["id"]),
        call("image.objects", name="bad/1", ids_into="ids"),
        ["read", "ids"],
    )
    _, whole, all_text, part, some, _, same, _, root, listed, filed, ids = answers
    assert all_text == root == text
    assert whole == {"size": len(text)}
    lines = text.splitlines(keepends=True)
    assert some == same == lines[5] + "".join(lines[2:5]) + lines[4] + lines[5]
    assert part == {"size": len(some)}
    assert listed == {"ids": [BIG_ID]}
    assert filed == {}
    assert json.loads(ids) == BIG_ID


def test_reading_images_refuses(host: Host) -> None:
    """P-19."""
    [image] = host.do(["write", "dump", ROOT], call("image.put", dump="dump"), *HELLO_WORLD[:1], put("a"))[:1]
    answers = host.do(
        ["write", "dump", ROOT],
        call("image.dump", dump="dump", into="a", paths=["/missing"]),
        call("image.dump", id=image["id"], into="a", paths=["/missing"]),
        call("image.dump", id=image["id"], into="b", paths=["missing"]),
        call("image.dump", id=image["id"], into="c", paths=["/a b\\"]),
        call("image.dump", id=image["id"], into="d", paths=[7]),
        call("image.dump", id=image["id"], into="d", paths=["/é"]),
        call("image.dump", id=image["id"], name="bad/1", into="e"),
        call("image.dump", id=HELLO, into="f"),
        call("image.dump", name="bad/none", into="g"),
        call("image.objects", id=HELLO),
        call("image.objects", id=NOWHERE),
        call("image.objects", name=7),
        call("image.objects"),
        strict=False,
    )
    assert [kind_of(answer) for answer in answers] == [
        "not_found", "not_found", "usage", "usage", "usage", "usage", "usage", "invalid", "not_found", "invalid",
        "missing_object", "usage", "usage",
    ]  # fmt: skip
    answers = host.do(call("image.dump", id=image["id"], into="a"), call("image.objects", id=HELLO), command="none")
    assert [kind_of(answer) for answer in answers] == ["permission"] * 2
    host.assert_clean()


def test_mount_wants_paths_that_the_user_typed(host: Host, tmp_path: Path) -> None:
    """P-24, P-31."""
    untyped, missing = host.do(
        call("image.mount", id=HELLO, path="/"),
        call("image.mount", id=HELLO, path=str(tmp_path)),
        command="mount",
        arguments={"path": str(tmp_path)},
    )
    [forbidden] = host.do(
        call("image.mount", id=HELLO, path=str(tmp_path)), command="read", arguments={"path": str(tmp_path)}
    )
    assert (kind_of(forbidden), forbidden["message"][:33]) == ("permission", "image.mount needs the permission ")
    assert kind_of(untyped) == "permission"
    assert kind_of(missing) == "not_found"
