"""``cfsctl copy``: bring streams and images over from another repository."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from composefs.cli.complete import NameElsewhere
from composefs.cli.frame import Command, Example, Path, json_option
from composefs.cli.named import hinting, telling
from composefs.cli.output import line, print_json
from composefs.cli.settings import Settings, pass_settings
from composefs.errors import NotFoundError

if TYPE_CHECKING:
    from composefs.repository import Repository
    from composefs.repository.lookup import Found
    from composefs.repository.publication import Publication
    from composefs.transfer import Copied

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl --repo /mnt/new copy --from /sysroot/composefs refs/ostree/fedora%2F41%2Fx86_64"),
        Example("cfsctl --user copy --from /srv/composefs os/42", "An image by its ref, which is copied too."),
    ],
)
@click.option("--from", "source_path", metavar="REPO", required=True, type=Path(), help="The repository to copy from.")
@click.argument("names", metavar="IMAGE|REF|STREAM...", nargs=-1, required=True, type=NameElsewhere("source_path"))
@json_option("Print what was copied as JSON.")
@pass_settings
def command(settings: Settings, source_path: str, names: tuple[str, ...], as_json: bool) -> None:
    """Copy streams and images of another repository, with all that they name and all objects, into this one.

    What is named by a ref gets the same ref here, which is replaced if it exists.  Every copy's digest is computed
    anew, and nothing is visible before everything is there.
    """
    from composefs.graph import Start
    from composefs.transfer import copy

    with (
        _source(source_path, settings) as source,
        settings.open_repository(writable=True) as target,
        settings.reporting("copy", "copying objects") as report,
    ):
        found = [_find(source, name) for name in dict.fromkeys(names)]
        copied = copy(source, target, [Start(each.id, each.kind, each.name) for each in found], report=report)
        target.publish(_publication(copied, found))
    if as_json:
        print_json(
            {
                "streams": [each._asdict() for each in copied.streams],
                "images": copied.images,
                "refs": [f"{each.kind}s/refs/{each.ref}" for each in found if each.ref],
                "objects_copied": copied.objects,
                "bytes_copied": copied.size,
                "objects_present": copied.present,
            }
        )
        return
    for stream in copied.streams:
        line(f"stream  {stream.name or stream.id}")
    for image in copied.images:
        line(f"image   {image}")
    line(f"objects {copied.objects} copied, {copied.present} present")


def _source(path: str, settings: Settings) -> Repository:
    from composefs.repository import Repository

    with hinting(NotFoundError, "check the path after --from"):  # and not: make one
        return Repository.open(path, wait=settings.wait)


def _find(source: Repository, name: str) -> Found:
    from composefs.repository.lookup import find

    hint = f"`cfsctl --repo {shlex.quote(str(source.path))} ref list` lists the refs there"
    with telling(source, "stream", "image"), hinting(NotFoundError, hint):
        return find(source, name)


def _publication(copied: Copied, found: list[Found]) -> Publication:
    """Give everything the names that it has where it comes from; what was asked for replaces, the rest does not."""
    from composefs.repository.publication import ImageName, Publication, RefUpdate, StreamName

    wanted = {each.name: each.id for each in found if each.kind == "stream"}
    return Publication(
        streams=[StreamName(name, each, if_exists="replace") for name, each in wanted.items()]
        + [
            StreamName(stream.name, stream.id, if_exists="keep")
            for stream in copied.streams
            if stream.name is not None and stream.name not in wanted
        ],
        images=[ImageName(image) for image in copied.images]
        + [ImageName(each.id, each.ref) for each in found if each.kind == "image" and each.ref],
        # The path is that of the file, whichever way it is encoded.
        refs=[RefUpdate(each.ref, each.name, "path") for each in found if each.kind == "stream" and each.ref],
    )
