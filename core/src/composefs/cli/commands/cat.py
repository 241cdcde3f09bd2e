"""``cfsctl cat``: what a stream was made of, put together again."""

from __future__ import annotations

from functools import partial

import click

from composefs.cli.complete import StreamName
from composefs.cli.frame import Command, Example
from composefs.cli.named import named
from composefs.cli.output import refuse_terminal, write
from composefs.cli.settings import Settings, pass_settings

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl cat oci-layer-sha256:09727b3f… > layer.tar"),
        Example("cfsctl cat ostree/os/stable | sha256sum", "By a ref."),
    ],
)
@click.argument("name", type=StreamName())
@pass_settings
def command(settings: Settings, name: str) -> None:
    """Write the stream NAME to standard output.

    NAME is a stream's, or a ref as `cfsctl ref list` shows it, or refs/ and the path of the ref's file below
    streams/refs.  Every object is checked; after an error, what was written is not to be used.
    """
    with (
        settings.open_repository() as repository,
        repository.streams.open(name=named(repository, name, ("stream",)).name) as reader,
    ):
        refuse_terminal(f"the stream {name}")
        repository.streams.cat(reader, partial(write, flush=False))
        write(b"")
