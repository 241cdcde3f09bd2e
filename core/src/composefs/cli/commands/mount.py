"""``cfsctl mount``: mount an image."""

from __future__ import annotations

import signal

import click

from composefs.cli.complete import ImageName
from composefs.cli.frame import Command, Example, Path
from composefs.cli.named import named_image
from composefs.cli.output import say
from composefs.cli.settings import Settings, pass_settings
from composefs.cli.text import one_line
from composefs.errors import PermissionDeniedError, UnsupportedError, UsageError

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
@click.argument("mountpoint", type=Path())
@click.option("--upperdir", metavar="DIR", type=Path(), help="Where changes go, or a layer to show above.")
@click.option("--workdir", metavar="DIR", type=Path(), help="overlayfs' own, on the file system of the upperdir.")
@click.option("--read-write", is_flag=True, help="Allow changes; needs --upperdir and --workdir.")
@click.option(
    "--idmap",
    metavar="FILE",
    type=Path(there=True),
    help="Show owners as in this user namespace, /proc/PID/ns/user.",
)
@click.option(
    "--fuse",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    help="Serve the image by FUSE; auto: where the kernel does not let us mount it.  [default: auto]",
)
@click.option("--foreground", is_flag=True, help="With FUSE, serve until it is unmounted.")
@pass_settings
def command(
    settings: Settings,
    name: str,
    mountpoint: str,
    upperdir: str | None,
    workdir: str | None,
    read_write: bool,
    idmap: str | None,
    fuse: str,
    foreground: bool,
) -> None:
    """Mount an image over the repository's objects.

    NAME is an image's id, refs/ and its name, or a ref of a stream that names one image, as `cfsctl ref list` shows it.
    In a secure repository the kernel checks everything that is read.
    """
    if (upperdir is None) != (workdir is None):
        raise UsageError("--upperdir and --workdir need each other", hint="give both")
    if read_write and upperdir is None:
        raise UsageError("--read-write has nowhere to write to", hint="give --upperdir and --workdir")
    if fuse == "yes" and (upperdir is not None or idmap is not None):
        raise UsageError("FUSE knows neither --upperdir nor --idmap", hint="leave out --fuse yes")
    from composefs.mount import mount_image
    from composefs.mount.idmap import user_namespace

    with settings.open_repository() as repository:
        image_id = named_image(repository, name)
        if fuse != "yes":
            try:
                with user_namespace(idmap) as namespace:
                    mount_image(
                        repository,
                        image_id,
                        mountpoint,
                        upperdir=upperdir,
                        workdir=workdir,
                        read_write=read_write,
                        idmap=namespace,
                    )
            except (PermissionDeniedError, UnsupportedError) as error:
                if fuse == "no" or upperdir is not None or idmap is not None:
                    raise
                if settings.verbosity >= 0:
                    say(f"cfsctl: trying FUSE: {one_line(error.message)}")
            else:
                return
        from composefs.mount.fuse import FuseImage, serve

        image = FuseImage(repository, image_id)
    # Out of the repository's lock: it is not kept while an image is mounted, whoever shows it.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # libfuse unmounts on these
    serve(image, mountpoint, foreground=foreground)
