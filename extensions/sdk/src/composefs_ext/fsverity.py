"""fs-verity digests (kernel documentation, filesystems/fsverity.rst): an object's id, known before the core tells it.

They are for tests and expectations: the core computes each id itself.
"""

from __future__ import annotations

import hashlib

__all__ = ["BLOCK_SIZE", "Hasher", "fsverity_digest"]

BLOCK_SIZE = 4096

_NUMBERS = {"sha256": 1, "sha512": 2}


def fsverity_digest(data: bytes, algorithm: str = "sha512") -> str:
    """Return the fs-verity digest, with 4 KiB blocks and no salt, in lower-case hex; ``sha256`` or ``sha512``."""
    hasher = Hasher(algorithm)
    hasher.update(data)
    return hasher.hexdigest()


class Hasher:
    """Computes the digest of content that comes in pieces; at most one block of each level of the tree is kept."""

    def __init__(self, algorithm: str = "sha512") -> None:
        self._algorithm = algorithm
        self._size = 0
        self._rest = b""
        self._levels: list[bytearray] = [bytearray()]

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._size += len(data)
        data = self._rest + data
        whole = len(data) - len(data) % BLOCK_SIZE
        for start in range(0, whole, BLOCK_SIZE):
            self._add(0, data[start : start + BLOCK_SIZE])
        self._rest = data[whole:]

    def hexdigest(self) -> str:
        """Return the digest of all that came; no more may come then."""
        if self._rest:
            self._add(0, self._rest)
        digest_size = self._hash(b"").digest_size
        level = 0
        # Until the top level has one digest, or none for an empty file, the rest of each is a block of the one above.
        while level < len(self._levels) - 1 or len(self._levels[level]) > digest_size:
            if self._levels[level]:
                self._add(level + 1, bytes(self._levels[level]))
            level += 1
        root = bytes(self._levels[-1])
        # struct fsverity_descriptor: version, hash, log2 of the block size, salt size, reserved, data size, root hash,
        # salt, reserved
        head = bytes([1, _NUMBERS[self._algorithm], 12, 0]) + bytes(4) + self._size.to_bytes(8, "little")
        return self._hash(head + root.ljust(64, b"\0") + bytes(32 + 144)).hexdigest()

    def _add(self, level: int, block: bytes) -> None:
        """Add a block's digest to a level; a block of digests that is full is one of the level above."""
        while True:
            if level == len(self._levels):
                self._levels.append(bytearray())
            digests = self._levels[level]
            digests += self._hash(block.ljust(BLOCK_SIZE, b"\0")).digest()
            if len(digests) < BLOCK_SIZE:
                return
            block = bytes(digests)
            digests.clear()
            level += 1

    def _hash(self, data: bytes) -> hashlib._Hash:
        return hashlib.new(self._algorithm, data)
