"""Digest algorithms of a repository, and the ids made of them.

An *id* is the fs-verity digest of a file as a ``str`` of lower-case hexadecimal digits, without a prefix.  Raw, as
``bytes``, digests are in binary formats, in trees, and where all ids of a repository are held at once.

An algorithm's name in meta.json, ``fsverity-sha512-12``, holds the hash and the base-2 logarithm of the block size;
composefs uses 4 KiB blocks only.
"""

from __future__ import annotations

import re

from composefs.errors import FormatError
from composefs.tuples import NamedTuple

__all__ = [
    "ALGORITHMS",
    "BLOCK_SIZE",
    "DEFAULT_ALGORITHM",
    "LOG2_BLOCK_SIZE",
    "SHA256",
    "SHA512",
    "Algorithm",
    "algorithm_named",
    "parse_id",
]

LOG2_BLOCK_SIZE = 12
BLOCK_SIZE = 1 << LOG2_BLOCK_SIZE


class Algorithm(NamedTuple):
    """A hash that fs-verity supports.  ``number`` is the kernel's FS_VERITY_HASH_ALG_*, ``size`` in bytes."""

    name: str
    number: int
    size: int

    @property
    def meta_name(self) -> str:
        """The name in meta.json and of ``init --algorithm``."""
        return f"fsverity-{self.name}-{LOG2_BLOCK_SIZE}"

    @property
    def hex_size(self) -> int:
        """The number of hexadecimal digits of an id."""
        return 2 * self.size

    def __str__(self) -> str:
        return self.name


SHA256 = Algorithm("sha256", 1, 32)
SHA512 = Algorithm("sha512", 2, 64)
ALGORITHMS = {"sha256": SHA256, "sha512": SHA512}
DEFAULT_ALGORITHM = SHA512
"""Of a new repository, unless another is asked for."""

_LOWER_HEX = re.compile(r"[0-9a-f]+")


def algorithm_named(name: str) -> Algorithm:
    """Find an algorithm by ``sha512`` or ``fsverity-sha512-12``; raise FormatError for anything else."""
    short = name.removeprefix("fsverity-").removesuffix(f"-{LOG2_BLOCK_SIZE}")
    if short not in ALGORITHMS or name not in (short, ALGORITHMS[short].meta_name):
        raise FormatError(
            f"unknown digest algorithm {name!r}", hint="known are fsverity-sha256-12 and fsverity-sha512-12"
        )
    return ALGORITHMS[short]


def parse_id(text: str, algorithm: Algorithm) -> str:
    """Check that ``text`` is an id of the algorithm and return it; raise FormatError otherwise."""
    if len(text) != algorithm.hex_size or not _LOWER_HEX.fullmatch(text):
        raise FormatError(f"{text[:140]!r} is not a {algorithm} id ({algorithm.hex_size} lower-case hex digits)")
    return text
