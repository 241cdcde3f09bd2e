"""What a commit must say before it gets a ref."""

from __future__ import annotations

import pytest

from composefs_ext.errors import CorruptError
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.objects import Commit
from composefs_ostree.pulling.checks import check_collection, check_not_older, check_ref

ID, OTHER = bytes(32), bytes(range(32))
REFS = {"ostree.ref-binding": Variant("as", ["os/a", "os/b"])}
COLLECTION = {"ostree.collection-binding": Variant("s", "org.example")}


def commit(metadata: dict[str, Variant], time: int = 0) -> Commit:
    return Commit(metadata, None, "", "", time, ID, ID)


@pytest.mark.parametrize("metadata", [{}, REFS, REFS | COLLECTION], ids=["nothing", "refs", "both"])
def test_bindings_that_are_there_have_to_fit(metadata: dict[str, Variant]) -> None:
    check_ref(commit(metadata), ID, "os/b")


def test_a_remote_with_a_collection_wants_both() -> None:
    check_collection(commit(REFS | COLLECTION), ID, "org.example")
    for metadata in ({}, COLLECTION, COLLECTION | {"ostree.ref-binding": Variant("s", "os/b")}):
        with pytest.raises(CorruptError, match=f"{ID.hex()}.* to have ref binding information, found none"):
            check_collection(commit(metadata), ID, "org.example")


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        (REFS, "is bound to os/a, os/b, not to 'os/c'"),
        ({"ostree.ref-binding": Variant("as", [])}, "is bound to no ref, not to 'os/c'"),
        ({"ostree.ref-binding": Variant("s", "os/c")}, "is bound to no ref, not to 'os/c'"),
        (REFS | COLLECTION, "is bound to os/a, os/b, not to 'os/c'"),
    ],
)
def test_refs_that_a_commit_is_not_for(metadata: dict[str, Variant], says: str) -> None:
    with pytest.raises(CorruptError, match=f"{ID.hex()}.* {says}"):
        check_ref(commit(metadata), ID, "os/c")


@pytest.mark.parametrize(
    ("binding", "says"),
    [
        (None, "to have collection ID binding information, found none"),
        (Variant("as", ["org.example"]), "to have collection ID binding information, found none"),
        (Variant("ay", b"org.example"), "to have collection ID binding information, found none"),
        (Variant("s", "org.example.Other"), "has collection ID 'org.example.Other'"),
        (Variant("s", ""), "has collection ID ''"),
    ],
)
def test_collections_that_a_commit_is_not_of(binding: Variant | None, says: str) -> None:
    metadata = REFS if binding is None else REFS | {"ostree.collection-binding": binding}
    with pytest.raises(CorruptError, match=f"{ID.hex()}.* {says}"):
        check_collection(commit(metadata), ID, "org.example")


def test_nothing_takes_the_place_of_what_is_newer() -> None:
    for time in (5, 6):
        check_not_older(commit({}, time), OTHER, commit({}, 5), ID)
    with pytest.raises(
        CorruptError, match=f"{OTHER.hex()}.* is chronologically older than current revision {ID.hex()}"
    ):
        check_not_older(commit({}, 4), OTHER, commit({}, 5), ID)


def test_a_time_that_no_calendar_has_is_told_as_a_number() -> None:
    with pytest.raises(CorruptError, match=r"older than current revision .* with timestamp '18446744073709551615'"):
        check_not_older(commit({}, 4), OTHER, commit({}, 2**64 - 1), ID)
