"""Signatures of the distribution's ostree and gpg are good here, and ours there; both refuse the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from composefs_ext import Core
from composefs_ext.errors import CorruptError
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.signatures import checking, detached, signing
from composefs_ostree.signatures.policy import policy_of
from composefs_ostree.signatures.signing import SignOptions
from support.commands import run
from support.gpg import PAST, Keys, keys
from support.ostree_repo import BRANCH, commit, make_repo
from support.peers import require

__all__ = ["keys"]


class Signed:
    """A repository of ostree's with one commit, whose signatures tests set."""

    def __init__(self, path: Path) -> None:
        (path / "tree").mkdir()
        (path / "tree" / "file").write_text("content")
        self.path = make_repo(path / "repo")
        self.commit = commit(self.path, path / "tree")
        self._object = self.path / "objects" / self.commit[:2] / f"{self.commit[2:]}.commit"
        self.data = self._object.read_bytes()

    @property
    def metadata_file(self) -> Path:
        return self._object.with_suffix(".commitmeta")

    def metadata(self) -> dict[str, Variant]:
        return detached.parse_detached(self.metadata_file.read_bytes(), "commitmeta")

    def set_metadata(self, metadata: dict[str, Variant]) -> None:
        self.metadata_file.write_bytes(gvariant.encode("a{sv}", metadata))


class Puller:
    """A repository of ostree's that pulls from one which it asks signatures of."""

    def __init__(self, path: Path, source: Path, keyring: bytes) -> None:
        self.path = make_repo(path / "puller")
        (path / "keyring").write_bytes(keyring)
        importing = f"--gpg-import={path / 'keyring'}"
        run(require("ostree"), "remote", f"--repo={self.path}", "add", importing, "origin", f"file://{source}")
        self.keyring = (self.path / "origin.trustedkeys.gpg").read_bytes()

    def pulls(self) -> bool:
        """Pull into what is empty again; tell whether it was accepted."""
        run(require("ostree"), "refs", f"--repo={self.path}", "--delete", "origin")
        run(require("ostree"), "prune", f"--repo={self.path}", "--refs-only", "--depth=0")
        done = run(require("ostree"), "pull", f"--repo={self.path}", "origin", BRANCH, status=None)
        assert done.returncode == 0 or "signatur" in done.stderr.lower(), done.stderr
        return done.returncode == 0


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    return Signed(tmp_path)


def test_commits_signed_by_ostree_are_good(keys: Keys, signed: Signed, tmp_path: Path) -> None:
    home = f"--gpg-homedir={keys.gpg.home}"
    for key in (keys.good, keys.subkey, keys.rsa):
        run(require("ostree"), "gpg-sign", f"--repo={signed.path}", home, signed.commit, key)
    keyring = Puller(tmp_path, signed.path, keys.gpg.export(keys.good, keys.parent)).keyring
    found = checking.verify(signed.data, signed.metadata(), policy_of({}, keyring=keyring), "commit")
    assert [(each.key, each.problem) for each in found] == [
        (keys.good, None),
        (keys.subkey, None),
        (keys.rsa, "its key is not among the trusted ones"),
    ]


def test_summaries_signed_by_ostree_are_good(keys: Keys, signed: Signed) -> None:
    home, key = f"--gpg-homedir={keys.gpg.home}", f"--gpg-sign={keys.good}"
    run(require("ostree"), "summary", f"--repo={signed.path}", "--update", home, key)
    summary, sig = ((signed.path / name).read_bytes() for name in ("summary", "summary.sig"))
    policy = policy_of({"gpg-verify-summary": "true"}, summary=True, keyring=keys.gpg.export(keys.good))
    metadata = detached.parse_detached(sig, "summary.sig")
    assert checking.verify(summary, metadata, policy, "summary")[0].key == keys.good
    with pytest.raises(CorruptError):
        checking.verify(summary[:-1], metadata, policy, "summary")


def test_ostree_takes_our_signatures(silent_core: Core, keys: Keys, signed: Signed, tmp_path: Path) -> None:
    ours = signing.sign(silent_core, signed.data, {}, SignOptions((keys.good, keys.subkey), str(keys.gpg.home)))
    signed.set_metadata(ours)
    (tmp_path / "rings").mkdir()
    (tmp_path / "rings" / "all.gpg").write_bytes(keys.gpg.export(keys.good, keys.parent))
    shown = run(
        require("ostree"), "show", f"--repo={signed.path}", f"--gpg-homedir={tmp_path / 'rings'}", signed.commit
    )
    assert "Found 2 signatures" in shown.stdout
    assert shown.stdout.count("Good signature from") == 2
    puller = Puller(tmp_path, signed.path, keys.gpg.export(keys.good))
    assert puller.pulls()
    signed.set_metadata({})
    assert not puller.pulls()


def test_ostree_adds_to_our_signatures(silent_core: Core, keys: Keys, signed: Signed) -> None:
    signed.set_metadata(signing.sign(silent_core, signed.data, {}, SignOptions((keys.good,), str(keys.gpg.home))))
    home = f"--gpg-homedir={keys.gpg.home}"
    run(require("ostree"), "gpg-sign", f"--repo={signed.path}", home, signed.commit, keys.other)
    policy = policy_of({}, keyring=keys.gpg.export(keys.good, keys.other))
    found = checking.verify(signed.data, signed.metadata(), policy, "commit")
    assert [each.key for each in found if each.problem is None] == [keys.good, keys.other]


MADE: dict[str, tuple[Callable[[Keys, bytes], list[bytes]], bool]] = {
    "good": (lambda keys, data: [keys.gpg.sign(data, keys.good)], True),
    "subkey": (lambda keys, data: [keys.gpg.sign(data, keys.subkey)], True),
    "good after foreign": (
        lambda keys, data: [keys.gpg.sign(data, keys.foreign), keys.gpg.sign(data, keys.good)],
        True,
    ),
    "good before bad": (lambda keys, data: [keys.gpg.sign(data, keys.good), keys.gpg.sign(b"x", keys.other)], True),
    "armoured": (lambda keys, data: [keys.gpg.sign(data, keys.good, "--armor")], True),
    "key and signature that will expire": (
        lambda keys, data: [keys.gpg.sign(data, keys.lasting, "--default-sig-expire=5y")],
        True,
    ),
    "two in one": (lambda keys, data: [keys.gpg.sign(data, keys.foreign) + keys.gpg.sign(data, keys.good)], True),
    "unsigned": (lambda *_: [], False),
    "foreign key": (lambda keys, data: [keys.gpg.sign(data, keys.foreign)], False),
    "other bytes": (lambda keys, data: [keys.gpg.sign(data + b"x", keys.good)], False),
    "expired key": (lambda keys, data: [keys.gpg.sign(data, keys.expired, at=PAST)], False),
    "expired subkey": (lambda keys, data: [keys.gpg.sign(data, keys.expired_subkey, at=PAST)], False),
    "revoked key": (lambda keys, data: [keys.sign_and_revoke(data)], False),
    "superseded key": (lambda keys, data: [keys.sign_and_supersede(data, subkey=False)], False),
    "superseded subkey": (lambda keys, data: [keys.sign_and_supersede(data, subkey=True)], False),
    "expired signature": (
        lambda keys, data: [keys.gpg.sign(data, keys.rsa, "--default-sig-expire=10d", at=PAST)],
        False,
    ),
    "garbage": (lambda *_: [b"garbage"], False),
}


@pytest.mark.parametrize("case", MADE)
def test_both_agree_about_a_signature(case: str, keys: Keys, signed: Signed, tmp_path: Path) -> None:
    make, is_good = MADE[case]
    made = make(keys, signed.data)
    puller = Puller(tmp_path, signed.path, keys.gpg.export(*keys.trusted))
    signed.set_metadata({"ostree.gpgsigs": Variant("aay", made)} if made else {})
    assert puller.pulls() == is_good
    policy = policy_of({}, keyring=puller.keyring)
    if is_good:
        found = checking.verify(signed.data, signed.metadata(), policy, "commit")
        assert any(each.problem is None for each in found)
    else:
        with pytest.raises(CorruptError):
            checking.verify(signed.data, signed.metadata(), policy, "commit")


def test_a_good_signature_after_a_bad_one_counts_here_where_gpg_gives_up(
    keys: Keys, signed: Signed, tmp_path: Path
) -> None:
    made = [keys.gpg.sign(b"x", keys.other), keys.gpg.sign(signed.data, keys.good)]
    signed.set_metadata({"ostree.gpgsigs": Variant("aay", made)})
    puller = Puller(tmp_path, signed.path, keys.gpg.export(keys.good, keys.other))
    assert not puller.pulls()
    found = checking.verify(signed.data, signed.metadata(), policy_of({}, keyring=puller.keyring), "commit")
    assert [each.problem is None for each in found] == [False, True]


def test_sha1_is_refused_here_and_taken_by_gpg(keys: Keys, signed: Signed, tmp_path: Path) -> None:
    made = keys.gpg.sign(signed.data, keys.rsa, "--digest-algo=SHA1")
    signed.set_metadata({"ostree.gpgsigs": Variant("aay", [made])})
    puller = Puller(tmp_path, signed.path, keys.gpg.export(keys.rsa))
    assert puller.pulls()
    with pytest.raises(CorruptError, match="it relies on SHA1"):
        checking.verify(signed.data, signed.metadata(), policy_of({}, keyring=puller.keyring), "commit")


def test_a_key_that_is_weak_is_called_so_and_taken_by_gpg(keys: Keys, signed: Signed, tmp_path: Path) -> None:
    key = keys.gpg.make_key("Weak <weak@example.com>", "rsa1024")
    signed.set_metadata({"ostree.gpgsigs": Variant("aay", [keys.gpg.sign(signed.data, key)])})
    puller = Puller(tmp_path, signed.path, keys.gpg.export(key))
    assert puller.pulls()
    with pytest.raises(CorruptError, match="its key is too weak to be relied on, or of a kind that is not known here"):
        checking.verify(signed.data, signed.metadata(), policy_of({}, keyring=puller.keyring), "commit")
