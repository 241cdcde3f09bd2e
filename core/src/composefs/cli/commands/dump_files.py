"""``cfsctl dump-files``: some files of an image as composefs-dump(5) text."""

from __future__ import annotations

import os
import shlex
import stat

import click

from composefs.cli.complete import ImageName
from composefs.cli.frame import Command, Example, Path, json_option
from composefs.cli.named import hinting, named_image
from composefs.cli.output import print_json, write, write_piece
from composefs.cli.settings import Settings, pass_settings
from composefs.errors import NotFoundError, UsageError
from composefs.tree import Node, object_path

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl dump-files refs/os/42 /etc/passwd /usr/bin"),
        Example(
            "cfsctl dump-files --backing-path-only refs/os/42 /usr/bin/bash", "Where its bytes are below objects/."
        ),
    ],
)
@click.argument("name", type=ImageName())
@click.argument("files", nargs=-1, required=True, type=Path(path_type=bytes))
@click.option("--backing-path-only", is_flag=True, help="Print only where the bytes are: an object's path, or inline.")
@json_option("Print that as JSON, null for what is inline; with --backing-path-only.")
@pass_settings
def command(settings: Settings, name: str, files: tuple[bytes, ...], backing_path_only: bool, as_json: bool) -> None:
    """Print FILES of an image, and what is below them, as composefs-dump(5) text.

    No symlink is followed, on the way to a file neither.

    NAME is an image's id, refs/ and its name, or a ref of a stream that names one image, as `cfsctl ref list` shows it.
    """
    from composefs.dumpfile import write_below
    from composefs.erofs.reader import Lookup

    if as_json and not backing_path_only:
        raise UsageError("--json needs --backing-path-only", hint="`cfsctl ls --json` prints all facts of files")
    paths = [b"".join([b"/" + part for part in file.split(b"/") if part]) for file in files]
    for file, path in zip(files, paths, strict=True):
        if not path:
            raise UsageError(f"invalid file name {os.fsdecode(file)!r}", hint="give paths below the root")
    with settings.open_repository() as repository:
        image_id = named_image(repository, name)
        with repository.images.load(image_id) as image:
            lookup = Lookup(image, repository.images.rules)
            with hinting(NotFoundError, f"`cfsctl ls {shlex.quote(name)} DIRECTORY` lists what there is"):
                nodes = [lookup.node(path) for path in paths]  # Before anything is printed: is everything there?
            if not backing_path_only:
                with settings.reporting("dump", "reading the image") as report:
                    report(0)
                    found = [lookup.below(path) for path in paths]
                for path, below in zip(paths, found, strict=True):
                    write_below(path, below, write_piece)
                write(b"")
                return
    backing = [(path, _backing(path, node)) for path, node in zip(paths, nodes, strict=True)]
    if as_json:
        rows = [{"path": os.fsdecode(path), "backing": None if at is None else os.fsdecode(at)} for path, at in backing]
        print_json({"image": image_id, "files": rows})
        return
    from composefs.dumpfile.escape import escape

    write(b"".join([b"%b %b\n" % (escape(path), b"inline" if at is None else escape(at)) for path, at in backing]))


def _backing(path: bytes, node: Node) -> bytes | None:
    """Return where a file's bytes are below objects/; None if they are in the image."""
    if not stat.S_ISREG(node.mode):
        raise UsageError(f"{os.fsdecode(path)} is not a regular file", hint="only such files have bytes")
    if not node.external:
        return None
    return (node.payload or b"-") if node.digest is None else object_path(node.digest)
