"""Hostile sources and addresses: what a pull may cost and what it may tell, by the installed command."""

from __future__ import annotations

import json
import os
import subprocess
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.gvariant import Variant, encode
from composefs_ostree.formats.names import ObjectType
from composefs_ostree.pulling.cache import record
from support.commands import CFSCTL, cfsctl, limit_memory, one_line, run
from support.ostree_delta import Announced, SmallCommit, file_id, operation, part_file, payload
from support.ostree_forge import Forge
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH
from support.server import Fault, serve

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    return Forge(tmp_path / "source")


def readable(done: subprocess.CompletedProcess[str]) -> str:
    """The only line of an error, which is of a length that somebody reads."""
    assert len(done.stderr) < 1000
    return one_line(done)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@127.0.0.1:1/repo",
        "http://user:hunter2@b@127.0.0.1:1/repo",
        "http://user:hun/ter2@127.0.0.1:1/repo",
        "http://user:hunter2@[::1/repo",
        "http://user:hunter2@/repo",
        "ftp://user:hunter2@127.0.0.1/repo",
        "http://user:hunter2@127.0.0.1:1/re po",
        "http://127.0.0.1:1/repo?token=hunter2",
        "http://127.0.0.1:1/repo#hunter2",
    ],
)
def test_a_password_in_a_url_is_never_told(target: Target, url: str) -> None:
    refused = target.ostree("pull", url, BRANCH, status=None)
    assert refused.returncode in (2, 6)
    assert not {"hunter2", "ter2"} & set(readable(refused).replace("@", " ").replace("/", " ").split())
    assert "hunter2" not in refused.stderr


def test_a_url_that_is_no_ascii_is_like_any_other(target: Target) -> None:
    refused = target.ostree("pull", "http://127.0.0.1:1/bücher", BRANCH, status=6)
    assert "cfsctl: http://127.0.0.1:1/bücher/config: " in readable(refused)


@pytest.mark.parametrize("setting", ["mode", "repo_version"])
def test_settings_of_any_length_are_told_in_a_few_words(forge: Forge, target: Target, setting: str) -> None:
    with serve(forge.path) as server:
        server.fault("/config", Fault(body=f"[core]\n{setting}={'x' * 100_000}\n".encode()))
        assert server.url in readable(target.ostree("pull", server.url, BRANCH, status=9))


def test_bindings_of_any_number_are_told_in_a_few_words(forge: Forge, target: Target) -> None:
    forge.commit(forge.tree([], []), {"ostree.ref-binding": Variant("as", ["another/ref"] * 10_000)})
    refused = target.ostree("pull-local", forge.path, BRANCH, status=5)
    assert "is bound to another/ref, another/ref" in readable(refused)


def test_a_summary_of_two_million_empty_refs_costs_no_memory(forge: Forge, target: Target) -> None:
    refs = bytes(4) * 1_999_998
    with serve(forge.path) as server:
        (forge.path / "summary").write_bytes(refs + len(refs).to_bytes(4, "little"))
        refused = target.ostree("pull", server.url, BRANCH, status=3, preexec_fn=limit_memory)
    assert f"the repository has no ref '{BRANCH}'" in readable(refused)


@pytest.mark.parametrize(("name", "most"), [("summary", 128 << 20), ("commit", 128 << 20), ("commitmeta", 16 << 20)])
def test_files_that_are_longer_than_any_of_their_kind(forge: Forge, target: Target, name: str, most: int) -> None:
    commit = forge.commit(forge.tree([], [])).hex()
    path = forge.path / (name if name == "summary" else f"objects/{commit[:2]}/{commit[2:]}.{name}")
    path.touch()
    os.truncate(path, most + 1)
    told = readable(target.ostree("pull-local", forge.path, BRANCH, status=8))
    assert f"{path}: it is longer than {most} bytes" in told


def test_a_delta_that_is_longer_than_any(target: Target, tmp_path: Path) -> None:
    (tmp_path / "delta").touch()
    os.truncate(tmp_path / "delta", (128 << 20) + 1)
    told = readable(target.ostree("apply-delta", tmp_path / "delta", status=5))
    assert f"{tmp_path}/delta: it is longer than {128 << 20} bytes" in told


def test_a_delta_that_claims_more_than_a_message_can_tell(target: Target, tmp_path: Path) -> None:
    commit = SmallCommit({"a": b"content"})
    part = commit.part()._replace(plain=1 << 62)
    target.ostree("apply-delta", commit.write(tmp_path / "delta", commit.superblock([part]), [part]))


def test_a_delta_with_a_directory_that_cannot_be(target: Target, tmp_path: Path) -> None:
    commit = SmallCommit({"a": b"content"})
    commit.set_tree([("..", file_id(b"content"))], [])
    part = commit.part()
    delta = commit.write(tmp_path / "delta", commit.superblock([part]), [part])
    told = readable(target.ostree("apply-delta", delta, status=5))
    assert f"dirtree {sha256(commit.tree).hexdigest()}: malformed dirtree: '..' is not a file name (" in told


def test_the_metadata_of_a_delta_do_not_fill_memory(target: Target, tmp_path: Path) -> None:
    """The same megabyte, again and again: a few kilobytes of a file."""
    commit = SmallCommit({"a": b"content"})
    data = bytes(1 << 20)
    made = [(int(ObjectType.DIRTREE), sha256(data).digest())] * 129
    program = part_file(payload(data, operation("S", len(data), 0) * len(made)))
    parts = [commit.part(), Announced(program, made, len(made) * len(data))]
    delta = commit.write(tmp_path / "delta", commit.superblock(parts), parts)
    told = readable(target.ostree("apply-delta", delta, status=8))
    remedy = "(have the delta made with a smaller --max-chunk-size)"
    assert f"{delta}/1: the delta's part has more than {128 << 20} bytes of metadata {remedy}" in told
    assert target.left_over() == []


def test_a_history_of_large_commits_does_not_fill_memory(forge: Forge, target: Target) -> None:
    metadata = {"large": Variant("ay", bytes(33 << 20))}
    parent = forge.commit(forge.tree([], []), metadata)
    commit = forge.commit(forge.tree([], []), metadata, parent=parent).hex()
    told = readable(target.ostree("pull-local", forge.path, BRANCH, "--depth=1", status=8))
    assert f"the commit objects of {commit} and its parents have more than {64 << 20} bytes" in told


def test_a_history_of_large_detached_metadata_does_not_fill_memory(forge: Forge, target: Target) -> None:
    detached = encode("a{sv}", {"large": Variant("ay", bytes(15 << 20))})
    commit = b""
    for _ in range(5):
        commit = forge.commit(forge.tree([], []), parent=commit)
        forge.put("commitmeta", detached, commit)
    told = readable(target.ostree("pull-local", forge.path, BRANCH, "--depth=-1", status=8))
    assert f"and its parents have more than {64 << 20} bytes with their detached metadata" in told


def test_long_paths_cost_neither_memory_nor_disk(forge: Forge, target: Target) -> None:
    tree = forge.tree([(f"{number:03}", forge.file(b"%d" % number)) for number in range(900)], [])
    for _ in range(1900):
        tree = forge.tree([], [("d" * 255, tree)])
    forge.commit(tree)
    refused = target.ostree("pull-local", forge.path, BRANCH, status=8, preexec_fn=limit_memory)
    assert "is larger than 536870912 bytes (it has too many files, too long paths" in readable(refused)
    assert target.left_over() == []


def test_content_that_claims_more_than_is_free_does_not_fill_the_disk(forge: Forge, target: Target) -> None:
    bomb = forge.bomb(1 << 61, zlib.compress(bytes(80 << 20), wbits=-15))
    forge.commit(forge.tree([("bomb", bomb)], []))
    refused = readable(target.ostree("pull-local", forge.path, BRANCH, status=8))
    name = bomb.hex()
    assert (
        f"{name[:2]}/{name[2:]}.filez cannot be stored: No space left on device: its content has {1 << 61} bytes, and"
        in refused
    )
    assert target.left_over() == []


def test_little_content_that_claims_more_than_is_free_is_damaged(forge: Forge, target: Target) -> None:
    bomb = forge.bomb(1 << 61, zlib.compress(bytes(300_000), wbits=-15))
    forge.commit(forge.tree([("bomb", bomb)], []))
    refused = readable(target.ostree("pull-local", forge.path, BRANCH, status=5))
    assert f"it ends after 300000 of {1 << 61} bytes of content" in refused
    assert target.left_over() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 600 KB."""
    mountpoint = tmp_path / "small"
    mountpoint.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", mountpoint)
    yield mountpoint
    run("umount", mountpoint)


@pytest.mark.root
def test_a_full_disk_is_told_with_the_object_or_the_repository(forge: Forge, small_disk: Path) -> None:
    target = Target(small_disk / "target")
    content = [b"%05d" % number * 3000 for number in range(100)]
    forge.commit(forge.tree([(f"{number:03}", forge.file(each)) for number, each in enumerate(content)], []))
    refused = target.ostree("pull-local", forge.path, BRANCH, status=8)
    line = readable(refused)
    assert f"{forge.path}/objects/" in line or str(target.path) in line, "who meets it first, worker or core, differs"
    assert "free some space" in line
    assert (target.left_over(), target.names()) == ([], {})
    run("mount", "-o", "remount,size=8M", small_disk)
    target.ostree("pull-local", forge.path, BRANCH)


def test_a_commit_of_any_time_and_metadata_can_be_inspected(forge: Forge, target: Target) -> None:
    forge.commit(forge.tree([], []), {"large": Variant("ay", bytes(1_000_000))}, time=(1 << 64) - 1)
    target.ostree("pull-local", forge.path, BRANCH)
    assert "date    1969-12-31 23:59:59 UTC" in target.ostree("inspect", BRANCH).stdout
    assert len(target.ostree("inspect", "--metadata", BRANCH).stdout) > 2_000_000
    assert len(json.loads(target.ostree("inspect", "--json", BRANCH).stdout)["metadata"]["large"]) == 2_000_000
    forge.commit(forge.tree([], []), time=(1 << 64) - 1)
    target.ostree("pull-local", forge.path, BRANCH)
    assert json.loads(target.ostree("inspect", "--json", BRANCH).stdout)["timestamp"] == str((1 << 64) - 1)
    forge.commit(forge.tree([], []), time=1 << 63)
    target.ostree("pull-local", forge.path, BRANCH)
    assert "date    9223372036854775808 s after 1970-01-01" in target.ostree("inspect", BRANCH).stdout


@pytest.mark.root
def test_root_keeps_no_cache_where_somebody_else_could_redirect_it(
    forge: Forge, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "composefs").symlink_to(elsewhere)
    os.chown(home, 1000, 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    forge.commit(forge.tree([("file", forge.file())], []))
    target.ostree("pull-local", forge.path, BRANCH)
    assert list(elsewhere.iterdir()) == []
    os.chown(home, 0, 0)
    target.ostree("untag", BRANCH)
    target.ostree("pull-local", forge.path, BRANCH)
    assert [path.name for path in elsewhere.iterdir()] == ["ext"]


OTHER = 12345
PLACES = {
    "everybody's, empty": (0, 0o1777, None, True),
    "everybody's, with what somebody has made there": (0, 0o1777, OTHER, False),
    "where everybody renames": (0, 0o777, 0, False),
    "somebody else's": (OTHER, 0o755, 0, False),
    "their own, and their group's": (0, 0o770, 0, True),
}
"""Owner and mode of a user's XDG_CACHE_HOME, and the owner of what is in it; whether that is their cache then."""


@pytest.mark.root
@pytest.mark.parametrize("place", PLACES)
def test_a_cache_that_others_could_have_filled_is_none(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """What a file has become is believed of it: a wrong content in it would come under the right checksum."""
    owner, mode, inside, is_taken = PLACES[place]
    repo, cache = tmp_path / "repo", tmp_path / "cache"
    file = forge.file(b"right")
    forge.commit(forge.tree([("file", file)], []))
    [filez] = forge.path.glob("objects/*/*.filez")
    head = filez.read_bytes()[: 8 + int.from_bytes(filez.read_bytes()[:4], "big")]
    cfsctl("init", "--insecure", repo)
    cache.mkdir()
    if inside is not None:
        kept = cache / "composefs/ext/ostree" / f"{repo}.sha512".strip("/").replace("/", "%2F")
        kept.mkdir(parents=True)
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        (kept / "files-1").write_bytes(boot_id + record(file, Entry(head + b"wrong", None)))
        for each in cache.rglob("*"):
            os.chown(each, inside, inside)
            each.chmod(0o777 if inside == OTHER else 0o755)
    os.chown(cache, owner, owner)
    cache.chmod(mode)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    # Who is root here is a user there, and everybody else somebody else.
    user = ("unshare", "--user", "--map-user=1000", "--map-group=1000", CFSCTL, "--repo", repo)
    run(*user, "ostree", "pull-local", forge.path, BRANCH)
    assert run(*user, "cat", f"ostree/{BRANCH}", "/file").stdout == ("wrong" if inside == 0 and is_taken else "right")
    assert (cache / "composefs").exists() == (is_taken or inside is not None)
