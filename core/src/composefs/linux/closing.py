"""What is closed when its ``with`` block ends."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Self

__all__ = ["Closing", "Descriptor", "close_inherited"]


class Closing(ABC):
    """A context manager that is entered as itself, and closed when its block ends, however it ends."""

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


def close_inherited() -> None:
    """Close the descriptors that this process has inherited, except standard input, output and error.

    They are those that it would hand on in turn, as nothing that Python opens is.  Without /proc they stay open.
    """
    with suppress(FileNotFoundError):
        for fd in map(int, os.listdir("/proc/self/fd")):
            with suppress(OSError):  # the list has its own, which is closed
                if fd > 2 and os.get_inheritable(fd):
                    os.close(fd)
