"""The repository: a directory of objects, and of the streams, images and refs that name them.

    meta.json                 algorithm, EROFS formats, features; fs-verity on it means that every object must have it
    objects/XX/REST           files named by their fs-verity digest
    streams/NAME              symlinks to splitstreams
    streams/refs/DIR/NAME     symlinks to streams
    images/ID                 symlinks to EROFS images
    images/refs/NAME          symlinks to images
    staging/                  unfinished work of this implementation

The layout is that of composefs-rs 0.9.0 but for ``staging``.  The directory itself is locked: shared by everybody, and
exclusively by garbage collection, and by what makes the repository secure or new.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from composefs.repository.facade import Repository
from composefs.repository.staging import Staging

if TYPE_CHECKING:
    from composefs.repository.names import Encoding, decode_flat
    from composefs.repository.objects import Stored
    from composefs.repository.publication import (
        ANY,
        ImageName,
        Publication,
        RefRemoval,
        RefUpdate,
        StreamName,
    )

__all__ = [
    "ANY",
    "Encoding",
    "ImageName",
    "Publication",
    "RefRemoval",
    "RefUpdate",
    "Repository",
    "Staging",
    "Stored",
    "StreamName",
    "decode_flat",
]

_LATER = {
    "names": ("Encoding", "decode_flat"),
    "objects": ("Stored",),
    "publication": ("ANY", "ImageName", "Publication", "RefRemoval", "RefUpdate", "StreamName"),
}


def __getattr__(name: str) -> object:
    """Import what only a use of the repository takes when it is asked for: an extension starts before (PEP 562)."""
    for module, names in _LATER.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
