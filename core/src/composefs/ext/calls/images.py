"""image.draft, put, digest, dump, objects and mount: EROFS images, made from dumps and read back."""

from __future__ import annotations

import os

from composefs import dumpfile, erofs
from composefs.dumpfile.escape import find_bad_escape, unescape
from composefs.errors import CorruptError, FormatError, PermissionDeniedError, TooLargeError, UsageError
from composefs.ext.calls.transforms import Transforms
from composefs.ext.context import Context
from composefs.fsverity import digest_parts
from composefs.protocol import DRAFTS
from composefs.protocol.params import boolean, check_id, mapping, one_of, staged_name, string
from composefs.protocol.wire import JSONValue, Message
from composefs.repository import Repository
from composefs.repository.images import image_objects
from composefs.tree import Tree, collection_paused, find

__all__ = ["digest", "draft", "dump", "mount", "objects", "put"]

_MAX_DRAFT_NAME = 128


def draft(context: Context, params: Message) -> Message:
    """Read some lines of a dump that is to become an image later."""
    context.drafts.add(_draft_name(params), params.get("part"))
    return {}


def _draft_name(params: Message) -> str:
    name = string(params, "draft")
    if not 0 < len(name) <= _MAX_DRAFT_NAME:
        raise UsageError(f"draft is not a name of 1 to {_MAX_DRAFT_NAME} characters")
    return name


def put(context: Context, params: Message) -> Message:
    """Make an image from a dump and store it without a name; all of its objects must be in the repository."""
    with collection_paused():
        tree = _parse(context, params)
        files = image_objects(tree)
        context.seen.require_files(files, "the dump")
        stored = context.repo.images.put(erofs.write(tree, version=context.format_of(params)))
        del tree
    _check_expected(params, stored.id, context)
    context.seen.add({stored.id: stored.size})
    context.seen.add_whole_image(stored.id, files)
    return {"id": stored.id, "size": stored.size}


def digest(context: Context, params: Message) -> Message:
    """Compute what image.put would answer, and store nothing."""
    tree = _parse(context, params)
    files = image_objects(tree)
    if context.repository is not None:
        context.seen.require_files(files, "the dump")
    image = list(erofs.write(tree, version=context.format_of(params)))
    found = digest_parts(image, context.algorithm).hex()
    _check_expected(params, found, context)
    return {"id": found, "size": sum(map(len, image))}


def _parse(context: Context, params: Message) -> Tree:
    """Return the tree of a dump, or of a draft of which it is the rest, transformed."""
    name = staged_name(string(params, "dump"), "dump")
    transforms = Transforms.of(params)
    if DRAFTS in context.features and params.get("draft") is not None:
        tree = context.drafts.finish(_draft_name(params), name)
    else:
        limits = context.limits
        try:
            tree = dumpfile.parse(
                context.staged.read(name, limits.dump_bytes), context.algorithm, max_entries=limits.dump_entries
            )
        except (FormatError, TooLargeError) as error:
            error.subject = name
            raise
    transforms.apply(context, tree)
    return tree


def _check_expected(params: Message, found: str, context: Context) -> None:
    expected = params.get("expect")
    if expected is not None and check_id(expected, context.algorithm.hex_size, "expect") != found:
        raise CorruptError(f"the image's id is {found}, not {expected} as expected", subject=found)


def dump(context: Context, params: Message) -> Message:
    """Write the canonical text of a dump or an image, or of some paths in it, into a staged file."""
    key, _ = one_of(params, "dump", "name", "id")
    paths = [_path(each) for each in context.lists.take(params, "paths", _check_paths)]
    into = staged_name(string(params, "into"), "into")
    if key == "dump":
        tree = _parse(context, params)
        with context.staged.create(into) as new:
            if not paths:
                dumpfile.write(tree, new.write)
            for path in paths:
                dumpfile.write_below(path, find(tree, path), new.write)
            return {"size": new.size}
    from composefs.erofs.reader import Lookup, read_tree

    repository = context.source({})  # the session's own, which it may lack
    rules = repository.images.rules
    with repository.images.load(_image(repository, params)) as image, context.staged.create(into) as new:
        if not paths:
            dumpfile.write(read_tree(image, rules), new.write)
        lookup = Lookup(image, rules)
        for path in paths:
            dumpfile.write_below(path, lookup.below(path), new.write)
        return {"size": new.size}


def objects(context: Context, params: Message) -> Message:
    """List the objects that an image refers to."""
    return context.lists.give(params, "ids", sorted(context.seen.objects_of(_image(context.repo, params))))


def _image(repository: Repository, params: Message) -> str:
    """Return the id of the image that name or id means; an id need not be named."""
    key, value = one_of(params, "name", "id")
    if key == "id":
        return check_id(value, repository.algorithm.hex_size, key)
    from composefs.repository.lookup import find

    return find(repository, string(params, key), ("image",)).id


def _check_paths(block: list[JSONValue]) -> None:
    for each in block:
        if (
            type(each) is not str
            or not each.startswith("/")
            or not each.isascii()
            or find_bad_escape(each.encode()) is not None
        ):
            raise UsageError("an element of paths is not an absolute path, escaped as in a dump")


def _path(text: JSONValue) -> bytes:
    """Return a path without the slashes that say nothing."""
    assert type(text) is str
    return b"".join([b"/" + name for name in unescape(text.encode()).split(b"/") if name]) or b"/"


def mount(context: Context, params: Message) -> Message:
    """Mount an image at a path that the user typed."""
    from composefs.mount import mount_image

    options = mapping(params, "options")
    layers = [key for key in ("upperdir", "workdir") if options.get(key) is not None]
    paths = {key: _typed_directory(context, options, key) for key in layers}
    mountpoint = _typed_directory(context, params, "path")
    mount_image(
        context.repo,
        _image(context.repo, params),
        mountpoint,
        upperdir=paths.get("upperdir"),
        workdir=paths.get("workdir"),
        read_write=boolean(options, "read_write"),
    )
    return {}


def _typed_directory(context: Context, params: Message, key: str) -> str:
    """Return a path to the directory that was at a typed path before the extension could put something else there."""
    path = string(params, key)
    if path not in context.line.typed("path-read", "path-write"):
        raise PermissionDeniedError(f"{key} {path} is no path that the user gave", subject=path)
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        from composefs.mount.image import no_directory

        raise no_directory(path) from None
    context.resources.callback(os.close, fd)
    context.check_place(path, fd)
    return f"/proc/self/fd/{fd}"
