"""A dump that the core reads while it is still being written.

With the feature ``drafts`` parts of it are handed over as soon as they are full.  A core without that gets all of it at
the end, in one file.
"""

from __future__ import annotations

from composefs_ext.protocol import DRAFTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext.core import Core

__all__ = ["Draft"]

_PART = 1 << 19
"""Bytes of a part: four milliseconds for the core."""


class Draft:
    """A dump on its way to the core.

    ``write`` whole lines, then give what ``finish`` returns to ``Core.image_put`` or the like: once, as the core keeps
    no draft that was used.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._name = core.staging.new_name("dump")
        self._in_parts = DRAFTS in core.features
        self._begun = False
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, lines: bytes) -> None:
        """Add whole lines."""
        self._pieces.append(lines)
        self._size += len(lines)
        if self._size >= _PART:
            self._hand_over()

    def finish(self) -> tuple[str, str | None]:
        """Return the names of the staged file with the last lines, and of the draft if there are others before."""
        staging = self._core.staging
        if not self._in_parts:
            self._hand_over()
            return self._name, None
        return staging.write(b"".join(self._pieces), "dump"), self._name if self._begun else None

    def _hand_over(self) -> None:
        staging = self._core.staging
        if self._in_parts:
            part = staging.write(b"".join(self._pieces), "part")
            # When one is refused, so is what uses the draft, for the same reason.
            self._core.send("image.draft", {"draft": self._name, "part": part}, staged=(staging.path_of(part),))
        else:
            with open(staging.path_of(self._name), "ab") as file:
                file.writelines(self._pieces)
        self._begun = True
        self._pieces = []
        self._size = 0
