"""The fs-verity digest of a content that passes by in pieces (4 KiB blocks, no salt).

Source: "The Merkle tree" and "fs-verity descriptor" in the kernel's Documentation/filesystems/fsverity.rst.
"""

from __future__ import annotations

import hashlib

from composefs_ext.fsverity import BLOCK_SIZE

__all__ = ["MerkleTree"]

_NUMBERS = {"sha256": 1, "sha512": 2}


class MerkleTree:
    """Give it all pieces, each a multiple of 4096 bytes long but the last, then ask for the digest."""

    def __init__(self, algorithm: str) -> None:
        self._new = getattr(hashlib, algorithm)
        self._number = _NUMBERS[algorithm]
        self._size = 0
        self._levels: list[bytearray] = []

    def update(self, piece: memoryview) -> None:
        """Take the next piece."""
        new = self._new
        self._size += len(piece)
        digests = []
        for start in range(0, len(piece), BLOCK_SIZE):
            block = piece[start : start + BLOCK_SIZE]
            digests.append(new(block if len(block) == BLOCK_SIZE else bytes(block).ljust(BLOCK_SIZE, b"\0")).digest())
        self._add(0, b"".join(digests))

    def _add(self, level: int, digests: bytes) -> None:
        """Take digests of a level's blocks; a full block of them is a digest one level up."""
        if level == len(self._levels):
            self._levels.append(bytearray())
        pending = self._levels[level]
        pending += digests
        # A full block waits for one more digest: if none comes, it is the root's block.
        while len(pending) > BLOCK_SIZE:
            self._add(level + 1, self._new(pending[:BLOCK_SIZE]).digest())
            del pending[:BLOCK_SIZE]

    def digest(self) -> str:
        """Return the digest in lower-case hex."""
        root = bytes(self._new().digest_size) if not self._size else self._root()
        # struct fsverity_descriptor: version, hash, log2 of the block size, salt size, reserved, data size, root hash,
        # salt, reserved
        head = bytes([1, self._number, 12, 0]) + bytes(4) + self._size.to_bytes(8, "little")
        digest: str = self._new(head + root.ljust(64, b"\0") + bytes(32 + 144)).hexdigest()
        return digest

    def _root(self) -> bytes:
        level = 0
        while True:
            pending = bytes(self._levels[level])
            if level + 1 == len(self._levels) and len(pending) == self._new().digest_size:
                return pending
            self._add(level + 1, self._new(pending.ljust(BLOCK_SIZE, b"\0")).digest())
            level += 1
