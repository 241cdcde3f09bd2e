"""``cfsctl image-objects``: the ids of the objects of an image."""

from __future__ import annotations

import click

from composefs.cli.complete import ImageName
from composefs.cli.frame import Command, Example, json_option
from composefs.cli.named import named_image
from composefs.cli.output import print_json, write
from composefs.cli.settings import Settings, pass_settings

__all__ = ["command"]


@click.command(cls=Command, examples=[Example("cfsctl image-objects refs/os/42 | wc -l")])
@click.argument("name", type=ImageName())
@json_option("Print as JSON, the ids without the algorithm.")
@pass_settings
def command(settings: Settings, name: str, as_json: bool) -> None:
    """Print the ids of all objects that an image refers to, sorted.

    NAME is an image's id, refs/ and its name, or a ref of a stream that names one image, as `cfsctl ref list` shows it.
    """
    with settings.open_repository() as repository:
        algorithm = repository.algorithm
        image_id = named_image(repository, name)
        ids = sorted(repository.images.objects_of(image_id))
    if as_json:
        print_json({"image": image_id, "algorithm": algorithm.meta_name, "objects": ids})
    else:
        write("".join([f"{algorithm}:{each}\n" for each in ids]).encode())
