"""``cfsctl import-image``: take an EROFS image as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from composefs.cli.complete import ImageRef
from composefs.cli.frame import Command, Example, json_option
from composefs.cli.imagefacts import show_stored
from composefs.cli.named import hinting
from composefs.cli.settings import Settings, pass_settings
from composefs.digest import SHA256
from composefs.errors import FormatError, TooLargeError, UsageError
from composefs.linux.closing import Descriptor
from composefs.systemerrors import Doing

__all__ = ["command"]

STDIN = 0
PIECE = 1 << 18
_USAGE = "give the image there: cfsctl import-image REF < FILE"


@click.command(cls=Command, examples=[Example("cfsctl import-image os/42 < image.erofs")])
@click.argument("ref", type=ImageRef())
@click.option("--allow-missing", is_flag=True, help="Accept an image whose objects are not all in the repository.")
@json_option("Print id, algorithm, format, size and name as JSON.")
@pass_settings
def command(settings: Settings, ref: str, allow_missing: bool, as_json: bool) -> None:
    """Store the EROFS image on standard input and name it REF.

    It is read and checked first, but the kernel will trust it: take images only from where you would take a program.
    The id is printed.
    """
    if os.isatty(STDIN):
        raise UsageError("standard input is a terminal", hint=_USAGE)
    from composefs.erofs.reader import Image, read_objects, read_tree
    from composefs.repository.names import ref_parts
    from composefs.repository.publication import ImageName, Publication

    ref_parts(ref, "path")  # refuses a bad name before the work, not after it
    with settings.open_repository(writable=True) as repository:
        stored = repository.images.put(_pieces())
        hint = "make it with mkcomposefs, or give the dump to `cfsctl create-image --from-dump -` instead"
        if repository.algorithm is not SHA256:
            digests = f"here digests are of {repository.algorithm}, and mkcomposefs makes images with those of sha256"
            hint = f"{digests}: give a dump to `cfsctl create-image --from-dump -` instead"
        with hinting(FormatError, hint), Descriptor(repository.images.open(stored.id)) as fd, Image.open(fd) as image:
            version = image.version
            if version is None:  # plain EROFS, as of mkfs.erofs: it can be read, but never mounted
                raise FormatError("standard input is not a composefs image")
            read_tree(image, repository.images.rules)  # symlinks and small files too
            files = read_objects(image, repository.algorithm, strict=True)
        if not allow_missing:
            repository.objects.require_files(files, "the image on standard input")
        repository.publish(Publication(images=[ImageName(stored.id, ref)]))
    show_stored(stored, repository.algorithm, version, ref, as_json=as_json)


def _pieces() -> Iterator[bytes]:
    from composefs.erofs.layout import MAX_IMAGE

    size = 0
    with Doing("reading standard input"):
        while data := os.read(STDIN, PIECE):
            size += len(data)
            if size > MAX_IMAGE:
                raise TooLargeError(f"the image on standard input is larger than {MAX_IMAGE} bytes")
            yield data
    if not size:
        raise UsageError("standard input is empty", hint=_USAGE)
