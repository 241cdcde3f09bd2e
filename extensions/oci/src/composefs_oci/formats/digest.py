"""OCI digests: ``ALGORITHM:HEX``, how content is named (OCI image specification, descriptor.md, "Digests").

Only the algorithms that the specification registers are read, as any other could not be verified.
"""

from __future__ import annotations

import hashlib
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = [
    "ALGORITHMS",
    "digest_of",
    "digest_of_hash",
    "is_beginning",
    "is_digest",
    "new_hash",
    "shorten",
]

ALGORITHMS = ("sha256", "sha384", "sha512")
"""Those that there are digests of; the first one is what everybody uses."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_BEGINNING = re.compile(r"(?:sha(?:256|384|512):)?[0-9a-f]{4,128}")
_SHORT = 12


def is_digest(text: str) -> bool:
    """Whether this is a whole digest, algorithm included."""
    return _DIGEST.fullmatch(text) is not None


def is_beginning(text: str) -> bool:
    """Whether this may be how a digest begins: at least four digits, with the algorithm before them or without."""
    return _BEGINNING.fullmatch(text) is not None


def new_hash(digest: str) -> _Hash:
    """Return an empty hash of the algorithm of a digest."""
    return hashlib.new(digest.partition(":")[0])


def digest_of_hash(whole: _Hash) -> str:
    """Return the digest of all that went into a hash."""
    return f"{whole.name}:{whole.hexdigest()}"


def digest_of(data: bytes, like: str = "sha256:") -> str:
    """Return the digest of some bytes, by the algorithm of ``like``."""
    whole = new_hash(like)
    whole.update(data)
    return digest_of_hash(whole)


def shorten(digest: str) -> str:
    """Return the first digits, which people tell digests by."""
    return digest.partition(":")[2][:_SHORT]
