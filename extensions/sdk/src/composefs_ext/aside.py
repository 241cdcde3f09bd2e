"""What may block for long, done in a thread, while the core is listened to.

    aside = Aside(core)
    with open_source(aside.tell) as source:
        tags = aside.run(source.tags)

So an extension ends at once when the user interrupts it, whatever it waits for: a name to be found, a connection, a
silent server, or the time to try again.
"""

from __future__ import annotations

import os
from collections import deque
from threading import Thread

from composefs_ext.workers import wait_for_any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    from composefs_ext.core import Core

    P = ParamSpec("P")
    T = TypeVar("T")

__all__ = ["Aside"]


class Aside:
    """Runs functions in a thread, one at a time; they have no part in the conversation with the core."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lines: deque[str | None] = deque()
        self._come, self._more = os.pipe()  # a byte for each line

    def fileno(self) -> int:
        """The descriptor that is readable when the thread has said something."""
        return self._come

    def tell(self, line: str) -> None:
        """Have a warning logged; for what runs in the thread."""
        self._say(line)

    def run(self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Return what the function returns, or raise what it raises.

        Raises CancelledError as soon as the core cancels; the thread then stays where it is, and ends with the process.
        """
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                results.append(function(*arguments, **options))
            except BaseException as error:  # noqa: BLE001  it is raised where the function was called
                errors.append(error)
            self._say(None)

        thread = Thread(target=work, daemon=True)
        thread.start()
        while (line := self._heard()) is not None:
            self._core.log("warning", line)
        thread.join()  # worker processes may be forked after this
        if errors:
            raise errors[0]
        return results[0]

    def _say(self, line: str | None) -> None:
        """Hand over a line; None is the end."""
        self._lines.append(line)
        os.write(self._more, b"\0")

    def _heard(self) -> str | None:
        """Wait for the next line."""
        while not wait_for_any(self._core, [self]):
            pass
        os.read(self._come, 1)
        return self._lines.popleft()
