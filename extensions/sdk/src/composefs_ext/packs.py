"""Packs: many small contents in one staged file, of which the core makes an object each (docs/protocol.md, P-45).

    packs = Packs(staging, core.features)
    if size <= packs.largest:
        name, offset = packs.add(data)
        ...                           # for Puts.add(row, name, size, offset), or a row of object_put
    packs.flush()                     # before the core, or who tells it, hears of any of them

A staged file of its own is made, closed, renamed, leased, linked and unlinked.  For a few bytes that takes longer than
all that is done with them.
"""

from __future__ import annotations

import os

from composefs_ext.protocol import PACKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from composefs_ext.staging import Staging

__all__ = ["Packs"]

_LARGEST = 16 << 10
"""Bytes.  For this size a pack saves a fifth of the time, for twice as much nothing (docs/decisions/packs.md)."""
_PACK = 1 << 20
"""Bytes in a pack, which are in memory until it is written."""


class Packs:
    """Writes one pack after the other, each with one write.

    Contents of up to ``largest`` bytes are worth adding; none are if the core has not agreed to packs.
    """

    def __init__(self, staging: Staging, features: Collection[str]) -> None:
        """``features`` are those that were agreed in ``initialize``."""
        self.largest = _LARGEST if PACKS in features else -1
        self._staging = staging
        self._name = ""
        self._data = bytearray()

    def add(self, data: bytes | bytearray | memoryview) -> tuple[str, int]:
        """Append a content; return the pack's name, and where in it the content begins."""
        if self._data and len(self._data) + len(data) > _PACK:
            self.flush()
        offset = len(self._data)
        if not self._name:
            self._name = self._staging.new_name("pack")
        self._data += data
        return self._name, offset

    def flush(self) -> None:
        """Write everything that was added into its file; what is added later goes into another one.

        After an OSError, as of a full disk, nothing of it is in a file, and the next call tries again.
        """
        if self._name:
            try:
                with self._staging.create(self._name) as file:
                    file.write(self._data)
            except OSError:
                if os.path.exists(path := self._staging.path_of(self._name)):
                    os.unlink(path)
                raise
            self._name = ""
            self._data = bytearray()
