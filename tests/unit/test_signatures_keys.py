"""Signatures of ed25519 and SPKI: published vectors, what openssl makes, files of keys, and who is not trusted."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from composefs_ext import Core
from composefs_ext.errors import CorruptError, ExtError, FormatError, NotFoundError, UnsupportedError
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import MAX_DETACHED
from composefs_ostree.signatures import checking, libraries, publickeys, record, signing
from composefs_ostree.signatures.detached import parse_detached
from composefs_ostree.signatures.policy import Policy, SignKeys
from composefs_ostree.signatures.publickeys import encode_base64
from composefs_ostree.signatures.signing import SignOptions
from support.commands import run
from support.peers import require

# RFC 8032, 7.1: secret key, public key, message, signature.
ED25519 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
# RFC 8032, 7.4, the empty message.
ED448_SECRET = (
    "6c82a562cb808d10d632be89c8513ebf6c929f34ddfa8c9f63c9960ef6e348a3528c8a3fcc2f044e39a3fc5b94492f8f032e7549a20098f95b"
)
ED448_PUBLIC = (
    "5fd7449b59b461fd2ce787ec616ad46a1da1342485a70e1f8a0ea75d80e96778edf124769b46c7061bd6783df1e50f6cd1fa1abeafe8256180"
)
ED448_SIGNATURE = (
    "533a37f6bbe457251f023c0d88f976ae2dfb504a843e34d2074fd823d41a591f2b233f034f628281f2fd7a22ddd47d7828c59bd0a21bfd3980"
    "ff0d2028d4b18a9df63e006c5d1c2d345b925d8dc00b4104852db99ac5c7cdda8530a113a0f4dbb61149f05a7363268c71d95808ff2e652600"
)
# RFC 8410, 4: the SubjectPublicKeyInfo of a key of Ed25519 or Ed448 is this and the key.
PREFIX = {"ed25519": "302a300506032b6570032100", "ed448": "3043300506032b6571033a00"}
WHAT = "commit 1234"


@pytest.fixture(autouse=True)
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the directories of the system's keys."""
    (tmp_path / "system").mkdir()
    monkeypatch.setattr(publickeys, "SYSTEM_DIRECTORIES", (str(tmp_path / "system"), str(tmp_path / "absent")))
    return tmp_path / "system"


def b64(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def detached(kind: str, *blobs: bytes) -> dict[str, Variant]:
    return {f"ostree.sign.{kind}": Variant("aay", list(blobs))}


def verify(keys: SignKeys, data: bytes, *blobs: bytes) -> list[record.Signature]:
    return checking.verify(data, detached(keys.kind, *blobs), Policy(sign=(keys,)), WHAT)


@pytest.mark.parametrize(("secret", "public", "message", "signature"), ED25519)
def test_ed25519_agrees_with_the_rfc(
    silent_core: Core, secret: str, public: str, message: str, signature: str, tmp_path: Path
) -> None:
    data, wanted = bytes.fromhex(message), bytes.fromhex(signature)
    (found,) = verify(SignKeys("ed25519", (b64(public),)), data, wanted)
    assert found == ("ed25519", b64(public), None, None, None, None)
    (tmp_path / "secret").write_text(b64(secret + public) + "\n")
    made = signing.sign(silent_core, data, {}, SignOptions(key_files=(str(tmp_path / "secret"),)))
    assert made == detached("ed25519", wanted)
    der = bytes.fromhex(PREFIX["ed25519"] + public)
    assert verify(SignKeys("spki", (base64.b64encode(der).decode(),)), data, wanted)[0].problem is None


def test_ed448_agrees_with_the_rfc(silent_core: Core, tmp_path: Path) -> None:
    pem = tmp_path / "key.pem"
    pem.write_text(f"-----BEGIN PUBLIC KEY-----\n{b64(PREFIX['ed448'] + ED448_PUBLIC)}\n-----END PUBLIC KEY-----\n")
    keys = SignKeys("spki", files=(str(pem),))
    assert verify(keys, b"", bytes.fromhex(ED448_SIGNATURE))[0].problem is None
    # RFC 8410, 7: PKCS #8 around the secret key.
    (tmp_path / "secret.pem").write_text(
        "-----BEGIN PRIVATE KEY-----\n"
        + b64("3047020100300506032b6571043b0439" + ED448_SECRET)
        + "\n-----END PRIVATE KEY-----\n"
    )
    options = SignOptions(sign_type="spki", key_files=(str(tmp_path / "secret.pem"),))
    assert signing.sign(silent_core, b"", {}, options) == detached("spki", bytes.fromhex(ED448_SIGNATURE))


@pytest.mark.parametrize(
    "algorithm",
    [
        ("ed25519",),
        ("ed448",),
        ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
        ("EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    ],
)
def test_spki_agrees_with_openssl(silent_core: Core, algorithm: tuple[str, ...], tmp_path: Path) -> None:
    openssl, data = require("openssl"), b"some bytes" * 50
    secret, public, file, made = (tmp_path / name for name in ("secret", "public", "data", "made"))
    file.write_bytes(data)
    run(openssl, "genpkey", "-algorithm", *algorithm, "-out", secret)
    run(openssl, "pkey", "-in", secret, "-pubout", "-out", public)
    run(openssl, "pkeyutl", "-sign", "-rawin", "-inkey", secret, "-in", file, "-out", made)
    keys = SignKeys("spki", files=(str(public),))
    assert verify(keys, data, made.read_bytes())[0].problem is None
    with pytest.raises(CorruptError, match="none over these bytes"):
        verify(keys, data + b"x", made.read_bytes())
    options = SignOptions(sign_type="spki", key_files=(str(secret),))
    (ours,) = signing.sign(silent_core, data, {}, options)["ostree.sign.spki"].value
    made.write_bytes(ours)
    run(openssl, "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public, "-in", file, "-sigfile", made)


def test_a_file_has_a_key_a_line_and_the_right_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("\n".join(["", *(f"  {b64(public)}  " for _, public, _, _ in ED25519), ""]))
    for _, public, message, signature in ED25519:
        found = verify(
            SignKeys("ed25519", files=(str(path),)), bytes.fromhex(message), bytes(64), bytes.fromhex(signature)
        )
        assert [each.key for each in found] == [None, b64(public)]


@pytest.mark.parametrize("blob", [b"", b"x", bytes(63), bytes(64), bytes(65), bytes(1 << 20), b"\xff" * 64])
def test_what_is_no_signature_is_refused(blob: bytes) -> None:
    public = b64(ED25519[0][1])
    with pytest.raises(CorruptError) as caught:
        verify(SignKeys("ed25519", (public,)), b"", blob)
    assert caught.value.message.startswith(f"{WHAT}: its ed25519 signature is not good: one: it is none over")
    assert caught.value.hint is not None
    assert public in caught.value.hint
    assert "--sign-key" in caught.value.hint


def test_too_many_signatures_are_refused() -> None:
    with pytest.raises(CorruptError, match="300 ed25519 signatures are more than 256"):
        verify(SignKeys("ed25519", (b64(ED25519[0][1]),)), b"", *[bytes(64)] * 300)


def test_detached_metadata_is_bounded() -> None:
    with pytest.raises(FormatError, match=r"its bytes: malformed detached metadata: .* are more than"):
        parse_detached(bytes(MAX_DETACHED + 1), "its bytes")


def test_what_is_wrong_is_told_of_the_first_signatures_only() -> None:
    keys = tuple(b64(public) for _, public, _, _ in ED25519) + tuple(encode_base64(bytes([n]) * 32) for n in (1, 2, 3))
    with pytest.raises(CorruptError) as caught:
        verify(SignKeys("ed25519", keys), b"x", *[bytes(64)] * 7)
    assert caught.value.message.count("one: ") == 4
    assert caught.value.message.endswith("; and 3 more")
    assert caught.value.hint is not None
    assert f"{keys[3]} and 2 more; " in caught.value.hint


def test_a_signature_by_another_key_is_refused() -> None:
    with pytest.raises(CorruptError, match="by any of 1 trusted keys"):
        verify(SignKeys("ed25519", (b64(ED25519[1][1]),)), b"", bytes.fromhex(ED25519[0][3]))


def test_either_of_several_kinds_is_enough_and_one_must_be_there() -> None:
    _, public, message, signature = ED25519[1]
    data = bytes.fromhex(message)
    spki = base64.b64encode(bytes.fromhex(PREFIX["ed25519"] + public)).decode()
    policy = Policy(sign=(SignKeys("ed25519", (b64(ED25519[0][1]),)), SignKeys("spki", (spki,))))
    both = detached("ed25519", bytes(64)) | detached("spki", bytes.fromhex(signature))
    found = checking.verify(data, both, policy, WHAT)
    assert [(each.kind, each.problem is None) for each in found] == [("ed25519", False), ("spki", True)]
    with pytest.raises(CorruptError, match="it has no ed25519 or spki signature, only gpg"):
        checking.verify(data, {"ostree.gpgsigs": Variant("aay", [b"x"])}, policy, WHAT)


def test_the_systems_keys_are_trusted_where_none_are_given(system: Path) -> None:
    _, public, message, signature = ED25519[2]
    keys, data, blob = SignKeys("ed25519"), bytes.fromhex(message), bytes.fromhex(signature)
    with pytest.raises(CorruptError, match="by any of 0 trusted keys"):
        verify(keys, data, blob)
    (system / "trusted.ed25519.d").mkdir()
    (system / "trusted.ed25519.d" / "vendor").write_text(b64(public))
    (system / "trusted.ed25519").write_text("this is no key")  # what is no key gives no trust, and takes none
    assert verify(keys, data, blob)[0].problem is None


@pytest.mark.parametrize("place", ["revoked.ed25519", "revoked.ed25519.d/list"])
def test_a_key_that_the_system_has_revoked_is_not_trusted(place: str, system: Path) -> None:
    _, public, message, signature = ED25519[2]
    keys = SignKeys("ed25519", (b64(public),))
    (system / place).parent.mkdir(exist_ok=True)
    (system / place).write_text(b64(public) + "\n")
    with pytest.raises(CorruptError, match="by any of 0 trusted keys"):
        verify(keys, bytes.fromhex(message), bytes.fromhex(signature))
    (system / place).write_text("garbled")
    with pytest.raises(FormatError, match="malformed base64"):
        verify(keys, bytes.fromhex(message), bytes.fromhex(signature))


RSA_512 = """-----BEGIN PUBLIC KEY-----
MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf
9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ==
-----END PUBLIC KEY-----
"""


@pytest.mark.parametrize(
    ("kind", "content", "error", "reason"),
    [
        ("ed25519", None, NotFoundError, "No such file"),
        ("ed25519", "", FormatError, "there is no ed25519 key in it"),
        ("ed25519", "AAAA", FormatError, "an ed25519 key has 32 bytes, and this 3"),
        ("ed25519", "!", FormatError, "malformed base64"),
        ("spki", "AAAA", FormatError, "there is no spki key in it"),
        ("spki", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", FormatError, "it is no public key"),
        ("spki", "-----BEGIN PUBLIC KEY-----\nA\n-----END PUBLIC KEY-----", FormatError, "malformed PEM"),
        ("spki", RSA_512, FormatError, "an RSA key of 512 bits is too short"),
    ],
)
def test_a_file_that_has_no_key_is_named(
    kind: str, content: str | None, error: type[ExtError], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=str(path)) as caught:
        verify(SignKeys(kind, files=(str(path),)), b"", bytes(64))
    assert reason in caught.value.message


def test_a_file_that_is_too_large_for_keys_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("\n")
    os.truncate(path, (16 << 20) + 1)
    with pytest.raises(CorruptError, match=f"{path}: .*it is longer than {16 << 20} bytes"):
        verify(SignKeys("ed25519", files=(str(path),)), b"", bytes(64))


# RFC 8410, 7: PKCS #8 around a secret key of X25519, by which others are agreed on.
X25519 = (
    "-----BEGIN PRIVATE KEY-----\n"
    + b64("302e020100300506032b656e04220420" + ED25519[0][0])
    + "\n-----END PRIVATE KEY-----\n"
)


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("ed25519", "", "there is no secret ed25519 key in it"),
        ("ed25519", b64(ED25519[0][0]), "a secret ed25519 key has 64 bytes, and this 32"),
        ("ed25519", b64(ED25519[0][0] + ED25519[1][1]), "is not the public key of the first"),
        (
            "spki",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            "it is no secret key that can be used",
        ),
        ("spki", X25519, "its algorithm cannot sign"),
        ("spki", b64(ED25519[0][0]), "there is no secret spki key in it"),
    ],
)
def test_what_is_no_secret_key_is_refused_without_telling_it(
    silent_core: Core, kind: str, content: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    path.write_text(content)
    with pytest.raises(FormatError, match=str(path)) as caught:
        signing.sign(silent_core, b"", {}, SignOptions(sign_type=kind, key_files=(str(path),)))
    assert reason in caught.value.message
    assert not content or content not in caught.value.message


def test_signatures_are_added_to_those_that_are_there(silent_core: Core, tmp_path: Path) -> None:
    secret, public, _, _ = ED25519[0]
    (tmp_path / "secret").write_text(b64(secret + public))
    options = SignOptions(key_files=(str(tmp_path / "secret"),))
    first = signing.sign(silent_core, b"x", {"other": Variant("s", "kept")}, options)
    second = signing.sign(silent_core, b"y", first, options)
    assert second["other"].value == "kept"
    assert len(second["ostree.sign.ed25519"].value) == 2
    assert len(signing.sign(silent_core, b"y", second, options)["ostree.sign.ed25519"].value) == 2, (
        "the same one is there twice"
    )


def test_without_the_library_nothing_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(libraries, "import_module", missing)
    _, public, message, signature = ED25519[0]
    with pytest.raises(UnsupportedError, match="cryptography") as caught:
        verify(SignKeys("ed25519", (b64(public),)), bytes.fromhex(message), bytes.fromhex(signature))
    assert caught.value.hint == "pip install cryptography"
