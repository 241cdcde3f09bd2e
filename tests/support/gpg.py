"""GnuPG for tests: a home of its own, keys in all states that matter, and signatures by them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.peers import require

PAST = "20200601T000000"
"""A date, as gpg takes it, at which a key that expired at the end of 2020 was good."""

_LONGEST = 60
"""Bytes: a socket's path may have 107, and gpg's agent has several in its home."""


class Gnupg:
    """A home directory of gpg, in ``parent`` unless the path of the agent's socket becomes too long there."""

    def __init__(self, parent: Path) -> None:
        place = parent if len(bytes(parent)) < _LONGEST else Path("/tmp")
        self.home = Path(tempfile.mkdtemp(prefix="gpg-", dir=place))

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run gpg without questions."""
        done = subprocess.run(
            [require("gpg"), "--quiet", "--batch", "--yes", "--pinentry-mode=loopback", "--passphrase=", *arguments],
            env=self.environment(),
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def environment(self) -> dict[str, str]:
        """The environment in which gpg finds this home."""
        return os.environ | {"GNUPGHOME": str(self.home)}

    def make_key(self, name: str, algorithm: str = "ed25519", expires: str = "never", *, at: str | None = None) -> str:
        """Make a key that signs; return its fingerprint."""
        self.run(*_at(at), "--quick-generate-key", name, algorithm, "sign", expires)
        return self.fingerprint(name)

    def fingerprint(self, name: str) -> str:
        """Return the fingerprint of a primary key, in upper case."""
        return self._fingerprints(name)[0]

    def add_subkey(self, fingerprint: str, expires: str = "never", *, at: str | None = None) -> str:
        """Add a subkey that signs; return its fingerprint."""
        self.run(*_at(at), "--quick-add-key", fingerprint, "ed25519", "sign", expires)
        return self._fingerprints(fingerprint)[-1]

    def revoke(self, fingerprint: str) -> None:
        """Revoke a key by the certificate that gpg made with it."""
        text = (self.home / "openpgp-revocs.d" / f"{fingerprint}.rev").read_text()
        self.run("--import", stdin=text.replace("\n:-----BEGIN", "\n-----BEGIN").encode())

    def supersede(self, fingerprint: str, *, subkey: bool) -> None:
        """Revoke a key, or its first subkey, as superseded, which is no word against what it signed before."""
        chosen = "key 1\n" if subkey else ""
        self.run("--command-fd=0", "--edit-key", fingerprint, stdin=f"{chosen}revkey\ny\n2\n\ny\nsave\n".encode())

    def sign(self, data: bytes, key: str, *arguments: str, at: str | None = None) -> bytes:
        """Return a detached signature, binary unless ``arguments`` say otherwise."""
        return self.run(*_at(at), f"--local-user={key}", *arguments, "--detach-sign", stdin=data)

    def export(self, *names: str, armoured: bool = False) -> bytes:
        """Return the public keys."""
        return self.run(*(["--armor"] if armoured else []), "--export", *names)

    def close(self) -> None:
        """End the agent and remove everything."""
        subprocess.run(
            [require("gpgconf"), "--kill", "all"], env=self.environment(), check=False, stderr=subprocess.DEVNULL
        )
        shutil.rmtree(self.home, ignore_errors=True)

    def _fingerprints(self, name: str) -> list[str]:
        rows = self.run("--list-keys", "--with-colons", name).decode().splitlines()
        return [row.split(":")[9] for row in rows if row.startswith("fpr:")]


def _at(moment: str | None) -> list[str]:
    # The mark lets the clock stand still: no key is from the future of the next command.
    return [] if moment is None else ["--faked-system-time", f"{moment}!"]


class Keys:
    """Keys in every state: names to sign by, and their fingerprints."""

    def __init__(self, gpg: Gnupg) -> None:
        self.gpg = gpg
        self.good = gpg.make_key("Good <good@example.com>")
        self.other = gpg.make_key("Other <other@example.com>")
        self.rsa = gpg.make_key("RSA <rsa@example.com>", "rsa2048", at="20200101T000000")
        self.expired = gpg.make_key("Expired <expired@example.com>", expires="1y", at="20200101T000000")
        self.revoked = ""
        self.foreign = gpg.make_key("Foreign <foreign@example.com>")
        self.parent = gpg.make_key("Parent <parent@example.com>")
        self.subkey = gpg.add_subkey(self.parent)
        self.old_parent = gpg.make_key("Old parent <old@example.com>", at="20200101T000000")
        self.expired_subkey = gpg.add_subkey(self.old_parent, "1y", at="20200101T000000")
        self.lasting = gpg.make_key("Lasting <lasting@example.com>", expires="10y")

    @property
    def trusted(self) -> tuple[str, ...]:
        """Everybody but the foreign key."""
        own = (self.good, self.other, self.rsa, self.expired, self.revoked, self.parent, self.old_parent, self.lasting)
        return tuple(key for key in own if key)

    def sign_and_revoke(self, data: bytes) -> bytes:
        """Return a signature by a key that is revoked afterwards."""
        self.revoked = self.gpg.make_key(f"Revoked <{len(data)}@example.com>")
        made = self.gpg.sign(data, self.revoked)
        self.gpg.revoke(self.revoked)
        return made

    def sign_and_supersede(self, data: bytes, *, subkey: bool) -> bytes:
        """Return a signature of before its key, or its subkey, was superseded by another one."""
        self.revoked = self.gpg.make_key(f"Superseded <{subkey}-{len(data)}@example.com>", at="20200101T000000")
        signer = self.gpg.add_subkey(self.revoked, at="20200101T000000") if subkey else self.revoked
        made = self.gpg.sign(data, signer, at=PAST)
        self.gpg.supersede(self.revoked, subkey=subkey)
        return made


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """Keys in every state."""
    gpg = Gnupg(tmp_path_factory.getbasetemp())
    try:
        yield Keys(gpg)
    finally:
        gpg.close()
