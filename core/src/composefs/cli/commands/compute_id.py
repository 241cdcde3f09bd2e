"""``cfsctl compute-id``: the id of an image, without storing anything."""

from __future__ import annotations

import click

from composefs.cli.frame import Command, Example, Path, json_option
from composefs.cli.imagefacts import image_facts
from composefs.cli.output import line, print_json
from composefs.cli.settings import Settings, pass_settings
from composefs.cli.trees import Source, TreeOptions, directory_options, dump_option

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl compute-id rootfs", "For the algorithm and EROFS format of the repository."),
        Example("cfsctl --no-repo --hash sha256 --erofs-version 2 compute-id --from-dump tree.dump"),
    ],
)
@click.argument("path", required=False, type=Path())
@dump_option
@directory_options
@json_option("Print id, algorithm and format as JSON.")
@pass_settings
def command(
    settings: Settings,
    path: str | None,
    from_dump: str | None,
    options: TreeOptions,
    as_json: bool,
) -> None:
    """Print the id that the image of a tree has.

    The tree is the directory PATH or a dump.  Nothing is written, and the objects need not be in the repository.
    """
    source = Source(directory=path, dump=from_dump, options=options)
    algorithm, version = settings.image_format()
    with settings.observers() as observers:
        image = source.image_id(algorithm, version, observers)
    if as_json:
        print_json(image_facts(image, algorithm, version))
    else:
        line(image)
