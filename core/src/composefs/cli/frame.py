"""Click classes for the whole command line: commands with examples, and groups that tell what may be meant."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import click

from composefs.cli.output import line
from composefs.errors import ComposefsError, NotFoundError, UsageError
from composefs.systemerrors import from_os_error
from composefs.tuples import NamedTuple

__all__ = ["Command", "Example", "Group", "Option", "Path", "Seconds", "json_option", "option"]

_HYPHEN = "\N{NON-BREAKING HYPHEN}"

_MOST_MEANT = 4
"""A word that more summaries have tells nothing of what was meant."""


class Example(NamedTuple):
    """A command line and what it does, for the end of a help page."""

    command: str
    description: str = ""


class Option(click.Option):
    """An option whose help is a line.

    click's own takes the indentation out of its help, for which it needs inspect, 5 ms of every start (start.py).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        text = kwargs.pop("help", None)
        super().__init__(*args, **kwargs)
        self.help = text


option = partial(click.option, cls=Option)


def json_option(text: str = "Print as JSON.") -> Callable[[Any], Any]:
    """Add ``--json``, which a command gets as ``as_json``; the text is its help."""
    return click.option("--json", "as_json", is_flag=True, help=text)


class Path(click.Path):
    """A path, in the file system or in an image.

    click's own finds wrong usage in a path that leads nowhere or to what may not be read, and looks for it on this
    machine, whatever it is a path in.  Here it is looked at only if it must be ``there``, to be read: NotFoundError and
    PermissionDeniedError say what keeps it from that, as they do where a command itself opens a path.
    """

    def __init__(self, *, there: bool = False, dir_okay: bool = True, path_type: type | None = None) -> None:
        super().__init__(dir_okay=dir_okay, readable=False, path_type=path_type)
        self._there = there

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check the path."""
        if not value:  # a variable of a script that is not set; made absolute, it would be the working directory
            self.fail("an empty path", param, ctx)
        path = super().convert(value, param, ctx)
        if self._there:
            _require_there(os.fsdecode(path))
        return path


class Seconds(click.types.FloatParamType):
    """A time to wait: a number that is not negative; a number that is none, ``nan``, would be for ever."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Check the number."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not seconds >= 0:
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


def _require_there(path: str) -> None:
    try:
        os.stat(path)
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "check the path" if path != "-" else "standard input is not read here: write it to a file, and give that"
        raise NotFoundError(f"{path} does not exist", subject=path, hint=hint) from error
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error


class _Formatter(click.HelpFormatter):
    """Breaks no line within the name of an option, as click's does at each hyphen of one."""

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        super().write_text(text.replace("-", _HYPHEN))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write a list of words and what they mean."""
        super().write_dl([(word, text.replace("-", _HYPHEN)) for word, text in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        """Return what was written."""
        return super().getvalue().replace(_HYPHEN, "-")


class _Context(click.Context):
    formatter_class = _Formatter


class _Helpful(click.Command):
    """What has click's option for help, as an `Option` with a name that no argument of an extension has.

    Every error in its arguments knows the command, whose help the error then names.
    """

    context_class = _Context
    _help: Option | None = None

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002 - click's signature
        """Return the first sentence whole for the list of a group, which wraps it: click would cut it off."""
        return self.short_help or " ".join((self.help or "").split("\n\n")[0].split())

    def get_help_option(self, ctx: click.Context) -> Any:
        """Return the option, the same each time."""
        names = self.get_help_option_names(ctx)
        if self._help is None and names:
            self._help = Option(
                [*names, "HELP"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_help,
                help="Show this message and exit.",
            )
        return self._help

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; of an option that lacks its argument, click's parser does not tell the command."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


def _show_help(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        for each in ctx.get_help().splitlines():
            line(each)
        ctx.exit()


class Command(_Helpful):
    """A command whose help ends with examples; ``arguments`` are (name, text) of words that help shall explain."""

    def __init__(
        self,
        *args: Any,
        examples: Sequence[Example] = (),
        arguments: Sequence[tuple[str, str]] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.arguments = tuple(arguments)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments before the options."""
        if self.arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(self.arguments)
        super().format_options(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples; command lines are never wrapped, so that they can be copied."""
        super().format_epilog(ctx, formatter)
        if not self.examples:
            return
        with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
            for example in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}$ {example.command}\n")
                if example.description:
                    formatter.indent()
                    formatter.write_text(example.description)
                    formatter.dedent()


class Group(_Helpful, click.Group):
    """A group that names its commands when it is given none or an unknown one."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, **kwargs})

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command named by the first argument; raise UsageError with the nearest name when there is none."""
        command = self.get_command(ctx, args[0])
        if command is None and not ctx.resilient_parsing:
            raise self.unknown(ctx, args[0])
        return args[0] if command else None, command, args[1:]

    def unknown(self, ctx: click.Context, name: str) -> ComposefsError:
        """Return the error for a name that is no command here, perhaps one of cfsctl itself."""
        root = ctx.find_root()
        if ctx.parent is root and isinstance(root.command, click.Group) and name in root.command.list_commands(root):
            return UsageError(f"no such command {name!r}", hint=f"see '{root.command_path} {name} --help'")
        if any(param.is_eager and f"--{name}" in param.opts for param in self.get_params(ctx)):
            return UsageError(f"no such command {name!r}", hint=f"see '{ctx.command_path} --{name}'")
        import difflib

        near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
        meant = list(dict.fromkeys([*near, *self._telling_of(ctx, name)]))
        if meant:
            return UsageError(f"no such command {name!r}", hint=f"did you mean {' or '.join(map(repr, meant))}?")
        if ctx.parent is root and isinstance(root.command, Group):
            helps = [f"'{root.command_path} {each} --help'" for each in root.command._telling_of(root, name)]
            if helps:
                return UsageError(f"no such command {name!r}", hint=f"see {' and '.join(helps)}")
        return UsageError(f"no such command {name!r}", hint=f"see '{ctx.command_path} --help'")

    def _telling_of(self, ctx: click.Context, word: str) -> list[str]:
        """Return the commands whose summary has the word: what other programs call a command stands there.

        There are none if too many have it.
        """
        found = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not isinstance(command, click.Group):
                summary = command.get_short_help_str(limit=1000).lower()
                words = "".join(each if each.isalnum() or each == "-" else " " for each in summary).split()
                if word.lower() in words:
                    found.append(name)
        return found if len(found) <= _MOST_MEANT else []
