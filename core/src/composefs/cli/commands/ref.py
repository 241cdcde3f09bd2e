"""``cfsctl ref``: the names given to streams and images, which keep them from garbage collection."""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from composefs.cli.complete import RefName
from composefs.cli.frame import Command, Example, Group, json_option
from composefs.cli.named import telling
from composefs.cli.output import line, print_json, table
from composefs.cli.refs import is_image_ref, refs_with
from composefs.cli.settings import Settings, pass_settings
from composefs.errors import ComposefsError, NotFoundError

if TYPE_CHECKING:
    from composefs.repository import Repository
    from composefs.repository.publication import RefRemoval

__all__ = ["command"]

STREAM_REFS = "streams/refs/"
IMAGE_REFS = "images/refs/"


@click.group(cls=Group)
def command() -> None:
    """List and remove the names of streams and images."""


@command.command(
    "list",
    cls=Command,
    examples=[Example("cfsctl ref list"), Example("cfsctl ref list ostree/ --json")],
)
@click.argument("prefix", default="", type=RefName())
@json_option()
@pass_settings
def list_(settings: Settings, prefix: str, as_json: bool) -> None:
    """List the refs whose name begins with PREFIX: what kind of thing each names, and which."""
    with settings.open_repository() as repository:
        found = refs_with(prefix, repository)
    if as_json:
        print_json({"refs": [ref._asdict() for ref in found]})
    elif found:
        table(("KIND", "NAME", "TARGET"), found)
    else:
        line("No refs found")


@command.command(
    cls=Command,
    examples=[Example("cfsctl ref remove ostree/fedora/41/x86_64"), Example("cfsctl ref remove --image os/42")],
)
@click.argument("names", nargs=-1, required=True, type=RefName())
@click.option("--image", "of_images", is_flag=True, help="The names are those of images, not of streams.")
@pass_settings
def remove(settings: Settings, names: tuple[str, ...], of_images: bool) -> None:
    """Remove refs: all of the NAMES, or none when one of them is missing.

    A ref may also be given as the path of its file in the repository, by which fsck, gc and du call it.  What it names
    stays until garbage is collected.
    """
    from composefs.repository.publication import Publication

    with settings.open_repository(writable=True) as repository:
        if of_images:
            repository.publish(Publication(remove_image_refs=[name.removeprefix(IMAGE_REFS) for name in names]))
        else:
            try:
                with telling(repository, "stream"):
                    repository.publish(Publication(remove_refs=[_removal(repository, name) for name in names]))
            except NotFoundError as error:
                name = (error.subject or "").removeprefix("refs/")  # so mount and others call an image
                if is_image_ref(repository, name.removeprefix(IMAGE_REFS)):
                    error.hint = f"an image has that name: cfsctl ref remove --image {shlex.quote(name)}"
                raise


def _removal(repository: Repository, name: str) -> RefRemoval:
    """Return what is to be removed: what `ref list` shows by that name; only where there is none, what that may mean.

    That is a flat ref in a directory of which only its extension knows that names are encoded there.
    """
    from composefs.repository.lookup import encoding_of
    from composefs.repository.publication import RefRemoval

    path = name.removeprefix(STREAM_REFS)
    encoding = encoding_of(name) if path == name else "path"
    if path == name and encoding == "path":
        with suppress(ComposefsError):  # which something else in the place of a ref is, and a name that none can have
            if not repository.refs.has(name, "path") and repository.refs.has(name, "flat"):
                encoding = "flat"
    return RefRemoval(path, encoding)
