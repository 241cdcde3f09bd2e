"""``cfsctl create-dumpfile``: a directory as composefs-dump(5) text."""

from __future__ import annotations

import click

from composefs.cli.frame import Command, Example, Path
from composefs.cli.output import write, write_piece
from composefs.cli.settings import Settings, pass_settings
from composefs.cli.trees import Source, TreeOptions, directory_options

__all__ = ["command"]


@click.command(cls=Command, examples=[Example("cfsctl --no-repo --hash sha256 create-dumpfile rootfs > rootfs.dump")])
@click.argument("path", type=Path())
@directory_options
@pass_settings
def command(settings: Settings, path: str, options: TreeOptions) -> None:
    """Print the directory PATH as composefs-dump(5) text.

    Nothing is written; the digests are those that the files would have as objects.
    """
    from composefs import dumpfile

    source = Source(directory=path, options=options)
    algorithm, _ = settings.image_format()
    with settings.observers() as observers:
        tree = source.tree(algorithm, observers)
    dumpfile.write(tree, write_piece)
    write(b"")
