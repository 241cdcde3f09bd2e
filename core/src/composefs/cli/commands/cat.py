"""``cfsctl cat``: what a stream was made of, put together again, or files of an image."""

from __future__ import annotations

import os
import shlex
import stat
from typing import TYPE_CHECKING

import click

from composefs.cli.complete import StreamOrImageName
from composefs.cli.frame import Command, Example, Path
from composefs.cli.named import hinting, named, named_image
from composefs.cli.output import refuse_terminal, write, write_piece
from composefs.cli.settings import Settings, pass_settings
from composefs.errors import FormatError, NotFoundError, UsageError

if TYPE_CHECKING:
    from composefs.erofs.reader import Lookup
    from composefs.repository import Repository
    from composefs.tree import Node

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl cat ostree/os/stable /etc/os-release"),
        Example("cfsctl cat oci-layer-sha256:09727b3f… > layer.tar"),
        Example("cfsctl cat ostree/os/stable | sha256sum", "The commit object."),
    ],
)
@click.argument("name", type=StreamOrImageName())
@click.argument("files", nargs=-1, type=Path(path_type=bytes))
@pass_settings
def command(settings: Settings, name: str, files: tuple[bytes, ...]) -> None:
    """Write FILES of the image NAME, or without any the stream NAME, to standard output.

    With FILES, NAME is an image's id, refs/ and its name, or a ref of a stream that names one image, as
    `cfsctl ref list` shows it.  Symlinks are followed inside of the image.

    Without FILES it is a stream's name, or a ref, or refs/ and the path of the ref's file below streams/refs.

    Every object is checked; after an error, what was written is not to be used.
    """
    with settings.open_repository() as repository:
        if files:
            _cat_files(repository, name, files)
        else:
            found = named(repository, name, ("stream",))
            with repository.streams.open(found.id, f"stream {found.name}") as reader:
                refuse_terminal(f"the stream {name}")
                repository.streams.cat(reader, write_piece)
    write(b"")


def _cat_files(repository: Repository, name: str, files: tuple[bytes, ...]) -> None:
    from composefs.erofs.reader import Lookup

    with repository.images.load(named_image(repository, name)) as image:
        lookup = Lookup(image, repository.images.rules)
        nodes = [_regular(lookup, file, name) for file in files]  # Before anything is written: is everything there?
    for node in nodes:
        if node.external and node.digest is not None:
            repository.objects.cat(node.digest.hex(), write_piece)
        else:
            write_piece(node.content or b"")


def _regular(lookup: Lookup, file: bytes, name: str) -> Node:
    with hinting(NotFoundError, f"`cfsctl ls {shlex.quote(name)} DIRECTORY` lists what there is"):
        path, node = lookup.follow(file)
    if not stat.S_ISREG(node.mode):
        # By the way without links: ls does not follow one at the end.
        hint = f"`cfsctl ls {shlex.quote(name)} {shlex.quote(os.fsdecode(path))}` lists it"
        raise UsageError(f"{os.fsdecode(file)} is not a regular file", hint=hint)
    if node.external and node.digest is None:
        raise FormatError(f"{os.fsdecode(file)} has no digest in the image, which would name its object")
    return node
