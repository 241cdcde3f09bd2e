"""Blocks hashed together have the hashes that hashlib gives each, and who has no such library loses time alone."""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from composefs import fsverity, multibuffer
from composefs.digest import ALGORITHMS, BLOCK_SIZE, SHA512, Algorithm
from composefs.multibuffer import Lanes, make_lanes

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="libipsec-mb is for x86-64")

BLOCKS = 64

algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=str)


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let nothing be loaded yet, and everything be worth it."""
    multibuffer._library.cache_clear()
    if multibuffer._library() is None:
        pytest.fail("there is no libIPSec_MB.so.2: apt-get install libipsec-mb2", pytrace=False)
    monkeypatch.setattr(fsverity, "_scratch", fsverity._Scratch())
    monkeypatch.setattr(fsverity, "_WORTH_LOADING", 1)
    yield
    multibuffer._library.cache_clear()


@algorithms
def test_any_number_of_blocks(algorithm: Algorithm) -> None:
    buffer = bytearray(BLOCKS * BLOCK_SIZE)
    lanes = make_lanes(buffer, algorithm)
    assert lanes is not None
    for count in range(1, BLOCKS + 1):
        buffer[:] = hashlib.shake_128(bytes([count])).digest(len(buffer))
        blocks = [buffer[start : start + BLOCK_SIZE] for start in range(0, count * BLOCK_SIZE, BLOCK_SIZE)]
        assert lanes.digests(count) == b"".join(hashlib.new(algorithm.name, block).digest() for block in blocks)


@algorithms
@pytest.mark.parametrize("size", [2 * BLOCK_SIZE + 1, 8 * BLOCK_SIZE, 70_001, BLOCKS * BLOCK_SIZE + 9, 5_000_001])
def test_digests_are_the_same_with_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: Algorithm, size: int
) -> None:
    data = hashlib.shake_128(b"content").digest(size)
    (tmp_path / "file").write_bytes(data)
    used: list[int] = []
    real = Lanes.digests

    def digests(self: Lanes, count: int) -> bytes:
        used.append(count)
        return real(self, count)

    def found() -> set[bytes]:
        hasher = fsverity.Hasher(algorithm)
        hasher.update(data[:5])
        hasher.update(data[5:])
        with (tmp_path / "file").open("rb") as file:
            of_file = {
                fsverity.digest_fd(file.fileno(), algorithm, size=told) for told in (None, size, size - 1, size + 1)
            }
        return of_file | {hasher.digest(), fsverity.digest_bytes(data, algorithm)}

    lanes = fsverity._scratch.lanes(algorithm, BLOCKS)
    assert lanes is not None
    monkeypatch.setattr(Lanes, "digests", digests)
    together = found()
    assert bool(used) == (size > (lanes.least - 1) * BLOCK_SIZE)
    monkeypatch.setattr(multibuffer, "_SONAME", "libno-such-library.so.9")
    multibuffer._library.cache_clear()
    monkeypatch.setattr(fsverity, "_scratch", fsverity._Scratch())
    used.clear()
    assert found() == together
    assert len(together) == 1
    assert not used


def test_a_library_that_hashes_otherwise_than_hashlib_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lanes, "digests", lambda _self, count: bytes(count * SHA512.size))
    assert make_lanes(bytearray(BLOCKS * BLOCK_SIZE), SHA512) is None


def test_a_processor_that_the_library_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    library = multibuffer._library()
    assert library is not None
    monkeypatch.setattr(library, "init_mb_mgr_auto", lambda _manager, _architecture: None)
    assert make_lanes(bytearray(BLOCKS * BLOCK_SIZE), SHA512) is None


def test_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    multibuffer._library.cache_clear()
    monkeypatch.setattr(multibuffer, "_VERSION", 0x03_00_00)
    assert multibuffer._library() is None


def test_a_library_that_lacks_a_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    multibuffer._library.cache_clear()
    monkeypatch.setattr("ctypes.CDLL", lambda _name: SimpleNamespace(imb_get_version=lambda: multibuffer._VERSION))
    assert make_lanes(bytearray(BLOCKS * BLOCK_SIZE), SHA512) is None


def test_a_buffer_cannot_move_from_under_its_lanes() -> None:
    buffer = bytearray(BLOCKS * BLOCK_SIZE)
    lanes = make_lanes(buffer, SHA512)
    assert lanes is not None
    with pytest.raises(BufferError):
        buffer.extend(bytes(1 << 20))


def test_threads_do_not_share_lanes() -> None:
    data = [hashlib.shake_128(bytes([number])).digest(1 << 20) for number in range(4)]
    expected = [fsverity.digest_bytes(each, SHA512) for each in data]
    right: list[bool] = []

    def work(number: int) -> None:
        right.extend(fsverity.digest_bytes(data[number], SHA512) == expected[number] for _ in range(20))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 80
    assert all(right)
