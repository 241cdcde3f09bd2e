"""What a commit says of its objects' sizes, and the order of fetching that follows from it."""

from __future__ import annotations

from unittest.mock import Mock

from composefs_ostree.deltas.applying import Applying
from composefs_ostree.deltas.superblock import parse_superblock
from composefs_ostree.fetching.fetch_queue import FetchQueue
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import ObjectType
from composefs_ostree.formats.objects import Commit
from composefs_ostree.formats.sizes import FileSizes
from support.ostree_delta import SmallCommit

A, B, C, D = (bytes([number]) * 32 for number in (0xA0, 0xB0, 0xC0, 0xD0))
MIB = 1 << 20


def commit(metadata: dict[str, Variant]) -> Commit:
    return Commit(metadata, None, "", "", 0, A, B)


def sizes(*entries: bytes) -> dict[bytes, int]:
    known = FileSizes(commit({"ostree.sizes": Variant("aay", list(entries))}), {})
    return {entry[:32]: size for entry in entries if (size := known.get(entry[:32])) is not None}


def test_plain_sizes_by_id() -> None:
    # 300 = 0b10_0101100: the low seven bits first
    assert sizes(A + b"\x05\x07", B + b"\xac\x02\xac\x02\x01", C + b"\x00\x00\x01") == {A: 7, B: 300, C: 0}


def test_metadata_objects_do_not_count() -> None:
    assert sizes(A + b"\x05\x07\x02", B + b"\x05\x07\x03") == {}


def test_what_is_told_elsewhere_comes_first_unless_it_is_nonsense() -> None:
    metadata = {"ostree.sizes": Variant("aay", [A + b"\x05\x07", B + b"\x05\x08"])}
    known = FileSizes(commit(metadata), {A: 9, B: (1 << 48) + 1})
    assert (known.get(A), known.get(B)) == (9, 8)


def test_nonsense_is_no_size() -> None:
    endless = b"\xff" * 10
    for entry in (
        *(A, A + b"\x05", A + b"\x85", A[:31], b"", A + b"1234", A + b"\x05\x07\x01\x01"),
        *(A + endless, A + endless + endless, A + b"\x05" + endless, A + bytes(22)),
        A + b"\x05" + b"\x80" * 20 + b"\x00",  # however often a zero is told: a megabyte of it takes minutes
        A + b"\x05\x81\x80\x80\x80\x80\x80\x40",  # 2⁴⁸ + 1
    ):
        assert sizes(entry) == {}, entry


def test_without_sizes() -> None:
    assert FileSizes(commit({}), {}).get(A) is None
    for value in (Variant("s", "many"), Variant("u", 5), Variant("as", ["x" * 40])):
        assert FileSizes(commit({"ostree.sizes": value}), {}).get(A) is None


def fill(queue: FetchQueue, count: int) -> list[bytes]:
    ids = [number.to_bytes(32, "big") for number in range(count)]
    for file_id in ids:
        queue.add(file_id)
    return ids


def test_files_of_unknown_size_come_in_order() -> None:
    queue = FetchQueue(dict, 2)
    ids = fill(queue, 5)
    assert not queue.has_large
    assert (queue.take(3), queue.take(3), queue.take(3), queue.bytes) == (ids[:3], ids[3:], [], None)


def test_the_largest_comes_first_and_one_for_each_worker() -> None:
    queue = FetchQueue(lambda: {A: 9 * MIB, B: 5 * MIB, C: 70 * MIB, D: 3}, 2)
    ids = fill(queue, 600)
    for file_id in (A, B, C, D):
        queue.add(file_id)
    assert len(queue) == 604
    assert queue.bytes == 84 * MIB + 3
    assert queue.has_large
    assert queue.take(32) == [C]
    assert queue.take(32) == [A]
    assert not queue.has_large
    assert queue.take(32) == ids[:32]
    queue.arrived(C)
    assert queue.take(32) == [B]
    assert queue.take(600) == [*ids[32:], D]
    assert queue.take(32) == []
    assert not queue


def test_what_is_left_to_wait_for() -> None:
    queue = FetchQueue(lambda: {A: 9 * MIB, B: 8 * MIB}, 1)
    fill(queue, 600)
    queue.add(A)
    queue.add(B)
    assert queue.take(32) == [A]
    queue.take(600)
    assert queue.take(32) == []
    assert len(queue) == 1
    queue.arrived(A)
    assert queue.take(32) == [B]


def test_a_large_file_waits_for_room_and_small_ones_go_on() -> None:
    queue = FetchQueue(lambda: {A: 110 * MIB, B: 90 * MIB, C: 5000 * MIB}, 3)
    for file_id in (A, B, C, D):
        queue.add(file_id)
    assert queue.take(1) == [C]  # counts as 120 MiB
    assert queue.take(1) == [A]
    assert queue.take(1) == [D]  # B has no room
    queue.arrived(C)
    queue.staged = 41 * MIB
    assert queue.take(1) == []
    queue.staged = 40 * MIB
    assert queue.take(1) == [B]
    assert not queue


def test_the_sizes_of_files_beside_a_delta_are_those_of_its_superblock() -> None:
    """Commits often tell none, and large files are to be fetched side by side all the same."""
    small = SmallCommit({"a": b"content"})
    told, huge, other = bytes(32), b"h" * 32, b"o" * 32
    fallbacks = [(int(ObjectType.FILE), told, 5, 5_000_000), (int(ObjectType.FILE), huge, 5, 1 << 60)]
    applying = Applying(core=Mock(limits={}), delta=parse_superblock(small.superblock([], fallbacks=fallbacks)))
    assert applying.fallbacks == [told, huge]
    sizes = FileSizes(commit({"ostree.sizes": Variant("aay", [other + b"\x05\x07"])}), applying.sizes)
    assert [sizes.get(file_id) for file_id in (told, huge, other, b"x" * 32)] == [5_000_000, None, 7, None]
    queue = FetchQueue(lambda: sizes, parallel=1)
    for file_id in (other, told):
        queue.add(file_id)
    assert queue.has_large
    assert queue.take(32) == [told]
    assert queue.take(32) == [other]
