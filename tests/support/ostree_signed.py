"""A history of commits in an archive repository whose signatures tests set one by one."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Variant
from support.commands import run
from support.gpg import Keys
from support.ostree_repo import BRANCH, commit, make_repo
from support.peers import require

KINDS = {"gpg": "ostree.gpgsigs", "ed25519": "ostree.sign.ed25519"}
"""Kinds of signatures, and where detached metadata have them.  The distribution's ostree knows GPG's only."""

GOOD, UNSIGNED, FOREIGN, OTHER_BYTES, GARBAGE = "good", "unsigned", "foreign", "other bytes", "garbage"
"""How a commit is signed: by the trusted key, not at all, by another one, over other bytes, or by what is none."""


class Signer:
    """Makes signatures of a kind, good and bad ones."""

    def __init__(self, kind: str, keys: Keys) -> None:
        self.kind = kind
        self._keys = keys
        self._trusted, self._foreign = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))

    def option(self, directory: Path) -> str:
        """The option that trusts the good key; what it needs is written into the directory."""
        if self.kind == "ed25519":
            public = base64.b64encode(self._trusted.public_key().public_bytes_raw()).decode()
            return f"--sign-key=ed25519=inline:{public}"
        return f"--gpg-key={self.keyring(directory)}"

    def keyring(self, directory: Path) -> Path:
        """A file with the good GPG key."""
        path = directory / "trusted.gpg"
        path.write_bytes(self._keys.gpg.export(self._keys.good))
        return path

    def metadata(self, data: bytes, how: str) -> bytes:
        """Detached metadata with one signature, or with none."""
        if how == UNSIGNED:
            return b""
        if how == GARBAGE:
            made = b"garbage"
        elif self.kind == "ed25519":
            key = self._foreign if how == FOREIGN else self._trusted
            made = key.sign(b"other" if how == OTHER_BYTES else data)
        else:
            key = self._keys.foreign if how == FOREIGN else self._keys.good
            made = self._keys.gpg.sign(b"other" if how == OTHER_BYTES else data, key)
        return gvariant.encode("a{sv}", {KINDS[self.kind]: Variant("aay", [made])})


class History:
    """Commits on one ref, oldest first, each with a file of its own beside what all have."""

    def __init__(self, path: Path, length: int = 3) -> None:
        tree = path / "tree"
        (tree / "usr").mkdir(parents=True)
        (tree / "usr" / "same").write_bytes(bytes(range(256)) * 400)
        self.repo = make_repo(path / "repo")
        self.commits = []
        for number in range(length):
            (tree / "usr" / "changed").write_bytes(bytes([number]) * 5000)
            self.commits.append(commit(self.repo, tree, f"--timestamp=@{1700000000 + number}"))

    def copied(self, path: Path) -> History:
        """The same in another place, without signatures."""
        shutil.copytree(self.repo, path)
        other = History.__new__(History)
        other.repo, other.commits = path, self.commits
        return other

    def object(self, commit_id: str, kind: str = "commit") -> Path:
        """The file of a commit object, or of its detached metadata (commitmeta)."""
        return self.repo / "objects" / commit_id[:2] / f"{commit_id[2:]}.{kind}"

    def sign(self, commit_id: str, signer: Signer, how: str) -> None:
        """Set the detached metadata of a commit."""
        self.set_metadata(commit_id, signer.metadata(self.object(commit_id).read_bytes(), how))

    def sign_all(self, signer: Signer, states: Sequence[str]) -> None:
        """Set the detached metadata of all commits, oldest first."""
        for commit_id, how in zip(self.commits, states, strict=True):
            self.sign(commit_id, signer, how)

    def set_metadata(self, commit_id: str, metadata: bytes) -> None:
        """Write the detached metadata of a commit, or remove it."""
        path = self.object(commit_id, "commitmeta")
        if metadata:
            path.write_bytes(metadata)
        else:
            path.unlink(missing_ok=True)


class Follower:
    """An ostree repository with the history as its remote ``o``, GPG verification on."""

    def __init__(self, path: Path, url: str, keyring: Path) -> None:
        self.path = make_repo(path, "bare-user-only")
        run(require("ostree"), "remote", f"--repo={path}", "add", f"--gpg-import={keyring}", "o", url)

    def pull(self, *arguments: str, status: int | None = 0) -> str:
        """Pull; return what was said to the user."""
        return run(require("ostree"), "pull", f"--repo={self.path}", "o", *arguments, status=status).stderr

    def accepts(self, *arguments: str) -> bool:
        """Pull; tell whether the ref was set, or else all was refused for its signatures."""
        before = self._ref()
        said = self.pull(BRANCH, *arguments, status=None)
        accepted = self._ref() != before
        assert accepted or "signature" in said, said
        return accepted

    def _ref(self) -> str:
        return run(require("ostree"), "rev-parse", f"--repo={self.path}", f"o:{BRANCH}", status=None).stdout

    def commits(self) -> set[str]:
        """The commits that it holds."""
        return {path.parent.name + path.stem for path in (self.path / "objects").rglob("*.commit")}
