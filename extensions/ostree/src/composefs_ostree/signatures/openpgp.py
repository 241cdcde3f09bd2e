"""OpenPGP signatures, checked by Sequoia (pysequoia), with the rule in which ostree is stricter.

Sequoia holds a signature good if its key was so when the signature was made.  ostree, which asks GnuPG, wants the key
to be good now as well, for the date of a signature is what its maker wrote.  So a key or subkey that is expired or
revoked counts no more here, whatever date the signature has.  Sequoia in turn refuses SHA-1, which GnuPG takes; so it
is refused.  Only signatures over binary documents count.

Source: RFC 9580; ostree-gpg-verify-result.c for what ostree takes as valid.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from composefs_ext.errors import FormatError
from composefs_ostree.dates import day
from composefs_ostree.signatures.keyring import Certificate, Keyring, key_id
from composefs_ostree.signatures.libraries import UnreadableError, guarded, load
from composefs_ostree.signatures.packets import SIGNATURE, dearmour_signature, split
from composefs_ostree.signatures.record import MAX_SIGNATURE_SIZE, MAX_SIGNATURES, NOT_TRUSTED, Signature

__all__ = ["check", "claims"]

_WEAK = ("MD5", "SHA1", "RipeMD")
_CLOCK_SKEW = 300  # seconds


def check(data: bytes, signatures: Sequence[bytes], keyring: Keyring) -> list[Signature]:
    """Check each signature; what is none is reported as one with a problem."""
    return [_check(data, found, keyring) if isinstance(found, bytes) else found for found in _packets(signatures)]


def claims(signatures: Sequence[bytes]) -> list[Signature]:
    """Return what the signatures say of themselves."""
    pysequoia = load("pysequoia")
    found = []
    for packet in _packets(signatures):
        if isinstance(packet, bytes):
            try:
                packet = _claim(guarded(pysequoia.Sig.from_bytes, packet))._replace(problem="not checked")
            except UnreadableError:
                packet = Signature("gpg", problem="it is malformed or of an unknown version")
        found.append(packet)
    return found


def _packets(signatures: Sequence[bytes]) -> Iterator[bytes | Signature]:
    """Yield the signature packets; each signature may consist of several, for several keys."""
    count = 0
    for signature in signatures:
        try:
            for packet in split(dearmour_signature(signature)):
                count += 1
                if count > MAX_SIGNATURES:
                    raise FormatError(f"there are more than {MAX_SIGNATURES} GPG signatures")
                if packet.tag != SIGNATURE:
                    yield Signature("gpg", problem="it is not an OpenPGP signature")
                elif len(packet.data) > MAX_SIGNATURE_SIZE:
                    yield Signature("gpg", problem=f"it has {len(packet.data)} bytes, which is no signature's size")
                else:
                    yield packet.data
        except FormatError as error:
            if count > MAX_SIGNATURES:
                raise
            yield Signature("gpg", problem=error.message)


def _check(data: bytes, packet: bytes, keyring: Keyring) -> Signature:
    pysequoia = load("pysequoia")
    try:
        sig = guarded(pysequoia.Sig.from_bytes, packet)
        claim = _claim(sig)
        certificates = keyring.find(_issuers(sig))
        if not certificates:
            return claim._replace(problem=NOT_TRUSTED)
        claim = claim._replace(owner=certificates[0].owner)
        if problem := _unfit(sig, claim):
            return claim._replace(problem=problem)
        certs = [certificate.cert for certificate in certificates]
        try:
            done = guarded(pysequoia.verify, bytes=data, store=lambda _ids: certs, signature=sig)
            good = [(valid.certificate, valid.signing_key) for valid in done.valid_sigs]
        except UnreadableError:
            good = []
    except UnreadableError:
        return Signature("gpg", problem="it is malformed or of an unknown version")
    return _judge(claim, certificates, good)


def _judge(claim: Signature, certificates: Sequence[Certificate], good: Sequence[tuple[str, str]]) -> Signature:
    """Decide about a signature: ``good`` has certificate and key for which the mathematics is right."""
    problem = None
    for certificate in certificates:
        primary = certificate.cert.fingerprint
        # For a signature that is not good, the standing of its key is the likeliest reason.
        signers = [key for cert, key in good if cert == primary] or [
            key for key in certificate.keys if claim.key in (key.upper(), key_id(key).upper())
        ]
        for signer in signers:
            standing = certificate.keys[primary].problem("its key") or certificate.keys[signer].problem("its subkey")
            claim = claim._replace(key=signer.upper(), owner=certificate.owner)
            if standing is None and (primary, signer) in good:
                return claim
            since = max(certificate.keys[primary].since, certificate.keys[signer].since)
            if standing is None and claim.created is not None and claim.created < since:
                standing = f"its key is known as of {day(since)} only: trust it as it was before, too"
            problem = problem or standing
    return claim._replace(problem=problem or "it was made over other bytes, or its key may not sign")


def _unfit(sig: Any, claim: Signature) -> str | None:
    """Return why a signature counts for nobody, whoever made it."""
    kinds = load("pysequoia.packet").SignatureType
    weak = str(guarded(getattr, sig, "hash_algorithm")).rpartition(".")[2]
    if weak in _WEAK:
        return f"it relies on {weak}, which can be forged"
    if guarded(getattr, sig, "signature_type") != kinds.Binary:
        return "it is not a signature of a document"
    if claim.expires is not None and claim.expires <= time.time():
        return f"it expired on {day(claim.expires)}"
    if claim.created is not None and claim.created > time.time() + _CLOCK_SKEW:
        return f"it was made on {day(claim.created)}, which is in the future: is the clock right?"
    return None


def _claim(sig: Any) -> Signature:
    issuers = _issuers(sig)
    return Signature(
        "gpg",
        issuers[0].upper() if issuers else None,
        None,
        _seconds(guarded(getattr, sig, "created")),
        _seconds(guarded(getattr, sig, "expiration")),
    )


def _issuers(sig: Any) -> list[str]:
    names = (guarded(getattr, sig, "issuer_fingerprint"), guarded(getattr, sig, "issuer_key_id"))
    return [name for name in names if name]


def _seconds(moment: Any) -> int | None:
    return None if moment is None else int(moment.timestamp())
