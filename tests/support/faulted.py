"""Commands that change a repository, each run with one of its system calls failing.

An operation runs on a copy of one small repository.  Its clean run is recorded once; then :func:`run` repeats it with a
fault at one call, has :mod:`support.judged` judge what is left, and runs the command once more.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from composefs import dumpfile, erofs
from composefs.digest import SHA256
from composefs.ext.cache import cache_name
from composefs.linux.prctl import set_child_subreaper
from composefs.repository import Repository
from support import ostree_repo, strace
from support.commands import BIN, CFSCTL
from support.commands import run as run_command
from support.judged import Clean, State, judge_output, judge_repeated, judge_state, judge_success
from support.oci_layout import simple
from support.peers import require
from support.populated import populate
from support.server import serve
from support.strace import Call, Fault

LIBEXEC = Path(__file__).resolve().parents[2] / "libexec"
ATTEMPTS = 3
_STALLED = "did not answer initialize"  # what a command says of an extension that got no processor for ten seconds
# What an export makes is named by chance, which no two runs would have in common.
_PROGRAM = "import secrets; secrets.token_hex = lambda size: '00' * size; from composefs_{0}.main import main; main()"
_TOOL_SIZE = 400_000
_ORPHAN_SECONDS = 120.0  # what a killed core leaves has its own seven seconds to end in (docs/protocol.md)


@dataclass(frozen=True)
class Operation:
    """A command; its ``arguments`` may hold {url} and the names of what :class:`Workshop` has made, as {tree}.

    It runs on a copy of ``repository``, which is not there if that is "none"; ``input`` is the file that it reads.
    {exported} is the ostree repository that it writes, a copy of ``exported``, which is not there if that is "none".
    ``once`` is for what cannot be done twice: the repeated command may say (status 3) that it is done already.
    ``sweeps`` is for what removes unfinished names of others too.
    """

    name: str
    arguments: tuple[str, ...]
    repository: str = "whole"
    exported: str | None = None
    input: str | None = None
    once: bool = False
    sweeps: bool = False

    @property
    def extension(self) -> bool:
        """Whether processes of an extension take part."""
        return self.arguments[0] in ("ostree", "oci")

    @property
    def is_repair(self) -> bool:
        """Whether ``fsck`` finds something before it has ended well."""
        return "--repair" in self.arguments


_COMMIT = ("--parent=none", "--timestamp=@1700000000", "--owner-uid=0", "--owner-gid=0")

OPERATIONS = (
    Operation("pull", ("ostree", "pull-local", "{ostree}", "new")),
    Operation("pull over HTTP", ("ostree", "pull", "{url}", "new")),
    Operation("pull of a history", ("ostree", "pull-local", "{ostree}", "new", "--depth=-1"), repository="empty"),
    Operation("pull that repairs", ("ostree", "pull-local", "{ostree}", "old", "--repair"), repository="spoiled"),
    Operation("apply-delta", ("ostree", "apply-delta", "{delta}")),
    Operation("commit", ("ostree", "commit", "--base=old", "--tree=dir={tree}", "--branch=made", *_COMMIT)),
    Operation("export", ("ostree", "export", "old", "{exported}"), exported="none"),
    Operation("export again", ("ostree", "export", "old", "{exported}", "--reference=b"), exported="published"),
    Operation("pull of a container image", ("oci", "pull", "oci:{layout}:latest", "app"), repository="empty"),
    Operation("init", ("init", "--insecure", "--algorithm", "fsverity-sha256-12"), repository="none"),
    Operation("reset", ("init", "--insecure", "--reset-metadata", "--algorithm", "fsverity-sha256-12")),
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
    """Where a fault goes: ``where`` is "core", the process of cfsctl, or "extension", those of the extension.

    ``files`` are the names of what it concerns, if calls on that alone are counted.
    """

    where: str
    call: Call
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One run: what was hit (None: nothing was, the run tells nothing), whether the command failed, what is wrong."""

    hit: Call | None
    failed: bool
    wrong: tuple[str, ...]


class Workshop:
    """A directory with repositories to start from, and the environment of the commands.

    ``whole`` holds streams, images, refs and some garbage, and a commit of ostree with the ref ``old``; ``unwanted`` is
    that without most refs, ``damaged`` that with objects missing and bad, ``spoiled`` that with a bad file of
    ``old``; ``empty`` is empty.  ``image`` is an image whose objects ``whole`` has.
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
        (tree / "usr" / "bin" / "tool").write_bytes(b"tool" * (_TOOL_SIZE // 4))
        (tree / "usr" / "bin" / "link").symlink_to("tool")
        ostree = ostree_repo.make_repo(self.directory / "ostree")
        ostree_repo.commit(ostree, tree, branch="old")
        (tree / "usr" / "etc").mkdir()
        (tree / "usr" / "etc" / "file").write_bytes(b"a file\n" * 20)
        (tree / "usr" / "etc" / "empty").touch()
        (tree / "usr" / "disk").write_bytes(b"it ends with a hole")
        os.truncate(tree / "usr" / "disk", 1 << 19)
        ostree_repo.commit(ostree, tree, branch="new")
        self._make_delta(ostree)
        self.cfsctl(whole, "ostree", "pull-local", ostree, "old")
        published = self.directory / "published"
        self.cfsctl(whole, "ostree", "export", "old", published, "--reference=a", "--mode=bare-user")
        shutil.copytree(whole, unwanted, symlinks=True)
        self.cfsctl(unwanted, "ref", "remove", "oci/team/app:1")
        self.cfsctl(unwanted, "ref", "remove", "--image", "os/1")
        shutil.copytree(whole, damaged, symlinks=True)
        (damaged / made.object(made.files["one"]).relative_to(whole)).unlink()
        _spoil(damaged / made.object(made.files["three"]).relative_to(whole))
        spoiled = shutil.copytree(whole, self.directory / "spoiled", symlinks=True)
        _spoil(next(path for path in spoiled.glob("objects/*/*") if path.stat().st_size == _TOOL_SIZE))
        Repository.init(self.directory / "empty", algorithm=SHA256, insecure=True)
        dump = "".join(
            f"/{name} {len(name) * 100} 100644 1 0 0 0 0.0 {each[:2]}/{each[2:]} - {each}\n"
            for name, each in made.files.items()
        )
        tree = dumpfile.parse(b"/ 0 40755 2 0 0 0 0.0 - - -\n" + dump.encode(), SHA256)
        (self.directory / "image").write_bytes(b"".join(erofs.write(tree, version=1)))
        simple().write(self.directory / "layout")
        return self

    def _make_delta(self, ostree: Path) -> None:
        delta = f"--filename={self.directory / 'delta'}"
        words = ("static-delta", "generate", f"--repo={ostree}", "--from=old", "--to=new", "--inline", delta)
        run_command(require("ostree"), *words, "--min-fallback-size=0")

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

    def command(self, operation: Operation, repository: Path, exported: Path) -> list[str]:
        """Return the command line."""
        places = {name: self.directory / name for name in ("tree", "ostree", "whole", "delta", "layout")}
        words = [word.format(url=self.url, exported=exported, **places) for word in operation.arguments]
        return [CFSCTL, "--repo", str(repository), *words]

    @contextmanager
    def run(self, repository: str, exported: str | None = None) -> Iterator[Run]:
        """Give a run copies of repositories and a cache, of its own, that vanish."""
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="run-") as directory:
            for name, copy in ((repository, "repo"), (exported or "none", "exported")):
                if name != "none":
                    shutil.copytree(self.directory / name, Path(directory, copy), symlinks=True)
            yield Run(self, Path(directory))


class Run:
    """One copy of a repository that a command is run on."""

    def __init__(self, workshop: Workshop, directory: Path) -> None:
        self._workshop = workshop
        self._directory = directory
        self._environment = {**workshop.environment, "XDG_CACHE_HOME": str(directory / "cache")}
        self._log = directory / "log"
        self.repository = directory / "repo"
        self.exported = directory / "exported"

    def state(self) -> State:
        """Return what the repositories hold."""
        return State.read(self.repository, self.exported)

    def changes(self, call: Call) -> bool:
        """Tell whether a call changes a repository, or the extension's cache, which may be damaged as well."""
        return call.changes([self.repository, self.exported, self._directory / "cache"])

    def calls(self) -> list[Call]:
        """Return the calls of the last command that had a prefix."""
        return strace.read(self._log)

    def targets(self, where: str) -> Iterator[Target]:
        """Yield the calls of the last command that change a repository or the cache."""
        for call, of_file in zip(self.calls(), strace.read(self._log, by_file=True), strict=True):
            if not self.changes(call):
                continue
            # What has a descriptor before what is named from the top, as the first directories of an export are.
            named = strace.paths(call, self.exported) + re.findall(f'"{self.exported}/([^"]*)"', call.arguments)
            below = [""] if of_file.file == self.exported.name else named[:1]
            places = (of_file.file, *below)
            yield Target(where, of_file, places) if where == "extension" else Target(where, call)

    def fsck(self) -> Iterator[str]:
        """Yield what fsck finds, if anything; where there is no repository yet there is nothing to find."""
        if not (self.repository / "meta.json").exists():
            return
        done = run_command(CFSCTL, "--repo", self.repository, "fsck", status=None, env=self._environment)
        if done.returncode:
            yield f"fsck: {done.stdout}{done.stderr}"
        if (self.exported / "config").exists():
            done = run_command(require("ostree"), "fsck", f"--repo={self.exported}", "--quiet", status=None)
            if done.returncode:
                yield f"ostree fsck: {done.stdout}{done.stderr}"

    def do(
        self,
        operation: Operation,
        where: str = "core",
        prefix: Callable[..., list[str]] | None = None,
        files: Iterable[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run the operation, with ``prefix``, a recorder or injector of strace, before the core or the extension.

        In the extension, ``files`` are names of the one whose calls count, if that is not all.
        """
        command = self._workshop.command(operation, self.repository, self.exported)
        environment = self._environment
        if prefix and where == "core":
            command = [*prefix(self._log, children=False), *command]
        elif prefix:
            environment = {
                **environment,
                "COMPOSEFS_EXT_PATH": str(self._launcher(operation.arguments[0], prefix, files)),
            }
        if operation.input is None:
            return run_command(*command, status=None, env=environment)
        with (self._workshop.directory / operation.input).open("rb") as file:
            return run_command(*command, status=None, env=environment, stdin=file)

    def _launcher(self, extension: str, prefix: Callable[..., list[str]], files: Iterable[str]) -> Path:
        """Make a directory where an extension has strace before it."""
        # The cache that the core would make: it is where an extension, confined as it is, can write a log.
        cache = self._directory / "cache/composefs/ext" / extension / cache_name(str(self.repository), SHA256.name)
        cache.mkdir(parents=True)
        self._log = cache / "log"
        directory = self._directory / "ext"
        directory.mkdir()
        shutil.copy(LIBEXEC / f"{extension}.json", directory)
        # On one processor there is one worker, and the calls of each process are the same every time.
        processors = sorted(os.sched_getaffinity(0))
        pinned = ["taskset", "-c", str(processors[os.getpid() % len(processors)])]
        words = shlex.join([*pinned, *prefix(self._log, children=True)])
        # It starts in its directory in staging, whose name is random.
        only = " ".join(
            f'-P {each} -P ./{each} -P "$PWD/{each}" -P {cache}/{each} -P {self.exported}/{each}'
            if each
            else f"-P {self.exported}"
            for each in files
        )
        program = shlex.join([f"{BIN}/python", "-P", "-c", _PROGRAM.format(extension)])
        (directory / extension).write_text(f'#!/bin/sh\nexec {words} {only} {program} "$@"\n')
        (directory / extension).chmod(0o755)
        return directory


def record(workshop: Workshop, operation: Operation) -> tuple[Clean, list[Target]]:
    """Run an operation without a fault, and list its calls that change the repository or the extension's cache."""
    targets: list[Target] = []
    for where in ("core", "extension") if operation.extension else ("core",):
        with workshop.run(operation.repository, operation.exported) as run:
            before = run.state()
            done = run.do(operation, where, strace.recorder)
            if done.returncode:
                raise AssertionError(f"{operation.name} fails without a fault: {done.stderr}")
            targets += run.targets(where)
            after = run.state()
    return Clean(before, after, done.stdout), targets


def attempt(workshop: Workshop, operation: Operation, clean: Clean, target: Target, fault: Fault) -> Verdict:
    """Do :func:`run`, again when it tells nothing of the command.

    That is when nothing was hit, as how messages fall together may vary, or when the machine stood still meanwhile.
    """
    for _ in range(ATTEMPTS):
        verdict = run(workshop, operation, clean, target, fault)
        if verdict.hit and not any(_STALLED in wrong for wrong in verdict.wrong):
            break
    return verdict


def run(workshop: Workshop, operation: Operation, clean: Clean, target: Target, fault: Fault) -> Verdict:
    """Run an operation with a fault, and judge."""
    call = target.call
    with workshop.run(operation.repository, operation.exported) as run:

        def prefix(log: Path, *, children: bool) -> list[str]:
            return strace.injector(log, call.name, call.nth, fault, children=children)

        with reaper() as left:
            done = run.do(operation, target.where, prefix, target.files)
        hits = [each for each in run.calls() if each.injected and run.changes(each)]
        if not hits and target.where == "extension" and fault is Fault.KILL and done.returncode:
            hits = [call]  # the core has ended strace, too, before it could write the last line
        if not hits:
            return Verdict(None, False, ())
        wrong = [f"a process was left: {name}" for name in left]
        wrong += judge_output(done, killed=fault is Fault.KILL and target.where == "core")
        wrong += judge_state(state := run.state(), clean)
        if operation.exported and done.returncode and fault is not Fault.KILL and str(run.exported) not in done.stderr:
            wrong.append(f"nothing says that it is the exported repository: {done.stderr!r}")
        if not done.returncode:
            wrong += judge_success(state, done, clean, hits[0])
        if not operation.is_repair:
            wrong += run.fsck()
        again = run.do(operation)
        after = run.state()
        wrong += judge_repeated(again, after, clean, once=operation.once, sweeps=operation.sweeps)
        if operation.is_repair:
            wrong += run.fsck()
        return Verdict(hits[0], done.returncode != 0, tuple(wrong))


def _spoil(path: Path) -> None:
    """Damage an object of a repository."""
    path.chmod(0o644)
    path.write_bytes(b"bad")


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
