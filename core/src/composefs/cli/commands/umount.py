"""``cfsctl umount``: unmount an image."""

from __future__ import annotations

import click

from composefs.cli.frame import Command, Example, Path

__all__ = ["command"]


@click.command(cls=Command, examples=[Example("cfsctl umount /mnt")])
@click.argument("mountpoint", type=Path())
@click.option("-l", "--lazy", is_flag=True, help="Do not wait until nobody uses it.")
def command(mountpoint: str, lazy: bool) -> None:
    """Unmount the image that is mounted at MOUNTPOINT.

    Other file systems are left to umount(8), which unmounts images as well.
    """
    from composefs.mount import unmount

    unmount(mountpoint, lazy=lazy)
