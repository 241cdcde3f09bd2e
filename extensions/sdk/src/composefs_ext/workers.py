"""Worker processes of an extension, for work that one processor cannot do in the time.

    def serve(channel):                            # in the worker
        while (job := channel.wait()) is not None:
            channel.send(work(job))

    worker = WorkerProcess(serve, core.staging.path)
    worker.send(job)
    for worker in wait_for_any(core, workers):     # in the process that made them
        for message in worker.messages(): ...

Where the time goes into hashing, which threads can do at a time, :func:`in_threads` is simpler.

Messages are what ``marshal`` knows: numbers, strings, bytes, lists, tuples, dictionaries.  A worker is forked, so
fork it before there are threads; it has no part in the conversation with the core, and ends with the process that made
it.  Contents of files are best not sent: let the worker stage them, and tell their names.
"""

from __future__ import annotations

import gc
import marshal
import os
import select
import sys

from composefs_ext.errors import MORE_PROCESSES, ExtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import Any, Protocol, TypeVar

    from composefs_ext.core import Core

    T = TypeVar("T")
    R = TypeVar("R")

    class Speaking(Protocol):
        """Something that may have something to say: a worker, or a thread."""

        def fileno(self) -> int:
            """Return the descriptor that is readable then."""

    W = TypeVar("W", bound=Speaking)
else:
    import _signal as signal  # as in extension.py

__all__ = ["Channel", "WorkerProcess", "available_cores", "end_all", "in_threads", "wait_for_any"]

_RECEIVE_SIZE = 64 << 10
_LENGTH = 4
_AHEAD = 1000
"""Items that wait for a thread: a large one does not leave the other threads idle soon."""


def available_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def in_threads(core: Core, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Yield each item and what the function returns for it, in their order, with a thread for each processor.

    Items are taken as they are needed: a million that wait would have 2 KB each.  The core is listened to meanwhile,
    because it may cancel; what was not begun then never is.
    """
    from collections import deque
    from concurrent.futures import ThreadPoolExecutor
    from itertools import islice

    rest = iter(items)
    with ThreadPoolExecutor(available_cores()) as pool:
        try:
            begun = deque((item, pool.submit(function, item)) for item in islice(rest, _AHEAD))
            while begun:
                item, future = begun.popleft()
                result = future.result()
                core.pump(0)
                begun.extend((each, pool.submit(function, each)) for each in islice(rest, 1))
                yield item, result
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class Channel:
    """One end of the socket between two processes: marshalled messages, each behind its length in four bytes."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = bytearray()
        self._messages: list[Any] = []

    def fileno(self) -> int:
        """The descriptor that is readable when something has come."""
        return self._end.fileno()

    def send(self, message: Any) -> None:
        """Send a message; waits while the other side does not read.  Raises OSError if it has gone."""
        data = marshal.dumps(message)
        self._end.sendall(len(data).to_bytes(_LENGTH, "little") + data)

    def receive(self) -> list[Any] | None:
        """Read once, waiting if there is nothing; return the messages that are complete, None at the end."""
        try:
            data = self._end.recv(_RECEIVE_SIZE)
        except ConnectionResetError:  # it died without reading everything
            return None
        if not data:
            return None
        rest = self._rest
        rest += data
        messages = []
        start = 0
        while len(rest) - start >= _LENGTH:
            end = start + _LENGTH + int.from_bytes(rest[start : start + _LENGTH], "little")
            if len(rest) < end:
                break
            messages.append(marshal.loads(memoryview(rest)[start + _LENGTH : end]))  # noqa: S302  our own process's
            start = end
        del rest[:start]
        return messages

    def wait(self) -> Any:
        """Return the next message, waiting for it; None at the end.  Not to be mixed with ``receive``."""
        while not self._messages:
            messages = self.receive()
            if messages is None:
                return None
            self._messages = messages
        return self._messages.pop(0)

    def close(self) -> None:
        """Close this end, which the other side sees."""
        self._end.close()


class WorkerProcess:
    """A forked process that runs ``serve`` with its end of a channel, in a directory, given by path or descriptor.

    Raises ExtError where no more processes may be started.
    """

    def __init__(self, serve: Callable[[Channel], None], directory: str | int) -> None:
        import socket  # here, as it costs the start of a command that needs no worker 2 ms

        ours, theirs = socket.socketpair()
        sys.stderr.flush()
        try:
            self._pid = os.fork()
        except BlockingIOError as error:
            raise ExtError(f"a worker process cannot be started: {error.strerror}", hint=MORE_PROCESSES) from None
        if self._pid == 0:
            _run(theirs, directory, serve)
        theirs.close()
        self._channel = Channel(ours)

    def fileno(self) -> int:
        """The descriptor that is readable when messages have come."""
        return self._channel.fileno()

    def send(self, message: Any) -> None:
        """Send a message.  Raises ExtError if the worker died."""
        try:
            self._channel.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None

    def messages(self) -> list[Any]:
        """Return the messages that have come.  Raises ExtError if the worker died."""
        messages = self._channel.receive()
        if messages is None:
            raise self._died()
        return messages

    def kill(self) -> None:
        """Kill the process, which has nothing that anybody needs; ``end`` is still to be called."""
        self._channel.close()
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the process, and wait until it is gone."""
        self.kill()
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0

    def _died(self) -> ExtError:
        status = 0
        if self._pid:
            _, status = os.waitpid(self._pid, 0)
            self._pid = 0
        return ExtError(
            f"a worker process ended early (exit status {os.waitstatus_to_exitcode(status)})",
            hint="see whether the system ran out of memory; the same command goes on where this one stopped",
        )


def end_all(workers: Collection[WorkerProcess]) -> None:
    """End processes, all at the same time: until the memory of one is free again takes some milliseconds."""
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.end()


def wait_for_any(core: Core, workers: Iterable[W], timeout: float | None = None) -> list[W]:
    """Wait up to ``timeout`` seconds (None: for ever) until the core or a worker has something to say.

    Handles what the core has said; returns the workers that have messages.
    """
    by_fd = {worker.fileno(): worker for worker in workers}
    poll = select.poll()
    for fd in (core.fileno(), *by_fd):
        poll.register(fd, select.POLLIN)
    ready = [fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)]
    if core.fileno() in ready:
        core.pump(0)
    return [by_fd[fd] for fd in ready if fd in by_fd]


def _run(end: socket.socket, directory: str | int, serve: Callable[[Channel], None]) -> None:
    """Run ``serve`` in the forked process."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that made us is told and ends us
        gc.disable()
        os.chdir(directory)
        os.closerange(3, end.fileno())
        os.closerange(end.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        serve(Channel(end))
        status = 0
    except OSError:
        pass  # the other side has gone
    finally:
        os._exit(status)
