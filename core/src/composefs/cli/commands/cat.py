"""``cfsctl cat``: what a stream was made of, put together again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from composefs.cli.complete import StreamName
from composefs.cli.frame import Command, Example
from composefs.cli.output import refuse_terminal, write
from composefs.cli.refs import encoding_of, is_image_ref
from composefs.cli.settings import Settings, pass_settings
from composefs.errors import NotFoundError

if TYPE_CHECKING:
    from composefs.repository import Repository

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
    with settings.open_repository() as repository:
        stream = name
        if "/" in name and not name.startswith("refs/"):
            target = repository.refs.read(name, encoding_of(name))
            if target is None:
                raise NotFoundError(f"there is no ref {name!r}", subject=name, hint=_meant(repository, name))
            stream = target
        with repository.streams.open(name=stream) as reader:
            refuse_terminal(f"the stream {name}")
            repository.streams.cat(reader, partial(write, flush=False))
            write(b"")


def _meant(repository: Repository, name: str) -> str:
    if is_image_ref(repository, name):
        return "an image has that name, which ls and mount show: cat is for streams"
    return "`cfsctl ref list` lists them"
