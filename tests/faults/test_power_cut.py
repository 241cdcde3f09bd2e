"""What a power cut leaves, whenever it comes: the system calls of the installed commands, followed on a model disk.

The disk of the model forgets all that is not synced, in any combination, as file systems may.  So before a call that
makes something depend on something else, that other thing must be durable, and at the end everything that has a name.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from composefs.repository.names import TEMPORARY_PREFIX
from support import strace
from support.faulted import OPERATIONS, Operation, Run, Workshop
from support.judged import State
from support.strace import Call

EXPORTS = [operation for operation in OPERATIONS if operation.exported is not None]
CHANGING = [operation for operation in OPERATIONS if operation.exported is None]
"""Operations that change the repository; an export reads it."""


class Disk:
    """Follows calls; ``unsynced`` are the changes that a power cut may undo: paths that appeared or vanished.

    ``log`` describes what concerns names, objects and their durability, for tests of the order itself.
    """

    def __init__(self, root: Path, unsynced: Iterable[str] = ()) -> None:
        self._root = root
        self._targets: dict[str, str] = {}
        self.unsynced = set(unsynced)
        self.log: list[str] = []

    def apply(self, call: Call) -> None:
        """Follow one call, and check that nothing can come to depend on what a power cut may undo."""
        places = strace.paths(call, self._root)
        if not places or not call.result.startswith("0"):
            return
        place = places[-1]
        if place.startswith("staging") or not call.changes([self._root]):
            return
        match call.name.removesuffix("2"):
            case "syncfs":
                self.unsynced.clear()
            case "fsync":
                self.unsynced = {path for path in self.unsynced if path.rpartition("/")[0] != place}
            case "symlinkat":
                assert place.rpartition("/")[2].startswith(TEMPORARY_PREFIX), "a name is made aside"
                self._targets[place] = call.arguments.split('"')[1]
                return
            case "renameat" if place.startswith(("streams/", "images/")):
                self._name(place, self._targets.pop(places[0]))
            case "linkat" | "mkdirat" | "renameat":
                assert place.rpartition("/")[0] not in self.unsynced or place.startswith("objects/"), place
                self.unsynced.add(place)
            case "unlinkat":
                self._remove(place, is_directory="AT_REMOVEDIR" in call.arguments)
        self.log.append(f"{call.name} {place}")

    def _name(self, place: str, target: str) -> None:
        directory = place.rpartition("/")[0]
        leads_to = [part for part in target.split("/") if part != ".."]
        # ../objects/XX/REST, or a ref's ../../NAME
        if leads_to[0] != "objects":
            leads_to.insert(0, place.partition("/")[0])
        assert "/".join(leads_to) not in self.unsynced, f"{place} may be there without {target}"
        assert directory not in self.unsynced, f"{place} is in a directory that may vanish"
        self.unsynced.add(place)

    def _remove(self, place: str, *, is_directory: bool) -> None:
        if place.startswith("objects/"):
            gone = [path for path in self.unsynced if not path.startswith("objects/")]
            assert not gone, f"{place} may be gone before {gone}"
        if TEMPORARY_PREFIX not in place and not is_directory:  # an empty directory that comes back is no harm
            self.unsynced.add(place)

    @property
    def unsynced_names(self) -> set[str]:
        """Names that a power cut may undo."""
        return {path for path in self.unsynced if re.match("streams/|images/", path)}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(tmp_path_factory.mktemp("workshop")).make().serving() as made:
        yield made


def follow(run: Run, operation: Operation, unsynced: Iterable[str] = ()) -> Disk:
    """Run an operation and follow its calls."""
    done = run.do(operation, prefix=strace.recorder)
    assert done.returncode == 0, done.stderr
    disk = Disk(run.repository, unsynced)
    for call in run.calls():
        disk.apply(call)
    return disk


@pytest.mark.parametrize("operation", CHANGING, ids=lambda operation: operation.name)
def test_a_power_cut_at_any_time(workshop: Workshop, operation: Operation) -> None:
    with workshop.run(operation.repository) as run:
        disk = follow(run, operation)
        assert disk.log
        if operation.name != "gc":  # what it removes may come back as the garbage that it was
            assert not disk.unsynced


@pytest.mark.parametrize(
    "operation", [each for each in CHANGING if not each.once and each.name != "gc"], ids=lambda each: each.name
)
def test_what_a_killed_run_did_not_sync_is_synced_by_the_next(workshop: Workshop, operation: Operation) -> None:
    with workshop.run(operation.repository) as run:
        before = State.read(run.repository).names
        follow(run, operation)
        new = State.read(run.repository).names.keys() - before.keys()
        # The others make no name but meta.json, or none at all.
        assert new or operation.is_repair or operation.name in ("init", "reset")
        assert not follow(run, operation, new).unsynced_names


def test_collection_after_a_name_was_removed_and_not_synced(workshop: Workshop) -> None:
    [operation] = [each for each in OPERATIONS if each.name == "gc"]
    with workshop.run(operation.repository) as run:
        (run.repository / "streams/old").unlink()
        assert follow(run, operation, ["streams/old"]).log


def test_the_order_of_a_pull(workshop: Workshop) -> None:
    [operation] = [each for each in OPERATIONS if each.name == "pull"]
    with workshop.run("empty") as run:
        log = [re.sub("[0-9a-f]{62,}", "ID", line) for line in follow(run, operation).log]
    assert [line for line in log if "objects" not in line] == [
        "syncfs ",
        "mkdirat streams/refs",
        "fsync streams",
        "mkdirat streams/refs/ostree",
        "fsync streams/refs",
        "renameat images/ID",
        "fsync images",
        "renameat streams/ostree-commit-ID",
        "fsync streams",
        "renameat streams/refs/ostree/new",
        "fsync streams/refs/ostree",
    ]
    assert log.index("syncfs ") == max(number for number, line in enumerate(log) if "objects" in line) + 1
    assert not [line for line in log if line.startswith(("fsync objects", "fdatasync"))], (
        "one barrier, not one an object"
    )


@pytest.mark.parametrize(
    ("name", "tries", "steps"),
    [
        (
            "init",
            ["fchmod NEW", "linkat .symlink-NEW", "unlinkat .symlink-NEW", "unlinkat .symlink-NEW"],
            ["mkdirat objects", "mkdirat streams", "mkdirat images", "linkat meta.json"],
        ),
        ("reset", [], ["fsync ", "mkdirat streams", "mkdirat images", "linkat NEW", "renameat meta.json"]),
    ],
    ids=["init", "reset"],
)
def test_the_order_of_making_a_repository(workshop: Workshop, name: str, tries: list[str], steps: list[str]) -> None:
    """Its meta.json is durable before it has a name; the old names are gone before there is a new one.

    ``tries`` come first: whether there are links.
    """
    [operation] = [each for each in OPERATIONS if each.name == name]
    with workshop.run(operation.repository) as run:
        log = [re.sub("#[0-9]+|[0-9a-f]{24}", "NEW", line) for line in follow(run, operation).log]
    assert log == [*tries, "fchmod NEW", "syncfs NEW", "fsync NEW", *steps, "syncfs ", "fsync "]


def test_the_order_of_collection(workshop: Workshop) -> None:
    [operation] = [each for each in OPERATIONS if each.name == "gc"]
    with workshop.run(operation.repository) as run:
        steps = [re.sub("/.*", "", line) for line in follow(run, operation).log]
    assert list(dict.fromkeys(steps)) == ["unlinkat streams", "unlinkat images", "syncfs ", "unlinkat objects"]
    assert steps == sorted(steps, key=list(dict.fromkeys(steps)).index)


class Exported:
    """Follows the calls that write an exported repository; ``unsynced`` are the paths whose names a power cut may undo.

    ``log`` has what was named, and what was there and is gone, in order.
    """

    def __init__(self, root: Path, unsynced: Iterable[str] = ()) -> None:
        self._root = root
        self._written: set[str] = set()
        self.unsynced = set(unsynced)
        self.log: list[str] = []

    def apply(self, call: Call) -> None:
        """Follow one call, and check that what it names depends on nothing that a power cut may undo."""
        if call.name in ("write", "pwrite64"):
            call = replace(call, arguments=call.arguments.partition(",")[0])  # without what is written
        places = strace.paths(call, self._root)
        if not places or call.result.startswith("-"):
            return
        match call.name.removesuffix("2"):
            case "syncfs":
                self._written.clear()
                self.unsynced.clear()
            case "write" | "pwrite64" | "ioctl":
                self._written.add(places[0])
            case "fsync":
                self._written.discard(places[0])
                self.unsynced = {path for path in self.unsynced if path.rpartition("/")[0] != places[0]}
            case "mkdirat":
                self.unsynced.add(places[0])
            case "unlinkat":
                self.unsynced.add(places[0])
                self.log += [] if places[0].startswith("tmp/") else [f"no {places[0]}"]
            case "renameat" if len(places) > 1:
                self._name(*places)

    def _name(self, staged: str, place: str) -> None:
        assert staged not in self._written, f"{place} may be there with half of its content"
        assert place.rpartition("/")[0] not in self.unsynced, f"{place} is in a directory that may vanish"
        if not place.startswith("objects/") or place.endswith(".commit"):
            needed = "objects/" if place.endswith(".commit") else ""
            # A signature is named right behind its summary; an old one must be gone before, as it would not fit.
            passed = ("tmp", "summary") if place == "summary.sig" else ("tmp",)
            missing = [path for path in self.unsynced if path.startswith(needed) and not path.startswith(passed)]
            assert not missing, f"{place} may be there without {missing}"
        self.unsynced.add(place)
        self.log.append(place)


@pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])
@pytest.mark.parametrize("operation", EXPORTS, ids=lambda operation: operation.name)
def test_a_power_cut_while_a_repository_is_exported(workshop: Workshop, operation: Operation, signed: bool) -> None:
    if signed:
        key = Ed25519PrivateKey.generate()
        secret = workshop.directory / "secret"
        secret.write_text(base64.b64encode(key.private_bytes_raw() + key.public_key().public_bytes_raw()).decode())
        operation = replace(operation, arguments=(*operation.arguments, f"--sign-from-file={secret}"))
    with workshop.run(operation.repository, operation.exported) as run:
        if operation.exported != "none":
            (run.exported / "summary.sig").write_bytes(b"of the summary that is there")
        if signed:
            workshop.cfsctl(run.repository, "ostree", "sign", "old", f"--sign-from-file={secret}")
        exported = Exported(run.exported, run.state().exported)  # what is there a killed run may have left
        done = run.do(operation, "extension", strace.recorder)
        assert done.returncode == 0, done.stderr
        for call in run.calls():
            exported.apply(call)
        assert not [path for path in exported.unsynced if not path.startswith("tmp")]
        log = [re.sub("[0-9a-f]{2}/[0-9a-f]{62}", "ID", path) for path in exported.log]
    unsigned = ["summary"] if operation.exported == "none" else ["no summary.sig", "summary"]
    summaries = ["summary", "summary.sig"] if signed else unsigned
    *before, commit, ref = log[: -len(summaries)]
    if signed:
        assert before.pop() == "objects/ID.commitmeta"
    assert before[:1] == (["config"] if operation.exported == "none" else [])
    assert len(before[1:]) == (6 if operation.exported == "none" else 0)
    assert commit == "objects/ID.commit"
    assert ref.startswith("refs/heads/")
    assert log[-len(summaries) :] == summaries
