"""A layer that the repository holds: its splitstream read back as the entries of its archive, with their contents."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import NamedTuple

from composefs_ext import Core
from composefs_ext.errors import CorruptError, FormatError, TooLargeError
from composefs_oci.formats.tar import BLOCK, Entry, Parser, padding
from composefs_oci.formats.tar.entries import shown
from composefs_oci.layers.whole import whole_content
from composefs_oci.names import LAYER, layer_stream

Content = bytes | str
"""A file's bytes, at most 64, or the id of the object that has them."""

__all__ = ["StoredLayer", "entries", "open_layer", "open_layers"]

_REMEDY = "the layer's stream is damaged: run cfsctl fsck, and pull the image again"


class StoredLayer(NamedTuple):
    """A layer's stream: the path of a file with all inline bytes, chunks and references as ``stream_get`` gives them.

    ``size`` is the archive's, ``name`` is for messages: the diff id.  ``core`` has the objects.
    """

    core: Core
    name: str
    inline: str
    chunks: Sequence[int]
    object_refs: Sequence[str]
    size: int


def open_layer(core: Core, diff_id: str, stream_id: str | None = None) -> StoredLayer:
    """Open a layer that the repository holds, by its stream's id or else by its name.

    Raises NotFoundError; CorruptError for what is no layer of files.
    """
    name = None if stream_id else layer_stream(diff_id)
    stream = core.stream_get(name=name, id=stream_id, inline=True, chunks=True, object_refs=True).result()
    if stream.content_type != LAYER:
        raise CorruptError(f"{layer_stream(diff_id)} is not the stream of a layer of files", subject=diff_id)
    assert stream.inline is not None
    inline = core.staging.path_of(stream.inline)
    return StoredLayer(core, diff_id, inline, stream.chunks, stream.object_refs, stream.size)


def open_layers(core: Core, diff_ids: Iterable[str]) -> Iterator[StoredLayer]:
    """Open layers, each when it comes up, and once: an image can name one thousands of times."""
    return map(cache(partial(open_layer, core)), diff_ids)


def entries(layer: StoredLayer, *, upstream: bool = False) -> Iterator[tuple[Entry, Content]]:
    """Yield each entry with its content, which is empty for what is no regular file.

    ``upstream`` is the parser's.  Raises FormatError or TooLargeError as the parser does, CorruptError where the stream
    is not split as it has to be.
    """
    try:
        with _mapped(layer.inline) as inline:
            yield from _walk(layer, inline, Parser(upstream=upstream))
    except (FormatError, TooLargeError, CorruptError) as error:
        raise type(error)(f"layer {layer.name}: {error.message}", hint=error.hint, subject=layer.name) from None


@contextmanager
def _mapped(path: str) -> Iterator[bytes | mmap.mmap]:
    """Map a file, whose pages the kernel may then drop; an empty one cannot be mapped."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            yield data


def _walk(layer: StoredLayer, inline: bytes | mmap.mmap, parser: Parser) -> Iterator[tuple[Entry, Content]]:
    core, held = layer.core, frozenset(layer.object_refs)
    header, extension = parser.header, parser.extension
    objects = _objects(layer)
    position, end = 0, len(inline)
    rest = 0  # padding of the entry at hand, which may be missing after the last one
    external = 0  # bytes in objects
    content: Content
    while position < end and not parser.ended:
        wanted = parser.wanted
        start, position = position, position + (wanted or BLOCK)
        if position > end:
            raise FormatError("the archive ends within a header")
        piece = inline[start:position]
        entry = extension(piece) if wanted else header(piece)
        if entry is None:
            continue
        size = entry.size
        rest = padding(size)
        if entry.external:
            place, content = next(objects, (None, ""))
            if place != position:
                what = f"its stream has no object where a content of {size} bytes should be"
                raise CorruptError(f"{shown(entry.path)}: {what}", hint=_REMEDY)
            external += size
            if entry.sparse is not None:
                content = whole_content(core, entry, content, held)
        else:
            if entry.sparse is None:
                content = inline[position : position + size]
            else:
                with memoryview(inline) as view, view[position : position + size] as pieces:
                    content = whole_content(core, entry, pieces, held)
            position += size
        position += rest
        yield entry, content
    if position > end + rest:
        raise FormatError("the archive ends within an entry")
    parser.finish()
    if next(objects, None) is not None or end + external != layer.size:
        raise _split_wrongly()


def _objects(layer: StoredLayer) -> Iterator[tuple[int, str]]:
    """Yield the objects of a stream, each with how many inline bytes are before it."""
    place = 0
    for chunk in layer.chunks:
        if chunk < 0:
            place -= chunk
        elif chunk < len(layer.object_refs):
            yield place, layer.object_refs[chunk]
        else:
            raise _split_wrongly()


def _split_wrongly() -> CorruptError:
    return CorruptError("its stream is not split as a layer's", hint=_REMEDY)
