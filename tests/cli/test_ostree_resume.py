"""An interrupted pull goes on where it was, whoever interrupted it; what is damaged or gone here is fetched again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest

from composefs_ostree.pulling.cache import read_records
from support.commands import CFSCTL, TIMEOUT, cfsctl, limit_memory
from support.ostree_pull import Target, extensions
from support.ostree_repo import BRANCH, commit, make_repo
from support.server import Fault, Server, serve

__all__ = ["extensions"]

pytestmark = pytest.mark.usefixtures("extensions")

FILES = 300


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source")
    (path / "tree" / "d").mkdir(parents=True)
    for number in range(FILES):
        (path / "tree" / "d" / str(number)).write_bytes(b"%d" % number * 300)
    repo = make_repo(path / "repo")
    commit(repo, path / "tree")
    return repo


def family(process: int) -> list[int]:
    """The process and all that descend from it."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(pid for child in children for pid in family(int(child)))]


def kill_all(process: subprocess.Popen[bytes], _: Server) -> None:
    for pid in family(process.pid):
        with suppress(ProcessLookupError):  # whose parent has died may have died of that
            os.kill(pid, signal.SIGKILL)


def kill_the_core(process: subprocess.Popen[bytes], _: Server) -> None:
    process.kill()


def noted() -> int:
    """How many files the cache says have come in, which is what the next pull goes by."""
    [cache] = Path(os.environ["HOME"]).glob(".cache/composefs/ext/ostree/*/files-1")
    records = read_records(cache.read_bytes()[len(boot_id()) :])[0]
    return sum(sha256(entry.data).digest() != object_id for object_id, entry in records.items())


@contextmanager
def left_in_the_middle(source: Path, target: Target, *arguments: str) -> Iterator[Server]:
    """Serve a source of which a pull has not got all, as one file was not there; now all are."""
    last = max((source / "objects").rglob("*.filez"))
    with serve(source) as server:
        server.fault(f"*{last.name}", Fault(status=404))
        target.ostree("pull", server.url, BRANCH, *arguments, status=3)
        assert noted() > 0
        server.forgive()
        yield server


def boot_id() -> bytes:
    """What the cache begins with."""
    return Path("/proc/sys/kernel/random/boot_id").read_bytes()


def press_ctrl_c(process: subprocess.Popen[bytes], _: Server) -> None:
    process.send_signal(signal.SIGINT)


def let_the_server_die(_: subprocess.Popen[bytes], server: Server) -> None:
    server.forgive()
    server.fault("*", Fault(close=True))
    server.wake()


@pytest.mark.parametrize("interrupt", [kill_all, kill_the_core, press_ctrl_c, let_the_server_die])
def test_a_pull_goes_on_where_it_was(
    source: Path,
    target: Target,
    interrupt: Callable[[subprocess.Popen[bytes], Server], None],
) -> None:
    last = max((source / "objects").rglob("*.filez"))
    with serve(source) as server:
        server.fault(f"*{last.name}", Fault(stall=True, keep=5))
        argv = [CFSCTL, "--repo", target.path, "ostree", "pull", server.url, BRANCH]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + TIMEOUT
            while server.count("*.filez") < FILES or noted() < FILES // 2:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            interrupt(process, server)
            said = process.communicate(timeout=TIMEOUT)[1].decode()
        assert process.returncode != 0
        assert target.names() == {}
        server.forgive()
        resumed = target.json("pull", server.url, BRANCH)
        assert server.count("*.filez") == resumed["files_fetched"]
        assert 1 <= resumed["files_fetched"] <= FILES // 2, said
        assert noted() == 0
        assert target.json("fsck")["ok"]
    assert target.left_over() == []
    fresh = Target(target.path.with_name("fresh")).json("pull-local", source, BRANCH)
    assert (fresh["image"], fresh["verity"]) == (resumed["image"], resumed["verity"])


def test_what_had_come_into_a_repository_with_other_ids_does_not_count(source: Path, target: Target) -> None:
    """Made anew at the same path, as somebody does who takes the other algorithm after a pull that failed."""
    with left_in_the_middle(source, target) as server:
        shutil.rmtree(target.path)
        cfsctl("init", "--insecure", target.path)
        assert target.json("pull", server.url, BRANCH)["files_fetched"] == FILES


@pytest.mark.parametrize("paths", [(), ("--subpath=/d",)], ids=["all", "below a directory"])
def test_directories_that_had_come_are_not_fetched_again(source: Path, target: Target, paths: tuple[str, ...]) -> None:
    with left_in_the_middle(source, target, *paths) as server:
        assert target.json("pull", server.url, BRANCH, *paths)["metadata_fetched"] == 1  # the commit object
        assert server.count("*.dirtree") == server.count("*.dirmeta") == 0
    assert target.json("fsck")["ok"]


def test_to_go_on_takes_little_memory(source: Path, target: Target) -> None:
    """However large the note of what has come in could be."""
    with left_in_the_middle(source, target) as server:
        target.ostree("pull", server.url, BRANCH, preexec_fn=limit_memory)


def cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:100])


def empty(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")


def flip(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


@pytest.mark.parametrize("damage", [Path.unlink, cut, empty, flip])
def test_what_is_damaged_or_gone_here_is_fetched_again(
    source: Path, target: Target, damage: Callable[[Path], None]
) -> None:
    first = target.json("pull-local", source, BRANCH)
    image, stream = (target.path / "objects" / first[key][:2] / first[key][2:] for key in ("image", "verity"))
    objects = [path for path in (target.path / "objects").glob("*/*") if path not in (image, stream)]
    for path in objects[:10]:
        damage(path)
    with serve(source) as server:
        assert target.json("pull", server.url, BRANCH, "--repair")["files_fetched"] == 10
        assert server.count("*.filez") == 10
        assert server.count("*.dirtree") == server.count("*.dirmeta") == 0
    assert target.json("fsck")["ok"]
    cfsctl("--repo", target.path, "fsck")


@pytest.mark.parametrize("damage", [Path.unlink, cut, empty, flip])
@pytest.mark.parametrize("options", [(), ("--repair",)], ids=["pulled again", "repaired"])
def test_detached_metadata_that_are_damaged_here_are_fetched_again(
    target: Target, damage: Callable[[Path], None], options: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    repo = make_repo(tmp_path / "repo")
    commit_id = commit(repo, tmp_path / "tree", "--add-detached-metadata-string=seen=by nobody")
    target.ostree("pull-local", repo, BRANCH)
    damage((target.path / "streams" / f"ostree-commitmeta-{commit_id}").resolve(strict=True))
    cfsctl("--repo", target.path, "fsck", status=1)
    told = target.ostree("pull-local", repo, BRANCH, *options).stderr
    assert f"warning: the detached metadata of commit {commit_id} are pulled again: " in told
    cfsctl("--repo", target.path, "fsck")
    assert target.ostree("pull-local", repo, BRANCH, *options).stderr == ""
    assert target.left_over() == []


def test_detached_metadata_that_the_source_has_no_more_are_told_by_a_repair(target: Target, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    repo = make_repo(tmp_path / "repo")
    commit_id = commit(repo, tmp_path / "tree", "--add-detached-metadata-string=seen=by nobody")
    target.ostree("pull-local", repo, BRANCH)
    [there] = repo.glob("objects/*/*.commitmeta")
    there.unlink()
    assert target.ostree("pull-local", repo, BRANCH, "--repair").stderr == ""
    flip((target.path / "streams" / f"ostree-commitmeta-{commit_id}").resolve(strict=True))
    told = target.ostree("pull-local", repo, BRANCH, "--repair").stderr
    assert f"warning: the detached metadata of commit {commit_id} cannot be repaired, the source has none: " in told
    cfsctl("--repo", target.path, "fsck", status=1)


def test_a_repair_trusts_nothing_that_an_interrupted_pull_has_left(source: Path, target: Target) -> None:
    """Its objects have the right sizes, and nothing names them that could be checked."""
    with left_in_the_middle(source, target) as server:
        for path in (target.path / "objects").glob("*/*"):
            flip(path)
        assert target.json("pull", server.url, BRANCH, "--repair")["files_fetched"] == FILES
    assert target.json("fsck")["ok"]


def test_the_remedy_for_what_is_gone_brings_it_back(source: Path, target: Target, tmp_path: Path) -> None:
    target.ostree("pull-local", source, BRANCH)
    cfsctl("--hash", "sha256", "init", "--insecure", tmp_path / "other")
    copy = ("--repo", tmp_path / "other", "copy", "--from", target.path, f"ostree/{BRANCH}")
    gone = cfsctl("--repo", target.path, "image-objects", f"ostree/{BRANCH}").stdout.split()[0].rpartition(":")[2]
    (target.path / "objects" / gone[:2] / gone[2:]).unlink()
    for options in ((), ("--repair",)):
        told = cfsctl(*copy, status=5).stderr
        assert f"lacks object {gone}" in told
        assert "or pull with --repair what names it)" in told
        target.ostree("pull-local", source, BRANCH, *options)
    cfsctl(*copy)
