"""Make the runs of an extension's commands, each in a repository of its own, and gather what was found.

Commands are checked in order, and an ordinary run of one leaves the repository as the next one finds it; every other
run gets a copy.  A second line of ordinary runs, with --json and no cache, has the other digest algorithm: ids are
longer there.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from composefs.digest import SHA256, SHA512, Algorithm
from composefs.errors import CancelledError, ComposefsError, ProtocolError, TooLargeError
from composefs.ext.check.report import Finding, Report
from composefs.ext.check.scenarios import PLAIN, Scenario, judge, scenarios
from composefs.ext.check.silence import PATIENCE, Silence
from composefs.ext.check.tap import Tap
from composefs.ext.check.watch import Watch
from composefs.ext.environment import clean_environment
from composefs.ext.launch import launch
from composefs.ext.options import RunOptions, Stdio, Timeouts
from composefs.ext.process import children
from composefs.ext.session import converse
from composefs.linux.files import temporary_place
from composefs.observe import Observers
from composefs.protocol import schemas
from composefs.repository import Repository

if TYPE_CHECKING:
    from composefs.ext.commandline import CommandLine
    from composefs.ext.discovery import Extension

__all__ = ["Invocation", "check"]

_STDERR_KEPT = 4000
_NOWHERE = os.devnull
"""Where no cache can be made: an extension is to do without."""


class Invocation(NamedTuple):
    """A command line to check.  ``prepare`` makes what it needs in an empty directory, and returns what to run there.

    ``directory`` is where the user stands; None: in the directory that was prepared.
    """

    text: str
    prepare: Callable[[Path], CommandLine]
    directory: str | None = None


def check(
    extension: Extension,
    invocations: Sequence[Invocation],
    *,
    timeouts: Timeouts = Timeouts(),
    patience: float = PATIENCE,
    rules: Collection[int] | None = None,
    trace: Observers | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    report: Report | None = None,
) -> Report:
    """Check an extension by these commands.

    ``patience`` are the seconds in which nothing may go on in an extension that owes an answer (`Silence`).
    With ``rules``, of the runs that are not ordinary only those are made which try one of them.  ``trace`` is shown
    the conversations; ``progress`` is told how many runs are done, of how many as far as is known.  ``report`` takes in
    what is found, for who wants it should the check be interrupted.  After a command that writes and has no result
    there are no others: they may need what it publishes, and the consequences would hide the cause.
    Raises CancelledError when the user interrupts, and what making a repository raises.
    """
    with tempfile.TemporaryDirectory(prefix="cfsctl-check-", dir=temporary_place()) as directory:
        report = report or Report(extension.name, extension.executable)
        kit = _Kit(extension, Path(directory), timeouts, patience, rules, trace or Observers(), progress, report)
        kit.check_manifest()
        for number, invocation in enumerate(invocations, 1):
            if not kit.check_command(invocation):
                report.skipped += [each.text for each in invocations[number:]]
                break
        return report


@dataclass
class _Kit:
    extension: Extension
    directory: Path
    timeouts: Timeouts
    patience: float
    rules: Collection[int] | None
    trace: Observers
    progress: Callable[[int, int], None]
    report: Report

    def __post_init__(self) -> None:
        self.total = 0
        self.checked: set[tuple[str, ...]] = set()
        self.states = {SHA256: self.directory / "sha256", SHA512: self.directory / "sha512"}
        for algorithm, path in self.states.items():
            Repository.init(path, algorithm=algorithm, insecure=True)
        if any(command.repository == "write" for command in self.extension.manifest.commands):
            self.report.applicable.add(27)

    def check_manifest(self) -> None:
        """Check the manifest with its schema; what an older core does not know is no failure."""
        self.report.tried[42] += 1
        error = schemas.first_error("manifest", json.loads(Path(self.extension.executable + ".json").read_bytes()))
        if error is not None:
            unknown = error.validator == "additionalProperties"
            where = "manifest" if error.json_path == "$" else f"manifest: {error.json_path.removeprefix('$.')}"
            self.report.add([Finding(42, f"{where}: {error.message[:200]}", "the manifest", warning=unknown)])
        for command in self.extension.manifest.commands:
            if (wrong := schemas.malformed(command.result_schema)) is not None:
                what = f"manifest: the result_schema of {' '.join(command.name)} is no JSON Schema: {wrong}"
                self.report.add([Finding(42, what, "the manifest")])
            operands = [argument for argument in command.arguments if argument.positional]
            for before, after in pairwise(operands):
                if after.required and not before.required:
                    what = f"{' '.join(command.name)}: {before.name}, which may be left out, comes before {after.name}"
                    self._doubt(f"{what}, which may not")
        for pattern in self.extension.manifest.reads:
            if not pattern.startswith(("/", "~/", "$")):
                self._doubt(f"reads: {pattern[:100]!r} allows nothing: it begins with none of / ~/ $")
        for name in self.extension.manifest.environment:
            if name not in clean_environment({name: ""}, [name]):
                self._doubt(f"environment: {name} is never passed on")

    def _doubt(self, what: str) -> None:
        self.report.add([Finding(42, f"manifest: {what}", "the manifest", warning=True)])

    def check_command(self, invocation: Invocation) -> bool:
        """Make an ordinary run and, if that goes well, all the others; return whether later ones can build on it."""
        before = self.directory / "before"
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(self.states[SHA256], before, symlinks=True)
        self.report.commands.append(invocation.text)
        self.total += 2
        plain = self._run(invocation, PLAIN)
        done = plain.succeeded
        if done:  # for later ones even where a rule was broken, which was told then
            title = "an ordinary run with --json and without a cache"
            done = self._run(invocation, PLAIN._replace(title=title), SHA512, add=not plain.failed).succeeded
        goes_on = done or plain.command.repository != "write"
        if plain.failed or not plain.succeeded:
            self.report.unfinished.append(invocation.text)
            return goes_on
        if plain.stderr.strip():
            self.report.wrote[invocation.text] = plain.stderr.strip().splitlines()[-1]
        if plain.command.name in self.checked:
            return goes_on
        self.checked.add(plain.command.name)
        if "object.put" in plain.calls:
            self.report.applicable.add(32)
        todo = [each for each in scenarios(plain) if self.rules is None or not set(each.rules).isdisjoint(self.rules)]
        self.total += len(todo)
        for scenario in todo:
            state = self.states[SHA256] if scenario.expect == "again" else before
            found = self._run(invocation, scenario, copy_of=state, add=not scenario.single)
            if scenario.single:
                self._tell_apart(invocation, scenario, found, before)
            if scenario.expect == "same" and not found.failed:
                self._compare(plain, found)
        return goes_on

    def _compare(self, plain: Watch, found: Watch) -> None:
        """Doubt what an ordinary run made otherwise than another, which had all the same to make it of."""
        for what, before, now in (
            ("images that are published are", plain.images, found.images),
            ("the content_type of streams is", plain.content_types, found.content_types),
        ):
            if now - before:  # less is a matter of the cache
                message = f"{what} not the same in two runs: it is not to come from the clock, or from chance"
                self.report.add([Finding(27, message, found.run, warning=True)])

    def _tell_apart(self, invocation: Invocation, scenario: Scenario, found: Watch, before: Path) -> None:
        """Say which part of a run with many was minded; if none is by itself, that all together are."""
        if found.failed:
            self.total += len(scenario.single)
            singles = [self._run(invocation, each, copy_of=before) for each in scenario.single]
            if any(single.failed for single in singles):
                return
        self.report.add(found.findings)

    def _copy(self, state: Path) -> Path:
        copy = self.directory / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(state, copy, symlinks=True)
        return copy

    def _run(
        self,
        invocation: Invocation,
        scenario: Scenario,
        algorithm: Algorithm = SHA256,
        *,
        copy_of: Path | None = None,
        add: bool = True,
    ) -> Watch:
        """Make one run, in a copy of a repository or else in the one of ordinary runs, and judge it.

        Where a time was up, it is made once more: other people's work on this machine may have taken the time.
        """
        for last in (False, True):
            repository = self.states[algorithm] if copy_of is None else self._copy(copy_of)
            watch = self._converse(invocation, scenario, repository, algorithm)
            if last or not watch.late or (copy_of is None and watch.welcomed is not None):
                break
        self.report.runs += 1
        self.progress(self.report.runs, self.total)
        if add:
            self.report.add(watch.findings)
        self.report.tried.update(watch.tried)
        if "publish" in watch.calls:
            self.report.tried[27] += 1
        return watch

    def _converse(self, invocation: Invocation, scenario: Scenario, repository: Path, algorithm: Algorithm) -> Watch:
        """Run the command, with all that the scenario does otherwise; return what was seen of it, and judged."""
        work = self.directory / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        line = invocation.prepare(work)
        title = f"{invocation.text}: {scenario.title}" if len(self.report.commands) > 1 else scenario.title
        watch = Watch(title, self.extension.manifest, line.command, algorithm)
        failure = took = None
        interrupted = None
        with open(self.directory / "stderr", "w+b") as stderr, open(os.devnull, "r+b") as null:
            options = RunOptions(
                json=algorithm is SHA512,
                directory=invocation.directory or str(work),
                cache_dir=_NOWHERE if algorithm is SHA512 else f"{self.directory}/cache",
                stdio=Stdio(null.fileno(), null.fileno(), stderr.fileno()),
            )
            silence = Silence(self.patience, children())
            try:
                with (
                    Repository.open(repository, writable=line.command.repository == "write") as opened,
                    launch(line, opened, options) as launched,
                ):
                    tap = Tap(launched, self.trace, script=scenario.script, watch=watch, silence=silence)
                    try:
                        result = converse(launched, self.trace, timeouts=self.timeouts, channel=tap)
                    finally:
                        watch.ended = launched.end()
                        tap.left_over()
                        took = tap.seconds_to_end()
                        interrupted = launched.interrupts.first  # a signal: we count one without
                    if result.file is not None:
                        result.file.close()
            except CancelledError as error:
                if interrupted:  # perhaps only after the error was made, of our own count
                    raise launched.interrupts.error(f"extension {self.extension.name}") from None
                failure = error.told  # in the extension's own words, or ours: it was us who interrupted
            except TooLargeError as error:
                failure = error.told
                if watch.answer is None:
                    watch.find(37 if "standard error" in error.message else 17, error.message)
            except ProtocolError as error:
                failure = error.told
                if not watch.failed:
                    watch.find(3, failure)
            except ComposefsError as error:
                failure = error.told
            if interrupted:  # when there was nothing left that the core could have cancelled
                raise launched.interrupts.error(f"the check of {self.extension.name}")
            stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _STDERR_KEPT))
            watch.stderr = stderr.read().decode("utf-8", "replace")
        judge(scenario, watch, took, self.timeouts, failure)
        return watch
