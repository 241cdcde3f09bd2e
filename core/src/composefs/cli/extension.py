"""Commands of extensions, built by click from their manifests.

The manifest alone gives help, completion and argument checking (composefs.cli.kinds); the extension runs only when its
command does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from composefs.cli.complete import StreamRef
from composefs.cli.frame import Command, Example, Group, Option
from composefs.cli.kinds import type_of
from composefs.cli.output import STDOUT, print_json, print_json_file
from composefs.cli.settings import Settings
from composefs.cli.text import one_line, printable
from composefs.errors import ProtocolError, UsageError

if TYPE_CHECKING:
    from composefs.ext.commandline import CommandLine
    from composefs.ext.discovery import Extension
    from composefs.ext.manifest import Argument
    from composefs.ext.manifest import Command as CommandManifest
    from composefs.repository import Repository

__all__ = ["ExtensionGroup", "parse"]

_JSON_PARAMETER = "JSON"
"""Where click keeps the --json that every extension command gets: names of arguments are in lower case."""


class ExtensionGroup(Group):
    """The commands of an extension that begin with ``words``; ``remote add`` is in a group in the group.

    A command is made of the manifest when it is asked for: to make all of them takes 5 ms at each start.
    """

    def __init__(self, extension: Extension, words: tuple[str, ...] = ()) -> None:
        self._extension = extension
        self._words = words
        count = len(words)
        self._manifests = {
            manifest.name[count]: manifest for manifest in extension.manifest.commands if manifest.name[:count] == words
        }
        text = extension.manifest.summary
        if words:
            text = f"{extension.name} {words[-1]} commands: {', '.join(sorted(self._manifests))}."
        super().__init__([extension.name, *words][-1], help=printable(text))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the next words."""
        return sorted(self._manifests)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Make the command, or the group of those that have more words."""
        manifest = self._manifests.get(cmd_name)
        if manifest is None:
            return None
        words = (*self._words, cmd_name)
        return _command(self._extension, manifest) if manifest.name == words else ExtensionGroup(self._extension, words)


def _command(extension: Extension, manifest: CommandManifest) -> Command:
    """Make one command."""
    refs = StreamRef([(each.dir, each.encoding) for each in extension.manifest.refs])
    parameters = [_parameter(argument, refs) for argument in manifest.arguments]
    parameters.append(Option(["--json", _JSON_PARAMETER], is_flag=True, help="Print the result as JSON."))

    @click.pass_context
    def run(ctx: click.Context, /, **values: Any) -> None:
        from composefs.ext.commandline import CommandLine

        as_json = values.pop(_JSON_PARAMETER)
        settings = ctx.find_object(Settings)
        assert settings is not None
        status = _run(settings, CommandLine(extension, manifest, _arguments(values)), as_json=as_json)
        ctx.exit(status)

    return Command(
        manifest.name[-1],
        callback=run,
        params=parameters,
        short_help=one_line(manifest.summary),
        help=printable("\n\n".join(filter(None, [manifest.summary, manifest.description]))),
        examples=[Example(one_line(each.command), one_line(each.description)) for each in manifest.examples],
        arguments=[
            (one_line(each.metavar or each.name.upper()), one_line(each.help))
            for each in manifest.arguments
            if each.positional and each.help
        ],
    )


def _arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return click's values as they go to the extension: lists, and nothing for what was not given."""
    arguments = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None and value != ()
    }
    for name, value in arguments.items():
        _check_encoding(name, value)
    return arguments


def parse(extension: Extension, words: Sequence[str]) -> CommandLine:
    """Return what the words after the extension's name mean.

    Raises click's errors, and those of paths to be read.
    """
    from composefs.ext.commandline import CommandLine

    for manifest in extension.manifest.commands:
        count = len(manifest.name)
        if tuple(words[:count]) == manifest.name:
            path = " ".join(("cfsctl", extension.name, *manifest.name))
            context = _command(extension, manifest).make_context(path, list(words[count:]))
            context.params.pop(_JSON_PARAMETER)
            return CommandLine(extension, manifest, _arguments(context.params))
    raise UsageError(
        f"{extension.name} has no command {' '.join(words[:2])!r}",
        hint=f"it has {', '.join(' '.join(each.name) for each in extension.manifest.commands)}",
    )


def _parameter(argument: Argument, refs: StreamRef) -> click.Parameter:
    """Turn an argument of the manifest into click's; positional in the manifest's order, else ``--base-name``."""
    common: dict[str, Any] = {
        "type": type_of(argument, refs),
        "required": argument.required,
        "metavar": argument.metavar,
    }
    if argument.default is not None:
        common["default"] = argument.default
    if argument.positional:
        common["metavar"] = _operand(argument)
        return click.Argument([argument.name], nargs=-1 if argument.repeatable else 1, **common)
    short = [f"-{argument.short}"] if argument.short else []
    if argument.kind == "bool":
        default = argument.default is True
        spelling = f"{argument.option}/--no-{argument.option[2:]}" if default else argument.option
        return Option([*short, spelling, argument.name], is_flag=True, default=default, help=printable(argument.help))
    return Option(
        [*short, argument.option, argument.name],
        multiple=argument.repeatable,
        help=printable(argument.help),
        show_default=argument.default is not None,
        **common,
    )


def _operand(argument: Argument) -> str:
    """Write an operand as click does where the manifest does not say how: [NAME] may be left out, NAME... repeated."""
    name = argument.metavar or argument.name.upper()
    return (name if argument.required else f"[{name}]") + "..." * argument.repeatable


def _check_encoding(name: str, value: object) -> None:
    """Raise UsageError for bytes that are not UTF-8, in which every message to an extension is."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str) and not each.isascii():
            try:
                each.encode()
            except UnicodeEncodeError as error:
                raise UsageError(
                    f"the argument {name} is not UTF-8: {each!a}", hint="it has to be, in whatever locale"
                ) from error


def _working_directory() -> str | None:
    try:
        directory = os.getcwd()
        directory.encode()
    except (OSError, UnicodeEncodeError):  # it was removed, or has a name that JSON cannot carry
        return None
    return directory


def _run(settings: Settings, line: CommandLine, *, as_json: bool) -> int:
    """Run the extension, with the repository opened as the manifest asks, and return the exit status.

    The command line has been parsed.  The extension is started as soon as there is all that this takes: it loads for
    longer than the core, and what the core needs to serve it is imported meanwhile.
    """
    from composefs.ext.launch import launch
    from composefs.ext.options import RunOptions

    options = RunOptions(
        verbosity=settings.verbosity,
        json=as_json,
        color=os.isatty(STDOUT) if settings.color is None else settings.color,
        erofs_default=settings.erofs_version,
        directory=_working_directory(),
        wait=settings.wait,
        account=settings.ext_user,
        readable=settings.ext_read,
    )
    opened: contextlib.AbstractContextManager[Repository | None] = contextlib.nullcontext()
    if line.command.repository != "none":
        opened = settings.open_repository(writable=line.command.repository == "write")
    with opened as repository, launch(line, repository, options) as launched:
        from composefs.ext.session import converse

        with settings.observers(json=as_json) as observers:
            result = converse(launched, observers)
    if result.file is not None:
        with result.file:
            try:
                print_json_file(result.file)
            except ValueError as error:
                raise ProtocolError(
                    f"extension {line.extension.name} gave a result that is not JSON: {error}"
                ) from None
        return 0
    if as_json:
        print_json(result.result)
        return 0
    return result.status
