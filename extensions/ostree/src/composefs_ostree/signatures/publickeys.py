"""Signatures of ed25519 and SPKI, checked by OpenSSL (cryptography), and the files with their keys.

An ed25519 key is 32 bytes in base64, one a line; an SPKI key is a SubjectPublicKeyInfo, in PEM in files and in base64
elsewhere, of any algorithm that OpenSSL signs with without being told a digest.  Such a signature does not say whose it
is: each key is tried.  Keys in the system's lists of revoked ones are never trusted, also if a remote has them.

Source: ostree-sign(1); RFC 8032 (Ed25519, Ed448), RFC 5280 4.1.2.7 (SubjectPublicKeyInfo), RFC 7468 (PEM).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Iterator, Sequence

from composefs_ext.errors import ExtError, FormatError
from composefs_ostree.signatures.keyfiles import files_in, read_keys
from composefs_ostree.signatures.libraries import load, primitive
from composefs_ostree.signatures.policy import SignKeys
from composefs_ostree.signatures.record import MAX_SIGNATURE_SIZE, Signature

__all__ = [
    "SYSTEM_DIRECTORIES",
    "check",
    "ed25519_keys",
    "encode_base64",
    "load_keys",
    "pem_blocks",
    "public_key",
]

SYSTEM_DIRECTORIES = ("/etc/ostree", "/usr/share/ostree")
"""Where ``trusted.KIND``, ``trusted.KIND.d/*``, ``revoked.KIND`` and ``revoked.KIND.d/*`` are."""

# Up to the next five dashes, or each of many beginnings without an end would be looked for an end to that of the file.
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s((?:[^-]|-(?!----))*+)-----END \1-----")
_SIZE = 32  # of an ed25519 public key
_MIN_RSA = 2048  # bits


def load_keys(wanted: SignKeys) -> list[bytes]:
    """Return the public keys to trust, ed25519 raw and SPKI in DER; raise an ExtError that names what is wrong."""
    keys = [_inline(wanted.kind, text) for text in wanted.inline]
    for file in wanted.files:
        found = _keys_in(wanted.kind, read_keys(file), file)
        if not found:
            raise FormatError.at(file, f"there is no {wanted.kind} key in it")
        keys += found
    if not wanted.inline and not wanted.files:
        keys = list(_system_keys(wanted.kind, "trusted"))
    revoked = frozenset(_system_keys(wanted.kind, "revoked"))
    return [key for key in dict.fromkeys(keys) if key not in revoked]


def check(data: bytes, signatures: Sequence[bytes], kind: str, keys: Sequence[bytes]) -> list[Signature]:
    """Check each signature against each key."""
    loaded = [(key, public_key(kind, key)) for key in keys]
    found = []
    for signature in signatures:
        signer = None
        if len(signature) <= MAX_SIGNATURE_SIZE:
            signer = next((key for key, verifies in loaded if verifies(signature, data)), None)
        if signer is None:
            found.append(Signature(kind, problem=f"it is none over these bytes by any of {len(keys)} trusted keys"))
        else:
            found.append(Signature(kind, encode_base64(signer)))
    return found


def public_key(kind: str, key: bytes) -> Callable[[bytes, bytes], bool]:
    """Return what tells whether a signature is this key's, over some data; raise FormatError if this is no key.

    The digest is SHA-256 where the algorithm needs one, as OpenSSL has it.
    """
    ed25519 = primitive("asymmetric.ed25519")
    if kind == "ed25519":
        if len(key) != _SIZE:
            raise FormatError(f"an ed25519 key has {_SIZE} bytes, and this {len(key)}")
        return _asking(ed25519.Ed25519PublicKey.from_public_bytes(key).verify)
    rsa, ec = primitive("asymmetric.rsa"), primitive("asymmetric.ec")
    ed448 = primitive("asymmetric.ed448")
    digest = primitive("hashes").SHA256()
    try:
        public = primitive("serialization").load_der_public_key(key)
    except Exception as error:  # noqa: BLE001  ValueError, UnsupportedAlgorithm and others
        raise FormatError(f"it is no public key that can be used: {' '.join(str(error).split())[:200]}") from None
    if isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return _asking(public.verify)
    if isinstance(public, ec.EllipticCurvePublicKey):
        return _asking(public.verify, ec.ECDSA(digest))
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < _MIN_RSA:
            raise FormatError(f"an RSA key of {public.key_size} bits is too short to be trusted")
        return _asking(public.verify, primitive("asymmetric.padding").PKCS1v15(), digest)
    raise FormatError("its algorithm is not among Ed25519, Ed448, ECDSA and RSA")


def _asking(verify: Callable[..., None], *how: object) -> Callable[[bytes, bytes], bool]:
    """Turn a method that raises into a question."""
    invalid = load("cryptography.exceptions").InvalidSignature

    def verifies(signature: bytes, data: bytes) -> bool:
        try:
            verify(signature, data, *how)
        except (invalid, ValueError):
            return False
        return True

    return verifies


def pem_blocks(data: bytes, label: bytes) -> list[bytes]:
    """Return what is in the PEM blocks of a label; raise FormatError for one that is malformed."""
    try:
        return [binascii.a2b_base64(match[2], strict_mode=False) for match in _PEM.finditer(data) if match[1] == label]
    except binascii.Error as error:
        raise FormatError(f"malformed PEM: {error}") from None


def encode_base64(key: bytes) -> str:
    """Return a key as people write it."""
    return base64.b64encode(key).decode()


def _decode_base64(text: str | bytes) -> bytes:
    """Decode base64; raise FormatError for anything else."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise FormatError(f"malformed base64: {error}") from None


def ed25519_keys(data: bytes) -> list[bytes]:
    """Return the keys in a file's content, public or secret ones; raise FormatError if it has others."""
    try:
        return [_decode_base64(line) for line in map(bytes.strip, data.splitlines()) if line]
    except FormatError as error:
        raise FormatError(
            error.message, hint="an ed25519 key is a line of base64; keys in PEM are of the type spki"
        ) from None


def _keys_in(kind: str, data: bytes, where: str) -> list[bytes]:
    """Return the keys in a file's content; raise a FormatError that names the file."""
    try:
        keys = pem_blocks(data, b"PUBLIC KEY") if kind == "spki" else ed25519_keys(data)
        for key in keys:
            public_key(kind, key)
    except FormatError as error:
        raise FormatError.at(where, error.message, hint=error.hint) from None
    return keys


def _inline(kind: str, text: str) -> bytes:
    try:
        key = _decode_base64(text.strip())
        public_key(kind, key)
    except FormatError as error:
        raise FormatError(f"the {kind} key {text[:80]!r}: {error.message}") from None
    return key


def _system_keys(kind: str, which: str) -> Iterator[bytes]:
    """Yield the system's keys, ``trusted`` or ``revoked``.  A list that cannot be read is an error if it revokes."""
    lists = [f"{directory}/{which}.{kind}{end}" for directory in SYSTEM_DIRECTORIES for end in ("", ".d")]
    for file in (file for path in lists if os.path.lexists(path) for file in files_in(path)):
        try:
            yield from _keys_in(kind, read_keys(file), file)
        except ExtError:
            if which == "revoked":
                raise
