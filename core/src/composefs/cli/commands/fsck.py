"""``cfsctl fsck``: check the repository, say what bad objects take with them, and put good ones back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from composefs.cli.frame import Command, Example, Path, json_option
from composefs.cli.output import line, print_json, say
from composefs.cli.settings import Settings, pass_settings
from composefs.errors import ComposefsError, UsageError

if TYPE_CHECKING:
    from composefs.fsck import Report

__all__ = ["command"]

CORRUPTED = 1
"""The exit status when something is wrong, unless --json was given."""


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl fsck"),
        Example("cfsctl fsck --metadata-only --json | jq -r '.errors[]'"),
        Example("cfsctl fsck --repair --from /mnt/backup/composefs"),
    ],
)
@click.option("--metadata-only", is_flag=True, help="Read streams and images, but not the other objects.")
@click.option("--repair", is_flag=True, help="Put good objects back in the place of bad and missing ones.")
@click.option(
    "--from",
    "source",
    metavar="REPO|DIR",
    type=Path(),
    help="Where --repair takes them from: a repository, or a directory with any files; only digests count.",
)
@json_option("Print the report as JSON; then the exit status is 0 unless a repair fails.")
@pass_settings
@click.pass_context
def command(
    ctx: click.Context, settings: Settings, metadata_only: bool, repair: bool, source: str | None, as_json: bool
) -> None:
    """Check every object, name, stream and image, and say which names need what is bad.

    The exit status is 1 when anything is wrong, but for --json: there, look at "ok".

    What --repair cannot put back, as the disk is full (8) or a directory is in its place (5), is told by an error after
    the report, with --json too; the exit status is that of the first.
    """
    if repair != (source is not None):
        raise UsageError("--repair and --from need each other", hint="say where good objects are: --from REPO|DIR")
    if repair and metadata_only:
        raise UsageError("--metadata-only does not find the objects to repair", hint="leave it out")
    from composefs.fsck import check, check_and_repair

    with (
        settings.open_repository(writable=repair) as repository,
        settings.reporting("fsck", "checking objects") as report,
    ):
        if source is not None:
            found = check_and_repair(repository, source, wait=settings.wait, report=report)
        else:
            found = check(repository, metadata_only=metadata_only, report=report)
    if as_json:
        print_json(found.as_json())
    else:
        for text in found.lines():
            line(text)
    if found.stuck and not found.ok:
        raise _stuck(found.stuck)
    if not found.ok and not as_json:
        remedy = _remedy(found)
        if remedy and settings.verbosity >= 0:
            say(f"cfsctl: {remedy}")
        ctx.exit(CORRUPTED)


def _stuck(errors: list[ComposefsError]) -> ComposefsError:
    """Make one error, of the kind of the first, that tells what kept objects from being put back."""
    from composefs.repository.objects import listed

    told = listed(list(dict.fromkeys(error.message for error in errors)))
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    return type(errors[0])(told, hint="; ".join(hints), subject=errors[0].subject)


def _remedy(found: Report) -> str | None:
    if not found.affected["refs"]:
        # Else a name is wrong, of which only people know what it should be.
        gone = all(problem.object is not None for problem in found.problems)
        return "no ref needs what is bad: `cfsctl gc` removes it" if gone else None
    if not found.bad:
        return None  # what has its digest and wrong content all the same was made like that
    return "`cfsctl fsck --repair --from REPO|DIR` puts good objects back, pulling with --repair fetches them again"
