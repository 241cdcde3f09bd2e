"""cfsctl: the global options, the table of commands, and one run of them from the process's arguments to its exit.

Everything imported here is paid by ``cfsctl --help`` and by every press of the tab key: click, the error table and the
standard library; commands load what they need.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from composefs import __version__
from composefs.cli import ctrl_c
from composefs.cli.failures import PROGRAM, failure_of, report
from composefs.cli.frame import Group, Path, Seconds, option
from composefs.cli.output import STDERR, line, nowhere, settle, unwritten
from composefs.cli.settings import Settings
from composefs.cli.text import one_line
from composefs.digest import ALGORITHMS
from composefs.errors import (
    ComposefsError,
    NoSpaceError,
    NotFoundError,
    UsageError,
)
from composefs.imageformats import EROFS_FORMATS

if TYPE_CHECKING:
    from composefs.ext.discovery import Extension

__all__ = ["COMMANDS", "COMPLETE_VARIABLE", "PROGRAM", "main", "root"]

COMPLETE_VARIABLE = "_CFSCTL_COMPLETE"
BROKEN_PIPE_STATUS = 128 + signal.SIGPIPE

COMMANDS = {
    "init": "Create a repository.",
    "create-image": "Store a tree and make the image of it.",
    "compute-id": "Print the id that the image of a tree has.",
    "compute-karg": "Print the kernel argument that boots a tree.",
    "create-dumpfile": "Print a directory as composefs-dump(5) text.",
    "images": "List the named images.",
    "image-objects": "Print the ids of the objects of an image.",
    "ls": "List a directory of an image.",
    "dump-files": "Print files of an image as composefs-dump(5) text.",
    "diff": "Show what differs between two images.",
    "cat": "Write a stream, or files of an image, to standard output.",
    "mount": "Mount an image.",
    "umount": "Unmount an image.",
    "gc": "Remove what no ref keeps.",
    "import-image": "Store an EROFS image as it is.",
    "copy": "Bring streams and images over from another repository.",
    "transaction": "Keep garbage collection away until killed.",
    "du": "Show how much each ref holds.",
    "fsck": "Check the repository, and repair it.",
    "verity": "Make the repository demand fs-verity.",
    "ref": "List and remove the names of streams and images.",
    "ext": "Show and check extensions.",
    "completion": "Print the completion script of a shell.",
}
"""Each with a line of help, in the order in which they are shown; each is in the module of its name in cli/commands."""

_ALIASES = {"list-images": "images"}
"""Other names of commands, which are not shown."""

_PACKAGED = ("oci", "ostree")
"""Extensions that have packages of this project.  Of other names none is advised: who mistypes a word must not be sent
to whoever has registered it."""


class Root(Group):
    """cfsctl: built-in commands first, then extensions.

    To import every command in order to show one would make ``cfsctl --help`` and completion slow: it is imported when
    it is asked for.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of built-in commands and of extensions."""
        return [*COMMANDS, *(each.name for each in self._extensions())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Find a built-in command or, by the same name, an extension; raise why an extension found is refused."""
        name = _ALIASES.get(cmd_name, cmd_name)
        if name in COMMANDS:
            command = importlib.import_module(f"composefs.cli.commands.{name.replace('-', '_')}").command
            assert isinstance(command, click.Command)
            return command
        from composefs.ext import discovery

        try:
            extension = discovery.find(cmd_name)
        except NotFoundError:
            return None
        from composefs.cli.extension import ExtensionGroup

        return ExtensionGroup(extension)

    def unknown(self, ctx: click.Context, name: str) -> ComposefsError:
        """Prefer a command of extensions, then the nearest built-in one; of a known format, name the package."""
        having = [
            f"'{PROGRAM} {extension.name} {name} --help'"
            for extension in self._extensions()
            if any(command.name[0] == name for command in extension.manifest.commands)
        ]
        if having:
            return UsageError(f"no such command {name!r}", hint=f"see {' and '.join(having)}")
        if name in _PACKAGED:
            return NotFoundError(
                f"the extension {name!r} is not installed",
                hint=f"apt install composefs-{name}, or pip install composefs-{name}",
            )
        return super().unknown(ctx, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """List the built-in commands and the extensions that would run."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        rows = [(each.name, one_line(each.manifest.summary)) for each in self._extensions()]
        if rows:
            with formatter.section("Extensions"):
                formatter.write_dl(rows)

    def _extensions(self) -> list[Extension]:
        """Return the extensions that run by their name."""
        from composefs.ext import discovery

        found = [each.extension for each in discovery.list_all() if each.state == "active" and each.extension]
        return [each for each in found if each.name not in COMMANDS]


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        line(f"{PROGRAM} {__version__}")
        ctx.exit()


@click.command(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@option(
    "--repo", metavar="PATH", type=Path(), help="The repository; CFSCTL_REPO in the environment if no option names one."
)
@option("--user", is_flag=True, help="The user's repository, ~/.var/lib/composefs (default for others).")
@option("--system", is_flag=True, help="The system's repository, /sysroot/composefs (default for root).")
@option(
    "--hash",
    "algorithm",
    type=click.Choice(list(ALGORITHMS)),
    help="Insist on this digest algorithm (else meta.json's).",
)
@option(
    "--erofs-version",
    type=click.Choice([str(version) for version in EROFS_FORMATS]),
    help="Make images in this EROFS format, whatever the repository's default.",
)
@option("--require-verity", is_flag=True, help="Refuse a repository that does not insist on fs-verity.")
@option("--no-upgrade", is_flag=True, help="Write no meta.json where there is none (only init --ensure does).")
@option("--no-repo", is_flag=True, help="Use no repository (compute-id, compute-karg, create-dumpfile).")
@option("--insecure", is_flag=True, hidden=True)
@option("--wait", metavar="SECONDS", type=Seconds(), default=0.0, help="Wait this long for a lock.")
@option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")
@option("-v", "--verbose", count=True, help="Say more; twice: debugging.")
@option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colours.")
@option(
    "--progress",
    type=click.Choice(["auto", "bar", "plain", "json", "none"]),
    default="auto",
    help="How progress is shown on standard error; auto: bars on a terminal; json: objects, one a line.",
)
@option("--ext-user", metavar="USER", help="Run extensions as this user instead of as root.")
@option(
    "--ext-read",
    metavar="PATH",
    type=Path(there=True),
    multiple=True,
    envvar="COMPOSEFS_EXT_READ",
    help="Let extensions read this too (COMPOSEFS_EXT_READ: several, with : between them).",
)
@option("--trace", is_flag=True, help="Show the conversation with the extension on standard error.")
@option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def root(ctx: click.Context, /, **options: Any) -> None:
    """Keep content-addressed file trees: objects, streams and mountable images.

    Global options come before the command.
    """
    ctx.obj = Settings.of_options(options)
    ctx.color = ctx.obj.color
    if sum([options["repo"] is not None, options["user"], options["system"], options["no_repo"]]) > 1:
        raise UsageError("--repo, --user, --system and --no-repo exclude each other", hint="give one of them")
    if options["insecure"] and options["require_verity"]:
        raise UsageError("--insecure and --require-verity exclude each other", hint="give one of them")


def main() -> NoReturn:
    """Run cfsctl with the process's arguments and exit."""
    try:
        status = run()
        ctrl_c.restore_defaults()
    except KeyboardInterrupt as again:  # while the first one was being dealt with
        ctrl_c.restore_defaults()
        status = 128 + (again.number if isinstance(again, ctrl_c.Terminated) else signal.SIGINT)
    settle()
    # Taking the interpreter down in order costs 8 ms of the 60 that `cfsctl --help` takes, and nothing is left to do.
    os._exit(status)


def run() -> int:
    """Run cfsctl with the process's arguments and return the exit status."""
    context: click.Context | None = None
    try:
        if COMPLETE_VARIABLE in os.environ:
            return _complete()
        _open_standard_descriptors()
        ctrl_c.raise_interrupts()
        with root.make_context(PROGRAM, sys.argv[1:] or ["--help"]) as context:
            root.invoke(context)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except BrokenPipeError:
        settle()  # whoever read our output has left, which is no news for anybody
        return BROKEN_PIPE_STATUS
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the last place where an error can be told
        ctrl_c.restore_defaults()  # everything is cleaned up and only words are left to say
        failure = failure_of(error)
        if isinstance(failure, NoSpaceError) and context is not None and isinstance(context.obj, Settings):
            from composefs.cli.fulldisk import name_the_disk

            name_the_disk(failure, context.obj)
        report(failure, context)
        settle()
        return failure.exit_status
    return 0


def _complete() -> int:
    """Print what the shell asks for."""
    from click.shell_completion import shell_complete

    from composefs.cli.shells import register

    register()
    try:
        return shell_complete(root, {}, PROGRAM, COMPLETE_VARIABLE, os.environ[COMPLETE_VARIABLE])
    except BrokenPipeError:
        raise
    except OSError as error:  # of printing: what cannot be read for completions has none
        raise unwritten(error) from error


def _open_standard_descriptors() -> None:
    """Fill the places of closed ones, so that no file of a repository becomes standard output."""
    for fd in range(STDERR + 1):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(nowhere(), True)  # the lowest that is free
