"""``cfsctl cat``: what a stream was made of, put together again."""

from __future__ import annotations

from functools import partial

import click

from composefs.cli.complete import StreamName
from composefs.cli.frame import Command, Example
from composefs.cli.output import refuse_terminal, write
from composefs.cli.settings import Settings, pass_settings

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl cat oci-layer-sha256:09727b3f… > layer.tar"),
        Example("cfsctl cat refs/ostree/vector%2F1 | sha256sum", "By a ref, spelt as its file below streams/refs is."),
    ],
)
@click.argument("name", type=StreamName())
@pass_settings
def command(settings: Settings, name: str) -> None:
    """Write the stream NAME to standard output.

    Every object is checked; after an error, what was written is not to be used.
    """
    with settings.open_repository() as repository, repository.streams.open(name=name) as reader:
        refuse_terminal(f"the stream {name}")
        repository.streams.cat(reader, partial(write, flush=False))
        write(b"")
