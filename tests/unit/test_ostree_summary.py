"""Looking up refs in a summary, and the settings of a repository."""

from __future__ import annotations

import pytest

from composefs_ext.errors import FormatError
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import MAX_METADATA
from composefs_ostree.formats.summary import (
    COLLECTION,
    COLLECTION_MAP,
    collections,
    find_ref,
    list_refs,
    metadata_value,
)

A, B = b"\xaa" * 32, b"\xbb" * 32


def summary(refs: list[tuple[str, tuple[int, bytes, dict[str, Variant]]]]) -> bytes:
    return gvariant.encode("(a(s(taya{sv}))a{sv})", (refs, {"ostree.summary.mode": Variant("s", "archive-z2")}))


REFS = [(f"os/{number:03}", (300 + number, A, {"version": Variant("s", "x" * number)})) for number in range(200)]


def test_refs_are_found() -> None:
    data = summary([*REFS, ("z", (1, B, {}))])
    assert find_ref(data, "os/007") == (A, 307)
    assert find_ref(data, "z") == (B, 1)
    assert find_ref(data, "os/00") is None
    assert find_ref(summary([]), "z") is None


def test_what_is_between_refs_and_metadata_is_zero() -> None:
    data = bytearray(summary([("z", (1, B, {}))]))
    end = data[-1]
    assert end % 8  # so there is padding behind it
    data[end] = 1
    with pytest.raises(FormatError, match="its list of refs"):
        find_ref(bytes(data), "z")


def test_sizes_of_big_endian_servers_are_understood() -> None:
    swapped = int.from_bytes((300).to_bytes(8, "big"), "little")
    assert find_ref(summary([("z", (swapped, B, {}))]), "z") == (B, 300)
    assert find_ref(summary([("z", (0xFF << 56 | 0xFF, B, {}))]), "z") == (B, MAX_METADATA)


def mapped(signature: str, rows: list[object]) -> bytes:
    metadata = {COLLECTION_MAP: Variant(signature, {"org.other": rows})}
    return gvariant.encode("(a(s(taya{sv}))a{sv})", ([], metadata))


def test_refs_of_other_collections() -> None:
    assert find_ref(mapped("a{sa(s(taya{sv}))}", [("z", (1, B, {}))]), "z", "org.other") == (B, 1)
    data = mapped("a{sas}", ["z"])
    for ask in (lambda: find_ref(data, "z", "org.other"), lambda: collections(data)):
        with pytest.raises(FormatError, match=f"its {COLLECTION_MAP} is of type a{{sas}}"):
            ask()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        summary([("z", (1, B[:5], {}))]),
        summary([("z", (1, B, {})), ("z", (1, A, {}))]),
        summary(REFS)[:-1],
        summary([("z", (1, B, {}))]).replace(B, B[:-1] + b"\0\0")[:-1],
    ],
)
def test_malformed_summaries_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        find_ref(data, "z")


@pytest.mark.parametrize("names", [["z", "z"], ["../z"], [""], ["/z"], ["z\n"]], ids=ascii)
def test_a_list_has_refs_and_each_of_them_once(names: list[str]) -> None:
    rows: list[object] = [(name, (1, B, {})) for name in names]
    metadata = {COLLECTION_MAP: Variant("a{sa(s(taya{sv}))}", {"org.other": rows})}
    for data in (rows, {}), ([], metadata):
        with pytest.raises(FormatError, match="occurs twice or is not a ref"):
            collections(gvariant.encode("(a(s(taya{sv}))a{sv})", data))


def test_a_key_that_the_metadata_have_twice_is_refused() -> None:
    rows = [(COLLECTION, Variant("s", "org.first")), ("other", Variant("y", 1)), (COLLECTION, Variant("s", "org.last"))]
    data = gvariant.encode("(a(s(taya{sv}))a(sv))", ([("z", (1, B, {}))], rows))
    assert list_refs(data) == {"z": B}
    assert metadata_value(data, "other") == Variant("y", 1)
    assert metadata_value(data, "more") is None
    for ask in (lambda: find_ref(data, "z", "org.first"), lambda: collections(data)):
        with pytest.raises(FormatError, match=f"the key {COLLECTION} twice"):
            ask()
