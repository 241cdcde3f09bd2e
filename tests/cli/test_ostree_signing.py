"""Signing by the installed command: gpg and its agent, keys in files, and what ostree makes of it."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from support import ostree_repo
from support.commands import CFSCTL, TIMEOUT, cfsctl, run
from support.gpg import Keys, keys
from support.ostree_pull import Target, extensions
from support.ostree_repo import commit, make_repo
from support.peers import require

__all__ = ["extensions", "keys"]

pytestmark = pytest.mark.usefixtures("extensions")

BRANCH = "os/signed"


@pytest.fixture
def target(tmp_path: Path) -> Target:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    return Target(tmp_path / "target")


def tree(target: Target) -> tuple[str, ...]:
    return ("commit", f"--branch={BRANCH}", f"--tree=dir={target.path.parent / 'tree'}")


def is_running(keys: Keys) -> bool:
    """Tell whether gpg's agent runs; without starting it."""
    words = [require("gpg-connect-agent"), "--no-autostart", "/bye"]
    done = subprocess.run(words, env=keys.gpg.environment(), capture_output=True, text=True, check=False)
    return "no gpg-agent running" not in done.stderr


@pytest.fixture
def agent(keys: Keys) -> Iterator[None]:
    """Have the agent run, as it does in a user's session."""
    subprocess.run([require("gpgconf"), "--launch", "gpg-agent"], env=keys.gpg.environment(), check=True)
    yield
    stop(keys)


def stop(keys: Keys) -> None:
    subprocess.run([require("gpgconf"), "--kill", "gpg-agent"], env=keys.gpg.environment(), check=True)
    until_it_has_ended(keys)


def until_it_has_ended(keys: Keys) -> None:
    """Wait for what an agent does last that was told to end: it takes away its socket."""
    words = [require("gpgconf"), "--list-dirs", "agent-socket"]
    socket = Path(run(*words, env=keys.gpg.environment()).stdout.strip())
    while socket.exists():
        time.sleep(0.01)


@pytest.mark.usefixtures("agent")
def test_ostree_pulls_what_is_signed_here(keys: Keys, target: Target, tmp_path: Path) -> None:
    target.ostree(*tree(target), f"--gpg-sign={keys.good}", f"--gpg-sign={keys.subkey}", env=keys.gpg.environment())
    assert is_running(keys)
    shown = target.json("inspect", BRANCH)
    assert [row["key"] for row in shown["signatures"]] == [keys.good, keys.subkey]
    source, puller = make_repo(tmp_path / "source"), make_repo(tmp_path / "puller")
    target.ostree("export", BRANCH, source)
    (tmp_path / "keyring").write_bytes(keys.gpg.export(keys.parent))
    importing = f"--gpg-import={tmp_path / 'keyring'}"
    run(require("ostree"), "remote", f"--repo={puller}", "add", importing, "origin", f"file://{source}")
    run(require("ostree"), "pull", f"--repo={puller}", "origin", BRANCH)
    assert run(require("ostree"), "rev-parse", f"--repo={puller}", f"origin:{BRANCH}").stdout.strip() == shown["commit"]


def test_an_agent_is_started_in_a_directory_that_was_given_and_ended(keys: Keys, target: Target) -> None:
    stop(keys)
    done = target.ostree(*tree(target), f"--gpg-sign={keys.good}", f"--gpg-homedir={keys.gpg.home}")
    assert done.stderr == ""
    until_it_has_ended(keys)
    assert not is_running(keys)
    assert [row["key"] for row in target.json("inspect", BRANCH)["signatures"]] == [keys.good]


@pytest.mark.usefixtures("agent")
def test_an_agent_that_runs_in_a_directory_that_was_given_goes_on(keys: Keys, target: Target) -> None:
    words = [require("gpg-connect-agent"), "--no-autostart", "GETINFO pid", "/bye"]
    agent = run(*words, env=keys.gpg.environment()).stdout
    target.ostree(*tree(target), f"--gpg-sign={keys.good}", f"--gpg-homedir={keys.gpg.home}")
    assert run(*words, env=keys.gpg.environment()).stdout == agent


def test_without_an_agent_the_remedy_is_said(keys: Keys, target: Target) -> None:
    stop(keys)
    done = target.ostree(*tree(target), f"--gpg-sign={keys.good}", env=keys.gpg.environment(), status=1)
    assert "No agent running" in done.stderr
    assert "gpgconf --launch gpg-agent" in done.stderr
    assert target.names() == {}


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("key", ["nobody@example.com", "--version"])
def test_a_key_that_is_not_there_is_named(key: str, keys: Keys, target: Target) -> None:
    done = target.ostree(*tree(target), f"--gpg-sign={key}", env=keys.gpg.environment(), status=1)
    assert f"gpg cannot sign with the key '{key}'" in done.stderr
    assert "No secret key" in done.stderr
    assert target.names() == {}


def test_gpg_that_is_not_installed_is_named(keys: Keys, target: Target, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "readlink").symlink_to(require("readlink"))  # the launcher needs it
    environment = keys.gpg.environment() | {"PATH": str(tmp_path / "bin")}
    done = target.ostree(*tree(target), f"--gpg-sign={keys.good}", env=environment, status=None)
    assert done.returncode != 0
    assert "needs the program gpg" in done.stderr
    assert target.names() == {}


def test_a_key_in_a_file_signs(target: Target, tmp_path: Path) -> None:
    secret = Ed25519PrivateKey.generate()
    public = secret.public_key().public_bytes_raw()
    (tmp_path / "secret").write_text(base64.b64encode(secret.private_bytes_raw() + public).decode())
    (tmp_path / "secret").chmod(0o600)
    target.ostree(*tree(target), f"--sign-from-file={tmp_path / 'secret'}")
    source, other = make_repo(tmp_path / "source"), Target(tmp_path / "other")
    target.ostree("export", BRANCH, source)
    key = f"--sign-key=ed25519=inline:{base64.b64encode(public).decode()}"
    assert other.json("pull-local", source, BRANCH, key)["signatures"][0]["problem"] is None


def test_a_key_in_pem_is_not_one_of_ed25519(target: Target, tmp_path: Path) -> None:
    """As openssl genpkey writes it; the error tells what it is."""
    secret = Ed25519PrivateKey.generate()
    pem = secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "secret.pem").write_bytes(pem)
    words = [*tree(target), f"--sign-from-file={tmp_path / 'secret.pem'}"]
    refused = target.ostree(*words, status=5).stderr
    assert "secret.pem: malformed base64" in refused
    assert "(an ed25519 key is a line of base64; keys in PEM are of the type spki)" in refused
    assert target.names() == {}
    target.ostree(*words, "--sign-type=spki")


def test_a_commit_signed_here_is_stored_as_one_that_comes_signed(target: Target, tmp_path: Path) -> None:
    secret = Ed25519PrivateKey.generate()
    raw = secret.private_bytes_raw() + secret.public_key().public_bytes_raw()
    (tmp_path / "secret").write_text(base64.b64encode(raw).decode())
    source, exported, other = (
        make_repo(tmp_path / "source"),
        make_repo(tmp_path / "exported"),
        Target(tmp_path / "other"),
    )
    commit(source, tmp_path / "tree")
    commit_id = commit(source, tmp_path / "tree")
    target.ostree("pull-local", source, ostree_repo.BRANCH, "--depth=1")
    target.ostree("sign", ostree_repo.BRANCH, f"--sign-from-file={tmp_path / 'secret'}")
    here = target.json("pull-local", source, ostree_repo.BRANCH, "--depth=1")
    target.ostree("export", ostree_repo.BRANCH, exported)
    detached = f"objects/{commit_id[:2]}/{commit_id[2:]}.commitmeta"
    shutil.copyfile(exported / detached, source / detached)
    assert other.json("pull-local", source, ostree_repo.BRANCH, "--depth=1")["verity"] == here["verity"]


@pytest.mark.usefixtures("agent")
def test_signatures_that_were_removed_are_exported_and_pulled_as_removed(
    keys: Keys, target: Target, tmp_path: Path
) -> None:
    """As by ostree: what has none any more has an empty file, and what never had any leaves alone what is there."""
    target.ostree(*tree(target), f"--gpg-sign={keys.good}", env=keys.gpg.environment())
    commit_id = target.json("inspect", BRANCH)["commit"]
    exported, other, unsigned = tmp_path / "exported", Target(tmp_path / "other"), Target(tmp_path / "unsigned")
    detached = exported / f"objects/{commit_id[:2]}/{commit_id[2:]}.commitmeta"
    target.ostree("export", BRANCH, exported)
    signed = detached.read_bytes()
    other.ostree("pull-local", exported, BRANCH)
    detached.unlink()
    unsigned.ostree("pull-local", exported, BRANCH)
    detached.write_bytes(signed)
    unsigned.ostree("export", BRANCH, exported)
    assert detached.read_bytes() == signed
    target.ostree("sign", BRANCH, f"--delete={keys.good}")
    target.ostree("export", BRANCH, exported)
    assert detached.read_bytes() == b""
    theirs = make_repo(tmp_path / "theirs")
    run("ostree", f"--repo={theirs}", "pull-local", exported, BRANCH)
    assert (theirs / detached.relative_to(exported)).read_bytes() == b""
    assert keys_of(other) == [keys.good]
    other.ostree("pull-local", exported, BRANCH)
    assert keys_of(other) == []
    cfsctl("--repo", other.path, "gc")
    assert other.ostree("fsck").stdout.endswith("status: ok\n")
    assert cfsctl("--repo", other.path, "fsck").stdout.endswith("status: ok\n")


def test_gpg_homedir_without_a_key_is_refused(target: Target, tmp_path: Path) -> None:
    done = target.ostree(*tree(target), f"--gpg-homedir={tmp_path}", status=2)
    assert "--gpg-sign" in done.stderr


def keys_of(target: Target) -> list[str]:
    return [row["key"] for row in target.json("inspect", BRANCH)["signatures"]]


@pytest.mark.usefixtures("agent")
def test_a_commit_that_is_here_is_signed_verified_and_rid_of_signatures(
    keys: Keys, target: Target, tmp_path: Path
) -> None:
    environment = keys.gpg.environment()
    target.ostree(*tree(target))
    commit = target.json("inspect", BRANCH)["commit"]
    (tmp_path / "keys").write_bytes(keys.gpg.export(keys.good))
    given = f"--gpg-key={tmp_path / 'keys'}"
    assert "it has no GPG signature" in target.ostree("sign", BRANCH, "--verify", given, status=5).stderr
    target.ostree("sign", BRANCH, f"--gpg-sign={keys.other}", env=environment)
    assert "not among the trusted ones" in target.ostree("sign", BRANCH, "--verify", given, status=5).stderr
    target.ostree("sign", BRANCH, f"--gpg-sign={keys.good}", env=environment)
    assert keys_of(target) == [keys.other, keys.good]
    target.ostree("sign", BRANCH, f"--gpg-sign={keys.other}", env=environment)
    assert keys_of(target) == [keys.good, keys.other], "signing again made one more"
    verified = target.ostree("sign", BRANCH, "--verify", given).stdout
    assert verified.splitlines()[0] == f"commit  {commit}"
    assert f"gpg {keys.good} (Good <good@example.com>)" in verified
    cfsctl("--repo", target.path, "gc")
    cfsctl("--repo", target.path, "fsck")
    target.ostree("sign", BRANCH, f"--delete={keys.other[-16:]}")
    assert keys_of(target) == [keys.good]
    for key in (keys.other, keys.good[-7:], ""):  # fewer than eight digits fit too many keys
        assert "has no GPG signature by" in target.ostree("sign", BRANCH, f"--delete={key}", status=3).stderr
    target.ostree("sign", BRANCH, f"-d0x{keys.good.lower()}")
    assert keys_of(target) == []
    assert target.json("inspect", BRANCH)["commit"] == commit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to do"),
        (("--verify",), "whose signature is wanted?"),
        (("--verify", "--delete=12345678"), "say what to do"),
    ],
    ids=["nothing", "by nobody", "two things"],
)
def test_sign_wants_one_thing_to_do(arguments: tuple[str, ...], message: str, target: Target) -> None:
    target.ostree(*tree(target))
    assert message in target.ostree("sign", BRANCH, *arguments, status=2).stderr


def test_a_remotes_commit_is_verified_by_its_keys(
    keys: Keys, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_READ", str(tmp_path))  # the remote's URL is a path that only its settings name
    target.ostree(*tree(target), f"--gpg-sign={keys.good}", f"--gpg-homedir={keys.gpg.home}")
    (tmp_path / "keys").write_bytes(keys.gpg.export(keys.good))
    source, other = make_repo(tmp_path / "source"), Target(tmp_path / "other")
    target.ostree("export", BRANCH, source)
    other.ostree("remote", "add", "origin", f"file://{source}", f"--gpg-import={tmp_path / 'keys'}")
    other.ostree("pull", f"origin:{BRANCH}")
    assert other.json("sign", f"origin:{BRANCH}", "--verify")["signatures"][0]["key"] == keys.good
    monkeypatch.delenv("COMPOSEFS_EXT_READ")
    assert f"--ext-read {source}" in other.ostree("pull", f"origin:{BRANCH}", status=7).stderr
    other.ostree("remote", "add", "--force", "origin", f"file://{source}", f"--set=gpgkeypath={tmp_path / 'the keys'}")
    (tmp_path / "keys").rename(tmp_path / "the keys")
    refused = other.ostree("sign", f"origin:{BRANCH}", "--verify", status=7).stderr
    assert f"--ext-read '{tmp_path / 'the keys'}'" in refused


def test_a_remote_that_wants_no_signatures_verifies_none(target: Target) -> None:
    target.ostree(*tree(target))
    target.ostree("tag", BRANCH, "origin:main")
    off = ("--set=gpg-verify=false", "--set=sign-verify=false")
    target.ostree("remote", "add", "origin", "http://example.com/", *off)
    told = target.ostree("sign", "origin:main", "--verify", status=2).stderr
    assert "the remote 'origin' wants no signatures (give --gpg-key or --sign-key)" in told
    assert "whose signature is wanted?" in target.ostree("sign", BRANCH, "--verify", status=2).stderr


def test_who_signs_one_commit_at_once_signs_it_for_all(target: Target, tmp_path: Path) -> None:
    target.ostree(*tree(target))
    files = [tmp_path / f"secret{number}" for number in range(4)]
    public = []
    for file in files:
        secret = Ed25519PrivateKey.generate()
        public.append(secret.public_key().public_bytes_raw())
        file.write_text(base64.b64encode(secret.private_bytes_raw() + public[-1]).decode())
    words = [CFSCTL, "--repo", str(target.path), "ostree", "sign", BRANCH]
    signers = [
        subprocess.Popen(
            [*words, f"--sign-from-file={file}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for file in files
    ]
    outputs = [process.communicate(timeout=TIMEOUT) for process in signers]
    assert [process.returncode for process in signers] == [0] * len(files), outputs
    for key in public:
        given = f"--sign-key=ed25519=inline:{base64.b64encode(key).decode()}"
        found = target.json("sign", BRANCH, "--verify", given)["signatures"]
        assert [row["problem"] for row in found].count(None) == 1
    assert len(target.json("inspect", BRANCH)["signatures"]) == len(files)
