"""The order in which GLib's GVariantDict gives its keys back, on which the ids of bootable commits depend.

``ostree commit --bootable`` puts all metadata of a commit into such a dictionary, and writes them as they come out.  It
is a hash table (GHashTable), and its order that of the slots (GLib 2.84, by experiment):

* There are 8 slots at first.
* A key's own slot is its hash times 11, in 32 bits, modulo the largest prime below the number of slots.  If that is
  taken, it is the slot 1 further, then 2 further than that, then 3 and so on, round the end.
* When there are no more slots than keys and a sixteenth of them (rounded down), the table grows, to the next power of
  two above 1.333 times the keys.
* Then all keys are moved, beginning at the first slot, each to where none was moved yet; a key that is still there
  makes room, and is moved next.

The hash is Bernstein's, times 33 plus the byte, of the bytes as signed numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["dict_order"]

_SLOTS = 8
_SPREAD = 11
_WORD = 1 << 32


def dict_order(keys: Iterable[str]) -> list[str]:
    """Return different keys, given in the order in which they are put into the dictionary, in its own."""
    table = _Table([None] * _SLOTS)
    for count, key in enumerate(keys, 1):
        table.put(key)
        if len(table.slots) <= count + count // 16:
            table = table.grown(1 << int(count * 1.333).bit_length())
    return [key for key in table.slots if key is not None]


class _Table:
    """Slots with the keys in them, some of which may still have to be moved."""

    def __init__(self, slots: list[str | None]) -> None:
        self.slots = slots
        self._taken: set[int] = set()
        self._prime = _prime_below(len(slots))

    def put(self, key: str) -> str | None:
        """Put a key where it belongs; return what has to make room for it."""
        slot = _hash(key) * _SPREAD % _WORD % self._prime
        step = 0
        while slot in self._taken:
            step += 1
            slot = (slot + step) % len(self.slots)
        self._taken.add(slot)
        before, self.slots[slot] = self.slots[slot], key
        return before

    def grown(self, size: int) -> _Table:
        """Return the table with more slots."""
        grown = _Table(self.slots + [None] * (size - len(self.slots)))
        for slot in range(len(self.slots)):
            if slot not in grown._taken:
                key, grown.slots[slot] = grown.slots[slot], None
                while key is not None:
                    key = grown.put(key)
        return grown


def _hash(key: str) -> int:
    value = 5381
    for byte in key.encode():
        value = (value * 33 + (byte - 256 if byte > 127 else byte)) % _WORD
    return max(value, 2)  # smaller ones would be taken for marks of empty slots


def _prime_below(size: int) -> int:
    return next(number for number in range(size - 1, 1, -1) if all(number % each for each in range(2, number)))
