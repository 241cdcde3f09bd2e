"""The coordinator's bound on metadata that is on its way, and the choice of what an error tells."""

from __future__ import annotations

from hashlib import sha256
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from composefs_ext.errors import (
    CorruptError,
    ExtError,
    FormatError,
    InputOutputError,
    NetworkError,
    NoSpaceError,
    NotFoundError,
    TooLargeError,
)
from composefs_ostree.fetching.blame import STAGING, blamed
from composefs_ostree.fetching.metadata_fetch import Budget, MetadataFetch
from composefs_ostree.fetching.transport import Fetch
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.names import ObjectType
from composefs_ostree.formats.objects import Commit, Dirtree, make_dirtree
from composefs_ostree.pulling.confirming import BaseSizes
from composefs_ostree.pulling.gathering import Gathering
from composefs_ostree.pulling.supply import Supply
from composefs_ostree.pulling.walk import Walk


def test_large_objects_on_their_way_together_are_too_much() -> None:
    budget = Budget(1000)
    fetches = [MetadataFetch(ObjectType.DIRTREE, bytes(32), budget) for _ in range(4)]
    for fetch in fetches:
        fetch.begin()
    assert [fetch.take(bytes(300)) for fetch in fetches] == [None, None, None, -1]
    assert isinstance(fetches[3].error, TooLargeError)


def test_a_budget_may_be_spent_to_the_last_byte() -> None:
    budget = Budget(1000)
    budget.spend(600)
    budget.spend(400)
    with pytest.raises(TooLargeError, match="more than 1000 bytes"):
        budget.spend(1)


def a_supply(held: dict[bytes, Entry]) -> Supply:
    workers: Any = SimpleNamespace(most=1)
    return Supply(Mock(), workers, [held], BaseSizes())


def test_what_is_here_of_files_counts_as_well() -> None:
    """Whether it is held already or comes in; each is in memory until the commit is stored."""
    files = {bytes([number]) * 32: Entry(bytes(300), content) for number, content in enumerate([None, "ab" * 32, None])}
    for count in (3, 2):
        budget = Budget(1000)
        gathering = Gathering(Mock(), Mock(), a_supply(files), budget)
        gathering.want(list(files)[:count])
        assert budget.left == 1000 - 300 * count
        with pytest.raises(TooLargeError):
            gathering.count_fetched(bytes(32), bytes(budget.left + 1))


def test_what_was_met_ahead_of_the_walk_counts_when_it_is_wanted() -> None:
    wanted, other = b"\1" * 32, b"\2" * 32
    ahead: Any = SimpleNamespace(files=dict.fromkeys((wanted, other), Entry(bytes(300), "ab" * 32)))
    budget = Budget(1000)
    gathering = Gathering(Mock(), Mock(), a_supply({})._replace(ahead=ahead), budget)
    for _ in range(2):
        gathering.want([wanted])
        assert budget.left == 700


def test_a_file_that_the_commit_does_not_have_is_none_of_it() -> None:
    """A static delta may bring more."""
    files = dict.fromkeys((b"\1" * 32, b"\2" * 32), Entry(b"head", "ab" * 32))
    wanted, other = files
    gathering = Gathering(Mock(), Mock(), a_supply({}), Budget(1000))
    gathering.to_fetch = Mock()
    gathering.want([wanted])
    for file_id in (wanted, other):
        gathering.take(file_id, files[file_id])
    assert gathering.missing == 0
    assert gathering.of_commit().keys() == {wanted}


def test_a_fallback_of_a_delta_that_is_not_used_further_comes_once() -> None:
    beside, inside = b"\1" * 32, b"\2" * 32
    coming = {beside, inside}
    delta: Any = Mock(fallbacks=[beside], sizes={}, awaits_file=coming.__contains__)
    delta.get.return_value = None
    commit = Commit({}, None, "", "", 0, bytes(32), bytes(32))
    gathering = Gathering(Mock(), commit, a_supply({})._replace(held=[], delta=delta), Budget(1000))
    gathering.want([inside, beside])
    assert gathering.to_fetch.take(10) == [beside]
    coming.remove(inside)
    gathering.forsake_delta()
    assert gathering.to_fetch.take(10) == [inside]


def test_held_metadata_with_other_bytes_are_not_taken() -> None:
    object_id = sha256(b"right").digest()
    supply = a_supply({object_id: Entry(b"wrong", None)})
    assert supply.held_metadata(object_id) is None
    assert supply._replace(held=[*supply.held, {object_id: Entry(b"right", None)}]).held_metadata(object_id) == b"right"


def test_directories_that_are_held_count_as_well() -> None:
    data = make_dirtree(Dirtree([], []))
    tree_id = sha256(data).digest()
    for size in (len(data), len(data) - 1):
        budget = Budget(size)
        walk = Walk(a_supply({tree_id: Entry(data, None)}), budget, Mock(), Mock())
        if size == len(data):
            walk.want([(ObjectType.DIRTREE, tree_id)] * 2)
            assert budget.left == 0
        else:
            with pytest.raises(TooLargeError):
                walk.want([(ObjectType.DIRTREE, tree_id)])


def test_a_repeated_transfer_counts_once() -> None:
    budget = Budget(1000)
    fetch = MetadataFetch(ObjectType.DIRTREE, bytes(32), budget)
    for _ in range(10):
        fetch.begin()
        assert fetch.take(bytes(600)) is None
    assert budget.left == 400
    assert fetch.data == bytes(600)


def test_a_fetch_is_bounded_and_starts_anew() -> None:
    fetch = Fetch("summary", limit=10)
    fetch.begin()
    assert fetch.take(b"12345") is None
    assert fetch.take(b"678901") == -1
    assert "longer than 10" in str(fetch.error)
    fetch.begin()
    assert fetch.error is None
    assert fetch.take(b"1234567890") is None
    assert fetch.data == b"1234567890"


@pytest.mark.parametrize("error", [CorruptError("bad"), FormatError("bad"), TooLargeError("bad"), NotFoundError("bad")])
def test_what_is_wrong_with_an_object_is_told_with_its_name_and_a_remedy(error: ExtError) -> None:
    told = blamed("http://example/objects/x", error)
    assert type(told) is type(error)
    assert told.message.startswith("http://example/objects/x: ")
    assert told.subject == "http://example/objects/x"
    assert told.hint is not None
    assert "mirror" in told.hint


def test_other_errors_speak_for_themselves() -> None:
    error = NetworkError("http://example/objects/x: no route", subject="http://example/objects/x")
    assert blamed("http://example/objects/x", error) is error


def test_an_error_that_does_not_say_what_it_is_about_gets_the_name() -> None:
    told = blamed("http://example/objects/x", InputOutputError("cut", hint="look"))
    assert type(told) is InputOutputError
    assert (told.message, told.hint) == ("http://example/objects/x: cut", "look")
    assert told.subject == "http://example/objects/x"


def test_what_staging_refuses_is_not_blamed_on_the_source() -> None:
    told = blamed("http://example/objects/x", NoSpaceError("staging: full", hint="free some", subject=STAGING))
    assert type(told) is NoSpaceError
    assert (told.message, told.hint) == ("http://example/objects/x cannot be stored: full", "free some")
    assert told.subject is None  # the core knows the place, which is none at the source
