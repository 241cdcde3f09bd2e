"""Detached metadata and signatures from a hostile server: errors of one kind, and never a yes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composefs_ext.errors import CorruptError, FormatError
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.signatures import checking, detached
from composefs_ostree.signatures.keyring import Keyring, read_certificates
from composefs_ostree.signatures.openpgp import check
from composefs_ostree.signatures.packets import Packet, dearmour, split
from composefs_ostree.signatures.policy import GpgPolicy, Policy, SignKeys
from support.gpg import Keys, keys

__all__ = ["keys"]

DATA = b"what is signed"
ED25519 = SignKeys("ed25519", ("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",))


def refused(metadata: dict[str, Variant], policy: Policy) -> None:
    with pytest.raises(CorruptError):
        checking.verify(DATA, metadata, policy, "commit 1234")


@given(st.binary(max_size=300))
def test_any_bytes_are_packets_or_an_error(data: bytes) -> None:
    try:
        packets = list(split(data))
    except FormatError:
        return
    assert b"".join(packet.data for packet in packets) == data


@given(st.binary(max_size=300))
def test_any_bytes_come_out_of_armour_or_are_an_error(data: bytes) -> None:
    for text in (data, b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" + data + b"\n-----END PGP PUBLIC KEY BLOCK-----\n"):
        try:
            assert isinstance(dearmour(text), bytes)
        except FormatError:
            continue


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (b"\xc2\x05", 5),
        (b"\xc2\xc0\x00", 192),
        (b"\xc2\xdf\xff", 8383),
        (b"\xc2\xff\x00\x00\x00\x03", 3),
        (b"\x88\x05", 5),
        (b"\x89\x01\x00", 256),
        (b"\x8a\x00\x00\x00\x02", 2),
    ],
)
def test_all_forms_of_a_header_are_read(header: bytes, size: int) -> None:
    packet = Packet(2, header + bytes(size))
    assert list(split(packet.data + packet.data)) == [packet, packet]


@given(st.binary(max_size=200))
def test_any_bytes_as_metadata_are_refused(data: bytes) -> None:
    try:
        metadata = detached.parse_detached(data, "commitmeta")
    except FormatError:
        return
    refused(metadata, Policy(sign=(ED25519,)))


@given(st.lists(st.binary(max_size=120), max_size=4))
def test_any_bytes_as_signatures_are_refused(keys: Keys, blobs: list[bytes]) -> None:
    metadata = {name: Variant("aay", blobs) for name in ("ostree.gpgsigs", "ostree.sign.ed25519")}
    assert detached.parse_detached(gvariant.encode("a{sv}", metadata), "commitmeta") == metadata
    refused(metadata, Policy(GpgPolicy(keyring(keys))))
    refused(metadata, Policy(sign=(ED25519,)))
    assert detached.describe(metadata) is not None


def test_a_damaged_signature_is_good_only_over_what_it_signed(keys: Keys) -> None:
    """A signature has bytes that nothing depends on; with others damaged it is none."""
    chooser = random.Random(1)
    trusted = Keyring(read_certificates(keyring(keys), "keys"))
    for key in (keys.good, keys.rsa, keys.subkey):
        whole = keys.gpg.sign(DATA, key)
        for _ in range(500):
            damaged = bytearray(whole)
            for _ in range(chooser.randint(1, 3)):
                damaged[chooser.randrange(len(damaged))] = chooser.randrange(256)
            for found in check(DATA, [bytes(damaged)], trusted):
                assert found.problem or found.key == key
            assert all(found.problem for found in check(DATA + b"x", [bytes(damaged)], trusted))


_KEYRING: dict[str, bytes] = {}


def keyring(keys: Keys) -> bytes:
    """Export once: hypothesis asks a hundred times."""
    if keys.good not in _KEYRING:
        _KEYRING[keys.good] = keys.gpg.export()
    return _KEYRING[keys.good]
