"""``cfsctl completion``: the script that makes a shell complete cfsctl's commands, options, refs and images."""

from __future__ import annotations

import click

from composefs.cli.frame import Command, Example
from composefs.cli.output import write

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example('eval "$(cfsctl completion bash)"', "In ~/.bashrc."),
        Example("cfsctl completion fish > ~/.config/fish/completions/cfsctl.fish"),
    ],
)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL: bash, zsh or fish."""
    from click.shell_completion import get_completion_class

    from composefs.cli.main import COMPLETE_VARIABLE, PROGRAM, root

    generator = get_completion_class(shell)
    assert generator is not None
    write(generator(root, {}, PROGRAM, COMPLETE_VARIABLE).source().encode())
