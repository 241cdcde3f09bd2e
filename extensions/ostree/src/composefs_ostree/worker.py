"""Worker processes: fetching, inflating, hashing and staging of content, one process a core.

Nothing but ids goes down to a worker and nothing but rows comes up; bodies never cross between processes, which is what
makes two of them twice as fast as one.  What is done with an id is up to :class:`composefs_ostree.files.Files`.

Messages both ways are marshalled objects behind a 4-byte length: down, a string of 32-byte file ids; up, a list of
rows as :mod:`composefs_ostree.content` makes them, or a pair (file id, error as on the wire) for a file that failed.
"""

from __future__ import annotations

import gc
import marshal
import os
import signal
import socket
import sys

from composefs_ext.errors import ExtError, from_wire
from composefs_ostree.names import ID_SIZE
from composefs_ostree.transport import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from composefs_ostree.content import Row
    from composefs_ostree.files import Files

__all__ = ["HANDOVER", "Worker", "available_cores"]

HANDOVER = 32
"""Ids in one message.  A worker has at most two of these, so that the next one is there when it comes to it."""

_ROWS_BYTES = 4 << 20
_LAST_FEW = 8
_RECEIVE_SIZE = 64 << 10
_LENGTH = 4


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


class _Channel:
    """One end of the socket between the coordinator and a worker."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = b""

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: Any) -> None:
        data = marshal.dumps(message)
        self._end.sendall(len(data).to_bytes(_LENGTH, "little") + data)

    def receive(self) -> list[Any] | None:
        """Read what is there; return the messages that are complete, None at the end of the conversation."""
        try:
            data = self._end.recv(_RECEIVE_SIZE)
        except ConnectionResetError:  # it died without reading everything
            return None
        if not data:
            return None
        self._rest += data
        messages = []
        while len(self._rest) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._rest[:_LENGTH], "little")
            if len(self._rest) < end:
                break
            messages.append(marshal.loads(self._rest[_LENGTH:end]))  # noqa: S302  written by our own process
            self._rest = self._rest[end:]
        return messages

    def close(self) -> None:
        self._end.close()


class Worker:
    """The coordinator's view of one worker process, which it forks.

    ``outstanding`` counts the ids that it has and whose rows have not come back, ``failure`` is the error of the first
    file that failed.
    """

    def __init__(self, number: int, make_files: Callable[[], Files], staging: str) -> None:
        ours, theirs = socket.socketpair()
        self.outstanding = 0
        self.failure: ExtError | None = None
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _become_worker(theirs, staging, lambda channel: _serve(channel, make_files(), f"w{number}"))
        theirs.close()
        self._channel = _Channel(ours)

    def fileno(self) -> int:
        """The descriptor that is readable when rows have come."""
        return self._channel.fileno()

    def deal(self, ids: list[bytes]) -> None:
        """Hand over files to fetch, at most HANDOVER of them."""
        self.outstanding += len(ids)
        try:
            self._channel.send(b"".join(ids))
        except BrokenPipeError:
            raise self._died() from None

    def rows(self) -> list[Row]:
        """Return the rows that have come; those of failed files only count, and set ``failure``."""
        messages = self._channel.receive()
        if messages is None:
            raise self._died()
        rows: list[Row] = []
        for row in (row for message in messages for row in message):
            self.outstanding -= 1
            if len(row) != 2:
                rows.append(row)
            elif self.failure is None:
                self.failure = from_wire(row[1])
        return rows

    def _died(self) -> ExtError:
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return ExtError(
            f"a worker process of the pull ended early (exit status {os.waitstatus_to_exitcode(status)})",
            hint="see whether the system ran out of memory; the same command goes on where this one stopped",
        )

    def end(self) -> None:
        """End the process: it has nothing that anybody needs."""
        self._channel.close()
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0


def _become_worker(end: socket.socket, staging: str, serve: Callable[[_Channel], None]) -> None:
    """Run ``serve`` in the forked process, which has no part in the conversation of the process it came from."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator is told and ends us
        gc.disable()
        os.chdir(staging)
        os.closerange(3, end.fileno())
        os.closerange(end.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        serve(_Channel(end))
        status = 0
    except OSError:
        pass  # the coordinator has gone
    finally:
        os._exit(status)


def _serve(channel: _Channel, files: Files, prefix: str) -> None:
    """Work until the coordinator closes the channel."""
    started = ended = 0
    rows: list[Any] = []
    size = 0
    while True:
        for _ in wait(files, [channel.fileno()]):
            messages = channel.receive()
            if messages is None:
                return
            for ids in messages:
                for start in range(0, len(ids), ID_SIZE):
                    started += 1
                    files.start(ids[start : start + ID_SIZE], f"{prefix}-{started}")
        for row in files.step():
            ended += 1
            rows.append(row)
            size += len(row[1])
        # Rows go up in lots while there is more to do, and at once when only the last few are under way.
        if rows and (len(rows) >= HANDOVER or size >= _ROWS_BYTES or started - ended <= _LAST_FEW):
            channel.send(rows)
            rows = []
            size = 0
