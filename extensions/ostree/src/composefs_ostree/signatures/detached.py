"""Detached metadata, ``a{sv}``: where the signatures are, and what is in it without checking anything."""

from __future__ import annotations

from composefs_ext.errors import ExtError, FormatError
from composefs_ostree.formats.names import MAX_DETACHED
from composefs_ostree.signatures.record import MAX_SIGNATURES, Signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from composefs_ostree.formats.gvariant import Variant

__all__ = ["KEYS", "describe", "parse_detached", "signatures_in"]

KEYS = {"gpg": "ostree.gpgsigs", "ed25519": "ostree.sign.ed25519", "spki": "ostree.sign.spki"}
"""Under which key the signatures of a kind are, always of the type ``aay``."""


def parse_detached(data: bytes, where: str) -> dict[str, Variant]:
    """Read detached metadata; ``where`` names it in the FormatError for what is none."""
    from composefs_ostree.formats import gvariant

    try:
        if len(data) > MAX_DETACHED:
            raise FormatError(f"{len(data)} bytes are more than {MAX_DETACHED}")
        parsed: dict[str, Variant] = gvariant.decode("a{sv}", data)
    except ExtError as error:
        what = f"{where}: malformed detached metadata: {error.message}"
        raise FormatError(what, hint=error.hint, subject=where) from None
    return parsed


def signatures_in(metadata: Mapping[str, Variant], kind: str) -> list[bytes]:
    """Return the signatures of a kind, unchecked; raise FormatError if they are too many or of another type."""
    found = metadata.get(KEYS[kind])
    if found is None:
        return []
    if found.signature != "aay":
        raise FormatError(f"{KEYS[kind]} has the type {found.signature[:20]!r} instead of 'aay'")
    signatures: list[bytes] = found.value
    if len(signatures) > MAX_SIGNATURES:
        raise FormatError(f"{len(signatures)} {kind} signatures are more than {MAX_SIGNATURES}")
    return signatures


def describe(metadata: Mapping[str, Variant]) -> list[Signature]:
    """Return what the signatures say of themselves, none of it checked."""
    described: list[Signature] = []
    for kind in KEYS:
        try:
            signatures = signatures_in(metadata, kind)
            if kind == "gpg" and signatures:
                from composefs_ostree.signatures.openpgp import claims

                described += claims(signatures)
            else:
                described += [Signature(kind, problem="not checked") for _ in signatures]
        except ExtError as error:
            described.append(Signature(kind, problem=error.message))
    return described
