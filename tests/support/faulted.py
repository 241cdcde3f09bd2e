"""Commands that change a repository, each run with one of its system calls failing, and what must hold afterwards.

An operation runs on a copy of one small repository.  Its clean run is recorded once; then :func:`run` repeats it with a
fault at one call, judges what is left, and runs the command once more.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from composefs import dumpfile, erofs
from composefs.digest import SHA256
from composefs.linux.prctl import set_child_subreaper
from composefs.repository import Repository
from composefs.repository.names import TEMPORARY_PREFIX
from support import ostree_repo, strace
from support.commands import BIN, CFSCTL
from support.commands import run as run_command
from support.populated import populate
from support.server import serve
from support.strace import Call, Fault

LIBEXEC = Path(__file__).resolve().parents[2] / "libexec"
_ATTEMPTS = 3
_STALLED = "did not answer initialize"  # what a command says of an extension that got no processor for ten seconds
_ORPHAN_SECONDS = 120.0  # what a killed core leaves has its own seven seconds to end in (docs/protocol.md)


@dataclass(frozen=True)
class State:
    """What a repository holds: names below streams and images with their targets, ids, entries of staging."""

    names: dict[str, str]
    objects: frozenset[str]
    temporary: frozenset[str]
    staged: frozenset[str]

    @classmethod
    def read(cls, repository: Path) -> State:
        links = [path for top in ("streams", "images") for path in (repository / top).rglob("*") if path.is_symlink()]
        unfinished = frozenset(path.name for path in links if path.name.startswith(TEMPORARY_PREFIX))
        return cls(
            {str(path.relative_to(repository)): os.readlink(path) for path in links if path.name not in unfinished},
            frozenset(path.parent.name + path.name for path in (repository / "objects").glob("*/*")),
            unfinished,
            frozenset(os.listdir(repository / "staging")) if (repository / "staging").exists() else frozenset(),
        )


@dataclass(frozen=True)
class Operation:
    """A command; its ``arguments`` may hold {tree}, {ostree}, {url} and {whole}, what :class:`Workshop` has made.

    It runs on a copy of ``repository``, which is not there if that is "none"; ``input`` is the file that it reads.
    ``once`` is for what cannot be done twice: the repeated command may say (status 3) that it is done already.
    ``sweeps`` is for what removes unfinished names of others too.
    """

    name: str
    arguments: tuple[str, ...]
    repository: str = "whole"
    input: str | None = None
    once: bool = False
    sweeps: bool = False

    @property
    def extension(self) -> bool:
        """Whether processes of an extension take part."""
        return self.arguments[0] == "ostree"


OPERATIONS = (
    Operation("pull", ("ostree", "pull-local", "{ostree}", "new")),
    Operation("pull over HTTP", ("ostree", "pull", "{url}", "new")),
    Operation("init", ("init", "--insecure", "--algorithm", "fsverity-sha256-12"), repository="none"),
    Operation("import-image", ("import-image", "os/3"), input="image"),
    Operation("create-image", ("create-image", "{tree}", "os/2")),
    Operation("tag", ("ostree", "tag", "old", "also")),
    Operation("untag", ("ostree", "untag", "old"), once=True),
    Operation("ref remove", ("ref", "remove", "oci/team/app:1"), once=True),
    Operation("gc", ("gc",), repository="unwanted", sweeps=True),
    Operation("copy", ("copy", "--from", "{whole}", "oci/team/app:1", "os/1"), repository="empty"),
    Operation("repair", ("fsck", "--repair", "--from", "{whole}"), repository="damaged"),
)


@dataclass(frozen=True)
class Target:
    """Where a fault goes: ``where`` is "core", the process of cfsctl, or "extension", those of the extension."""

    where: str
    call: Call


@dataclass(frozen=True)
class Verdict:
    """One run: what was hit (None: nothing was, the run tells nothing), whether the command failed, what is wrong."""

    hit: Call | None
    failed: bool
    wrong: tuple[str, ...]


class Workshop:
    """A directory with repositories to start from, and the environment of the commands.

    ``whole`` holds streams, images, refs and some garbage, and a commit of ostree with the ref ``old``; ``unwanted`` is
    that without most refs, ``damaged`` that with objects missing and bad; ``empty`` is empty.  ``image`` is an image
    whose objects ``whole`` has.
    """

    url = ""
    """Where ``ostree`` is served, while :meth:`serving`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "XDG_CACHE_HOME": str(directory / "cache"),
            "HOME": str(directory),
            "TMPDIR": str(directory),
            "LC_ALL": "C.UTF-8",
            "COMPOSEFS_EXT_PATH": str(LIBEXEC),
        }

    def make(self) -> Workshop:
        """Make what every run starts from."""
        whole, unwanted, damaged = (self.directory / name for name in ("whole", "unwanted", "damaged"))
        made = populate(whole)
        tree = self.directory / "tree"
        (tree / "usr" / "bin").mkdir(parents=True)
        (tree / "usr" / "bin" / "tool").write_bytes(b"tool" * 100_000)
        (tree / "usr" / "bin" / "link").symlink_to("tool")
        ostree = ostree_repo.make_repo(self.directory / "ostree")
        ostree_repo.commit(ostree, tree, branch="old")
        (tree / "usr" / "etc").mkdir()
        (tree / "usr" / "etc" / "file").write_bytes(b"a file\n" * 20)
        (tree / "usr" / "etc" / "empty").touch()
        ostree_repo.commit(ostree, tree, branch="new")
        self.cfsctl(whole, "ostree", "pull-local", ostree, "old")
        shutil.copytree(whole, unwanted, symlinks=True)
        self.cfsctl(unwanted, "ref", "remove", "oci/team/app:1")
        self.cfsctl(unwanted, "ref", "remove", "--image", "os/1")
        shutil.copytree(whole, damaged, symlinks=True)
        (damaged / made.object(made.files["one"]).relative_to(whole)).unlink()
        bad = damaged / made.object(made.files["three"]).relative_to(whole)
        bad.chmod(0o644)
        bad.write_bytes(b"bad")
        Repository.init(self.directory / "empty", algorithm=SHA256, insecure=True)
        dump = "".join(
            f"/{name} {len(name) * 100} 100644 1 0 0 0 0.0 {each[:2]}/{each[2:]} - {each}\n"
            for name, each in made.files.items()
        )
        tree = dumpfile.parse(b"/ 0 40755 2 0 0 0 0.0 - - -\n" + dump.encode(), SHA256)
        (self.directory / "image").write_bytes(b"".join(erofs.write(tree, version=1)))
        return self

    @contextmanager
    def serving(self) -> Iterator[Workshop]:
        """Serve ``ostree`` over HTTP on loopback, for operations that pull from there."""
        with serve(self.directory / "ostree") as server:
            self.url = server.url
            yield self

    def cfsctl(self, repository: Path, *arguments: str | Path, status: int | None = 0) -> str:
        """Run the installed cfsctl and return all that it prints."""
        done = run_command(CFSCTL, "--repo", repository, *arguments, env=self.environment, status=status)
        return done.stdout + done.stderr

    def command(self, operation: Operation, repository: Path) -> list[str]:
        """Return the command line."""
        places = {name: self.directory / name for name in ("tree", "ostree", "whole")}
        words = [word.format(url=self.url, **places) for word in operation.arguments]
        return [CFSCTL, "--repo", str(repository), *words]

    @contextmanager
    def run(self, repository: str) -> Iterator[Run]:
        """Give a run a copy of a repository and a cache, of its own, that vanish."""
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="run-") as directory:
            if repository != "none":
                shutil.copytree(self.directory / repository, Path(directory, "repo"), symlinks=True)
            yield Run(self, Path(directory))


class Run:
    """One copy of a repository that a command is run on."""

    def __init__(self, workshop: Workshop, directory: Path) -> None:
        self._workshop = workshop
        self._directory = directory
        self._environment = {**workshop.environment, "XDG_CACHE_HOME": str(directory / "cache")}
        self._log = directory / "log"
        self.repository = directory / "repo"

    def changes(self, call: Call) -> bool:
        """Tell whether a call changes the repository, or the extension's cache, which may be damaged as well."""
        return call.changes([self.repository, self._directory / "cache"])

    def calls(self, where: str) -> list[Call]:
        """Return the calls of the last command that had a prefix."""
        return strace.read(self._log, by_file=where == "extension")

    def fsck(self) -> Iterator[str]:
        """Yield what fsck finds, if anything; where there is no repository yet there is nothing to find."""
        if not (self.repository / "meta.json").exists():
            return
        done = run_command(CFSCTL, "--repo", self.repository, "fsck", status=None, env=self._environment)
        if done.returncode:
            yield f"fsck: {done.stdout}{done.stderr}"

    def do(
        self,
        operation: Operation,
        where: str = "core",
        prefix: Callable[..., list[str]] | None = None,
        file: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the operation, with ``prefix``, a recorder or injector of strace, before the core or the extension.

        In the extension, ``file`` is the one whose calls count.
        """
        command = self._workshop.command(operation, self.repository)
        environment = self._environment
        if prefix and where == "core":
            command = [*prefix(self._log, children=False), *command]
        elif prefix:
            environment = {**environment, "COMPOSEFS_EXT_PATH": str(self._launcher(prefix, file))}
        if operation.input is None:
            return run_command(*command, status=None, env=environment)
        with (self._workshop.directory / operation.input).open("rb") as file:
            return run_command(*command, status=None, env=environment, stdin=file)

    def _launcher(self, prefix: Callable[..., list[str]], file: str | None) -> Path:
        """Make a directory where the ostree extension has strace before it."""
        # Any command lets the core make the cache: it is where an extension, confined as it is, can write a log.
        run_command(CFSCTL, "--repo", self.repository, "ostree", "images", env=self._environment)
        [cache] = (self._directory / "cache/composefs/ext/ostree").iterdir()
        self._log = cache / "log"
        directory = self._directory / "ext"
        directory.mkdir()
        shutil.copy(LIBEXEC / "ostree.json", directory)
        # On one processor there is one worker, and the calls of each process are the same every time.
        processors = sorted(os.sched_getaffinity(0))
        pinned = ["taskset", "-c", str(processors[os.getpid() % len(processors)])]
        words = shlex.join([*pinned, *prefix(self._log, children=True)])
        # It starts in its directory in staging, whose name is random.
        only = f'-P {file} -P "$PWD/{file}" -P {cache}/{file}' if file else ""
        (directory / "ostree").write_text(f'#!/bin/sh\nexec {words} {only} {BIN}/composefs-ext-ostree "$@"\n')
        (directory / "ostree").chmod(0o755)
        return directory


@dataclass(frozen=True)
class Clean:
    """What the command does when nothing fails: the state before and after, its output, the calls that can fail."""

    before: State
    after: State
    output: str
    targets: tuple[Target, ...]


def record(workshop: Workshop, operation: Operation) -> Clean:
    """Run an operation without a fault, and list its calls that change the repository or the extension's cache."""
    targets = []
    for where in ("core", "extension") if operation.extension else ("core",):
        with workshop.run(operation.repository) as run:
            before = State.read(run.repository)
            done = run.do(operation, where, strace.recorder)
            if done.returncode:
                raise AssertionError(f"{operation.name} fails without a fault: {done.stderr}")
            targets += [Target(where, call) for call in run.calls(where) if run.changes(call)]
            after = State.read(run.repository)
    return Clean(before, after, done.stdout, tuple(targets))


def attempt(workshop: Workshop, operation: Operation, clean: Clean, target: Target, fault: Fault) -> Verdict:
    """Do :func:`run`, again when it tells nothing of the command.

    That is when nothing was hit, as how messages fall together may vary, or when the machine stood still meanwhile.
    """
    for _ in range(_ATTEMPTS):
        verdict = run(workshop, operation, clean, target, fault)
        if verdict.hit and not any(_STALLED in wrong for wrong in verdict.wrong):
            break
    return verdict


def run(workshop: Workshop, operation: Operation, clean: Clean, target: Target, fault: Fault) -> Verdict:
    """Run an operation with a fault, and judge."""
    call = target.call
    with workshop.run(operation.repository) as run:

        def prefix(log: Path, *, children: bool) -> list[str]:
            return strace.injector(log, call.name, call.nth, fault, children=children)

        with reaper() as left:
            done = run.do(operation, target.where, prefix, call.file)
        hits = [each for each in run.calls(target.where) if each.injected and run.changes(each)]
        if not hits and target.where == "extension" and fault is Fault.KILL and done.returncode:
            hits = [call]  # the core has ended strace, too, before it could write the last line
        if not hits:
            return Verdict(None, False, ())
        wrong = [f"a process was left: {name}" for name in left]
        wrong += _judge_output(done, killed=fault is Fault.KILL and target.where == "core")
        wrong += judge_state(State.read(run.repository), clean)
        if operation.repository != "damaged":
            wrong += run.fsck()
        again = run.do(operation)
        after = State.read(run.repository)
        wrong += judge_repeated(again, after, clean, once=operation.once, sweeps=operation.sweeps)
        if operation.repository == "damaged":
            wrong += run.fsck()
        return Verdict(hits[0], done.returncode != 0, tuple(wrong))


def _judge_output(done: subprocess.CompletedProcess[str], *, killed: bool) -> Iterator[str]:
    if killed:
        if done.returncode != -9:
            yield f"killed, it ends with {done.returncode}"
    elif done.returncode not in range(12):
        yield f"it ends with {done.returncode}: {done.stderr}"
    elif done.returncode and (done.stderr.count("\n") != 1 or "Traceback" in done.stderr):
        yield f"no single line says what is wrong: {done.stderr!r}"


def judge_state(state: State, clean: Clean) -> Iterator[str]:
    """Yield what is wrong with the names and objects that a fault has left."""
    for name, target in state.names.items():
        if target not in (clean.before.names.get(name), clean.after.names.get(name)):
            yield f"{name} is new or changed: {target}"
    for name in clean.before.names.keys() & clean.after.names.keys():
        if name not in state.names:
            yield f"{name} is lost"
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
    if state.staged:
        yield f"staging was not swept: {sorted(state.staged)}"
    if sweeps and state.temporary:
        yield f"unfinished names are left: {sorted(state.temporary)}"


def _ids(output: str) -> list[str]:
    """Return the words of an output that are ids: how much was fetched and how much was there may differ."""
    return [word for word in output.split() if len(word) == 64]


@contextmanager
def reaper() -> Iterator[list[str]]:
    """Collect the processes that outlive the command that started them; those that do not end by themselves are listed.

    This process must have no other children meanwhile.
    """
    left: list[str] = []
    set_child_subreaper(True)
    try:
        yield left
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while children := _children():
            for child in children:
                if time.monotonic() > deadline:
                    left.append(Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "))
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                else:
                    os.waitpid(child, os.WNOHANG)
            time.sleep(0.005)
    finally:
        set_child_subreaper(False)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
