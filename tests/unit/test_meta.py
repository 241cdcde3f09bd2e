"""meta.json is read strictly, and written as composefs-rs writes it."""

import json

import pytest

from composefs.digest import SHA256, SHA512
from composefs.errors import ComposefsError, FormatError, UnsupportedError
from composefs.meta import Meta

# Recorded from `cfsctl init --insecure --algorithm fsverity-sha256-12 --erofs-version 1` of composefs-rs 0.9.0.
RECORDED = b"""{
  "version": 1,
  "algorithm": "fsverity-sha256-12",
  "features": {
    "compatible": [],
    "read-only-compatible": [
      "v1_erofs"
    ],
    "incompatible": []
  },
  "erofs_formats": {
    "default": 1
  }
}
"""


def changed(**members: object) -> bytes:
    return json.dumps(json.loads(RECORDED) | members).encode()


def features(**lists: object) -> dict[str, object]:
    known = {"compatible": [], "read-only-compatible": ["v1_erofs"], "incompatible": []}
    return {"features": known | {name.replace("_", "-"): value for name, value in lists.items()}}


def test_the_recorded_bytes_both_ways() -> None:
    meta = Meta(SHA256, 1)
    assert meta.serialize() == RECORDED
    assert Meta.parse(RECORDED) == meta


@pytest.mark.parametrize("default", [0, 1, 2])
@pytest.mark.parametrize("extra", [(), (2,), (0, 2)])
def test_round_trip(default: int, extra: tuple[int, ...]) -> None:
    meta = Meta(SHA512, default)._replace(erofs_extra=extra)
    assert (b'"v1_erofs"' in meta.serialize()) == (default == 1)
    assert Meta.parse(meta.serialize()) == meta


@pytest.mark.parametrize(("flags", "default"), [(["v1_erofs"], 1), ([], 2)])
def test_without_formats_the_feature_decides(flags: list[str], default: int) -> None:
    document = json.loads(changed(**features(read_only_compatible=flags)))
    del document["erofs_formats"]
    assert Meta.parse(json.dumps(document).encode()).erofs_default == default


def test_unknown_features_follow_the_list_they_are_in() -> None:
    meta = Meta.parse(changed(**features(compatible=["a"], read_only_compatible=["v1_erofs", "b"])))
    assert meta.unknown_features == ("b",)
    with pytest.raises(UnsupportedError, match="unknown features: c, d"):
        Meta.parse(changed(**features(incompatible=["d", "c"])))


def test_unknown_members_are_ignored_and_features_may_be_absent() -> None:
    document = json.loads(changed(later={"x": 1}))
    del document["features"]
    assert Meta.parse(json.dumps(document).encode()) == Meta(SHA256, 1)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", FormatError),
        (b"\xff", FormatError),
        (b"[" * 100_000, FormatError),
        (b"[]", FormatError),
        (b"{}", FormatError),
        (changed(version="1"), FormatError),
        (changed(version=True), FormatError),
        (changed(version=0), FormatError),
        (changed(version=2), UnsupportedError),
        (changed(algorithm="fsverity-sha256-16"), FormatError),
        (changed(algorithm="fsverity-sha256"), FormatError),
        (changed(algorithm=1), FormatError),
        (changed(features=[]), FormatError),
        (changed(**features(compatible="x")), FormatError),
        (changed(**features(incompatible=[1])), FormatError),
        (changed(erofs_formats=1), FormatError),
        (changed(erofs_formats={}), FormatError),
        (changed(erofs_formats={"default": 3}), UnsupportedError),
        (changed(erofs_formats={"default": True}), FormatError),
        (changed(erofs_formats={"default": 1, "extra": 2}), FormatError),
        (changed(erofs_formats={"default": 1, "extra": ["2"]}), UnsupportedError),
        (changed(erofs_formats={"default": 1, "extra": [True]}), UnsupportedError),
        (changed(erofs_formats={"default": 1, "extra": [2.0]}), UnsupportedError),
    ],
)
def test_what_is_refused(data: bytes, error: type[ComposefsError]) -> None:
    with pytest.raises(error):
        Meta.parse(data)
