"""Text for people: tables, sizes, and names that strangers gave.

The core takes out of all output what a terminal would obey; here a stranger's name is kept from looking like a line of
ours.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["counted", "human_bytes", "printable", "table"]

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def printable(text: str) -> str:
    """Return text that is one line, with U+FFFD for each character that does not print."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "\ufffd" for each in text)


def counted(number: int, noun: str) -> str:
    """Return how many there are of what a regular noun names, ``1 file`` or ``2 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def human_bytes(size: int) -> str:
    """Return bytes in the largest unit of which there is one, ``12 B`` or ``12.34 MiB``."""
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, len(_UNITS))
    return f"{size / 1024**power:.2f} {_UNITS[power - 1]}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return lines with aligned columns, two spaces between them; cells may come from strangers."""
    cells = [head, *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
    return "".join(f"{line}\n" for line in lines)
