"""OpenPGP signatures: whose count, and every kind that does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from composefs_ext.errors import CorruptError, ExtError, FormatError, NotFoundError, UnsupportedError
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.signatures import checking, libraries, record
from composefs_ostree.signatures import keyring as keyrings
from composefs_ostree.signatures.detached import describe
from composefs_ostree.signatures.policy import GpgPolicy, Policy
from support.gpg import PAST, Keys, keys

__all__ = ["keys"]

DATA = b"a commit, as far as signatures care" * 10
WHAT = "commit 1234"
YEARS_AGO = "20200101T000000"


def detached(*blobs: bytes) -> dict[str, Variant]:
    return {"ostree.gpgsigs": Variant("aay", list(blobs)), "unrelated": Variant("s", "text")}


def verify(keyring: bytes, *blobs: bytes, data: bytes = DATA) -> list[record.Signature]:
    return checking.verify(data, detached(*blobs), Policy(GpgPolicy(keyring)), WHAT)


@pytest.fixture(scope="session")
def revoked(keys: Keys) -> bytes:
    """A signature by a key that was revoked afterwards."""
    return keys.sign_and_revoke(DATA)


@pytest.fixture(scope="session")
def everybody(keys: Keys, revoked: bytes) -> bytes:
    return keys.gpg.export()


def test_a_good_signature_is_found(keys: Keys, everybody: bytes) -> None:
    (found,) = verify(everybody, keys.gpg.sign(DATA, keys.good))
    assert (found.kind, found.key, found.owner, found.problem) == ("gpg", keys.good, "Good <good@example.com>", None)
    assert found.created is not None
    assert found.expires is None
    assert "good@example.com" in record.lines_of([found])


def test_a_signature_by_a_subkey_names_the_subkey(keys: Keys, everybody: bytes) -> None:
    (found,) = verify(everybody, keys.gpg.sign(DATA, keys.subkey))
    assert (found.key, found.owner, found.problem) == (keys.subkey, "Parent <parent@example.com>", None)


def test_one_good_signature_among_others_is_enough(keys: Keys, everybody: bytes) -> None:
    wrong = keys.gpg.sign(b"other bytes", keys.good)
    found = verify(keys.gpg.export(keys.rsa), wrong, b"garbage", keys.gpg.sign(DATA, keys.rsa))
    assert [signature.problem is None for signature in found] == [False, False, True]


def test_several_signatures_may_be_in_one_element(keys: Keys, everybody: bytes) -> None:
    both = keys.gpg.sign(DATA, keys.other) + keys.gpg.sign(DATA, keys.good)
    assert [signature.problem for signature in verify(everybody, both)] == [None, None]


def test_an_armoured_signature_is_read_as_ostree_reads_it(keys: Keys, everybody: bytes) -> None:
    armoured = keys.gpg.sign(DATA, keys.good, "--armor")
    binary = keys.gpg.sign(DATA, keys.other)
    for text in (armoured, armoured.replace(b"\n", b"\r\n"), armoured + b"what follows"):
        assert [found.key for found in verify(everybody, text, binary) if not found.problem] == [keys.good, keys.other]


def test_armoured_and_joined_keyrings_are_read(keys: Keys) -> None:
    armoured = keys.gpg.export(keys.other, armoured=True) + b"\n" + keys.gpg.export(keys.good, armoured=True)
    assert verify(armoured, keys.gpg.sign(DATA, keys.good))[0].problem is None
    crlf = armoured.replace(b"\n", b"\r\n")
    assert verify(crlf, keys.gpg.sign(DATA, keys.good))[0].problem is None


def test_a_secret_key_serves_as_its_public_one(keys: Keys) -> None:
    secret = keys.gpg.run("--export-secret-keys", keys.good)
    assert verify(secret, keys.gpg.sign(DATA, keys.good))[0].problem is None


REFUSED: dict[str, tuple[Callable[[Keys, bytes], tuple[bytes, ...]], str]] = {
    "wrong key": (lambda keys, _: (keys.gpg.sign(DATA, keys.other),), "its key is not among the trusted ones"),
    "other bytes": (lambda keys, _: (keys.gpg.sign(DATA + b"x", keys.good),), "made over other bytes"),
    "expired key": (lambda keys, _: (keys.gpg.sign(DATA, keys.expired, at=PAST),), "its key expired on 2020-12-31"),
    "expired subkey": (
        lambda keys, _: (keys.gpg.sign(DATA, keys.expired_subkey, at=PAST),),
        "its subkey expired on 2020-12-31",
    ),
    "revoked key": (lambda _, revoked: (revoked,), "its key is revoked"),
    "expired signature": (
        lambda keys, _: (keys.gpg.sign(DATA, keys.rsa, "--default-sig-expire=10d", at=PAST),),
        "it expired on 2020-06-11",
    ),
    "of the future": (
        lambda keys, _: (keys.gpg.sign(DATA, keys.rsa, at="20990101T000000"),),
        "2099-01-01, which is in the future",
    ),
    "SHA-1": (lambda keys, _: (keys.gpg.sign(DATA, keys.rsa, "--digest-algo=SHA1"),), "it relies on SHA1"),
    "text": (lambda keys, _: (keys.gpg.sign(DATA, keys.good, "--textmode"),), "not a signature of a document"),
    "garbage": (lambda *_: (b"\xc2\x0a" + bytes(10),), "malformed or of an unknown version"),
    "garbled": (lambda *_: (b"\x01\x02\x03",), "byte 0 does not begin an OpenPGP packet"),
    "empty": (lambda *_: (b"",), "it has no GPG signature"),
    "cut off": (lambda keys, _: (keys.gpg.sign(DATA, keys.good)[:-7],), "is cut off"),
    "armour without end": (
        lambda keys, _: (keys.gpg.sign(DATA, keys.good, "--armor")[:-40],),
        "the ASCII armour is cut off",
    ),
    "armour behind a line": (
        lambda keys, _: (b"\n" + keys.gpg.sign(DATA, keys.good, "--armor"),),
        "byte 0 does not begin an OpenPGP packet",
    ),
    "armour and no base64": (
        lambda *_: (b"-----BEGIN PGP SIGNATURE-----\n\nAAA\n-----END PGP SIGNATURE-----\n",),
        "malformed ASCII armour",
    ),
    "millions of beginnings": (
        lambda *_: (b"-----BEGIN PGP SIGNATURE-----\n" * 500_000,),
        "the ASCII armour is cut off",
    ),
    "endless": (lambda *_: (b"\xc2\xe9" + bytes(600),), "comes in parts"),
    "huge": (lambda *_: (b"\xc2\xff" + (100_000).to_bytes(4) + bytes(100_000),), "no signature's size"),
    "a certificate": (lambda keys, _: (keys.gpg.export(keys.good),), "it is not an OpenPGP signature"),
    "compressed": (
        lambda keys, _: (keys.gpg.run("--local-user", keys.good, "--sign", stdin=DATA),),
        "the OpenPGP packet at byte 0 has no length",
    ),
    "thousands": (lambda *_: tuple(b"\xc2\x01\x04" for _ in range(2000)), "2000 gpg signatures are more than 256"),
    "thousands in one": (lambda *_: (b"\xc2\x01\x04" * 2000,), "more than 256 GPG signatures"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_good_signature_is_refused(case: str, keys: Keys, revoked: bytes, everybody: bytes) -> None:
    make, reason = REFUSED[case]
    keyring = keys.gpg.export(keys.good) if case == "wrong key" else everybody
    with pytest.raises(CorruptError, match=WHAT) as caught:
        verify(keyring, *make(keys, revoked))
    assert reason in caught.value.message
    assert "only gpg" not in caught.value.message


def test_who_is_trusted_and_what_to_do_is_said(keys: Keys) -> None:
    with pytest.raises(CorruptError) as caught:
        verify(keys.gpg.export(keys.good), keys.gpg.sign(DATA, keys.other))
    assert keys.other in caught.value.message
    assert caught.value.hint is not None
    assert keys.good in caught.value.hint
    assert "--gpg-key" in caught.value.hint


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, "it has no GPG signature"),
        ({"ostree.sign.ed25519": Variant("aay", [bytes(64)])}, "it has no GPG signature, only ed25519"),
        ({"ostree.gpgsigs": Variant("aay", [])}, "it has no GPG signature"),
        ({"ostree.gpgsigs": Variant("as", ["x"])}, "has the type 'as' instead of 'aay'"),
        ({"ostree.gpgsigs": Variant("ay", b"x")}, "has the type 'ay' instead of 'aay'"),
    ],
)
def test_what_is_not_signed_is_refused(metadata: dict[str, Variant], reason: str, keys: Keys) -> None:
    with pytest.raises(CorruptError) as caught:
        checking.verify(DATA, metadata, Policy(GpgPolicy(keys.gpg.export(keys.good))), WHAT)
    assert reason in caught.value.message
    assert "only gpg" not in caught.value.message


def test_a_key_that_one_keyring_revokes_is_revoked_in_all(keys: Keys, tmp_path: Path) -> None:
    key = keys.gpg.make_key("Twice <twice@example.com>")
    signature, before = keys.gpg.sign(DATA, key), keys.gpg.export(key)
    keys.gpg.revoke(key)
    (tmp_path / "before").write_bytes(before)
    (tmp_path / "after").write_bytes(keys.gpg.export(key))
    policy = Policy(GpgPolicy(paths=(str(tmp_path / "before"),)))
    assert checking.verify(DATA, detached(signature), policy, WHAT)[0].problem is None
    with pytest.raises(CorruptError, match="its key is revoked"):
        checking.verify(DATA, detached(signature), Policy(GpgPolicy(paths=(str(tmp_path),))), WHAT)


def test_a_key_that_one_keyring_renews_is_renewed_in_all(keys: Keys) -> None:
    made = "20200101T000000"
    key = keys.gpg.make_key("Renewed <renewed@example.com>", expires="1y", at=made)
    subkey = keys.gpg.add_subkey(key, "1y", at=made)
    before = keys.gpg.export(key)
    for each in ([], [subkey]):
        keys.gpg.run("--quick-set-expire", key, "10y", *each)
    for keyring in (before + keys.gpg.export(key), keys.gpg.export(key) + before):
        for signer in (f"{key}!", subkey):
            assert verify(keyring, keys.gpg.sign(DATA, signer))[0].problem is None


def test_a_subkey_is_not_renewed_before_the_date_of_its_renewal(keys: Keys) -> None:
    made = "20200101T000000"
    key = keys.gpg.make_key("Later <later@example.com>", at=made)
    subkey = keys.gpg.add_subkey(key, "1y", at=made)
    signature, before = keys.gpg.sign(DATA, subkey, at=PAST), keys.gpg.export(key)
    keys.gpg.run("--faked-system-time", "20990101T000000!", "--quick-set-expire", key, "0", subkey)
    with pytest.raises(CorruptError, match="its subkey expired on 2020-12-31"):
        verify(before + keys.gpg.export(key), signature)


@pytest.mark.parametrize("is_subkey", [False, True])
def test_what_a_key_signed_before_it_was_renewed_needs_the_key_of_then(keys: Keys, is_subkey: bool) -> None:
    key = keys.gpg.make_key(f"Renewed <{is_subkey}@example.com>", expires="never" if is_subkey else "1y", at=YEARS_AGO)
    signer = keys.gpg.add_subkey(key, "1y", at=YEARS_AGO) if is_subkey else key
    made = keys.gpg.sign(DATA, signer, at=PAST)
    before = keys.gpg.export(key)
    keys.gpg.run("--quick-set-expire", key, "0", *([signer] if is_subkey else []))
    with pytest.raises(
        CorruptError, match=r"its key is known as of \d{4}-\d\d-\d\d only: trust it as it was before, too"
    ):
        verify(keys.gpg.export(key), made)
    assert verify(keys.gpg.export(key) + before, made)[0].key == signer
    assert verify(keys.gpg.export(key), keys.gpg.sign(DATA, signer))[0].key == signer
    with pytest.raises(CorruptError, match="it was made over other bytes"):
        verify(keys.gpg.export(key) + before, made, data=DATA + b"x")


def test_directories_and_the_systems_keyrings_are_read(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = keys.gpg.sign(DATA, keys.good)
    (tmp_path / "a.asc").write_bytes(keys.gpg.export(keys.good, armoured=True))
    monkeypatch.setattr(keyrings, "GLOBAL_KEYRINGS", str(tmp_path))
    (tmp_path / ".hidden.gpg").write_bytes(keys.gpg.export(keys.good))
    trusted = Policy(GpgPolicy(with_global=True))
    with pytest.raises(CorruptError, match="there is no trusted GPG key"):
        checking.verify(DATA, detached(signature), trusted, WHAT)
    (tmp_path / "a.gpg").write_bytes(keys.gpg.export(keys.good))
    (tmp_path / "directory.gpg").mkdir()
    os.mkfifo(tmp_path / "pipe.gpg")
    assert checking.verify(DATA, detached(signature), trusted, WHAT)[0].problem is None
    monkeypatch.setattr(keyrings, "GLOBAL_KEYRINGS", str(tmp_path / "absent"))
    with pytest.raises(CorruptError, match="there is no trusted GPG key"):
        checking.verify(DATA, detached(signature), trusted, WHAT)


@pytest.mark.parametrize(
    ("content", "error", "reason"),
    [
        (None, NotFoundError, "No such file"),
        (b"", FormatError, "there is no OpenPGP certificate in it"),
        (b"not a key", FormatError, "does not begin an OpenPGP packet"),
        (b"\x00\x00\x00\x20\x01\x01\x00\x02KBXf", FormatError, "this is a keybox"),
        (b"\xc6\x05\x63abcd", FormatError, ""),
    ],
)
def test_a_file_that_is_no_keyring_is_named(
    content: bytes | None, error: type[ExtError], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=str(path)) as caught:
        checking.verify(DATA, detached(b"x"), Policy(GpgPolicy(paths=(str(path),))), WHAT)
    assert reason in caught.value.message


def test_a_certificate_that_nobody_understands_does_not_spoil_the_others(keys: Keys) -> None:
    keyring = b"\xc6\x05\x63abcd" + keys.gpg.export(keys.good)
    assert verify(keyring, keys.gpg.sign(DATA, keys.good))[0].problem is None


def test_without_the_library_nothing_passes(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    signature, keyring = keys.gpg.sign(DATA, keys.good), keys.gpg.export(keys.good)

    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(libraries, "import_module", missing)
    with pytest.raises(UnsupportedError, match="pysequoia") as caught:
        verify(keyring, signature)
    assert caught.value.hint == "pip install 'pysequoia>=0.1.32'"


def test_signatures_can_be_described_without_any_key(keys: Keys) -> None:
    found = describe(detached(keys.gpg.sign(DATA, keys.subkey), b"x") | {"ostree.sign.spki": Variant("aay", [b"1"])})
    assert [(each.kind, each.key, each.problem) for each in found] == [
        ("gpg", keys.subkey, "not checked"),
        ("gpg", None, "byte 0 does not begin an OpenPGP packet"),
        ("spki", None, "not checked"),
    ]
