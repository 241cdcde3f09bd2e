"""``cfsctl du``: what each ref holds, alone and together with others."""

from __future__ import annotations

from dataclasses import asdict

import click

from composefs.cli.complete import AnyName
from composefs.cli.frame import Command, Example, json_option
from composefs.cli.named import telling
from composefs.cli.output import line, print_json, size_shown, table
from composefs.cli.refs import left_out
from composefs.cli.settings import Settings, pass_settings
from composefs.cli.text import counted

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl du", "Every ref."),
        Example("cfsctl du ostree/fedora/41/x86_64 --json | jq '.holdings[0].alone_size'"),
    ],
)
@click.argument("names", metavar="[IMAGE|REF|STREAM]...", nargs=-1, type=AnyName())
@json_option("Print as JSON, sizes in bytes.")
@pass_settings
def command(settings: Settings, names: tuple[str, ...], as_json: bool) -> None:
    """Show how much each ref holds: in all, alone, and shared with other refs.

    What a ref holds alone is what garbage collection frees once it is removed.  Sizes are those of the objects' files,
    in bytes, but on a terminal in the unit that suits.
    """
    from composefs.usage import measure

    odd: list[str] = []
    try:
        with (
            settings.open_repository() as repository,
            settings.reporting("du", "measuring") as report,
            telling(repository, "stream", "image"),
        ):
            report(0)
            usage = measure(repository, names, odd=odd.append)
    finally:
        for message in odd:  # now that no bar is in the way
            left_out(message)
    if as_json:
        print_json(asdict(usage))
        return
    rows = [
        (each.name, str(each.objects), *map(size_shown, (each.size, each.alone_size, each.size - each.alone_size)))
        for each in usage.holdings
    ]
    if rows:
        table(("NAME", "OBJECTS", "SIZE", "ALONE", "SHARED"), rows)
    line(f"all refs: {counted(usage.objects, 'object')}, {size_shown(usage.size)}")
    line(f"garbage: {counted(usage.garbage_objects, 'object')}, {size_shown(usage.garbage_size)}")
