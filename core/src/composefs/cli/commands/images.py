"""``cfsctl images``: the named images."""

from __future__ import annotations

import click

from composefs.cli.frame import Command, Example, json_option
from composefs.cli.output import line, print_json, table
from composefs.cli.refs import left_out
from composefs.cli.settings import Settings, pass_settings

__all__ = ["command"]

SHORT_DIGEST = 12
"""Digits of a digest in the table, as composefs-rs shows it."""


@click.command(
    cls=Command, examples=[Example("cfsctl images"), Example("cfsctl images --json | jq -r '.images[].name'")]
)
@json_option()
@click.option("--no-trunc", is_flag=True, help="Show whole digests.")
@pass_settings
def command(settings: Settings, as_json: bool, no_trunc: bool) -> None:
    """List the named images and their ids, by name."""
    with settings.open_repository() as repository:
        images = sorted(repository.images.list_refs(odd=left_out))
    if as_json:
        print_json({"images": [{"name": name, "digest": image} for name, image in images]})
    elif images:
        table(("NAME", "DIGEST"), [(name, image if no_trunc else image[:SHORT_DIGEST]) for name, image in images])
    else:
        line("No images found")
