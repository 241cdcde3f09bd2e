"""``cfsctl mount``: mount an image."""

from __future__ import annotations

import click

from composefs.cli.complete import ImageName
from composefs.cli.frame import Command, Example
from composefs.cli.settings import Settings, pass_settings
from composefs.errors import UsageError

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl mount refs/os/42 /mnt"),
        Example(
            "cfsctl mount --upperdir up --workdir work --read-write refs/os/42 /mnt", "Changes go to the directory up."
        ),
    ],
)
@click.argument("name", type=ImageName())
@click.argument("mountpoint", type=click.Path())
@click.option("--upperdir", metavar="DIR", type=click.Path(), help="Where changes go, or a layer to show above.")
@click.option("--workdir", metavar="DIR", type=click.Path(), help="overlayfs' own, on the file system of the upperdir.")
@click.option("--read-write", is_flag=True, help="Allow changes; needs an upperdir.")
@click.option(
    "--idmap", metavar="FILE", type=click.Path(), help="Show owners as in this user namespace, /proc/PID/ns/user."
)
@pass_settings
def command(
    settings: Settings,
    name: str,
    mountpoint: str,
    upperdir: str | None,
    workdir: str | None,
    read_write: bool,
    idmap: str | None,
) -> None:
    """Mount an image over the repository's objects.

    NAME is an image's id, or refs/ and its name.  In a secure repository the kernel checks everything that is read.
    """
    if (upperdir is None) != (workdir is None):
        raise UsageError("--upperdir and --workdir need each other", hint="give both")
    if read_write and upperdir is None:
        raise UsageError("--read-write has nowhere to write to", hint="give --upperdir and --workdir")
    from composefs.mount import mount_image
    from composefs.mount.idmap import user_namespace

    with settings.open_repository() as repository, user_namespace(idmap) as namespace:
        mount_image(
            repository,
            repository.images.resolve(name),
            mountpoint,
            upperdir=upperdir,
            workdir=workdir,
            read_write=read_write,
            idmap=namespace,
        )
