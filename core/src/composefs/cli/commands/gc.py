"""``cfsctl gc``: remove what no ref keeps."""

from __future__ import annotations

import click

from composefs.cli.complete import AnyName
from composefs.cli.frame import Command, Example, json_option
from composefs.cli.named import telling
from composefs.cli.output import line, print_json, say, size_shown
from composefs.cli.settings import Settings, pass_settings
from composefs.cli.text import one_line

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl gc --dry-run"),
        Example("cfsctl -v gc --dry-run", "List what would go."),
        Example("cfsctl --wait 60 gc", "Wait for a pull to end."),
        Example("cfsctl gc --root ostree-commit-148c366e…", "Keep a stream that no ref names."),
    ],
)
@click.option(
    "-r",
    "--root",
    "roots",
    metavar="NAME",
    multiple=True,
    type=AnyName(),
    help="Keep this stream or image too, and all that it needs; may be repeated.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option("Print the numbers as JSON.")
@pass_settings
def command(settings: Settings, roots: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Remove the objects, streams and images that no ref keeps (elsewhere: prune).

    Nobody else may use the repository meanwhile.  If a stream or image that a ref needs is missing or damaged, it is
    named and nothing is removed.  A mount keeps nothing: an image that is mounted loses its files unless a ref, or
    --root, keeps it.

    With `cfsctl -v gc` all that goes is listed: names of streams and images, and each object with its size.  Sizes are
    in bytes, but on a terminal in the unit that suits.
    """
    from composefs.gc import collect

    tell = _list if settings.verbosity > 0 and not as_json else None
    with (
        settings.open_repository(writable=not dry_run, exclusive=True) as repository,
        settings.reporting("gc", "collecting garbage") as report,
        telling(repository, "stream", "image"),
    ):
        if tell is None:  # a bar would be in the way of the list
            report(0)
        collected = collect(repository, roots, dry_run=dry_run, tell=tell)
    if settings.verbosity >= 0:
        for odd in collected.odd:
            say(f"cfsctl: left alone: {one_line(odd)}")
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "objects_removed": collected.objects,
                "bytes_removed": collected.size,
                "images_pruned": collected.images,
                "streams_pruned": collected.streams,
                "odd": collected.odd,
            }
        )
        return
    if dry_run:
        line("Dry run (no files deleted):")
    line(f"Objects: {collected.objects} removed ({size_shown(collected.size)})")
    # A dry run of composefs-rs does not count symlinks, and scripts compare lines; --json has the numbers.
    if not dry_run and (collected.images or collected.streams):
        line(f"Pruned symlinks: {collected.images} images, {collected.streams} streams")


def _list(kind: str, name: str, size: int | None) -> None:
    line(f"{kind:6} {name}" + ("" if size is None else f" ({size_shown(size)})"))
