"""``cfsctl verity``: make a repository demand fs-verity."""

from __future__ import annotations

import click

from composefs.cli.frame import Command, Example, Group, json_option
from composefs.cli.output import line, print_json
from composefs.cli.settings import Settings, pass_settings
from composefs.cli.text import counted

__all__ = ["command"]


@click.group(cls=Group)
def command() -> None:
    """Make the repository demand fs-verity."""


@command.command(cls=Command, examples=[Example("cfsctl --repo /srv/composefs verity enable")])
@json_option("Print what was done as JSON.")
@pass_settings
def enable(settings: Settings, as_json: bool) -> None:
    """Turn an insecure repository into a secure one.

    Every object gets fs-verity, whereby the kernel checks its content, and then meta.json does, which is what demands
    it.  If an object is damaged the repository stays insecure.  Nobody else may use the repository meanwhile.
    """
    from composefs.securing import enable_verity

    with (
        settings.open_repository(writable=True, exclusive=True) as repository,
        settings.reporting("verity", "enabling fs-verity") as report,
    ):
        already = repository.secure
        objects = enable_verity(repository, report)
    if as_json:
        print_json({"already": already, "objects": objects})
    elif already:
        line(f"fs-verity was required already: {counted(objects, 'object')}")
    else:
        line(f"fs-verity is required now: {counted(objects, 'object')}")
