"""``ostree.sizes``: what a commit's metadata says of the sizes of its objects.

An array of byte strings, one for each object: its id, its stored and its plain size as variable-length integers of
seven bits a byte, the lowest first, and the object's type, which older commits lack.  Flatpak's commits have it.

Nothing holds the sizes to the truth, so they only tell what to fetch first and how much there is to come.

Format: libostree, ``ostree commit --generate-sizes``.
"""

from __future__ import annotations

from composefs_ostree.formats.names import ID_SIZE, ObjectType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from composefs_ostree.formats.objects import Commit

__all__ = ["FileSizes"]

_KEY = "ostree.sizes"
_MAX_ENTRY = ID_SIZE + 2 * 10 + 1
_MAX_SIZE = 1 << 48


class FileSizes:
    """The sizes of a commit's content objects, of which each is read when it is asked for."""

    def __init__(self, commit: Commit, told: Mapping[bytes, int]) -> None:
        """What is ``told`` elsewhere comes first; if the commit tells none, or nonsense, there are no others."""
        self._told = told
        value = commit.metadata.get(_KEY)
        listed = value.value if value is not None and value.signature == "aay" else ()
        # Reading all of a Flatpak runtime's would take 30 ms, ten times as long as this.
        self._entries: dict[bytes, bytes] = {entry[:ID_SIZE]: entry for entry in listed}

    def get(self, file_id: bytes) -> int | None:
        """Return the plain size of an object in bytes, None if that is not known."""
        size = self._told.get(file_id)
        if size is None or size > _MAX_SIZE:
            entry = self._entries.get(file_id, b"")
            size = _plain_size(entry) if ID_SIZE < len(entry) <= _MAX_ENTRY else -1
        return size if 0 <= size <= _MAX_SIZE else None


def _plain_size(entry: bytes) -> int:
    """Return the second number behind the id; -1 if it is missing or the object is no file."""
    numbers = entry[ID_SIZE:]
    start = 0
    while start < len(numbers) and numbers[start] & 0x80:
        start += 1
    size = shift = 0
    for position in range(start + 1, len(numbers)):
        byte = numbers[position]
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            rest = numbers[position + 1 :]
            return size if not rest or rest == bytes([ObjectType.FILE]) else -1
        shift += 7
    return -1
