"""``cfsctl transaction``: keep garbage collection away while a script works."""

from __future__ import annotations

import signal

import click

from composefs.cli.frame import Command, Example
from composefs.cli.settings import Settings, pass_settings

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example(
            "cfsctl transaction & cfsctl import-image a < a.erofs; cfsctl ostree pull …; kill $!",
            "What is stored in between and not yet named is safe until the end.",
        )
    ],
)
@pass_settings
def command(settings: Settings) -> None:
    """Hold the repository's shared lock until killed.

    Others may read and write meanwhile; what needs the repository for itself, such as garbage collection, has to wait.
    """
    with settings.open_repository():
        signal.pause()
