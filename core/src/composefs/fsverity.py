"""fs-verity digests, computed from what a file holds; :mod:`composefs.linux.verity` asks the kernel for them.

The digest of a file is the hash of a 256-byte descriptor which holds the file's size and the root of a Merkle tree over
its 4 KiB blocks (kernel documentation, filesystems/fsverity.rst, "File digest computation"); composefs uses no salt and
no signature:

    off  size  field
    0    1     version, 1
    1    1     hash algorithm, 1 sha256 or 2 sha512
    2    1     log2 of the block size, 12
    3    1     salt size, 0
    4    4     reserved, 0
    8    8     size of the file, little-endian
    16   64    root hash, padded with zeros
    80   176   salt and reserved, 0

A level of the tree is the list of the hashes of the blocks below it, cut in blocks itself; the last block of each level
is padded with zeros.  The root hash is the hash of the only block of the top level; an empty file has no block, and a
root hash of zeros.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from composefs.digest import BLOCK_SIZE, LOG2_BLOCK_SIZE, Algorithm
from composefs.errors import CancelledError

if TYPE_CHECKING:
    from composefs.linux.window import Window
    from composefs.multibuffer import Lanes

__all__ = ["Buffer", "Hasher", "digest_bytes", "digest_each", "digest_fd", "digest_parts", "prepare"]

Buffer = bytes | bytearray | memoryview

_DESCRIPTOR = struct.Struct("<BBBBIQ64s176x")

# 256 KiB a read: 64 KiB and 1 MiB measured within 1 % of it.
_READ_BLOCKS = 64
_READ_SIZE = _READ_BLOCKS * BLOCK_SIZE
_STAT_BLOCK = 512  # stat(2), st_blocks

# Fewer bytes in holes than this are read: OpenZFS before 2.2.2 took what had just been written for a hole.
_VAST = 1 << 30

_ZEROS = memoryview(bytes(BLOCK_SIZE))

# With fewer blocks at a time than this, the library that hashes them side by side is not loaded: that takes as long as
# hashing 300.
_WORTH_LOADING = 16

_CONSTRUCTORS: dict[str, Callable[..., hashlib._Hash]] = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}


class Hasher:
    """Computes the digest of data that comes in pieces of any size.

    ``size`` counts the bytes so far.  Memory is at most two blocks for each level of the tree, and the digests of one
    piece.
    """

    __slots__ = ("_levels", "_pending", "algorithm", "size")

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self._pending = bytearray()
        self._levels = [bytearray()]
        self.size = 0

    def update(self, data: Buffer) -> None:
        """Append ``data``, which must be contiguous bytes."""
        view = memoryview(data)
        self.size += len(view)
        if self._pending:
            take = BLOCK_SIZE - len(self._pending)
            self._pending += view[:take]
            if len(self._pending) < BLOCK_SIZE:
                return
            self._add(_CONSTRUCTORS[self.algorithm.name](self._pending).digest())
            self._pending.clear()
            view = view[take:]
        whole = len(view) - len(view) % BLOCK_SIZE
        self._pending += view[whole:]
        if whole:
            self._add(_hash_blocks(view[:whole], self.algorithm))

    def update_hashed(self, digests: bytes) -> None:
        """Append whole blocks by their hashes, one after the other; all that came before must be whole blocks."""
        self.size += len(digests) // self.algorithm.size * BLOCK_SIZE
        self._add(digests)

    def update_zeros(self, blocks: int) -> None:
        """Append any number of blocks of zeros; all that came before must be whole blocks."""
        self.size += blocks * BLOCK_SIZE
        self._repeat(_hash_one_by_one(_ZEROS, self.algorithm), blocks, 0)

    def _repeat(self, digest: bytes, count: int, number: int) -> None:
        """Append one digest to a level ``count`` times, of which most need not be hashed: they fill equal blocks."""
        in_block = BLOCK_SIZE // self.algorithm.size
        if count <= 2 * in_block:
            if count:
                self._add(digest * count, number)
            return
        # The block that is begun is filled, and one digest put behind it, so that its hash goes upwards.
        begun = len(self._levels[number]) // self.algorithm.size if number < len(self._levels) else 0
        first = -begun % in_block + 1
        self._add(digest * first, number)
        # From that digest on there are equal blocks.  The last one stays on its level, also if it is full.
        blocks, rest = divmod(count - first + 1, in_block)
        if not rest:
            blocks, rest = blocks - 1, in_block
        self._levels[number] = bytearray(digest * rest)
        self._repeat(_hash_one_by_one(memoryview(digest * in_block), self.algorithm), blocks, number + 1)

    def _add(self, digests: bytes, number: int = 0) -> None:
        """Append to a level; the hashes of its full blocks, but for the last block, are appended to the one above."""
        for level in self._levels[number:]:
            level += digests
            full = (len(level) - 1) // BLOCK_SIZE * BLOCK_SIZE
            if not full:
                return
            digests = _hash_one_by_one(memoryview(bytes(level[:full])), self.algorithm)
            del level[:full]
        self._levels.append(bytearray(digests))

    def digest(self) -> bytes:
        """Return the fs-verity digest, raw, of the data so far; more may follow."""
        algorithm = self.algorithm
        if not self.size:
            return _hash_descriptor(algorithm, 0, b"")
        carried = _hash_padded(bytes(self._pending), algorithm)
        for level in self._levels[:-1]:
            # Below the top there is at least one digest, and at most one full block and what was carried.
            carried = _hash_padded(bytes(level) + carried, algorithm)
        top = bytes(self._levels[-1]) + carried
        while len(top) > algorithm.size:
            top = _hash_padded(top, algorithm)
        return _hash_descriptor(algorithm, self.size, top)


def digest_bytes(data: Buffer, algorithm: Algorithm) -> bytes:
    """Return the fs-verity digest, raw, that a file holding ``data`` has."""
    view = memoryview(data)
    if 0 < len(view) <= _READ_SIZE:
        _scratch.view[: len(view)] = view
        return _digest_scratch(len(view), algorithm)
    hasher = Hasher(algorithm)
    hasher.update(view)
    return hasher.digest()


def digest_parts(parts: Iterable[Buffer], algorithm: Algorithm) -> bytes:
    """Return the fs-verity digest, raw, that a file holding the parts, one after the other, has."""
    hasher = Hasher(algorithm)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def digest_each(contents: Iterable[Buffer], algorithm: Algorithm) -> list[bytes]:
    """Return what :func:`digest_bytes` returns for each of many contents; small ones are hashed side by side."""
    digests: list[bytes] = []
    sizes: list[int] = []
    used = 0  # blocks of the scratch buffer

    def flush() -> None:
        hashes = _hash_scratch(used, algorithm)
        start = 0
        for size in sizes:
            end = start + -(-size // BLOCK_SIZE) * algorithm.size
            root = hashes[start:end]
            digests.append(
                _hash_descriptor(algorithm, size, root if size <= BLOCK_SIZE else _hash_padded(root, algorithm))
            )
            start = end
        sizes.clear()

    view = _scratch.view
    for content in contents:
        size = len(content)
        blocks = -(-size // BLOCK_SIZE)
        if sizes and (not blocks or used + blocks > _READ_BLOCKS):
            flush()
            used = 0
        if not 0 < blocks <= _READ_BLOCKS:
            digests.append(digest_bytes(content, algorithm))
            continue
        start = used * BLOCK_SIZE
        used += blocks
        view[start : start + size] = content
        if rest := size % BLOCK_SIZE:
            view[start + size : used * BLOCK_SIZE] = _ZEROS[rest:]
        sizes.append(size)
    if sizes:
        flush()
    return digests


def digest_fd(
    fd: int,
    algorithm: Algorithm,
    stop: Callable[[], bool] | None = None,
    *,
    size: int | None = None,
    is_still: Callable[[], bool] | None = None,
) -> bytes:
    """Return the fs-verity digest, raw, of a file's content from its start; the file offset stays as it is.

    The kernel's fs-verity is not asked: :func:`composefs.linux.verity.measure` does that.  ``size`` is the file's, if
    it is known not to change meanwhile: the end of a small file need not be looked for then.  ``is_still`` tells
    whether nobody can write to the file or cut it; as long as it says so, a large file is mapped and not copied.
    ``stop`` is asked after each piece of a large file whether to give up.  Raises ``OSError`` and CancelledError.
    """
    view = _scratch.view
    if size is None or size < _READ_SIZE:
        count = os.preadv(fd, [view], 0)
        if 0 < count < _READ_SIZE and (count == size or not os.preadv(fd, [view[count:]], count)):
            return _digest_scratch(count, algorithm)
    hasher = Hasher(algorithm)
    if is_still is not None and size is not None:
        _add_mapped(hasher, fd, size, is_still, stop)
    has_vast_holes = _bytes_in_holes(fd) >= _VAST
    while True:
        if has_vast_holes:
            _add_hole(hasher, fd)
        count = os.preadv(fd, [view], hasher.size)
        if not count:
            return hasher.digest()
        if count == _READ_SIZE and not hasher.size % BLOCK_SIZE:
            hasher.update_hashed(_hash_scratch(_READ_BLOCKS, algorithm))
        else:
            hasher.update(view[:count])
        _raise_if(stop)


def prepare(algorithm: Algorithm) -> None:
    """Load what hashes many blocks at a time, which takes milliseconds, while there is nothing to hash yet."""
    _scratch.lanes(algorithm, _WORTH_LOADING)


def _bytes_in_holes(fd: int) -> int:
    """Return how many bytes of a file are in holes; negative where its blocks take more than it has bytes."""
    status = os.fstat(fd)
    return status.st_size - status.st_blocks * _STAT_BLOCK


def _add_hole(hasher: Hasher, fd: int) -> None:
    """Append the hole that begins where the hasher is, if there is one; it may be larger than anybody could read."""
    start = hasher.size
    place = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        end = os.lseek(fd, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # no file system's, but one of the kernel's own
            return
        end = os.fstat(fd).st_size  # there is nothing behind it
    finally:
        os.lseek(fd, place, os.SEEK_SET)
    if end > start and not start % BLOCK_SIZE:
        hasher.update_zeros((end - start) // BLOCK_SIZE)


def _add_mapped(
    hasher: Hasher, fd: int, size: int, is_still: Callable[[], bool], stop: Callable[[], bool] | None
) -> None:
    """Append what can be hashed where it is mapped, without a copy: that saves a fifth of the time, or more."""
    found = _scratch.window(hasher.algorithm)
    # To show a hole tmpfs would fill it.
    if found is None or _bytes_in_holes(fd) > 0:
        return
    window, lanes = found
    try:
        while size - hasher.size >= _READ_SIZE and is_still() and window.show(fd, hasher.size):
            hasher.update_hashed(lanes.digests(_READ_BLOCKS))
            _raise_if(stop)
    finally:
        window.clear()


def _raise_if(stop: Callable[[], bool] | None) -> None:
    if stop is not None and stop():
        raise CancelledError("interrupted while a file was read")


def _digest_scratch(size: int, algorithm: Algorithm) -> bytes:
    """Return the digest of the first 1 to _READ_SIZE bytes of the scratch buffer, whose tree has two levels at most.

    Nineteen files of twenty are that small, and this takes 5 µs less for each than a Hasher.
    """
    if rest := size % BLOCK_SIZE:
        _scratch.view[size : size + BLOCK_SIZE - rest] = _ZEROS[rest:]
    if size <= BLOCK_SIZE:
        return _hash_descriptor(algorithm, size, _CONSTRUCTORS[algorithm.name](_scratch.view[:BLOCK_SIZE]).digest())
    return _hash_descriptor(algorithm, size, _hash_padded(_hash_scratch(-(-size // BLOCK_SIZE), algorithm), algorithm))


def _hash_descriptor(algorithm: Algorithm, size: int, root: bytes) -> bytes:
    descriptor = _DESCRIPTOR.pack(1, algorithm.number, LOG2_BLOCK_SIZE, 0, 0, size, root)
    return _CONSTRUCTORS[algorithm.name](descriptor).digest()


def _hash_padded(level: bytes, algorithm: Algorithm) -> bytes:
    return _hash_one_by_one(memoryview(level.ljust(-(-len(level) // BLOCK_SIZE) * BLOCK_SIZE, b"\0")), algorithm)


def _hash_blocks(view: memoryview, algorithm: Algorithm) -> bytes:
    """Return the hashes of whole blocks, one after the other; this overwrites the scratch buffer."""
    lanes = _scratch.lanes(algorithm, len(view) // BLOCK_SIZE)
    if lanes is None:
        return _hash_one_by_one(view, algorithm)
    found = []
    for start in range(0, len(view), _READ_SIZE):
        piece = view[start : start + _READ_SIZE]
        _scratch.view[: len(piece)] = piece
        found.append(lanes.digests(len(piece) // BLOCK_SIZE))
    return b"".join(found)


def _hash_scratch(count: int, algorithm: Algorithm) -> bytes:
    """Return the hashes of the first ``count`` blocks of the scratch buffer."""
    lanes = _scratch.lanes(algorithm, count)
    return _hash_one_by_one(_scratch.view[: count * BLOCK_SIZE], algorithm) if lanes is None else lanes.digests(count)


def _hash_one_by_one(view: memoryview, algorithm: Algorithm) -> bytes:
    # One constructor call a block, a list and one join: copy() of a hash object gains nothing, and bytes that are
    # appended one digest at a time lose.
    new = _CONSTRUCTORS[algorithm.name]
    return b"".join([new(view[start : start + BLOCK_SIZE]).digest() for start in range(0, len(view), BLOCK_SIZE)])


class _Scratch(threading.local):
    """A thread's buffer of _READ_SIZE bytes, and what hashes its blocks.

    To allocate a buffer for each file would cost more than to hash a small one.
    """

    def __init__(self) -> None:
        self.buffer = bytearray(_READ_SIZE)
        self.view = memoryview(self.buffer)
        self._lanes: dict[str, Lanes | None] = {}
        self._windows: dict[str, tuple[Window, Lanes] | None] = {}

    def lanes(self, algorithm: Algorithm, count: int) -> Lanes | None:
        """Return what hashes ``count`` blocks of the buffer faster than hashlib, or None."""
        name = algorithm.name
        if name not in self._lanes:
            if count < _WORTH_LOADING:
                return None
            from composefs.multibuffer import make_lanes  # most commands hash nothing, or little

            self._lanes[name] = make_lanes(self.buffer, algorithm)
        lanes = self._lanes[name]
        return lanes if lanes is not None and count >= lanes.least else None

    def window(self, algorithm: Algorithm) -> tuple[Window, Lanes] | None:
        """Return a window of _READ_SIZE bytes with what hashes the blocks it shows; None where only hashlib can."""
        name = algorithm.name
        if name not in self._windows:
            from composefs.linux.window import Window
            from composefs.multibuffer import make_lanes

            window = Window(_READ_SIZE)
            lanes = make_lanes(window.memory, algorithm)
            self._windows[name] = None if lanes is None else (window, lanes)
        return self._windows[name]


_scratch = _Scratch()
