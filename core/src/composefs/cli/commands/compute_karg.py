"""``cfsctl compute-karg``: the kernel argument that boots the image of a directory."""

from __future__ import annotations

import click

from composefs.cli.frame import Command, Example, Path, json_option
from composefs.cli.imagefacts import image_facts
from composefs.cli.output import line, print_json
from composefs.cli.settings import Settings, pass_settings
from composefs.cli.trees import Source, TreeOptions, propagate_option

__all__ = ["command"]


def _kernel_argument(image_id: str, algorithm_name: str, version: int, *, insecure: bool) -> str:
    """Return what an initramfs of composefs-rs 0.9.0 finds the image by.

    Formats 0 and 1 have one name with the algorithm, format 2 the older one; a question mark says that the image may be
    mounted without fs-verity.  ``algorithm_name`` is that of meta.json, ``fsverity-sha512-12``.
    """
    optional = "?" if insecure else ""
    if version == 2:
        return f"composefs={optional}{image_id}"
    return f"composefs.digest={optional}v1-{algorithm_name.removeprefix('fsverity-')}:{image_id}"


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl compute-karg rootfs"),
        Example("cfsctl --no-repo --hash sha256 --erofs-version 2 compute-karg rootfs", "For another repository."),
    ],
)
@click.argument("path", type=Path())
@propagate_option
@json_option("Print argument, id, algorithm and format as JSON.")
@pass_settings
def command(settings: Settings, path: str, no_propagate_usr_to_root: bool, as_json: bool) -> None:
    """Print the kernel argument that boots the image of the directory PATH.

    It holds the id that `compute-id --bootable` prints, and a question mark if fs-verity is not required: with
    --insecure, or for a repository that is insecure.
    """
    source = Source(directory=path, options=TreeOptions(no_propagate_usr_to_root, bootable=True))
    insecure = settings.insecure
    if settings.no_repo:
        algorithm, version = settings.image_format()
    else:
        with settings.open_repository() as repository:
            algorithm, version = settings.image_format(repository)
            insecure = insecure or not repository.secure
    with settings.observers() as observers:
        image = source.image_id(algorithm, version, observers)
    argument = _kernel_argument(image, algorithm.meta_name, version, insecure=insecure)
    if as_json:
        print_json({"argument": argument, **image_facts(image, algorithm, version)})
    else:
        line(argument)
