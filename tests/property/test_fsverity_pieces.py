"""A digest depends on the bytes, not on the sizes of the pieces they arrive in, and not on which path computes it."""

import hashlib
import os
import struct
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
