"""What is known about one signature, for people and for programs, and how many and how large signatures may be."""

from __future__ import annotations

from composefs_ext.text import printable
from composefs_ext.tuples import NamedTuple
from composefs_ostree.dates import date

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["MAX_SIGNATURES", "MAX_SIGNATURE_SIZE", "NOT_TRUSTED", "Signature", "facts_of", "lines_of"]

MAX_SIGNATURES = 256
"""Signatures of one kind: each one costs time, and they come from whoever answers."""

MAX_SIGNATURE_SIZE = 64 << 10
"""Bytes of one signature; those of RSA with 16384 bits have 2 kB, the largest post-quantum ones 50."""

NOT_TRUSTED = "its key is not among the trusted ones"
"""The problem of a signature by somebody else."""


class Signature(NamedTuple):
    """One signature.

    ``kind`` is ``gpg``, ``ed25519`` or ``spki``; ``key`` the fingerprint (hexadecimal) of an OpenPGP key, else the
    public key in base64, None if the signature does not tell; ``owner`` a user id of the certificate, if it is at hand;
    ``created`` and ``expires`` are seconds since 1970; ``problem`` says why it does not count, None if it is good.
    """

    kind: str
    key: str | None = None
    owner: str | None = None
    created: int | None = None
    expires: int | None = None
    problem: str | None = None


def facts_of(signatures: Iterable[Signature]) -> list[dict[str, Any]]:
    """Return them as rows for JSON."""
    return [signature._asdict() for signature in signatures]


def lines_of(signatures: Iterable[Signature]) -> str:
    """Return a line for each, without control characters: owners are whatever a certificate says."""
    lines = []
    for kind, key, owner, created, _, problem in signatures:
        words = [kind, key or "by a key it does not name"]
        if owner is not None:
            words.append(f"({owner})")
        if created is not None:
            words.append(f"of {date(created)}")
        line = " ".join(words) + (f": {problem}" if problem else "")
        lines.append(printable(line) + "\n")
    return "".join(lines)
