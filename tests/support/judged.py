"""What a command has left of a repository after one of its system calls failed, and whether that may be.

What :mod:`support.faulted` runs is judged here, and what tests/vm/checks/faults.py runs in the virtual machine.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from composefs.repository.names import TEMPORARY_PREFIX
from support.commands import run as run_command
from support.peers import require
from support.strace import Call


@dataclass(frozen=True)
class State:
    """What a repository holds: names below streams and images with their targets, ids, entries of staging.

    ``exported`` is what an ostree repository holds that the command writes, by path: the digests of files, and of the
    summary, which has the time in it, what it says besides.
    """

    names: dict[str, str]
    objects: frozenset[str]
    temporary: frozenset[str]
    staged: frozenset[str]
    exported: dict[str, str]

    @classmethod
    def read(cls, repository: Path, exported: Path | None = None) -> State:
        links = [path for top in ("streams", "images") for path in (repository / top).rglob("*") if path.is_symlink()]
        unfinished = frozenset(path.name for path in links if path.name.startswith(TEMPORARY_PREFIX))
        return cls(
            {str(path.relative_to(repository)): os.readlink(path) for path in links if path.name not in unfinished},
            frozenset(path.parent.name + path.name for path in (repository / "objects").glob("*/*")),
            unfinished,
            frozenset(os.listdir(repository / "staging")) if (repository / "staging").exists() else frozenset(),
            {} if exported is None else _exported(exported),
        )


def _exported(repository: Path) -> dict[str, str]:
    found = {
        str(path.relative_to(repository)): sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
        for path in repository.rglob("*")
        if path.name != ".lock"
    }
    if "summary" in found:
        said = run_command(require("ostree"), "summary", f"--repo={repository}", "--view").stdout
        found["summary"] = "\n".join(line for line in said.splitlines() if "Last-Modified" not in line)
    return found


@dataclass(frozen=True)
class Clean:
    """What a command does when nothing fails: the state before and after, and its output."""

    before: State
    after: State
    output: str


def judge_output(done: subprocess.CompletedProcess[str], *, killed: bool) -> Iterator[str]:
    """Yield what is wrong with how a command ended and what it said; ``killed`` if its own process was killed."""
    if killed:
        if done.returncode != -9:
            yield f"killed, it ends with {done.returncode}"
    elif done.returncode not in range(12):
        yield f"it ends with {done.returncode}: {done.stderr}"
    elif done.returncode and (done.stderr.count("\n") != 1 or "Traceback" in done.stderr):
        yield f"no single line says what is wrong: {done.stderr!r}"
    elif "a system call failed" in done.stderr:
        yield f"it does not say what failed: {done.stderr!r}"
    elif "/proc" in done.stderr:
        yield f"it blames the wrong file system: {done.stderr!r}"


def judge_success(state: State, done: subprocess.CompletedProcess[str], clean: Clean, hit: Call) -> Iterator[str]:
    """Yield what is wrong where a command did not mind the call that failed, which is ``hit``."""
    after = clean.after
    if (state.names, state.exported) != (after.names, after.exported) or state.objects < after.objects:
        yield f"it says that all is well, and has not done all: {done.stdout}{done.stderr}"
    if "sync" in hit.name:
        yield "what it could not sync it says is done"


def judge_state(state: State, clean: Clean) -> Iterator[str]:
    """Yield what is wrong with the names and objects that a fault has left."""
    for name, target in state.names.items():
        if target not in (clean.before.names.get(name), clean.after.names.get(name)):
            yield f"{name} is new or changed: {target}"
    for name in clean.before.names.keys() & clean.after.names.keys():
        if name not in state.names:
            yield f"{name} is lost"
    for path, content in state.exported.items():
        if path.startswith(("objects/", "refs/")) and content != clean.after.exported.get(path):
            yield f"{path} of the exported repository is not what it should be"
    if unpublished := clean.before.exported.keys() - state.exported.keys():
        yield f"the exported repository has lost {sorted(unpublished)}"
    if lost := (clean.before.objects & clean.after.objects) - state.objects:
        yield f"objects are lost: {sorted(lost)}"
    if odd := state.objects - clean.before.objects - clean.after.objects:
        yield f"objects are there that should not be: {sorted(odd)}"


def judge_repeated(
    done: subprocess.CompletedProcess[str], state: State, clean: Clean, *, once: bool = False, sweeps: bool = False
) -> Iterator[str]:
    """Yield what is wrong after the command was done again; ``once`` and ``sweeps`` as in :class:`Operation`."""
    if done.returncode and not (once and done.returncode == 3):
        yield f"the repeated command fails: {done.stderr}"
    elif not done.returncode and not sweeps and _ids(done.stdout) != _ids(clean.output):
        yield f"the repeated command answers {done.stdout!r} instead of {clean.output!r}"
    if state.names != clean.after.names:
        yield f"the names after the repeated command differ: {state.names.items() ^ clean.after.names.items()}"
    if state.objects != clean.after.objects:
        yield f"the objects after the repeated command differ: {sorted(state.objects ^ clean.after.objects)}"
    if state.exported != clean.after.exported:
        yield f"the exported repository differs: {sorted(state.exported.items() ^ clean.after.exported.items())}"
    if state.staged:
        yield f"staging was not swept: {sorted(state.staged)}"
    if sweeps and state.temporary:
        yield f"unfinished names are left: {sorted(state.temporary)}"


def _ids(output: str) -> list[str]:
    """Return the words of an output that are ids: how much was fetched and how much was there may differ."""
    return [word for word in output.split() if len(word) == 64]
