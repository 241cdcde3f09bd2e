"""Trusted OpenPGP certificates: from keyrings and armoured exports to keys that can be looked up and judged.

Source: RFC 9580, 10.1 (transferable public keys); ostree(1), "GPG verification", for the places.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from composefs_ext.errors import ExtError, FormatError
from composefs_ostree.dates import day
from composefs_ostree.signatures.keyfiles import files_in, read_keys
from composefs_ostree.signatures.libraries import UnreadableError, guarded, load
from composefs_ostree.signatures.packets import PUBLIC_KEY, SECRET_KEY, Packet, dearmour, split
from composefs_ostree.signatures.policy import GpgPolicy

__all__ = [
    "GLOBAL_KEYRINGS",
    "Certificate",
    "Key",
    "Keyring",
    "key_id",
    "load_keyring",
    "merged",
    "read_certificates",
]

_REMEDY = "gpg --export KEY > FILE makes a keyring"

GLOBAL_KEYRINGS = "/usr/share/ostree/trusted.gpg.d"
"""The directory of keyrings for remotes that have none."""


class Key(NamedTuple):
    """The standing of a primary key or subkey; ``expires`` is in seconds since 1970, None for never.

    ``is_known`` tells that the library judges it at all, which it does not if the key is weak, or of a curve that it
    has not.  ``since`` is when the oldest signature was made that binds it, in the same seconds: what it signed before,
    the library finds no key for.
    """

    expires: float | None
    is_revoked: bool
    is_known: bool = True
    since: float = 0

    def problem(self, name: str) -> str | None:
        """Return why it counts no more, with ``name`` for it; None if it does."""
        if self.is_revoked:
            return f"{name} is revoked"
        if not self.is_known:
            return f"{name} is too weak to be relied on, or of a kind that is not known here"
        if self.expires is not None and self.expires <= time.time():
            return f"{name} expired on {day(self.expires)}"
        return None


class Certificate(NamedTuple):
    """A certificate with its keys by fingerprint."""

    cert: Any
    keys: Mapping[str, Key]
    owner: str | None


class Keyring:
    """The trusted certificates, found by the fingerprints and ids of their keys."""

    def __init__(self, certificates: Iterable[Any]) -> None:
        """Take certificates of pysequoia; those of the same primary key are taken together."""
        self._by_key: dict[str, list[Certificate]] = {}
        self.fingerprints: list[str] = []
        for fingerprint, cert in merged(certificates).items():
            try:
                certificate = Certificate(cert, guarded(_keys_of, cert), _owner(cert))
            except UnreadableError:
                continue
            self.fingerprints.append(fingerprint.upper())
            for key in certificate.keys:
                for name in (key, key_id(key)):
                    self._by_key.setdefault(name, []).append(certificate)

    def find(self, names: Sequence[str]) -> list[Certificate]:
        """Return the certificates with a key of one of these fingerprints or ids, in lower case."""
        found = [certificate for name in names for certificate in self._by_key.get(name, ())]
        return list({certificate.cert.fingerprint: certificate for certificate in found}.values())


def merged(certificates: Iterable[Any]) -> dict[str, Any]:
    """Return certificates by fingerprint; of those of the same primary key, which are taken together, there is one."""
    found: dict[str, Any] = {}
    for cert in certificates:
        same = found.get(cert.fingerprint)
        found[cert.fingerprint] = cert if same is None else same.merge(cert)
    return found


def load_keyring(policy: GpgPolicy) -> Keyring:
    """Read what is to be trusted; raise an ExtError that names the file which cannot be read."""
    certificates = []
    if policy.keyring is not None:
        certificates += read_certificates(policy.keyring, "the keyring of the remote")
    files = [file for path in policy.paths for file in files_in(path)]
    if policy.with_global:
        with suppress(ExtError):  # a system need not have any
            files += files_in(GLOBAL_KEYRINGS, suffix=".gpg")
    for file in files:
        certificates += read_certificates(read_keys(file), file)
    return Keyring(certificates)


def read_certificates(data: bytes, where: str) -> list[Any]:
    """Return the certificates in a keyring or armoured export; raise FormatError if there is none.

    What is no certificate, or is one of a version that the library does not know, is passed over, as GnuPG does; but
    not one that has its secret key and is unreadable for that.  GnuPG writes one of 256 secrets of Ed25519 with a zero
    in front, which the library refuses.
    """
    pysequoia = load("pysequoia")
    if data[8:12] == b"KBXf":
        raise FormatError.at(where, "this is a keybox, not a keyring", hint="gpg --export KEY > FILE makes one")
    certificates = []
    problem = "there is no OpenPGP certificate in it"
    try:
        for group in _groups(split(dearmour(data))):
            try:
                certificates.append(guarded(pysequoia.Cert.from_bytes, group))
            except UnreadableError as error:
                problem = str(error)
                if next(split(group)).tag == SECRET_KEY:
                    raise FormatError(f"a secret key in it, which is not needed, cannot be read: {problem}") from None
    except FormatError as error:
        raise FormatError.at(where, error.message, hint=_REMEDY) from None
    if not certificates:
        raise FormatError.at(where, problem, hint=_REMEDY)
    return certificates


def _groups(packets: Iterable[Packet]) -> Iterator[bytes]:
    """Yield the packets of each certificate, joined."""
    group: list[bytes] = []
    for packet in packets:
        if packet.tag in (PUBLIC_KEY, SECRET_KEY) and group:
            yield b"".join(group)
            group = []
        group.append(packet.data)
    if group:
        yield b"".join(group)


def _keys_of(cert: Any) -> dict[str, Key]:
    """Return the standing of each key of a certificate."""
    packet = load("pysequoia.packet")
    is_revoked = guarded(getattr, cert, "is_revoked")
    try:
        expires = guarded(getattr, cert, "expiration")
        primary = Key(None if expires is None else expires.timestamp(), is_revoked)
    except UnreadableError:
        primary = Key(None, is_revoked, is_known=False)
    own: list[float] = []
    subkey = None
    signatures: list[Any] = []
    keys = {cert.fingerprint: primary}
    for item in packet.PacketPile.from_bytes(bytes(cert)):
        if item.tag in (packet.Tag.PublicSubkey, packet.Tag.SecretSubkey):
            subkey, signatures = item, []
            if item.fingerprint is not None:  # else it is of a kind that the library does not know
                keys[item.fingerprint] = Key(None, is_revoked=False)
        elif item.tag == packet.Tag.Signature and subkey is not None and subkey.fingerprint is not None:
            signatures.append(item)
            keys[subkey.fingerprint] = _subkey(subkey, signatures, packet.SignatureType)
        elif item.tag == packet.Tag.Signature and subkey is None and item.issuer_fingerprint == cert.fingerprint:
            own += [item.signature_created.timestamp()] if item.signature_created is not None else []
    keys[cert.fingerprint] = primary._replace(since=min(own, default=0))
    return keys


def _subkey(key: Any, signatures: Sequence[Any], kinds: Any) -> Key:
    """Return the standing of a subkey: the newest binding says how long it is good, any revocation that it is not."""
    now = time.time()
    bindings = [
        (made.timestamp(), signature.key_validity_period)
        for signature in signatures
        if signature.signature_type == kinds.SubkeyBinding and (made := signature.signature_created) is not None
    ]
    _, period = max((each for each in bindings if each[0] <= now), key=lambda each: each[0], default=(0, None))
    expires = key.key_created.timestamp() + period.total_seconds() if period else None
    is_revoked = any(signature.signature_type == kinds.SubkeyRevocation for signature in signatures)
    return Key(expires, is_revoked, since=min((made for made, _ in bindings), default=0))


def _owner(cert: Any) -> str | None:
    try:
        users = guarded(getattr, cert, "user_ids")
    except UnreadableError:
        return None
    return str(users[0])[:200] if users else None


def key_id(fingerprint: str) -> str:
    """Return the id of a key: the end of a fingerprint of version 4, the beginning of a later one."""
    return fingerprint[-16:] if len(fingerprint) == 40 else fingerprint[:16]
