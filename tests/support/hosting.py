"""Run an extension in a test, and look at what it left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from composefs.digest import SHA256, Algorithm
from composefs.ext import discovery, process
from composefs.ext.commandline import CommandLine
from composefs.ext.launch import launch
from composefs.ext.options import RunOptions, Stdio, Timeouts
from composefs.ext.session import RunResult, converse
from composefs.observe import Observers, Progress, sink
from composefs.repository import Repository
from support.strict import STRAY, Strict

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "samples"

QUICK = Timeouts(initialize=300, terminate=0.2, kill=0.2)
"""For extensions that do not end by themselves."""
PATIENT = Timeouts(initialize=300, terminate=300, kill=300)


@dataclass
class Recorder:
    """A sink that keeps everything, and presses Ctrl-C where the extension asks for it."""

    logs: list[tuple[str, str]] = field(default_factory=list)
    events: list[Progress] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)
    traces: list[tuple[str, str]] = field(default_factory=list)

    @sink
    def log(self, level: str, message: str) -> None:
        if message == "please interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            return
        self.logs.append((level, message))

    @sink
    def progress(self, event: Progress) -> None:
        self.events.append(event)

    @sink
    def output(self, data: bytes) -> None:
        self.outputs.append(data)

    @sink
    def trace(self, direction: str, line: str) -> None:
        self.traces.append((direction, line))


def install(source: Path, name: str, directory: Path) -> Path:
    """Copy an extension to where root trusts it, and return the directory for COMPOSEFS_EXT_PATH."""
    directory.mkdir(parents=True, exist_ok=True)
    for suffix in ("", ".json"):
        target = directory / (name + suffix)
        shutil.copy(source / (name + suffix), target)
        target.chmod(0o755)
    return directory


class Host:
    """A repository, an extension, and what was seen of its runs."""

    def __init__(
        self,
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        source: Path = HERE / "extensions",
        name: str = "bad",
    ) -> None:
        # The interpreter of this test, whatever else is called python3 here.
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        self.path = directory / "repo"
        self.algorithm: Algorithm = SHA256
        Repository.init(self.path, algorithm=self.algorithm, insecure=True)
        self.search = install(source, name, directory / "ext")
        self.extension = discovery.find(name, [str(self.search)])
        self.recorder = Recorder()
        self.pids = directory / "pids"

    def line(self, command: str, arguments: dict[str, Any]) -> CommandLine:
        """Return what runs a command."""
        [described] = [each for each in self.extension.manifest.commands if each.name == (command,)]
        return CommandLine(self.extension, described, arguments)

    def run(
        self,
        command: str,
        arguments: dict[str, Any],
        *,
        options: RunOptions = RunOptions(),
        timeouts: Timeouts = PATIENT,
        stdio: Stdio = Stdio(),
        strict: bool = False,
        **more: Any,
    ) -> RunResult:
        """Run a command of the extension; ``strict`` is as in ``Strict``."""
        line = self.line(command, arguments)
        observer = Observers(self.recorder)
        with (
            Repository.open(self.path, writable=line.command.repository == "write") as repository,
            launch(line, repository, options._replace(stdio=stdio), **more) as launched,
        ):
            process, limits = launched.process, launched.limits
            channel = Strict(process.stdout, process.stdin, limits, observer) if strict else None
            return converse(launched, observer, timeouts=timeouts, channel=channel)

    def misbehave(self, how: str, **more: Any) -> RunResult:
        """Have the bad extension misbehave."""
        return self.run("misbehave", {"how": how, "pids": str(self.pids)}, **more)

    def do(
        self, *steps: list[Any], command: str = "write", strict: bool = True, hard_links: bool = False, **more: Any
    ) -> list[Any]:
        """Have the bad extension carry out steps, and return the answers it got, without the stray field.

        With ``hard_links`` it may make some, as where the kernel has no seccomp.
        """
        arguments = {"steps": json.dumps(steps), **more.pop("arguments", {})}
        with pytest.MonkeyPatch.context() as patch:
            if hard_links:
                patch.setattr(process, "give_up_hard_links", lambda: None)
            result = self.run(command, arguments, strict=strict, **more)
        answers: list[Any] = result.result["answers"]
        for answer in answers:
            if isinstance(answer, dict) and "versions" not in answer:
                answer.pop(STRAY, None)
        return answers

    def assert_clean(self) -> None:
        """Check that no name was published, no file staged and no process left."""
        with Repository.open(self.path) as repository:
            assert repository.streams.list() == []
            assert repository.refs.list(odd=pytest.fail) == []
            assert repository.images.list_refs(odd=pytest.fail) == []
        self.assert_nothing_left()

    def assert_nothing_left(self) -> None:
        """Check that no file is staged and no process left."""
        staging = self.path / "staging"
        assert not staging.exists() or list(staging.iterdir()) == []
        assert list(Path(tempfile.gettempdir()).iterdir()) == []
        for pid in self.pids.read_text().split() if self.pids.exists() else ():
            assert not Path("/proc", pid).exists()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        assert children == []
