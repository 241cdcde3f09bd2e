"""image.put, image.digest, image.dump, image.mount: EROFS images made from dumps."""

from __future__ import annotations

from pathlib import Path

from composefs import dumpfile, erofs
from composefs.errors import CorruptError, FormatError, PermissionDeniedError, UnsupportedError, UsageError
from composefs.ext.context import Context
from composefs.fsverity import Hasher
from composefs.protocol.params import boolean, mapping, one_of, optional_id, staged_name, string
from composefs.protocol.wire import Message
from composefs.repository.images import image_objects
from composefs.tree import Tree

__all__ = ["digest", "dump", "mount", "put"]


def put(context: Context, params: Message) -> Message:
    """Make an image from a dump and store it without a name; all of its objects must be in the repository."""
    tree = _parse(context, params)
    objects = image_objects(tree)
    context.require(objects, "the dump")
    parts = erofs.write(tree, version=context.format_of(params))
    stored = context.repo.images.put(parts)
    _check_expected(params, stored.id, context)
    context.remember([stored.id])
    context.image_objects[stored.id] = objects
    return {"id": stored.id, "size": stored.size}


def digest(context: Context, params: Message) -> Message:
    """Compute what image.put would answer, and store nothing."""
    tree = _parse(context, params)
    objects = image_objects(tree)
    if context.repository is not None:
        context.require(objects, "the dump")
    hasher = Hasher(context.algorithm)
    for part in erofs.write(tree, version=context.format_of(params)):
        hasher.update(part)
    found = hasher.digest().hex()
    _check_expected(params, found, context)
    return {"id": found, "size": hasher.size}


def _parse(context: Context, params: Message) -> Tree:
    name = staged_name(string(params, "dump"))
    if params.get("transforms"):
        raise UnsupportedError("transforms of dumps are not supported yet")
    try:
        return dumpfile.parse(context.staged.read(name, context.limits.inline_bytes), context.algorithm)
    except FormatError as error:
        error.subject = name
        raise


def _check_expected(params: Message, found: str, context: Context) -> None:
    expected = optional_id(params, "expect", context.algorithm.hex_size)
    if expected is not None and expected != found:
        raise CorruptError(f"the image's id is {found}, not {expected} as expected", subject=found)


def dump(context: Context, params: Message) -> Message:
    """Write the canonical text of a dump into a staged file."""
    key, _ = one_of(params, "dump", "name", "id")
    if key != "dump":
        raise UnsupportedError("image.dump of an image is not supported yet; of a dump it is")
    tree = _parse(context, params)
    into = staged_name(string(params, "into"))
    with context.staged.create(into) as fd, open(fd, "wb", closefd=False) as out:
        dumpfile.write(tree, out)
        size = out.tell()
    return {"size": size}


def mount(context: Context, params: Message) -> Message:
    """Mount an image at a path that the user typed."""
    from composefs.mount import mount_image

    options = mapping(params, "options")
    paths = {key: _typed_path(context, options, key) for key in ("upperdir", "workdir") if options.get(key) is not None}
    mountpoint = _typed_path(context, params, "path")
    key, value = one_of(params, "name", "id")
    if type(value) is not str:
        raise UsageError(f"{key} is not a string")
    mount_image(
        context.repo,
        context.repo.images.resolve(value),
        mountpoint,
        upperdir=paths.get("upperdir"),
        workdir=paths.get("workdir"),
        read_write=boolean(options, "read_write"),
    )
    return {}


def _typed_path(context: Context, params: Message, key: str) -> Path:
    path = string(params, key)
    if path not in context.typed("path-read", "path-write"):
        raise PermissionDeniedError(f"{key} {path} is no path that the user gave", subject=path)
    return Path(path)
