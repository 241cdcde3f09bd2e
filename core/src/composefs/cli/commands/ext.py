"""``cfsctl ext``: the extensions that are installed, what they can do, and whether they keep the protocol's rules."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from composefs.cli.complete import ExtensionName
from composefs.cli.frame import Command, Example, Group, json_option
from composefs.cli.output import line, print_json, table
from composefs.cli.settings import Settings, pass_settings
from composefs.cli.text import counted
from composefs.errors import CancelledError, ComposefsError, NotFoundError, UsageError

if TYPE_CHECKING:
    from composefs.ext.check.kit import Invocation
    from composefs.ext.check.report import Report, State
    from composefs.ext.commandline import CommandLine
    from composefs.ext.discovery import Extension
    from composefs.ext.manifest import Example as ManifestExample

__all__ = ["command"]


@click.group(cls=Group)
def command() -> None:
    """Show and check extensions."""


@command.command("list", cls=Command, examples=[Example("cfsctl ext list"), Example("cfsctl ext list --json")])
@json_option()
@pass_settings
def list_(settings: Settings, as_json: bool) -> None:
    """List all extensions found, also those that are shadowed or rejected, with the reason."""
    from composefs.cli.main import COMMANDS
    from composefs.ext import discovery

    with settings.observers() as observers:
        for place in discovery.not_there():
            observers.log("warning", f"{discovery.SEARCH_VARIABLE} names {place}, which is no directory")
    rows: list[dict[str, Any]] = [
        {
            "name": each.name,
            "state": each.state,
            "version": each.extension.manifest.version if each.extension else None,
            "summary": each.extension.manifest.summary if each.extension else None,
            "executable": each.executable,
            "reason": each.reason,
        }
        for each in discovery.list_all()
    ]
    for row in rows:
        if row["state"] == "active" and row["name"] in COMMANDS:
            row |= {"state": "shadowed", "reason": f"cfsctl has a command {row['name']} of its own"}
    if as_json:
        print_json({"extensions": rows})
    elif rows:
        table(
            ("NAME", "STATE", "VERSION", "EXECUTABLE", "REASON"),
            [(r["name"], r["state"], r["version"] or "-", r["executable"], r["reason"] or "") for r in rows],
        )
    else:
        line("No extensions found")


@command.command(cls=Command, examples=[Example("cfsctl ext show ostree")])
@click.argument("name", type=ExtensionName())
@json_option("Print the manifest as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show an extension: where it is, what its commands are, what it may touch."""
    from composefs.ext import discovery

    extension = discovery.find(name)
    if as_json:
        print_json({"executable": extension.executable, "manifest": _document(extension.manifest)})
    else:
        _show(extension)


def _document(value: object) -> object:
    """Turn the manifest's records into objects again, with all defaults."""
    if isinstance(value, tuple):
        if hasattr(value, "_asdict"):
            return {name: _document(each) for name, each in value._asdict().items()}
        return [_document(each) for each in value]
    return value


def _show(extension: Extension) -> None:
    manifest = extension.manifest
    facts = (
        ("name", manifest.name),
        ("summary", manifest.summary),
        ("version", manifest.version),
        ("package", manifest.package),
        ("executable", extension.executable),
        ("protocol", ", ".join(map(str, manifest.protocol))),
        ("permissions", ", ".join(manifest.permissions)),
        ("environment", ", ".join(manifest.environment)),
        ("streams", ", ".join(f"{prefix}*" for prefix in manifest.streams)),
        ("refs", ", ".join(f"{refs.dir}/ ({refs.encoding})" for refs in manifest.refs)),
        ("reads", ", ".join(manifest.reads)),
        ("execs", ", ".join(manifest.execs)),
    )
    for label, value in facts:
        line(f"{label + ':':<12} {value or '-'}")
    line("")
    table(
        ("COMMAND", "REPOSITORY", "SUMMARY"),
        [(" ".join(each.name), each.repository, each.summary) for each in manifest.commands],
    )


FAILED = 1
"""The exit status of a check that failed, unless --json was given."""
_MADE = 1_000_000_000
"""When the files of examples were made, in seconds of Unix time."""
_STATES = {"pass": "ok", "warn": "WARN", "fail": "FAIL", "unseen": "unseen", "needless": "-"}


@command.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True},
    examples=[
        Example("cfsctl ext check ostree"),
        Example("cfsctl ext check ./hello --strict -- put greetings hello.txt world.txt"),
    ],
    arguments=[
        ("NAME|PATH", "An installed extension, or an executable with its manifest NAME.json beside it."),
        ("COMMAND", "One of its commands with arguments, after --; else the manifest's offline examples are run."),
    ],
)
@click.argument("extension", metavar="NAME|PATH", type=ExtensionName())
@click.argument("words", metavar="[-- COMMAND [ARGS]...]", nargs=-1, type=click.UNPROCESSED)
@click.option("--strict", is_flag=True, help="Fail on warnings too, and on rules that were not put to the test.")
@json_option("Print the report as JSON; then the exit status is 0.")
@pass_settings
@click.pass_context
def check(
    ctx: click.Context, settings: Settings, extension: str, words: tuple[str, ...], strict: bool, as_json: bool
) -> None:
    """Check that an extension keeps the rules of the protocol (docs/protocol.md).

    Each command is run some twenty times, in temporary repositories, by a core that does all that a core may do: it
    offers more, answers late or in pieces, refuses, cancels and ends at any point.  What the command fetches, it
    fetches each time, and what it writes elsewhere, it writes.

    The exit status is 1 when a rule was broken, or when nothing was published, but for --json: there, look at "ok".
    """
    from composefs.cli.progress import Reporting
    from composefs.ext.check.kit import check as run_kit
    from composefs.ext.check.report import Report

    found = _found(extension)
    offline = [each for command in found.manifest.commands for each in command.examples if each.offline]
    invocations = [_given(found, words)] if words else [_example(found, each) for each in offline]
    if not invocations:
        raise UsageError(
            f"the manifest of {found.name} has no offline examples",
            hint="say what to run: cfsctl ext check NAME -- COMMAND ARGS",
        )
    report = Report(found.name, found.executable)
    try:
        with (
            settings.observers(json=as_json) as observers,
            Reporting(observers, "check", f"checking {found.name}") as progress,
        ):
            trace = observers if settings.trace else None
            run_kit(found, invocations, trace=trace, progress=progress, report=report)
    except (CancelledError, KeyboardInterrupt):
        if report.findings and not as_json:
            with suppress(BrokenPipeError):  # Ctrl-C ends who reads it, too
                _show_report(report, verdict="was not checked to the end")
        raise
    if as_json:
        print_json(report.as_json(strict=strict))
        return
    _show_report(report, verdict="passes" if report.ok(strict=strict) else "does not pass")
    if report.state(27) == "unseen" and not report.unfinished:
        line("no publishing call was seen: check a command that publishes")
    if not report.ok(strict=strict):
        ctx.exit(FAILED)


def _found(extension: str) -> Extension:
    """Find what is to be checked, by its name or the path of its executable."""
    from composefs.ext import discovery
    from composefs.linux.files import absolute

    if "/" not in extension:
        try:
            return discovery.find(extension)
        except NotFoundError as error:
            if os.path.lexists(extension):
                error.hint = f"the one in this directory is ./{extension}"
            raise
    directory, name = os.path.split(absolute(extension))
    if os.path.isdir(extension):
        raise UsageError(f"{extension} is a directory", hint="name the executable in it")
    if extension.endswith(".json"):
        raise UsageError(f"{extension} is a manifest", hint="name the executable beside it")
    if not os.path.lexists(extension):
        raise NotFoundError(f"there is no executable {extension}", subject=extension, hint="check the path")
    return discovery.find(name, [directory])


def _given(extension: Extension, words: tuple[str, ...]) -> Invocation:
    """Make ready to run what the user typed, where the user is."""
    from composefs.cli.extension import parse
    from composefs.ext.check.kit import Invocation

    parsed = parse(extension, words)
    return Invocation(" ".join(words), lambda _directory: parsed, os.getcwd())


def _example(extension: Extension, example: ManifestExample) -> Invocation:
    """Make ready to run an example of the manifest, in a directory with the files that it needs."""
    import shlex

    from composefs.cli.extension import parse
    from composefs.ext.check.kit import Invocation

    words = shlex.split(example.command)
    if extension.name not in words:
        raise UsageError(f"the example {example.command!r} does not run {extension.name}")
    words = words[words.index(extension.name) + 1 :]
    text = " ".join(words)

    def prepare(directory: Path) -> CommandLine:
        for name, content in example.files:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        for path in (*directory.rglob("*"), directory):  # times that may get into an image are the same in each run
            os.utime(path, (_MADE, _MADE))
        before = os.getcwd()
        os.chdir(directory)
        try:
            return parse(extension, words)
        except (ComposefsError, click.UsageError) as error:
            why = error.message if isinstance(error, ComposefsError) else error.format_message()
            raise UsageError(f"the manifest's example {text!r} cannot be run: {why}") from error
        finally:
            os.chdir(before)

    return Invocation(text, prepare)


def _show_report(report: Report, *, verdict: str) -> None:
    from composefs.ext.check.rules import RULES

    for command in report.commands:
        line(f"$ cfsctl {report.extension} {command}")
    states = {rule: report.state(rule) for rule in RULES}
    for rule, text in RULES.items():
        line(f"{f'P-{rule}':<5} {_STATES[states[rule]]:<7} {text}")
        for each in report.findings:
            if each.rule == rule:
                line(f"      {'warning: ' if each.warning else ''}{each.message}")
                line(f"      in {each.run}:")
                for said in each.lines:
                    line(f"        {said}")
    found = list(states.values())
    counts = [f"{found.count(state)} {word}" for state, word in _COUNTED if state in found]
    line(f"{report.extension} {verdict}: {', '.join(counts)}; {counted(report.runs, 'run')}")
    for command in report.unfinished:
        line(f"the ordinary run of {command!r} does not go well: until it does, the others are not made")
    if skipped := report.skipped:
        line(f"not run, as they may need what the one before publishes: {', '.join(map(repr, skipped))}")
    for command, wrote in report.wrote.items():
        line(f"{command!r} goes well, and writes to standard error; is it meant? {wrote}")


_COUNTED: tuple[tuple[State, str], ...] = (
    ("pass", "rules kept"),
    ("fail", "broken"),
    ("warn", "with warnings"),
    ("unseen", "not put to the test"),
    ("needless", "that do not concern it"),
)
