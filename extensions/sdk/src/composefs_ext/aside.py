"""What may block for long, done in a thread, while the core is listened to.

    aside = Aside(core)
    with open_source(aside.tell) as source:
        tags = aside.run(source.tags)

So an extension ends at once when the user interrupts it, whatever it waits for: a name to be found, a connection, a
silent server, or the time to try again; and, by :func:`open_aside`, for who writes into a named pipe.
"""

from __future__ import annotations

import io
import os
from collections import deque
from threading import Thread

from composefs_ext.workers import wait_for_any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    from composefs_ext.core import Core

    P = ParamSpec("P")
    T = TypeVar("T")

__all__ = ["Aside", "open_aside"]

_MOST_HEARD = 4096
_BUFFER = 128 << 10


def open_aside(core: Core, path: str) -> io.BufferedReader:
    """Open a file of any kind for reading; the core is listened to while nothing comes: not to be read in a thread.

    Opening waits for nothing but leases, fcntl(2): reading a named pipe that nobody has opened does.  Raises OSError;
    reading raises CancelledError as soon as the core cancels.
    """
    return io.BufferedReader(_Listening(core, path), _BUFFER)


class _Listening(io.FileIO):
    def __init__(self, core: Core, path: str) -> None:
        super().__init__(path, opener=_open_at_once)
        self._core = core

    def read(self, size: int | None = -1, /) -> Any:
        return io.RawIOBase.read(self, -1 if size is None else size)  # FileIO's does not go by readinto

    def readall(self) -> Any:
        return io.RawIOBase.readall(self)

    def readinto(self, buffer: Any, /) -> int:
        while True:
            ready = wait_for_any(self._core, [self])
            if ready and (size := super().readinto(buffer)) is not None:  # None: somebody else was faster
                return size


def _open_at_once(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NONBLOCK)
    except BlockingIOError:  # a file server has a lease on it, which it gives up for who waits: fcntl(2)
        return os.open(path, flags)


class Aside:
    """Runs functions in a thread, one at a time; they have no part in the conversation with the core."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lines: deque[str] = deque()
        self._come = self._more = -1  # the ends of a pipe: a byte for each line, and no more when the thread has ended

    def fileno(self) -> int:
        """The descriptor that is readable when the thread has said something, or has ended."""
        return self._come

    def tell(self, line: str) -> None:
        """Have a warning logged, in a thread at once, else with the next run."""
        self._lines.append(line)
        if self._more >= 0:
            os.write(self._more, b"\0")

    def run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Return what the function returns, or raise what it raises.

        Raises CancelledError as soon as the core cancels; the thread then stays where it is, and ends with the process.
        """
        results: list[T] = []
        errors: list[BaseException] = []
        self._come, more = os.pipe()
        self._more = more

        def work() -> None:
            try:
                results.append(function(*arguments, **options))
            except BaseException as error:  # noqa: BLE001  it is raised where the function was called
                errors.append(error)
            os.close(more)

        thread = Thread(target=work, daemon=True)
        try:
            thread.start()
            while self._goes_on():
                pass
        finally:
            self._more = -1
            os.close(self._come)
        thread.join()  # worker processes may be forked after this
        if errors:
            raise errors[0]
        return results[0]

    def _goes_on(self) -> bool:
        """Wait for the core or the thread, log what that has said, and tell whether it goes on."""
        if not wait_for_any(self._core, [self]):
            return True
        heard = os.read(self._come, _MOST_HEARD)
        while self._lines:
            self._core.log("warning", self._lines.popleft())
        return heard != b""
