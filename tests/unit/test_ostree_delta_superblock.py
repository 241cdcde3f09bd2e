"""Superblocks, delta indexes and the choice of a delta."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from composefs_ext import Core, Repository, Request
from composefs_ext.errors import CorruptError, ExtError, FormatError, NotFoundError, TooLargeError, UnsupportedError
from composefs_ext.testing import MemoryCore
from composefs_ostree.deltas.alone import DeltaSource
from composefs_ostree.deltas.applying import Applying
from composefs_ostree.deltas.finding import find
from composefs_ostree.deltas.listing import choose, delta_path, index_path, parse_index, summary_deltas
from composefs_ostree.deltas.old_files import OldFiles
from composefs_ostree.deltas.output import METADATA
from composefs_ostree.deltas.superblock import parse_superblock
from composefs_ostree.fetching.directories import DirectoryTransport
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.commit_stream import Entry, stream_name
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import MAX_DETACHED
from composefs_ostree.formats.summary import SUMMARY_TYPE
from composefs_ostree.held.storing import put_commit
from support.ostree_delta import SUPERBLOCK, Announced, SmallCommit

COMMIT = SmallCommit({"a": b"content", "b": b"c" * 1000}, link="a")
PART = COMMIT.part()
PATH = delta_path(None, COMMIT.id)
OLD = bytes(range(32))


def test_a_delta_that_cannot_be_used_is_told_and_done_without(tmp_path: Path) -> None:
    """Unless it is not what is listed: then somebody has altered it."""
    whole, later = COMMIT.superblock([PART]), COMMIT.superblock([PART], before=bytes(64))
    other = SmallCommit({"x": b"other"}).superblock([])

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        transport = DirectoryTransport(str(tmp_path))

        def found(superblock: bytes, held: list[bytes]) -> bool:
            listed = {"-".join(each.hex() for each in (*held, COMMIT.id)): Variant("ay", sha256(superblock).digest())}
            summary = gvariant.encode(SUMMARY_TYPE, ([], {"ostree.static-deltas": Variant("a{sv}", listed)}))
            return find(core, transport, summary, COMMIT.id, held) is not None

        assert not found(whole, [])
        COMMIT.write(tmp_path / PATH, later)
        assert not found(later, [])
        with pytest.raises(CorruptError, match="not the one that is listed"):
            found(whole, [])
        COMMIT.write(tmp_path / PATH, other)
        with pytest.raises(CorruptError, match="a delta to another commit"):
            found(other, [])
        COMMIT.write(tmp_path / PATH, whole)
        assert found(whole, [])
        assert not found(whole, [OLD])
        return {}

    core = MemoryCore(tmp_path / "core")
    core.run(handler, ["pull"])
    [absent, unknown, closed] = [message["message"] for _, message in core.events]
    assert absent.endswith("superblock: not found, although it is listed; objects are fetched one by one")
    assert "not used, objects are fetched one by one: the delta needs another delta" in unknown
    assert closed == "no delta is used: the core does not let objects be read"


def test_an_index_that_is_damaged_is_named(tmp_path: Path) -> None:
    index = tmp_path / index_path(COMMIT.id)
    index.parent.mkdir(parents=True)
    index.write_bytes(b"rubbish")
    summary = gvariant.encode(SUMMARY_TYPE, ([], {"ostree.summary.indexed-deltas": Variant("b", True)}))

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        transport = DirectoryTransport(str(tmp_path))
        with pytest.raises(FormatError, match=str(index)):
            find(core, transport, summary, COMMIT.id, [])
        index.unlink()
        assert find(core, transport, summary, COMMIT.id, []) is None
        return {}

    MemoryCore(tmp_path / "core").run(handler, ["pull"])


def test_parts_and_fallbacks_are_left_out_that_would_bring_nothing_new(tmp_path: Path) -> None:
    one, two = b"\1" * 32, b"\2" * 32
    empty = Announced(b"\0", [], 0)
    delta = parse_superblock(COMMIT.superblock([PART, PART, empty], fallbacks=[(1, one, 5, 7), (1, two, 5, 7)]))
    files, metadata = delta.parts[0].ids()
    entry = Entry(b"", "ab" * 32)

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        alone = OldFiles(None, Repository({"algorithm": "sha256", "objects": "/nowhere"}))
        for held, from_file, fallbacks, has_part in (
            ([], None, [one, two], True),
            ([one, *files[1:]], None, [two], True),
            ([one, two, *files], None, [], False),
            (files, alone, [one, two], True),  # nothing else has its directories
        ):
            applying = Applying(core, delta, [dict.fromkeys(held, entry)], from_file)
            assert applying.fallbacks == fallbacks
            assert applying.has_parts == has_part
            assert all(applying.awaits_file(each) == has_part for each in files)
            assert all(applying.awaits_metadata(each) == has_part for each in metadata)
            assert [each for each in (one, two) if applying.awaits_file(each)] == fallbacks
        assert applying.next_part() == (0, len(files) + len(metadata))
        assert (applying.parts, applying.has_parts) == (1, True)
        applying.forsake(NotFoundError("it is gone"), 1)
        assert (applying.parts, applying.has_parts) == (0, False)
        assert not any(map(applying.awaits_file, files))
        assert not any(map(applying.awaits_metadata, metadata))
        assert applying.awaits_file(one)
        return {}

    core = MemoryCore(tmp_path)
    core.run(handler, ["pull"])
    [told] = [message["message"] for kind, message in core.events if kind == "log"]
    assert told.endswith("objects are fetched one by one: it is gone")


def test_a_delta_in_a_file_needs_all_of_its_fallbacks_to_be_here(tmp_path: Path) -> None:
    one, two = b"\1" * 32, b"\2" * 32
    data = COMMIT.superblock([PART], fallbacks=[(1, one, 5, 7), (1, two, 5, 7)])
    source = DeltaSource(str(COMMIT.write(tmp_path / "delta", data, [PART])))

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        for held in ([one], [one, two]):
            entries = {each: Entry(b"", None) for each in held} | {COMMIT.id: Entry(COMMIT.commit, None)}
            stream = put_commit(core, COMMIT.id, entries)
            core.publish(streams=[{"name": stream_name(COMMIT.id), "id": stream, "if_exists": "replace"}]).result()
            if len(held) == 1:
                with pytest.raises(UnsupportedError, match="leaves 2 large files to be fetched one by one"):
                    source.open(core)
            else:
                source.open(core)
        return {}

    MemoryCore(tmp_path / "core").run(handler, ["pull"])


def test_more_than_was_announced_is_not_above_the_total(tmp_path: Path) -> None:
    delta = parse_superblock(COMMIT.superblock([PART]))
    announced = delta.parts[0].plain

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        applying = Applying(core, delta)
        applying.next_part()
        applying.count((bytes(32), b"", announced, None))
        applying.count((bytes(32), b"a dirtree", METADATA, None))
        assert (applying.files, applying.metadata) == (1, 1)
        applying.finish()
        return {}

    core = MemoryCore(tmp_path)
    core.run(handler, ["pull"])
    *_, last = [message for kind, message in core.events if kind == "progress"]
    assert last["done"] == last["total"] == announced + len(b"a dirtree")


def test_the_objects_of_all_parts_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composefs_ostree.deltas.applying.metadata_limit", lambda _core: 100)
    applying = Applying(Mock(), parse_superblock(COMMIT.superblock([PART])))
    applying.add(bytes(32), Entry(bytes(60), None))
    applying.add(b"\1" * 32, Entry(bytes(40), None))
    with pytest.raises(TooLargeError, match="the metadata of the delta has more than 100 bytes"):
        applying.add(b"\2" * 32, Entry(b"x", None))


@pytest.mark.parametrize("order", ["l", "B", None])
def test_a_superblock_in_either_byte_order(order: str | None) -> None:
    detached = Variant("a{sv}", {"key": Variant("s", "value")})
    path = delta_path(OLD, COMMIT.id)
    delta = parse_superblock(
        COMMIT.superblock(
            [PART], origin=OLD, order=order, fallbacks=[(1, bytes(32), 5, 7)], metadata={f"{path}/commitmeta": detached}
        )
    )
    assert (delta.origin, delta.to, delta.commit, delta.path) == (OLD, COMMIT.id, COMMIT.commit, path)
    assert delta.detached == gvariant.encode("a{sv}", detached.value)
    (part,) = delta.parts
    assert (part.size, part.plain, part.checksum) == (len(PART.file), PART.plain, sha256(PART.file).digest())
    assert part.path == f"{path}/0"
    assert [part.object(number) for number in range(part.object_count)] == PART.objects
    assert part.inline is None
    assert delta.fallbacks == {bytes(32): 7}
    assert delta.signed is None


def test_sizes_of_the_other_byte_order_without_a_word() -> None:
    swapped = PART._replace(size=int.from_bytes(len(PART.file).to_bytes(8, "big"), "little"))
    swapped = swapped._replace(plain=int.from_bytes(PART.plain.to_bytes(8, "big"), "little"))
    (part,) = parse_superblock(COMMIT.superblock([swapped], order=None)).parts
    assert (part.size, part.plain) == (len(PART.file), PART.plain)


def test_inline_parts() -> None:
    delta = parse_superblock(COMMIT.superblock([PART, PART], inline=True))
    assert [part.inline for part in delta.parts] == [PART.file] * 2
    assert delta.origin is None
    assert delta.detached is None


def test_a_part_without_objects() -> None:
    (part,) = parse_superblock(COMMIT.superblock([Announced(b"x", [], 0)])).parts
    assert part.object_count == 0


def test_a_signed_superblock() -> None:
    plain = COMMIT.superblock([PART])
    signatures = {"ostree.sign.ed25519": Variant("aay", [bytes(64)])}
    magic = int.from_bytes(b"OSTSGNDT", "little")
    delta = parse_superblock(gvariant.encode("(taya{sv})", (magic, plain, signatures)))
    assert delta.signed is not None
    assert delta.signed == (plain, signatures)
    assert delta.commit == COMMIT.commit


def test_detached_metadata_have_a_limit() -> None:
    """The same as where they are a file: what is stored must be such that it can be read again."""

    def superblock(more: int) -> tuple[bytes, int]:
        value = Variant("a{sv}", {"key": Variant("ay", bytes(MAX_DETACHED - rest + more))})
        size = len(gvariant.encode("a{sv}", value.value))
        return COMMIT.superblock([PART], metadata={f"{PATH}/commitmeta": value}), size

    rest = len(gvariant.encode("a{sv}", {"key": Variant("ay", bytes(MAX_DETACHED))})) - MAX_DETACHED
    (fits, size), (too_much, one_more) = superblock(0), superblock(1)
    assert (size, one_more) == (MAX_DETACHED, MAX_DETACHED + 1)
    detached = parse_superblock(fits).detached
    assert detached is not None
    assert len(detached) == MAX_DETACHED
    with pytest.raises(FormatError, match=f"{MAX_DETACHED + 1} bytes, more than"):
        parse_superblock(too_much)


def test_a_key_that_the_metadata_have_twice_is_refused() -> None:
    """What is inline, or beside the commit, is not a choice of the reader's."""
    listed = SUPERBLOCK.replace("a{sv}", "a(sv)", 1)
    key, values = f"{PATH}/commitmeta", (Variant("a{sv}", {}), Variant("a{sv}", {"key": Variant("y", 1)}))
    _, *rest = gvariant.decode(SUPERBLOCK, COMMIT.superblock([PART]))
    assert parse_superblock(gvariant.encode(listed, ([(key, values[1])], *rest))).detached
    with pytest.raises(FormatError, match="twice"):
        parse_superblock(gvariant.encode(listed, ([(key, value) for value in values], *rest)))


HOSTILE: dict[str, tuple[bytes, type[ExtError]]] = {
    "empty": (b"", FormatError),
    "cut": (COMMIT.superblock([PART])[:-1], FormatError),
    "longer": (COMMIT.superblock([PART]) + b"\0", FormatError),
    "another commit": (COMMIT.superblock([PART], to=bytes(32)), CorruptError),
    "short id": (COMMIT.superblock([PART], to=b"short"), FormatError),
    "short origin": (COMMIT.superblock([PART], origin=b"short"), FormatError),
    "byte order": (COMMIT.superblock([], metadata={"ostree.endianness": Variant("y", 0)}), FormatError),
    "byte order's type": (COMMIT.superblock([], metadata={"ostree.endianness": Variant("s", "l")}), FormatError),
    "needs another": (COMMIT.superblock([PART], before=bytes(64)), UnsupportedError),
    "later version": (COMMIT.superblock([PART._replace(version=1)]), UnsupportedError),
    "short object": (COMMIT.superblock([Announced(b"x", [(1, b"short")], 1)]), FormatError),
    "type of object": (COMMIT.superblock([Announced(b"x", [(6, bytes(32))], 1)]), FormatError),
    "checksum": (COMMIT.superblock([PART._replace(checksum=b"short")]), FormatError),
    "size": (COMMIT.superblock([PART._replace(size=1 << 63)]), FormatError),
    "plain size": (COMMIT.superblock([PART._replace(plain=(1 << 64) - 1)]), FormatError),
    "fallback's type": (COMMIT.superblock([], fallbacks=[(2, bytes(32), 1, 1)]), FormatError),
    "fallback's id": (COMMIT.superblock([], fallbacks=[(1, b"short", 1, 1)]), FormatError),
    "inline type": (
        COMMIT.superblock([PART], metadata={f"{PATH}/0": Variant("ay", b"x")}),
        FormatError,
    ),
    "detached type": (
        COMMIT.superblock([PART], metadata={f"{PATH}/commitmeta": Variant("s", "x")}),
        FormatError,
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_superblocks(case: str) -> None:
    data, error = HOSTILE[case]
    with pytest.raises(error):
        parse_superblock(data)


def test_too_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composefs_ostree.deltas.superblock.MAX_OBJECTS", len(PART.objects))
    parse_superblock(COMMIT.superblock([PART]))
    with pytest.raises(UnsupportedError, match="objects"):
        parse_superblock(COMMIT.superblock([PART, PART]))


def test_paths() -> None:
    # From a repository that ostree made.
    old = bytes.fromhex("b4f027c59ca7d48796ecdbbda6a628277a14e4b741dd8980c99e8716efc93355")
    new = bytes.fromhex("b1ab6ee96384c3bdf70153d4e6f34e8b7ba67951b99c2b8345a3101f3152e563")
    encoded = "satu6WOEw733AVPU5vNOi3umeVG5nCuDRaMQHzFS5WM"
    assert delta_path(None, new) == f"deltas/sa/{encoded[2:]}"
    assert delta_path(old, new) == f"deltas/tP/AnxZyn1IeW7Nu9pqYoJ3oU5LdB3YmAyZ6HFu_JM1U-{encoded}"
    assert index_path(new) == f"delta-indexes/sa/{encoded[2:]}.index"


def summary(metadata: dict[str, Variant]) -> bytes:
    refs = [("main", (7, bytes(32), {"ostree.commit.timestamp": Variant("t", 1)}))]
    return gvariant.encode("(a(s(taya{sv}))a{sv})", (refs, metadata))


def test_listed_deltas() -> None:
    name = OLD.hex()
    metadata = {"ostree.static-deltas": Variant("a{sv}", {name: Variant("ay", OLD)})}
    assert parse_index(gvariant.encode("a{sv}", metadata)) == {name: OLD}
    assert summary_deltas(summary(metadata)) == {name: OLD}
    assert summary_deltas(summary({"ostree.summary.indexed-deltas": Variant("b", True)})) is None
    assert summary_deltas(summary({})) == {}
    assert summary_deltas(gvariant.encode("(a(s(taya{sv}))a{sv})", ([], {}))) == {}


@pytest.mark.parametrize(
    "metadata",
    [
        {"ostree.static-deltas": Variant("as", [])},
        {"ostree.static-deltas": Variant("a{sv}", {"x": Variant("ay", b"short")})},
        {"ostree.static-deltas": Variant("a{sv}", {"x": Variant("s", "x" * 32)})},
    ],
)
def test_malformed_lists(metadata: dict[str, Variant]) -> None:
    with pytest.raises(FormatError):
        parse_index(gvariant.encode("a{sv}", metadata))
    with pytest.raises(FormatError):
        summary_deltas(summary(metadata))


@pytest.mark.parametrize("data", [b"", b"\xff" * 20, b"\x01\x20"])
def test_malformed_summaries(data: bytes) -> None:
    with pytest.raises(FormatError):
        summary_deltas(data)


def test_the_choice() -> None:
    one, two, to = bytes([1] * 32), bytes([2] * 32), bytes([3] * 32)
    scratch, from_one = b"s" * 32, b"1" * 32
    listed = {to.hex(): scratch, f"{one.hex()}-{to.hex()}": from_one}
    assert choose(listed, to, []) == (None, scratch)
    assert choose(listed, to, [two, one]) == (one, from_one)
    assert choose(listed, to, [two]) is None  # with a commit here, single objects are nearer than everything
    assert choose(listed, one, []) is None
