"""The verdict: whether bytes have the signatures that a policy wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from composefs_ext.errors import CorruptError, ExtError
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.signatures.detached import KEYS, signatures_in
from composefs_ostree.signatures.policy import GpgPolicy, Policy, SignKeys
from composefs_ostree.signatures.record import NOT_TRUSTED, Signature

__all__ = ["UnfitError", "verify"]

_SHOWN = 4
_GPG_WAYS = "--gpg-key FILE, or have its remote trust it: cfsctl ostree remote gpg-import REMOTE FILE"


class UnfitError(CorruptError):
    """There are signatures, of which none is a good one of these bytes, and not all are by keys that nobody trusts."""


def verify(data: bytes, metadata: Mapping[str, Variant], policy: Policy, what: str) -> list[Signature]:
    """Check that ``data`` has the signatures that are wanted; return all that were looked at, good or not.

    ``metadata`` is the detached metadata, empty if there is none; ``what`` names the data in messages.  Raise
    CorruptError if a good signature is missing, the errors of reading keys, and UnsupportedError without the library.
    """
    found: list[Signature] = []
    if policy.gpg is not None:
        found += _verify_gpg(data, metadata, policy.gpg, what)
    if policy.sign is not None:
        found += _verify_sign(data, metadata, policy.sign, what)
    return found


def _verify_gpg(data: bytes, metadata: Mapping[str, Variant], policy: GpgPolicy, what: str) -> list[Signature]:
    from composefs_ostree.signatures import keyring as keyrings
    from composefs_ostree.signatures import openpgp

    signatures = _signatures(metadata, "gpg", what)
    if not signatures:
        raise _missing(what, "no GPG signature", metadata, "--no-gpg-verify")
    keyring = keyrings.load_keyring(policy)
    if not keyring.fingerprints:
        raise CorruptError.at(
            what, "there is no trusted GPG key to check its signature by", hint=f"give one with {_GPG_WAYS}"
        )
    try:
        found = openpgp.check(data, signatures, keyring)
    except ExtError as error:
        raise _refused(what, error) from None
    if not found:
        raise _missing(what, "no GPG signature", metadata, "--no-gpg-verify")
    if all(signature.problem is not None for signature in found):
        raise _bad(what, "GPG", found, keyring.fingerprints, _GPG_WAYS)
    return found


def _verify_sign(
    data: bytes, metadata: Mapping[str, Variant], wanted: Sequence[SignKeys], what: str
) -> list[Signature]:
    """Ask for one good signature of any of the kinds."""
    from composefs_ostree.signatures import publickeys

    found: list[Signature] = []
    trusted: list[str] = []
    kinds = " or ".join(keys.kind for keys in wanted)
    for keys in wanted:
        signatures = _signatures(metadata, keys.kind, what)
        if not signatures:
            continue
        loaded = publickeys.load_keys(keys)
        trusted += [publickeys.encode_base64(key) for key in loaded]
        found += publickeys.check(data, signatures, keys.kind, loaded)
    if not found:
        raise _missing(what, f"no {kinds} signature", metadata, "--no-sign-verify")
    if all(signature.problem is not None for signature in found):
        raise _bad(what, kinds, found, trusted, "--sign-key")
    return found


def _signatures(metadata: Mapping[str, Variant], kind: str, what: str) -> list[bytes]:
    try:
        return signatures_in(metadata, kind)
    except ExtError as error:
        raise _refused(what, error) from None


def _refused(what: str, error: ExtError) -> CorruptError:
    return CorruptError.at(
        what, f"its signatures cannot be checked: {error.message}", hint="have it signed anew by who publishes it"
    )


def _missing(what: str, lacks: str, metadata: Mapping[str, Variant], flag: str) -> CorruptError:
    """Return the error for what is not signed, or is in other ways."""
    others = [kind for kind, key in KEYS.items() if key in metadata and kind not in lacks.lower()]
    there = f", only {' and '.join(others)}" if others else ""
    return CorruptError(
        f"{what}: it has {lacks}{there}",
        # Not every command that takes keys has the flag, which excludes them.
        hint=f"have it signed by who publishes it; without keys given here, a pull with {flag} accepts what is not",
        subject=what,
    )


def _bad(what: str, kinds: str, found: Sequence[Signature], trusted: Sequence[str], way: str) -> CorruptError:
    """Return the error for signatures of which none is good: what is wrong with each, and whose would be."""
    reasons = [f"{signature.key or 'one'}: {signature.problem}" for signature in found[:_SHOWN]]
    if len(found) > _SHOWN:
        reasons.append(f"and {len(found) - _SHOWN} more")
    keys = ", ".join(trusted[:_SHOWN]) + (f" and {len(trusted) - _SHOWN} more" if len(trusted) > _SHOWN else "")
    none = f"its {kinds} signature is not" if len(found) == 1 else f"none of its {len(found)} {kinds} signatures is"
    kind = CorruptError if all(signature.problem == NOT_TRUSTED for signature in found) else UnfitError
    return kind.at(
        what,
        f"{none} good: {'; '.join(reasons)}",
        hint=f"trusted are {keys or 'no keys'}; if its publisher has another key, get that safely and give {way}",
    )
