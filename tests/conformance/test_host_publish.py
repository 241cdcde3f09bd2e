"""Publishing: what is visible afterwards, and that nothing is when any part of it is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from composefs.repository import Repository
from support.calls import HELLO, HELLO_WORLD, KIND, NOWHERE, ROOT, call, kind_of
from support.hosting import Host


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"streams": [{"name": "ostree-1", "id": "STREAM"}]}, "permission"),
        ({"streams": [{"name": "bad", "id": "STREAM"}]}, "permission"),
        ({"streams": [{"name": "bad-/x", "id": "STREAM"}]}, "invalid"),
        ({"streams": [{"name": "bad-1", "id": NOWHERE}]}, "missing_object"),
        ({"streams": [{"name": "bad-1", "id": HELLO}]}, "invalid"),
        ({"streams": [{"name": "bad-1", "id": "STREAM", "expect": NOWHERE}]}, "conflict"),
        ({"streams": [{"name": "bad-1", "id": "STREAM", "expect": "../x"}]}, "usage"),
        ({"streams": [{"name": "bad-1", "id": "STREAM", "if_exists": "maybe"}]}, "usage"),
        ({"streams": [{"name": "bad-1"}]}, "usage"),
        ({"streams": ["bad-1"]}, "usage"),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}, {"name": "bad-1", "id": "STREAM"}]}, "usage"),
        (
            {"streams": [{"name": "bad-1", "id": "STREAM"}], "refs": [{"name": "oci/x", "target": "bad-1"}]},
            "permission",
        ),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "refs": [{"name": "bad", "target": "bad-1"}]}, "permission"),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "refs": [{"name": "bad/..", "target": "bad-1"}]}, "invalid"),
        (
            {"streams": [{"name": "bad-1", "id": "STREAM"}], "refs": [{"name": "bad/x", "target": "oci-1"}]},
            "permission",
        ),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "refs": [{"name": "bad/x", "target": "bad-2"}]}, "not_found"),
        (
            {
                "streams": [{"name": "bad-1", "id": "STREAM"}],
                "refs": [{"name": "bad/x", "target": "bad-1", "expect": "y"}],
            },
            "conflict",
        ),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "refs": [{"name": "bad/", "target": "bad-1"}]}, "permission"),
        ({"refs": [{"name": "bad/x", "target": "bad-1", "expect": 7}]}, "usage"),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "remove_refs": ["bad/x"]}, "not_found"),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "remove_refs": ["ostree/x"]}, "permission"),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "images": [{"id": NOWHERE}]}, "missing_object"),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "images": [{"id": HELLO}]}, "invalid"),
    ],
)
def test_publish_refuses_and_then_nothing_is_visible(host: Host, params: dict[str, Any], kind: str) -> None:
    """P-27, P-21, P-23."""
    stream = host.do(*HELLO_WORLD, call("stream.put", content_type=KIND))[-1]["id"]
    filled = json.loads(json.dumps(params).replace("STREAM", stream))
    assert kind_of(host.do(call("publish", **filled), strict=False)[0]) == kind
    host.assert_clean()


def test_publish_expectations_and_replacement(host: Host) -> None:
    one = host.do(call("stream.put", content_type=KIND))[0]["id"]
    two = host.do(call("stream.put", content_type="f" * 16))[0]["id"]

    def name(stream: str, **more: Any) -> list[Any]:
        return call("publish", streams=[{"name": "bad-1", "id": stream, **more}])

    first, again, fail, keep, conflict, replaced = host.do(
        name(one, expect=None),
        name(one),
        name(two),
        name(two, if_exists="keep"),
        name(two, if_exists="replace", expect=two),
        name(two, if_exists="replace", expect=one),
    )
    assert first["streams"] == [{"name": "bad-1", "id": one, "previous": None}]
    assert again["streams"] == keep["streams"] == [{"name": "bad-1", "id": one, "previous": one}]
    assert kind_of(fail) == "exists"
    assert kind_of(conflict) == "conflict"
    assert replaced["streams"] == [{"name": "bad-1", "id": two, "previous": one}]
    ref, removed, *gone = host.do(
        call("publish", refs=[{"name": "bad/x", "target": "bad-1"}]),
        call("publish", remove_refs=[{"name": "bad/x", "expect": "bad-1"}]),
        call("publish", remove_refs=["bad/x"]),
        call("ref.get", name="bad/x"),
        call("stream.get", ref="bad/x"),
    )
    assert ref["refs"] == [{"name": "bad/x", "previous": None}]
    assert removed["remove_refs"] == [{"name": "bad/x", "previous": "bad-1"}]
    for answer in gone:
        assert (kind_of(answer), answer["message"]) == ("not_found", "there is no ref 'bad/x'")
        assert answer["data"]["hint"] == "`cfsctl ref list` lists them"


def test_image_refs_are_the_extensions_own_or_typed(host: Host) -> None:
    """P-23."""
    steps = [["write", "dump", ROOT], call("image.put", dump="dump")]
    image = host.do(*steps)[0]["id"]
    own, nobodys, others, directory = host.do(
        call("publish", images=[{"id": image, "ref": "bad/1"}]),
        call("publish", images=[{"id": image, "ref": "system"}]),
        call("publish", images=[{"id": image, "ref": "ostree/1"}]),
        call("publish", images=[{"id": image, "ref": "bad"}]),
    )
    typed = host.do(call("publish", images=[{"id": image, "ref": "system"}]), arguments={"image": "system"})[0]
    assert own["images"] == typed["images"] == [{"id": image}]
    assert kind_of(nobodys) == kind_of(others) == kind_of(directory) == "permission"
    with Repository.open(host.path) as repository:
        assert set(repository.images.list_refs(odd=pytest.fail)) == {("bad/1", image), ("system", image)}
