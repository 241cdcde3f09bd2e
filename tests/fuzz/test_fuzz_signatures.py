"""Damaged signatures and detached metadata never do worse than one clean error, and are good over nothing else.

COMPOSEFS_FUZZ is the number of cases; `make fuzz` sets 10,000, else it is a sample.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from composefs_ext.errors import CorruptError, FormatError
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.signatures import checking, detached
from composefs_ostree.signatures.keyring import Keyring, read_certificates
from composefs_ostree.signatures.openpgp import check, claims
from composefs_ostree.signatures.policy import Policy, SignKeys
from support.gpg import Keys, keys

__all__ = ["keys"]

COUNT = int(os.environ.get("COMPOSEFS_FUZZ", "1500"))
DATA = b"what is signed"
OTHER = b"something else"
ED25519 = Policy(sign=(SignKeys("ed25519", ("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",)),))


@pytest.fixture(autouse=True)
def no_backtraces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backtrace for every refusal takes twenty times as long as the refusal."""
    monkeypatch.delenv("RUST_BACKTRACE", raising=False)


def damaged(seeds: list[bytes], count: int) -> Iterator[bytes]:
    """Yield seeds with bytes changed, removed, repeated, and taken from each other."""
    chooser = random.Random(7)
    for _ in range(count):
        data = bytearray(chooser.choice(seeds))
        for _ in range(chooser.randint(1, 4)):
            place, size = chooser.randrange(len(data) + 1), chooser.randint(1, 12)
            match chooser.randrange(5):
                case 0:
                    data[place : place + 1] = bytes([chooser.randrange(256)])
                case 1:
                    del data[place : place + size]
                case 2:
                    data[place:place] = data[place : place + size] * chooser.randint(1, 3)
                case 3:
                    data[place : place + size] = chooser.choice(seeds)[place : place + chooser.randint(0, 40)]
                case _:
                    data[place : place + 4] = chooser.choice([0, 1, 0x7F, 0x80, 0xFF]).to_bytes() * chooser.randint(
                        1, 4
                    )
        yield bytes(data)


def seeds(keys: Keys) -> list[bytes]:
    sign = keys.gpg.sign
    good = [sign(DATA, keys.good), sign(DATA, keys.rsa), sign(DATA, keys.subkey), sign(DATA, keys.good, "--textmode")]
    good.append(sign(DATA, keys.good, "--armor"))
    return [*good, good[0] + good[1], keys.gpg.export(keys.parent), sign(DATA, keys.rsa, "--digest-algo=SHA1")]


def test_damaged_signatures(keys: Keys) -> None:
    trusted = Keyring(read_certificates(keys.gpg.export(), "keys"))
    outcomes: Counter[str] = Counter()
    for data in damaged(seeds(keys), COUNT):
        try:
            found = check(DATA, [data], trusted)
            claims([data])
            assert all(signature.problem for signature in check(OTHER, [data], trusted))
        except FormatError:
            outcomes["too many"] += 1
            continue
        for signature in found:
            outcomes[signature.problem or "good"] += 1
            assert signature.problem or signature.key in (keys.good, keys.rsa, keys.subkey)
    # Nothing but refusals, or always the same, would prove little.
    assert outcomes["good"] > COUNT // 100
    assert len(outcomes) > 6, outcomes


def test_damaged_keyrings(keys: Keys) -> None:
    """A keyring is trusted, but may be damaged; what of it cannot be read gives no trust."""
    outcomes: Counter[str] = Counter()
    good = keys.gpg.sign(DATA, keys.subkey)
    rings = [keys.gpg.export(keys.parent, keys.good), keys.gpg.export(keys.parent, armoured=True)]
    for data in damaged(rings, COUNT // 3):
        try:
            trusted = Keyring(read_certificates(data, "keys"))
        except FormatError:
            outcomes["refused"] += 1
            continue
        (found,) = check(DATA, [good], trusted)
        outcomes["good" if found.problem is None else "not trusted"] += 1
        assert check(OTHER, [good], trusted)[0].problem
    assert min(outcomes.values()) > COUNT // 300, outcomes
    assert len(outcomes) == 3


def test_damaged_metadata(keys: Keys) -> None:
    outcomes: Counter[str] = Counter()
    blobs = seeds(keys)
    whole = [
        gvariant.encode("a{sv}", {"ostree.gpgsigs": Variant("aay", blobs[:2]), "a": Variant("s", "text")}),
        gvariant.encode("a{sv}", {"ostree.sign.ed25519": Variant("aay", [bytes(64), b"x"])}),
        gvariant.encode("a{sv}", {"ostree.sign.ed25519": Variant("as", ["x"]), "ostree.gpgsigs": Variant("ay", b"x")}),
    ]
    for data in damaged(whole, COUNT):
        try:
            metadata = detached.parse_detached(data, "commitmeta")
        except FormatError:
            outcomes["malformed"] += 1
            continue
        outcomes["read"] += 1
        detached.describe(metadata)
        with pytest.raises(CorruptError):
            checking.verify(DATA, metadata, ED25519, "commit")
    assert min(outcomes.values()) > COUNT // 100, outcomes
