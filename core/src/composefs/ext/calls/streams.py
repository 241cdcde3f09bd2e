"""stream.put, stream.get, stream.cat, stream.list: splitstreams.

A stream that names an image must reach all of the image's objects through its own references or those of the streams it
names, because garbage collectors do not open such an image.
"""

from __future__ import annotations

import io
import os
import select
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import BinaryIO

from composefs.errors import (
    CancelledError,
    NotFoundError,
    PermissionDeniedError,
    UsageError,
)
from composefs.ext.context import Context
from composefs.protocol import SIZES
from composefs.protocol.lists import check_integers
from composefs.protocol.params import boolean, check_id, content_type, one_of, staged_name, string
from composefs.protocol.wire import JSONValue, Message
from composefs.repository import Repository
from composefs.splitstream import Parts, Reader, names_image
from composefs.systemerrors import from_os_error

__all__ = ["cat", "check_stream", "get", "list_streams", "put"]

_MAX_NAME = 4096
_MAX_DEPTH = 64
_KEPT = 1 << 16
"""Numbers of chunks that are kept, so that a stream of no more need not be unpacked for them again."""


def put(context: Context, params: Message) -> Message:
    """Store a splitstream made of chunks, inline bytes and references; it gets no name."""
    kind = content_type(params)
    chunks = context.lists.take(params, "chunks", check_integers("chunks"))
    object_refs = context.lists.take(params, "object_refs", context.ids_check("object_refs"))
    named = context.lists.take(params, "named_refs", partial(_check_named_refs, context))
    named_refs = [(name, each) for name, each in named]
    _check_images(context, named_refs, object_refs)
    name = params.get("inline")
    with _inline(context, name) if name is not None else io.BytesIO() as inline:
        parts = Parts(kind, inline, chunks, object_refs, named_refs)
        stored = context.repo.streams.put(parts, known=context.seen.sizes)  # refuses what is not in the repository
    context.seen.add({stored.id: stored.size})
    context.seen.add_whole_stream(stored.id)
    return {"id": stored.id, "size": stored.size}


def _inline(context: Context, name: JSONValue) -> BinaryIO:
    return open(context.staged.open(staged_name(name, "inline"), context.limits.stream_bytes), "rb")


def check_stream(context: Context, stream_id: str) -> None:
    """Raise what `put` would if it was asked for a stream that is an object of the repository already."""
    with context.repo.streams.open(stream_id) as reader:
        named_refs = reader.named_refs
        what = f"stream {stream_id}"
        context.seen.require([each for _, each in named_refs], what)
        for block in reader.object_ref_blocks():
            context.seen.require(block, what)
        _check_images(context, named_refs, reader.object_refs())
    context.seen.add_whole_stream(stream_id)


def _check_images(context: Context, named_refs: Sequence[tuple[str, str]], object_refs: Iterable[str]) -> None:
    needed: set[str] = set()
    for name, each in named_refs:
        if names_image(name):
            needed.update(context.seen.objects_of(each))
    needed.difference_update(object_refs)
    seen: set[str] = set()
    level = [each for name, each in named_refs if not names_image(name)]
    for _ in range(_MAX_DEPTH):
        if not needed or not level:
            break
        below: list[str] = []
        for each in level:
            if each in seen:
                continue
            seen.add(each)
            with context.repo.streams.open(each) as reader:
                needed.difference_update(reader.object_refs())
                below += [target for name, target in reader.named_refs if not names_image(name)]
        level = below
    if needed:
        raise UsageError(
            f"the stream names an image but does not reference {len(needed)} of its objects, such as {min(needed)}",
            hint="list all of the image's objects in object_refs, or name a stream that does",
        )


def _find(context: Context, params: Message) -> tuple[Repository, str | None, str]:
    """Find the stream that name, id or ref means: the repository, the stream's name if known, its id."""
    repository = context.source(params)
    key, value = one_of(params, "name", "id", "ref")
    if key == "id":
        return repository, None, check_id(value, repository.algorithm.hex_size, key)
    name: str | None = string(params, key)
    if key == "ref":
        name = repository.refs.read(string(params, key), context.own_ref(string(params, key)))
    stream_id = repository.streams.lookup(name) if name is not None else None
    if stream_id is None:
        what, hint = ("ref", "`cfsctl ref list` lists them") if key == "ref" else ("stream", None)
        raise NotFoundError(f"there is no {what} {value!r}", subject=value, hint=hint)
    return repository, name, stream_id


def get(context: Context, params: Message) -> Message:
    """Describe a stream, and write its parts into staged files on request."""
    repository, name, stream_id = _find(context, params)
    with repository.streams.open(stream_id) as reader:
        answer: Message = {"id": stream_id, "content_type": f"{reader.content_type:016x}", "size": reader.size}
        if name is not None:
            answer["name"] = name
        answer |= context.lists.give(params, "named_refs", map(list, reader.named_refs))
        numbers = _numbers(reader.chunks())
        if params.get("inline_into") is not None:
            seen: list[int] = []
            context.staged.write(staged_name(params["inline_into"], "inline_into"), _inline_pieces(reader, seen))
            if len(seen) < _KEPT:
                numbers = _numbers((number, b"") for number in seen)
        for key, rows in (("chunks", numbers), ("object_refs", reader.object_refs())):
            if params.get(key + "_into") is not None:
                answer |= context.lists.give(params, key, rows)
        if SIZES in context.features and params.get("sizes_into") is not None:
            sizes = chain.from_iterable(_sizes(context, repository, ids) for ids in reader.object_ref_blocks())
            answer |= context.lists.give(params, "sizes", sizes)
    return answer


def _sizes(context: Context, repository: Repository, ids: list[str]) -> list[int | None]:
    """Return the sizes of objects that a stream refers to, None for those that are not there."""
    sizes = repository.objects.sizes(ids)
    if repository is context.repository:  # which the image and the stream that follow will be asked about
        context.seen.add({each: size for each, size in zip(ids, sizes, strict=True) if size is not None})
    return sizes


def _inline_pieces(reader: Reader, seen: list[int]) -> Iterator[bytes]:
    """Yield the inline bytes; put the numbers that are passed on the way into ``seen``, up to ``_KEPT`` of them."""
    for number, data in reader.chunks():
        if len(seen) < _KEPT:
            seen.append(number)
        if data:
            yield data


def _numbers(chunks: Iterable[tuple[int, bytes]]) -> Iterator[int]:
    """The numbers of the chunks; pieces of one inline chunk are added up."""
    inline = 0
    for number, _ in chunks:
        if number < 0:
            inline += number
            continue
        if inline:
            yield inline
            inline = 0
        yield number
    if inline:
        yield inline


def cat(context: Context, params: Message) -> Message:
    """Write a stream's reassembled bytes into a staged file or to the user's standard output."""
    to_user = boolean(params, "stdout")
    if to_user == (params.get("into") is not None):
        raise UsageError("give exactly one of into and stdout")
    if to_user and os.isatty(context.options.stdio.stdout):
        raise PermissionDeniedError(
            "the stream is not written to a terminal", hint="redirect standard output to a file or a pipe"
        )
    repository, _, stream_id = _find(context, params)
    with repository.streams.open(stream_id) as reader:
        if to_user:
            return {"size": repository.streams.cat(reader, partial(_write_to_user, context))}
        with context.staged.create(staged_name(params["into"], "into")) as new:
            return {"size": repository.streams.cat(reader, new.write)}


def _write_to_user(context: Context, data: bytes | memoryview) -> None:
    """Write to the user's pipe, which may be full for as long as it likes, and still notice an interrupt."""
    view = memoryview(data)
    fd = context.options.stdio.stdout
    while view:
        # A short wait, so that a signal is seen: its handler only notes it, and select goes on waiting after it.
        while not select.select([], [fd], [], 0.2)[1]:
            if context.interrupted():
                raise CancelledError("interrupted while writing to standard output")
        try:
            # No more than a pipe surely takes, or write would block.
            view = view[os.write(fd, view[: select.PIPE_BUF]) :]
        except BlockingIOError:
            continue
        except OSError as error:
            context.reader_left = isinstance(error, BrokenPipeError)
            error.filename = "/dev/stdout"  # the one that is full, if it is
            raise from_os_error(error, "writing to standard output") from error


def list_streams(context: Context, params: Message) -> Message:
    """List streams by the beginning of their names, and by content type."""
    prefix = string(params, "prefix", "")
    kind = content_type(params) if params.get("content_type") is not None else None
    found = context.source(params).streams.list(prefix, kind)
    return context.lists.give(params, "streams", ({"name": name, "id": each} for name, each in found))


def _check_named_refs(context: Context, block: list[JSONValue]) -> None:
    """Check that every element is [name, id]."""
    for each in block:
        if type(each) is not list or len(each) != 2 or type(each[0]) is not str or not 0 < len(each[0]) <= _MAX_NAME:
            raise UsageError("an element of named_refs is not [name, id]")
    context.ids_check("named_refs")([pair[1] for pair in block])
