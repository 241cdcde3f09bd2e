"""Pulls, checks and garbage collection in one repository at the same time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from composefs.repository import Repository
from support.commands import CFSCTL, TIMEOUT, cfsctl
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree
from support.server import Fault, Server, serve

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    repo = make_repo(tmp_path / "source")
    commit(repo, make_tree(tmp_path / "tree", files=30))
    return repo


@contextmanager
def pulling(target: Target, *options: str, url: str) -> Iterator[subprocess.Popen[str]]:
    argv = [CFSCTL, "--repo", str(target.path), *options, "ostree", "pull", url, BRANCH]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT)


def until_files_are_wanted(server: Server, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        has_ended = process.poll() is not None  # looked at first: a pull may want files and end between two looks
        if server.count("*.filez"):
            return
        assert not has_ended, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_pull_keeps_collection_away_and_lets_others_work(source: Path, target: Target) -> None:
    with serve(source) as server:
        server.fault("*.filez", Fault(stall=True))
        with pulling(target, url=server.url) as process:
            until_files_are_wanted(server, process)
            failed = cfsctl("--repo", target.path, "gc", status=4)
            assert "in use" in failed.stderr
            assert "--wait" in failed.stderr
            assert json.loads(cfsctl("--repo", target.path, "fsck", "--json").stdout)["ok"]
            assert cfsctl("--repo", target.path, "images").stdout == "No images found\n"
    # Killed in the middle: nothing has a name, and what was stored is garbage.
    assert target.names() == {}
    cfsctl("--repo", target.path, "gc")
    assert list(target.path.glob("objects/*/*")) == []


def test_collection_waits_for_the_pull_and_takes_nothing_of_it(source: Path, target: Target) -> None:
    with serve(source) as server, pulling(target, url=server.url) as process:
        until_files_are_wanted(server, process)
        collector = cfsctl("--repo", target.path, "--wait", str(TIMEOUT), "gc")
        assert process.wait(TIMEOUT) == 0
    assert "removed" in collector.stdout
    report = json.loads(cfsctl("--repo", target.path, "fsck", "--json").stdout)
    assert report["ok"]
    assert report["images_checked"] == report["streams_checked"] == 1


def test_a_pull_waits_for_collection_when_told(source: Path, target: Target) -> None:
    with serve(source) as server, Repository.open(target.path, writable=True, exclusive=True) as collecting:
        refused = cfsctl("--repo", target.path, "ostree", "pull", server.url, BRANCH, status=4)
        assert "--wait" in refused.stderr
        with pulling(target, "--wait", str(TIMEOUT), url=server.url) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            assert server.requests == [], "who cannot store has no business on the network"
            collecting.close()
            assert process.wait(TIMEOUT) == 0
    assert len(target.names()) == 3


def test_two_pulls_of_the_same(source: Path, target: Target) -> None:
    """Both store the same objects at the same time, and publish the same names."""
    with serve(source) as server, pulling(target, url=server.url) as one, pulling(target, url=server.url) as two:
        outputs = [process.communicate(timeout=TIMEOUT) for process in (one, two)]
        assert (one.returncode, two.returncode) == (0, 0), outputs
    first, second = ([line for line in out.splitlines() if not line.startswith("objects")] for out, _ in outputs)
    assert first == second
    assert len(target.names()) == 3
    assert os.listdir(target.path / "staging") == []
    objects = set(target.path.glob("objects/*/*"))
    assert "Objects: 0 removed" in cfsctl("--repo", target.path, "gc").stdout
    assert set(target.path.glob("objects/*/*")) == objects
    cfsctl("--repo", target.path, "fsck")


def test_collection_again_and_again_beside_pulls(source: Path, target: Target) -> None:
    """Whenever it gets the lock, between pulls or before one: nothing is lost, and nothing unfinished is taken."""
    with serve(source) as server:
        collector = subprocess.Popen(
            ["sh", "-c", f'while :; do "{CFSCTL}" --repo "{target.path}" --wait {TIMEOUT} gc || exit 1; done'],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        try:
            for _ in range(3):
                with (
                    pulling(target, "--wait", str(TIMEOUT), url=server.url) as one,
                    pulling(target, "--wait", str(TIMEOUT), url=server.url) as two,
                ):
                    for process in (one, two):
                        _, errors = process.communicate(timeout=TIMEOUT)
                        assert process.returncode == 0, errors
                cfsctl("--repo", target.path, "--wait", str(TIMEOUT), "fsck")
                assert collector.poll() is None, collector.communicate()
                cfsctl("--repo", target.path, "--wait", str(TIMEOUT), "ostree", "untag", BRANCH)
        finally:
            os.killpg(collector.pid, signal.SIGKILL)
            collector.communicate()
    cfsctl("--repo", target.path, "--wait", str(TIMEOUT), "gc")  # a killed one has its lock a moment longer
    assert list(target.path.glob("objects/*/*")) == []


def test_checks_beside_a_pull_find_nothing_wrong(source: Path, target: Target) -> None:
    """Whatever moment they meet: names are listed before the objects that they need."""
    checks = 0
    with serve(source) as server, pulling(target, url=server.url) as process:
        while process.poll() is None or not checks:
            report = json.loads(cfsctl("--repo", target.path, "fsck", "--json").stdout)
            assert report["ok"], report["errors"]
            checks += 1
        assert process.returncode == 0
    cfsctl("--repo", target.path, "fsck")


@pytest.mark.parametrize(("option", "statuses"), [("--force", [0, 0, 0, 0]), (None, [0, 4, 4, 4])])
def test_who_adds_one_remote_at_once(option: str | None, statuses: list[int], target: Target) -> None:
    """All who replace it succeed, and one's is there in the end; of the others one adds it, and the rest are told."""
    urls = [f"http://host{number}/" for number in range(4)]
    words = [CFSCTL, "--repo", str(target.path), "ostree", "remote", "add", *([option] if option else []), "origin"]
    adding = [subprocess.Popen([*words, url], stderr=subprocess.PIPE, text=True) for url in urls]
    errors = {url: process.communicate(timeout=TIMEOUT)[1] for url, process in zip(urls, adding, strict=True)}
    assert sorted(process.returncode for process in adding) == statuses, errors
    there = target.json("remote", "show", "origin")["settings"]["url"]
    assert errors.pop(there) == ""
    if option is None:
        assert all("there is a remote 'origin' already" in error for error in errors.values())
