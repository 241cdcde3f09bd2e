"""A digest depends on the bytes, not on the sizes of the pieces they arrive in, and not on which path computes it."""

import hashlib
import os
import struct
import tempfile
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from composefs import fsverity
from composefs.digest import ALGORITHMS, Algorithm
from composefs.fsverity import Hasher, digest_bytes, digest_each, digest_fd
from composefs_ext.fsverity import Hasher as SdkHasher


def plain_digest(data: bytes, algorithm: Algorithm) -> bytes:
    """The definition, level after level over whole lists: kernel documentation, filesystems/fsverity.rst."""

    def hashed(block: bytes) -> bytes:
        return hashlib.new(algorithm.name, block).digest()

    level, root = data, b""
    while level:
        digests = [hashed(level[i : i + 4096].ljust(4096, b"\0")) for i in range(0, len(level), 4096)]
        level, root = (b"", digests[0]) if len(digests) == 1 else (b"".join(digests), b"")
    head = struct.pack("<BBBBIQ", 1, algorithm.number, 12, 0, 0, len(data))
    return hashed((head + root.ljust(64, b"\0")).ljust(256, b"\0"))


algorithms = st.sampled_from(list(ALGORITHMS.values()))
# Sizes near the edges of a block, of a level (64 or 128 digests) and of the read buffer.
edges = st.sampled_from([0, 4096, 64 * 4096, 128 * 4096, 129 * 4096, 64 * 64 * 4096])
sizes = st.one_of(st.integers(0, 20_000), st.builds(lambda edge, near: max(0, edge + near), edges, st.integers(-2, 2)))


@given(algorithm=algorithms, size=sizes, cuts=st.lists(st.integers(0, 70_000), max_size=12))
@settings(max_examples=60)
def test_pieces_of_any_size(algorithm: Algorithm, size: int, cuts: list[int]) -> None:
    data = hashlib.shake_128(str(size).encode()).digest(size)
    hasher = Hasher(algorithm)
    sdk = SdkHasher(algorithm.name)
    start = 0
    for cut in cuts:
        hasher.update(data[start : start + cut])
        sdk.update(data[start : start + cut])
        start += cut
    hasher.update(memoryview(data)[start:])
    sdk.update(data[start:])
    expected = plain_digest(data, algorithm)
    assert hasher.digest() == expected
    assert sdk.hexdigest() == expected.hex()
    assert hasher.digest() == expected, "asking does not change the state"
    assert hasher.size == size
    assert digest_bytes(bytearray(data), algorithm) == expected
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(data)
        assert digest_fd(file.fileno(), algorithm) == expected
        assert digest_fd(file.fileno(), algorithm, size=size, is_still=lambda: True) == expected
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == size


small = st.sampled_from([0, 1, 4095, 4096, 4097, 8192, 20_000, 64 * 4096 - 1, 64 * 4096, 64 * 4096 + 1])


@given(algorithm=algorithms, chosen=st.lists(small, max_size=150))
@settings(max_examples=40)
def test_many_at_a_time(algorithm: Algorithm, chosen: list[int]) -> None:
    contents = [hashlib.shake_128(b"%d" % number).digest(size) for number, size in enumerate(chosen)]
    assert digest_each(map(memoryview, contents), algorithm) == [plain_digest(each, algorithm) for each in contents]


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=str)
def test_three_levels_byte_by_byte_at_the_edge(algorithm: Algorithm) -> None:
    data = bytes(range(256)) * (16 * 64 * 65)
    hasher = Hasher(algorithm)
    for start in range(0, len(data), 65_537):
        hasher.update(data[start : start + 65_537])
    assert hasher.digest() == plain_digest(data, algorithm)


# Blocks near the edges of a level; the third one up is met with 64 * 64 of them.
zeros = st.sampled_from([0, 1, 63, 64, 65, 127, 128, 129, 130, 256, 257, 4095, 4096, 4097, 8200])


@given(algorithm=algorithms, runs=st.lists(st.tuples(zeros, st.integers(0, 3)), max_size=4), rest=st.integers(0, 5000))
@settings(max_examples=40, deadline=None)
def test_blocks_of_zeros_at_once(algorithm: Algorithm, runs: list[tuple[int, int]], rest: int) -> None:
    quick, slow = Hasher(algorithm), Hasher(algorithm)
    for blocks, others in runs:
        quick.update_zeros(blocks)
        slow.update(bytes(4096 * blocks))
        for hasher in (quick, slow):
            hasher.update(b"x" * 4096 * others)
    for hasher in (quick, slow):
        hasher.update(b"y" * rest)
    assert quick.size == slow.size
    assert quick.digest() == slow.digest()


@given(algorithm=algorithms, data=st.lists(st.tuples(st.integers(0, 2_000_000), st.binary(min_size=1, max_size=20))))
@settings(max_examples=40, deadline=None)
def test_a_file_with_holes(algorithm: Algorithm, data: list[tuple[int, bytes]]) -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(1_500_077)
        for place, content in data:
            os.pwrite(file.fileno(), content, place)
        file.seek(5)
        with patch.object(fsverity, "_VAST", 1):
            digest = digest_fd(file.fileno(), algorithm)
        assert file.tell() == 5
        file.seek(0)
        assert digest == digest_bytes(file.read(), algorithm)
