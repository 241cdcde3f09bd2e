"""Verification of commits that come in static deltas: from nothing and from another commit, pulled and in files."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from composefs_ostree.deltas.listing import delta_path, index_path
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Variant
from support.commands import run
from support.gpg import Keys, keys
from support.ostree_pull import Target, extensions
from support.ostree_repo import BRANCH, update_summary
from support.ostree_signed import FOREIGN, GARBAGE, GOOD, KINDS, OTHER_BYTES, UNSIGNED, Follower, History, Signer
from support.server import serve

__all__ = ["extensions", "keys"]

pytestmark = pytest.mark.usefixtures("extensions")

ORIGINS = ("scratch", "from another")
MAGIC = int.from_bytes(b"OSTSGNDT", "little")

# The signature in the delta, the one beside the commit in the repository, and who accepts that: we, ostree.
PULLED = {
    "in the delta alone": (GOOD, UNSIGNED, True, True),
    "nowhere": (UNSIGNED, UNSIGNED, False, False),
    "foreign in the delta": (FOREIGN, UNSIGNED, False, False),
    "over other bytes in the delta": (OTHER_BYTES, UNSIGNED, False, False),
    "garbage in the delta": (GARBAGE, UNSIGNED, False, False),
    "foreign everywhere": (FOREIGN, FOREIGN, False, False),
    # What lies beside the commit is the publisher's last word; a delta has what was there when it was made, and ostree
    # looks at nothing else.
    "added after the delta": (UNSIGNED, GOOD, True, False),
    "replaced after the delta": (FOREIGN, GOOD, True, False),
    "taken back after the delta": (GOOD, FOREIGN, False, True),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("history"), 2)


@pytest.fixture
def history(made: History, tmp_path: Path) -> History:
    return made.copied(tmp_path / "source")


def generate(history: History, origin: str, *options: str) -> None:
    """Make a delta to the newest commit; it gets the detached metadata that are there."""
    start = "--empty" if origin == "scratch" else f"--from={history.commits[0]}"
    run("ostree", f"--repo={history.repo}", "static-delta", "generate", start, f"--to={history.commits[1]}", *options)


def start(target: Target, history: History, origin: str) -> dict[str, str]:
    """Have the commit here that a delta is from; return what has a name then."""
    if origin != "scratch":
        target.ostree("pull-local", history.repo, f"{BRANCH}@{history.commits[0]}")
    return target.names()


# Each two of case, origin and kind meet, as in a Latin square, but not all three.
@pytest.mark.parametrize(
    ("case", "origin", "kind"),
    [(case, ORIGINS[(row + column) % 2], kind) for row, case in enumerate(PULLED) for column, kind in enumerate(KINDS)],
)
def test_a_delta_of_a_repository(
    history: History, target: Target, keys: Keys, tmp_path: Path, case: str, origin: str, kind: str
) -> None:
    inside, beside, ours, theirs = PULLED[case]
    signer = Signer(kind, keys)
    old, new = history.commits
    history.sign(old, signer, GOOD)
    history.sign(new, signer, inside)
    generate(history, origin)
    history.sign(new, signer, beside)
    update_summary(history.repo)
    before = start(target, history, origin)
    with serve(history.repo) as server:
        done = target.ostree("pull", server.url, BRANCH, signer.option(tmp_path), status=0 if ours else 5)
        assert server.count("*/superblock") == 1
        assert (server.count("/deltas/*/0") == 1) == ours
        assert server.count("*.filez") == server.count("*.dirtree") == 0
        if kind == "gpg":
            follower = Follower(tmp_path / "theirs", server.url, signer.keyring(tmp_path))
            if origin != "scratch":
                follower.pull(f"{BRANCH}@{old}")
            assert follower.accepts() == theirs
    if not ours:
        assert f"commit {new}: " in done.stderr
        assert "signature" in done.stderr
        assert target.names() == before
        assert target.left_over() == []
        return
    # What vouched for the commit is kept, and vouches for it without the source.
    (signature,) = target.json("sign", BRANCH, "--verify", signer.option(tmp_path))["signatures"]
    assert (signature["kind"], signature["problem"]) == (kind, None)
    whole = Target(tmp_path / "whole").json("pull-local", history.repo, BRANCH)
    assert target.json("inspect", BRANCH)["image"] == whole["image"]


@pytest.mark.parametrize("verifies", [True, False])
def test_empty_metadata_beside_the_commit_of_a_delta(
    history: History, target: Target, keys: Keys, tmp_path: Path, verifies: bool
) -> None:
    """Some servers answer so where there is no file, and ostree leaves it where signatures were taken back.

    It says nothing of a commit of which nothing is here, and takes away what is, as with ostree.
    """
    signer = Signer("gpg", keys)
    new = history.commits[1]
    history.sign(new, signer, GOOD)
    generate(history, "scratch")
    history.object(new, "commitmeta").write_bytes(b"")
    update_summary(history.repo)
    key = signer.option(tmp_path)
    with serve(history.repo) as server:
        pull = ("pull", server.url, BRANCH, *([key] if verifies else []))
        assert target.json(*pull)["delta_parts"] == 1
        target.ostree("sign", BRANCH, "--verify", key)
        before = target.names()
        again = target.ostree(*pull, status=5 if verifies else 0).stderr
        if verifies:
            follower = Follower(tmp_path / "theirs", server.url, signer.keyring(tmp_path))
            assert [follower.accepts(), follower.accepts()] == [True, False]
    assert ("it has no GPG signature" in again, target.names() == before) == (verifies, verifies)
    target.ostree("sign", BRANCH, "--verify", key, status=0 if verifies else 5)


def test_a_delta_in_a_file_that_completes_a_commit_whose_signature_was_taken_back(
    history: History, target: Target, keys: Keys, tmp_path: Path
) -> None:
    """What it does not have does not count because it is here."""
    signer = Signer("gpg", keys)
    new = history.commits[1]
    key = signer.option(tmp_path)
    history.sign(new, signer, GOOD)
    target.ostree("pull-local", history.repo, new, "--commit-metadata-only", key)
    history.object(new, "commitmeta").write_bytes(b"")
    generate(history, "scratch", "--inline", "--min-fallback-size=0", f"--filename={tmp_path / 'file'}")
    before = target.names()
    assert "it has no GPG signature" in target.ostree("apply-delta", tmp_path / "file", key, status=5).stderr
    assert target.names() == before


def test_a_delta_brings_no_history_past_its_keys(history: History, target: Target, keys: Keys, tmp_path: Path) -> None:
    signer = Signer("gpg", keys)
    old, new = history.commits
    history.sign(new, signer, GOOD)
    generate(history, "scratch")
    update_summary(history.repo)
    options = (signer.option(tmp_path), "--depth=1")
    with serve(history.repo) as server:
        assert f"commit {old}: " in target.ostree("pull", server.url, BRANCH, *options, status=5).stderr
        assert target.names() == {}
        assert server.count("/deltas/*/0") == server.count("*.filez") == 0
        history.sign(old, signer, GOOD)
        pulled = target.json("pull", server.url, BRANCH, *options)
    assert (pulled["parents"], pulled["delta_parts"]) == ([old], 1)


def with_superblock(history: History, origin: str, signatures: dict[str, Variant]) -> None:
    """Sign the superblock of a delta where it lies, and list its new digest."""
    old, new = (bytes.fromhex(commit) for commit in history.commits)
    superblock = history.repo / delta_path(None if origin == "scratch" else old, new) / "superblock"
    data = gvariant.encode("(taya{sv})", (MAGIC, superblock.read_bytes(), signatures))
    superblock.write_bytes(data)
    name = new.hex() if origin == "scratch" else f"{old.hex()}-{new.hex()}"
    listed = {"ostree.static-deltas": Variant("a{sv}", {name: Variant("ay", sha256(data).digest())})}
    (history.repo / index_path(new)).write_bytes(gvariant.encode("a{sv}", listed))


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("commit", [GOOD, UNSIGNED])
@pytest.mark.parametrize("superblock", [GOOD, FOREIGN])
def test_a_signed_superblock_of_a_repository(
    history: History, target: Target, keys: Keys, tmp_path: Path, superblock: str, commit: str, origin: str
) -> None:
    """A pull promises that commits are signed: the signature of a superblock neither replaces that nor spoils it."""
    signer = Signer("ed25519", keys)
    history.sign(history.commits[1], signer, commit)
    generate(history, origin)
    history.set_metadata(history.commits[1], b"")
    update_summary(history.repo)
    before = start(target, history, origin)
    (path,) = history.repo.glob("deltas/*/*/superblock")
    with_superblock(history, origin, gvariant.decode("a{sv}", signer.metadata(path.read_bytes(), superblock)))
    with serve(history.repo) as server:
        arguments = (server.url, BRANCH, signer.option(tmp_path))
        if commit == UNSIGNED:
            assert "it has no ed25519 signature" in target.ostree("pull", *arguments, status=5).stderr
            assert target.names() == before
            assert server.count("/deltas/*/0") == server.count("*.filez") == 0
        else:
            assert target.json("pull", *arguments)["delta_parts"] == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("origin", ORIGINS)
def test_a_delta_in_a_file(
    history: History, target: Target, keys: Keys, tmp_path: Path, origin: str, kind: str
) -> None:
    signer = Signer(kind, keys)
    before = start(target, history, origin)
    for how in (UNSIGNED, FOREIGN, OTHER_BYTES, GARBAGE, GOOD):
        history.sign(history.commits[1], signer, how)
        file = tmp_path / how
        generate(history, origin, "--inline", "--min-fallback-size=0", f"--filename={file}")
        if how == GOOD:
            applied = target.json("apply-delta", file, signer.option(tmp_path))
            continue
        refused = target.ostree("apply-delta", file, signer.option(tmp_path), status=5).stderr
        assert f"commit {history.commits[1]}: " in refused
        assert "signature" in refused
        # apply-delta has no such flag, and takes what is unsigned where no key is given.
        assert ("without keys given here, a pull with --no-" in refused) == (how == UNSIGNED)
        assert target.names() == before
        assert target.left_over() == []
    assert (applied["commit"], applied["delta_parts"]) == (history.commits[1], 1)
    (signature,) = target.json("sign", history.commits[1], "--verify", signer.option(tmp_path))["signatures"]
    assert signature["problem"] is None


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_signed_superblock_in_a_file(
    history: History, target: Target, keys: Keys, tmp_path: Path, origin: str
) -> None:
    """Who signs the superblock vouches for all in it, the commit too; a wrong signature there is not made up for."""
    signer = Signer("ed25519", keys)
    before = start(target, history, origin)
    history.sign(history.commits[1], signer, UNSIGNED)
    plain, vouched = tmp_path / "plain", tmp_path / "vouched"
    generate(history, origin, "--inline", "--min-fallback-size=0", f"--filename={plain}")
    history.sign(history.commits[1], signer, GOOD)
    generate(history, origin, "--inline", "--min-fallback-size=0", f"--filename={vouched}")

    def signed(file: Path, how: str) -> Path:
        data = file.read_bytes()
        made = signer.metadata(data, how)
        signatures = gvariant.decode("a{sv}", made) if made else {}
        path = tmp_path / f"{file.name} {how}"
        path.write_bytes(gvariant.encode("(taya{sv})", (MAGIC, data, signatures)))
        return path

    for file in (plain, vouched):
        for how in (UNSIGNED, FOREIGN, OTHER_BYTES, GARBAGE):
            refused = target.ostree("apply-delta", signed(file, how), signer.option(tmp_path), status=5).stderr
            assert "signature" in refused
            assert target.names() == before
    # GPG's are looked for beside the commit alone.
    gpg = Signer("gpg", keys).option(tmp_path)
    both = target.ostree("apply-delta", signed(plain, GOOD), signer.option(tmp_path), gpg, status=5)
    assert "it has no GPG signature" in both.stderr
    assert target.names() == before
    assert target.json("apply-delta", signed(plain, GOOD), signer.option(tmp_path))["delta_parts"] == 1
    assert target.left_over() == []
