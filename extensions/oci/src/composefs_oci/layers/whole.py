"""The content of sparse files, of which a layer's stream holds the pieces.

When a layer is taken apart, each is written whole, and is an object of the repository from then on.  The stream does
not say which object: when it is read the file is measured again, and has to be among the stream's references.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from composefs_ext import Core
from composefs_ext.errors import CorruptError
from composefs_ext.fsverity import Hasher
from composefs_oci.formats.tar import Entry
from composefs_oci.formats.tar.entries import INLINE_LIMIT, shown
from composefs_oci.layers.expand import Expander

__all__ = ["whole_content"]

_READ_SIZE = 256 << 10


def whole_content(core: Core, entry: Entry, pieces: memoryview | str, held: Collection[str]) -> bytes | str:
    """Return a sparse file's bytes if they are few, else its id, which has to be one of those that are ``held``.

    ``pieces`` are those among the headers, or the object that has them; the file is written whole into staging.  Raises
    FormatError, TooLargeError, CorruptError.
    """
    assert entry.sparse is not None
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
            hasher = Hasher(core.repo.algorithm)
            while data := file.read(_READ_SIZE):
                hasher.update(data)
            digest = hasher.hexdigest()
        finally:
            os.unlink(path)
    if digest not in held:
        raise CorruptError(
            f"{shown(entry.path)}: the repository does not hold the sparse file, only its pieces",
            hint="remove the image, run cfsctl gc and pull it again",
        )
    return digest


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
