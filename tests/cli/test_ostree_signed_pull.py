"""Pulling what must be signed, by the installed command: what passes, and that nothing else leaves a name."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.signatures.packets import PUBLIC_KEY, SECRET_KEY, split
from support.commands import CFSCTL, run
from support.gpg import PAST, Gnupg, Keys, keys
from support.ostree_pull import Target, extensions
from support.ostree_repo import BRANCH, commit, make_repo, make_tree
from support.peers import require
from support.server import Fault, serve

__all__ = ["extensions", "keys"]

pytestmark = pytest.mark.usefixtures("extensions")

UNTRUSTED = 5
"""The exit status of what is corrupt, and so of a refusal."""


class Source:
    """An archive repository with one commit, whose signatures tests set."""

    def __init__(self, path: Path) -> None:
        make_tree(path / "tree", files=3)
        self.path = make_repo(path / "source")
        self.commit = commit(self.path, path / "tree")
        self.object = self.path / "objects" / self.commit[:2] / f"{self.commit[2:]}.commit"

    @property
    def data(self) -> bytes:
        return self.object.read_bytes()

    def sign(self, *blobs: bytes, key: str = "ostree.gpgsigs") -> None:
        metadata = {key: Variant("aay", list(blobs))}
        self.object.with_suffix(".commitmeta").write_bytes(gvariant.encode("a{sv}", metadata))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


@pytest.fixture
def key_file(keys: Keys, tmp_path: Path) -> Path:
    (tmp_path / "keys.asc").write_bytes(keys.gpg.export(*keys.trusted, armoured=True))
    return tmp_path / "keys.asc"


def test_a_signed_commit_is_pulled_and_the_signature_named(
    keys: Keys, source: Source, target: Target, key_file: Path
) -> None:
    source.sign(keys.gpg.sign(source.data, keys.foreign), keys.gpg.sign(source.data, keys.good))
    with serve(source.path) as server:
        pulled = target.json("pull", server.url, BRANCH, "--gpg-key", key_file)
    assert pulled["commit"] == source.commit
    assert [(row["kind"], row["key"], row["problem"]) for row in pulled["signatures"]] == [
        ("gpg", keys.foreign, "its key is not among the trusted ones"),
        ("gpg", keys.good, None),
    ]


REFUSED: dict[str, tuple[Callable[[Keys, bytes], list[bytes]], str]] = {
    "unsigned": (lambda *_: [], "it has no GPG signature"),
    "foreign key": (lambda keys, data: [keys.gpg.sign(data, keys.foreign)], "its key is not among the trusted ones"),
    "other bytes": (lambda keys, data: [keys.gpg.sign(data + b"x", keys.good)], "it was made over other bytes"),
    "expired key": (lambda keys, data: [keys.gpg.sign(data, keys.expired, at=PAST)], "its key expired on 2020-12-31"),
    "revoked key": (lambda keys, data: [keys.sign_and_revoke(data)], "its key is revoked"),
    "expired signature": (
        lambda keys, data: [keys.gpg.sign(data, keys.rsa, "--default-sig-expire=10d", at=PAST)],
        "it expired on 2020-06-11",
    ),
    "SHA-1": (lambda keys, data: [keys.gpg.sign(data, keys.rsa, "--digest-algo=SHA1")], "it relies on SHA1"),
    "garbage": (lambda *_: [b"\xc2\x0a" + bytes(10)], "it is malformed or of an unknown version"),
    "huge": (lambda *_: [b"\xc2\xff\x00\x10\x00\x00" + bytes(1 << 20)], "no signature's size"),
    "thousands": (lambda *_: [b"\xc2\x01\x04"] * 5000, "5000 gpg signatures are more than 256"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_signed_well_is_refused(
    case: str, keys: Keys, source: Source, target: Target, tmp_path: Path
) -> None:
    make, reason = REFUSED[case]
    source.sign(*make(keys, source.data))
    (tmp_path / "keys").write_bytes(keys.gpg.export(*keys.trusted))
    with serve(source.path) as server:
        done = target.ostree("pull", server.url, BRANCH, "--gpg-key", tmp_path / "keys", status=None)
        assert server.count("*.filez") == server.count("*.dirtree") == 0
    assert done.returncode == UNTRUSTED
    assert f"commit {source.commit}: " in done.stderr
    assert reason in done.stderr
    assert any(remedy in done.stderr for remedy in ("--no-gpg-verify", "--gpg-key", "have it signed anew"))
    assert target.names() == {}
    assert target.left_over() == []


def test_a_commit_that_is_here_is_verified_by_the_signature_that_came_with_it(
    keys: Keys, source: Source, target: Target, key_file: Path
) -> None:
    """The source may have lost it since."""
    source.sign(keys.gpg.sign(source.data, keys.good))
    with serve(source.path) as server:
        first = target.json("pull", server.url, BRANCH, "--gpg-key", key_file)
        [signature] = source.path.glob("objects/*/*.commitmeta")
        signature.unlink()
        assert target.json("pull", server.url, BRANCH, "--gpg-key", key_file)["signatures"] == first["signatures"]


def test_a_tampered_commit_is_refused(keys: Keys, source: Source, target: Target, key_file: Path) -> None:
    source.sign(keys.gpg.sign(source.data, keys.good))
    data = bytearray(source.data)
    data[-40] ^= 1
    source.object.write_bytes(data)
    with serve(source.path) as server:
        done = target.ostree("pull", server.url, BRANCH, "--gpg-key", key_file, status=None)
    assert done.returncode == UNTRUSTED
    assert target.names() == {}


def test_what_came_without_verification_is_verified_when_that_is_wanted(
    keys: Keys, source: Source, target: Target, key_file: Path
) -> None:
    with serve(source.path) as server:
        target.ostree("pull", server.url, BRANCH)
        before = target.names()
        done = target.ostree("pull", server.url, BRANCH, "--gpg-key", key_file, status=None)
        assert done.returncode == UNTRUSTED
        assert target.names() == before
        source.sign(keys.gpg.sign(source.data, keys.good))
        assert target.json("pull", server.url, BRANCH, "--gpg-key", key_file)["files_fetched"] == 0


def test_a_remote_wants_gpg_signatures_unless_it_says_otherwise(
    keys: Keys, source: Source, target: Target, key_file: Path
) -> None:
    with serve(source.path) as server:
        target.ostree("remote", "add", "origin", server.url, f"--gpg-import={key_file}")
        refused = target.ostree("pull", f"origin:{BRANCH}", status=None)
        assert refused.returncode == UNTRUSTED
        assert "--no-gpg-verify" in refused.stderr
        source.sign(keys.gpg.sign(source.data, keys.subkey))
        target.ostree("pull", f"origin:{BRANCH}")
        source.sign()
        other = Target(target.path.with_name("other"))
        other.ostree("remote", "add", "origin", server.url)
        assert other.ostree("pull", f"origin:{BRANCH}", status=None).returncode == UNTRUSTED
        other.ostree("pull", f"origin:{BRANCH}", "--no-gpg-verify")


def test_a_remote_is_given_the_next_key(
    keys: Keys, source: Source, target: Target, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "next.gpg").write_bytes(keys.gpg.export(keys.foreign))
    with serve(source.path) as server:
        target.ostree("remote", "add", "origin", server.url, BRANCH, f"--gpg-import={key_file}")
        source.sign(keys.gpg.sign(source.data, keys.foreign))
        told = target.ostree("pull", "origin", status=UNTRUSTED).stderr
        assert "cfsctl ostree remote gpg-import REMOTE FILE" in told
        before = target.json("remote", "show", "origin")
        told = target.ostree("remote", "gpg-import", "origin", tmp_path / "next.gpg").stdout
        after = target.json("remote", "show", "origin")
        assert after["settings"] == before["settings"]
        assert after["keys"][:-1] == before["keys"]
        assert [line.split()[0] for line in told.splitlines()] == [key["fingerprint"] for key in after["keys"]]
        assert after["keys"][-1]["fingerprint"] == keys.foreign  # in capitals, as in messages, and by gpg and ostree
        target.ostree("pull", "origin")
    again = target.json("remote", "gpg-import", "origin", key_file, tmp_path / "next.gpg")
    assert again["keys"] == after["keys"]
    told = target.ostree("remote", "gpg-import", "none", key_file, status=3).stderr
    assert "no remote 'none' in the repository" in told
    (tmp_path / "o.conf").write_text('[remote "o"]\nurl=http://localhost/\n')
    monkeypatch.setenv("COMPOSEFS_OSTREE_REMOTES", str(tmp_path))
    told = target.ostree("remote", "gpg-import", "o", key_file, status=3).stderr
    assert f"it is configured in {tmp_path / 'o.conf'}, which cfsctl only reads" in told


def test_no_secret_key_gets_into_a_remote(target: Target, tmp_path: Path) -> None:
    with closing(Gnupg(tmp_path)) as gpg:
        # Not Ed25519: of one such secret in 256, gpg writes a number with leading zeros, which Sequoia refuses.
        secret = gpg.run("--export-secret-keys", gpg.make_key("RSA <rsa@example.com>", "rsa2048"))
    (tmp_path / "secret").write_bytes(secret)
    target.ostree("remote", "add", "origin", "http://example.com/", f"--gpg-import={tmp_path / 'secret'}")
    lines = run(CFSCTL, "--repo", target.path, "cat", "ostree-remote-origin").stdout.splitlines()
    (keyring,) = (line.partition("=")[2] for line in lines if line.startswith("gpg-keyring="))
    assert next(split(secret)).tag == SECRET_KEY
    assert next(split(base64.b64decode(keyring))).tag == PUBLIC_KEY
    assert SECRET_KEY not in {packet.tag for packet in split(base64.b64decode(keyring))}


def test_a_secret_key_as_gpg_writes_one_of_256_is_told(target: Target, tmp_path: Path) -> None:
    with closing(Gnupg(tmp_path)) as gpg:
        own, other = (
            gpg.run("--export-secret-keys", gpg.make_key(f"{name} <{name}@example.com>")) for name in ("own", "other")
        )
    key = bytearray(next(split(own)).data)
    key[-36:-33] = b"\x01\x00\x00"  # before the checksum the secret: 256 bits, the first eight of them zero
    key[-2:] = sum(key[-36:-2]).to_bytes(2, "big")
    for data in (bytes(key) + own[len(key) :], bytes(key) + own[len(key) :] + other):
        (tmp_path / "secret").write_bytes(data)
        words = ("remote", "add", "origin", "http://example.com/", f"--gpg-import={tmp_path / 'secret'}")
        told = target.ostree(*words, status=5).stderr
        assert f"{tmp_path / 'secret'}: a secret key in it, which is not needed, cannot be read: " in told
        assert "(gpg --export KEY > FILE makes a keyring)" in told
    assert target.names() == {}


def test_a_signed_summary_is_wanted_when_that_is_said(
    keys: Keys, source: Source, target: Target, key_file: Path
) -> None:
    source.sign(keys.gpg.sign(source.data, keys.good))
    arguments = (BRANCH, "--gpg-key", key_file, "--gpg-verify-summary")
    ostree, repo, home = require("ostree"), f"--repo={source.path}", f"--gpg-homedir={keys.gpg.home}"
    with serve(source.path) as server:
        assert "there is no summary" in target.ostree("pull", server.url, *arguments, status=None).stderr
        run(ostree, "summary", repo, "--update")
        assert "it has no GPG signature" in target.ostree("pull", server.url, *arguments, status=None).stderr
        run(ostree, "summary", repo, "--update", home, f"--gpg-sign={keys.foreign}")
        assert "not among the trusted" in target.ostree("pull", server.url, *arguments, status=None).stderr
        assert target.names() == {}
        run(ostree, "summary", repo, "--update", home, f"--gpg-sign={keys.good}")
        target.ostree("pull", server.url, *arguments)


def test_a_cache_has_an_older_summary_than_its_signature(
    keys: Keys, source: Source, target: Target, key_file: Path
) -> None:
    source.sign(keys.gpg.sign(source.data, keys.good))
    update = (require("ostree"), "summary", f"--repo={source.path}", "--update", f"--gpg-homedir={keys.gpg.home}")
    run(*update, f"--gpg-sign={keys.good}")
    older = (source.path / "summary").read_bytes()
    commit(source.path, source.path.with_name("tree"), branch="other")
    run(*update, f"--gpg-sign={keys.good}")
    with serve(source.path) as server:
        server.fault("/summary", Fault(body=older))
        words = ("pull", server.url, BRANCH, "--gpg-key", key_file, "--gpg-verify-summary")
        told = target.ostree(*words, status=5).stderr
    assert f"{server.url}/summary: its GPG signature is not good: " in told
    assert told.endswith("; just after an update a cache may have one of both from before: try again later)\n")


def test_a_cache_is_not_blamed_where_there_is_none(keys: Keys, source: Source, target: Target, key_file: Path) -> None:
    update = (require("ostree"), "summary", f"--repo={source.path}", "--update", f"--gpg-homedir={keys.gpg.home}")
    run(*update, f"--gpg-sign={keys.good}")
    older = (source.path / "summary").read_bytes()
    commit(source.path, source.path.with_name("tree"), branch="other")
    run(*update, f"--gpg-sign={keys.foreign}")
    words = (BRANCH, "--gpg-key", key_file, "--gpg-verify-summary")
    with serve(source.path) as server:
        told_of_another_key = target.ostree("pull", server.url, *words, status=5).stderr
    run(*update, f"--gpg-sign={keys.good}")
    (source.path / "summary").write_bytes(older)
    told_of_a_directory = target.ostree("pull-local", source.path, *words, status=5).stderr
    assert "its GPG signature is not good: " in told_of_a_directory
    assert "not among the trusted" in told_of_another_key
    assert "just after an update" not in told_of_another_key + told_of_a_directory


def test_ed25519_keys_are_given_in_files_and_inline(source: Source, target: Target, tmp_path: Path) -> None:
    secret = Ed25519PrivateKey.generate()
    public = base64.b64encode(secret.public_key().public_bytes_raw()).decode()
    (tmp_path / "public").write_text(public)
    source.sign(secret.sign(source.data), key="ostree.sign.ed25519")
    with serve(source.path) as server:
        other = base64.b64encode(bytes(31) + b"\x01").decode()
        done = target.ostree("pull", server.url, BRANCH, f"--sign-key=ed25519=inline:{other}", status=None)
        assert done.returncode == UNTRUSTED
        assert "by any of 1 trusted keys" in done.stderr
        assert other in done.stderr
        target.ostree("pull", server.url, BRANCH, "--sign-key=ed25519=file:public", cwd=tmp_path)
        row = target.json("pull", server.url, BRANCH, f"--sign-key=ed25519=inline:{public}")["signatures"][0]
    assert (row["kind"], row["key"], row["problem"]) == ("ed25519", public, None)


@pytest.mark.parametrize("by", ["options", "remote"])
def test_where_gpg_and_another_kind_are_wanted_both_must_be_there(
    keys: Keys, source: Source, target: Target, tmp_path: Path, by: str
) -> None:
    secret = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = f"ed25519=inline:{base64.b64encode(secret.public_key().public_bytes_raw()).decode()}"
    key = tmp_path / "key.gpg"
    key.write_bytes(keys.gpg.export(keys.good))
    gpg, own = keys.gpg.sign(source.data, keys.good), secret.sign(source.data)
    foreign = keys.gpg.sign(source.data, keys.foreign)
    with serve(source.path) as server:
        target.ostree("remote", "add", "o", server.url, f"--gpg-import={key}", f"--sign-verify={public}")
        words = ("o",) if by == "remote" else (server.url, f"--gpg-key={key}", f"--sign-key={public}")
        names = target.names()
        for signatures, lacks in (
            ({"gpgsigs": gpg}, "no ed25519 signature, only gpg"),
            ({"sign.ed25519": own}, "no GPG signature, only ed25519"),
            ({"gpgsigs": gpg, "sign.ed25519": secret.sign(b"other")}, "its ed25519 signature is not good"),
            ({"gpgsigs": foreign, "sign.ed25519": own}, "its GPG signature is not good"),
            ({"gpgsigs": gpg, "sign.ed25519": own}, None),
        ):
            metadata = {f"ostree.{kind}": Variant("aay", [made]) for kind, made in signatures.items()}
            source.object.with_suffix(".commitmeta").write_bytes(gvariant.encode("a{sv}", metadata))
            done = target.ostree("pull", *words, BRANCH, status=UNTRUSTED if lacks else 0)
            assert (lacks or "") in done.stderr
            assert (target.names() == names) == bool(lacks)
