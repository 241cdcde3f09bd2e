"""The content of sparse files, of which a layer's stream holds the pieces.

When a layer is taken apart, each is written whole, and is an object of the repository from then on.  The stream does
not say which object: when it is read the file is measured again, and has to be among the stream's references.
"""

from __future__ import annotations

import os

from composefs_ext.errors import CorruptError
from composefs_ext.fsverity import Hasher
from composefs_oci.formats.tar.entries import INLINE_LIMIT, shown
from composefs_oci.layers.expand import Expander
from composefs_oci.layers.stored import StoredLayer
from composefs_oci.names import LAYER, layer_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext import Core
    from composefs_oci.formats.tar import Entry
    from composefs_oci.layers.stored import Content

__all__ = ["open_layer"]

_READ_SIZE = 256 << 10


def open_layer(core: Core, diff_id: str, stream_id: str | None = None) -> StoredLayer:
    """Open a layer that the repository holds, by its stream's id or else by its name.

    Raises NotFoundError; CorruptError for what is no layer of files.
    """
    name = None if stream_id else layer_stream(diff_id)
    stream = core.stream_get(name=name, id=stream_id, inline=True, chunks=True, object_refs=True).result()
    if stream.content_type != LAYER:
        raise CorruptError(f"{layer_stream(diff_id)} is not the stream of a layer of files", subject=diff_id)
    assert stream.inline is not None
    references = stream.object_refs
    held = frozenset(references)

    def whole(entry: Entry, pieces: memoryview | str) -> Content:
        content = _measure(core, entry, pieces)
        if isinstance(content, str) and content not in held:
            raise CorruptError(
                f"{shown(entry.path)}: the repository does not hold the sparse file, only its pieces",
                hint="remove the image, run cfsctl gc and pull it again",
            )
        return content

    return StoredLayer(diff_id, core.staging.path_of(stream.inline), stream.chunks, references, stream.size, whole)


def _measure(core: Core, entry: Entry, pieces: memoryview | str) -> Content:
    """Write a sparse file whole into staging, and return its id, or its bytes if they are few."""
    assert entry.sparse is not None
    assert core.repository is not None
    path = core.staging.path_of(core.staging.new_name("sparse"))
    with open(path, "x+b", buffering=0) as file:
        try:
            expander = Expander(entry.sparse, file.fileno(), shown(entry.path))
            if isinstance(pieces, str):
                _feed_object(core, pieces, expander)
            else:
                expander.write(pieces)
            size = expander.finish()
            file.seek(0)
            if size <= INLINE_LIMIT:
                return file.read()
            hasher = Hasher(core.repository.algorithm)
            while data := file.read(_READ_SIZE):
                hasher.update(data)
            return hasher.hexdigest()
        finally:
            os.unlink(path)


def _feed_object(core: Core, object_id: str, expander: Expander) -> None:
    name = core.staging.new_name("pieces")
    core.object_get(object_id, name).result()
    path = core.staging.path_of(name)
    try:
        with open(path, "rb", buffering=0) as file:
            while data := file.read(_READ_SIZE):
                expander.write(data)
    finally:
        os.unlink(path)
