"""Commands that change a repository, disturbed at every system call that does: killed, on a full disk, on a bad one.

After each fault the repository passes fsck, what it held before is there, and the command done again succeeds and
leaves what the undisturbed command leaves.  COMPOSEFS_FAULTS=all tries every call (``make faults``); otherwise the
first, the last and some between.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.fsck import check
from composefs.repository import Publication, RefRemoval, Repository
from support.commands import cfsctl
from support.faults import FAULTS, Call, calls, inject
from support.ostree_pull import extensions
from support.ostree_repo import commit, make_repo, make_tree
from support.populated import Populated, populate

Scenario = Callable[[Populated, Path], list[str | Path]]
"""Prepares a repository that is to be disturbed, and returns the arguments of the command."""

__all__ = ["extensions"]  # a fixture, found by its name

pytestmark = pytest.mark.usefixtures("extensions")

SAMPLE = 4
COUNTS = "COMPOSEFS_FAULTS_LOG"
"""The name of the variable with the path of a file to which the numbers for docs/reliability.md are appended."""


def collect_all(made: Populated, _other: Path) -> list[str | Path]:
    with Repository.open(made.path, writable=True) as repository:
        repository.publish(Publication(remove_refs=[RefRemoval("oci/team/app:1", "flat")]))
    return ["gc"]


def remove_ref(_made: Populated, _other: Path) -> list[str | Path]:
    return ["ref", "remove", "oci/team/app:1"]


def create_image(_made: Populated, other: Path) -> list[str | Path]:
    tree = other / "tree"
    tree.mkdir()
    for number in range(3):
        (tree / f"file{number}").write_bytes(bytes([number]) * 5000)
        os.utime(tree / f"file{number}", (0, 0))
    os.utime(tree, (0, 0))
    return ["create-image", "--no-propagate-usr-to-root", tree, "new/image"]


def copy(made: Populated, other: Path) -> list[str | Path]:
    source = populate(other / "source")
    shutil.rmtree(made.path)
    Repository.init(made.path, algorithm=SHA256, insecure=True)
    return ["copy", "--from", source.path, "oci/team/app:1", "os/1"]


def repair(made: Populated, other: Path) -> list[str | Path]:
    source = populate(other / "source")
    made.object(made.files["one"]).unlink()
    damaged = made.object(made.files["three"])
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    return ["fsck", "--repair", "--from", source.path]


def pull(_made: Populated, other: Path) -> list[str | Path]:
    source = make_repo(other / "source")
    commit(source, make_tree(other / "tree", files=10), branch="test/branch")
    return ["ostree", "pull-local", source, "test/branch"]


SCENARIOS = (collect_all, remove_ref, create_image, copy, repair, pull)


def state(path: Path) -> dict[str, str]:
    """Everything that is there, but for unfinished work: objects, and symlinks with their targets."""
    found = {}
    for top in ("objects", "streams", "images"):
        for each in (path / top).rglob("*"):
            if each.is_symlink():
                found[str(each.relative_to(path))] = str(each.readlink())
            elif top == "objects" and each.is_file():
                found[str(each.relative_to(path))] = ""
    return found


def sample(found: list[Call]) -> list[Call]:
    if os.environ.get("COMPOSEFS_FAULTS") == "all" or len(found) <= SAMPLE:
        return found
    step = (len(found) - 1) / (SAMPLE - 1)
    return [found[round(step * number)] for number in range(SAMPLE)]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_fault_loses_nothing(tmp_path: Path, scenario: Scenario, fault: str) -> None:
    def make(number: int) -> tuple[Populated, list[str | Path]]:
        directory = tmp_path / str(number)
        directory.mkdir()
        made = populate(directory / "repo")
        (directory / "other").mkdir()
        return made, ["--repo", made.path, *scenario(made, directory / "other")]

    log = tmp_path / "log"
    undisturbed, command = make(0)
    before = state(undisturbed.path)
    found = calls(undisturbed.path, command, log)
    after = state(undisturbed.path)
    assert found
    hits = 0
    for number, call in enumerate(sample(found), 1):
        made, command = make(number)
        done, hit = inject(fault, call, command, log)
        # A pull's core writes as its extension's answers come; all others do the same every time.
        assert hit or scenario is pull, call
        hits += hit
        assert done.returncode != 0 or state(made.path) == after, call
        with Repository.open(made.path) as repository:
            report = check(repository)
            assert report.ok or scenario is repair, (call, report.errors())
        assert before.items() & after.items() <= state(made.path).items(), call
        # A ref that is gone already cannot be removed again.
        cfsctl(*command, status=None if scenario is remove_ref else 0)
        assert state(made.path) == after, call
        assert os.listdir(made.path / "staging") == [], call
        with Repository.open(made.path) as repository:
            assert check(repository).ok, call
    assert hits
    if path := os.environ.get(COUNTS):
        with Path(path).open("a") as file:
            file.write(f"{scenario.__name__} {fault} {len(found)} {hits}\n")
