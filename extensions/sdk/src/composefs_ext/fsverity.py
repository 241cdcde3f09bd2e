"""fs-verity digests of small contents in memory: an object's id, known before the core tells it.

For tests and expectations.  It hashes whole contents at once; the core streams, and its word is the one that counts.
"""

from __future__ import annotations

import hashlib

__all__ = ["BLOCK_SIZE", "fsverity_digest"]

BLOCK_SIZE = 4096


def fsverity_digest(data: bytes, algorithm: str = "sha512") -> str:
    """Return the fs-verity digest (4 KiB blocks, no salt) as the kernel documents it, in lower-case hex."""
    size = hashlib.new(algorithm).digest_size
    level = data
    while len(level) > BLOCK_SIZE:
        blocks = (
            level[start : start + BLOCK_SIZE].ljust(BLOCK_SIZE, b"\0") for start in range(0, len(level), BLOCK_SIZE)
        )
        level = b"".join(hashlib.new(algorithm, block).digest() for block in blocks)
    root = hashlib.new(algorithm, level.ljust(BLOCK_SIZE, b"\0")).digest() if data else bytes(size)
    number = {"sha256": 1, "sha512": 2}[algorithm]
    # struct fsverity_descriptor: version, hash, log2 of the block size, salt size, reserved, data size, root hash,
    # salt, reserved
    head = bytes([1, number, 12, 0]) + bytes(4) + len(data).to_bytes(8, "little")
    return hashlib.new(algorithm, head + root.ljust(64, b"\0") + bytes(32 + 144)).hexdigest()
