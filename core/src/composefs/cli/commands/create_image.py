"""``cfsctl create-image``: store a tree, make its image, and give the image a name."""

from __future__ import annotations

import click

from composefs.cli.complete import ImageRef
from composefs.cli.frame import Command, Example, Path, json_option
from composefs.cli.imagefacts import show_stored
from composefs.cli.progress import Reporting
from composefs.cli.settings import Settings, pass_settings
from composefs.cli.trees import Source, TreeOptions, directory_options, dump_option
from composefs.errors import UsageError

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl create-image rootfs os/42"),
        Example("cfsctl create-image --from-dump tree.dump", "All objects that the dump names must be there already."),
    ],
)
@click.argument("path", required=False, type=Path())
@click.argument("name", required=False, type=ImageRef())
@dump_option
@directory_options
@json_option("Print id, algorithm, format, size and name as JSON.")
@pass_settings
def command(
    settings: Settings,
    path: str | None,
    name: str | None,
    from_dump: str | None,
    options: TreeOptions,
    as_json: bool,
) -> None:
    """Store a tree and make the image of it.

    The tree is the directory PATH, whose files become objects, or a dump.  The image is published by its id, and as
    NAME if one is given; the same tree gives the same image again.  The id is printed.
    """
    if from_dump is not None:
        if name is not None:
            raise UsageError("give either a directory or --from-dump FILE")
        path, name = None, path  # with a dump, the only operand is the name
    source = Source(directory=path, dump=from_dump, options=options)
    from composefs import erofs
    from composefs.repository.images import image_objects
    from composefs.repository.names import ref_parts
    from composefs.repository.publication import ImageName, Publication

    if name is not None:
        ref_parts(name, "path")  # refuses a bad name before the work, not after it
    with settings.open_repository(writable=True) as repository, settings.observers() as observers:
        algorithm, version = settings.image_format(repository)
        tree = source.tree(algorithm, observers, store=lambda fd: repository.objects.store_fd(fd).id)
        if from_dump is not None:
            repository.objects.require_files(image_objects(tree), f"the dump {from_dump}")
        else:
            repository.objects.unsynced = True  # of what other processes have stored for the scan, only they know
        with Reporting(observers, "image", "image") as report:
            report(0)
            image = repository.images.put(erofs.write(tree, version=version))
            repository.publish(Publication(images=[ImageName(image.id, name)]))
    show_stored(image, algorithm, version, name, as_json=as_json)
