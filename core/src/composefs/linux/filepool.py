"""Open files, worked on in other processes.

A file is handed over as an open descriptor (unix(7), SCM_RIGHTS), so what was checked when it
was opened still holds in the process that reads it.

All processes take from one socket, whose messages are whole and go to whoever is free, and answer into another one:

    task     u64 number, with the descriptor
    answer   u64 number, then "+" and the result, or "-" and the error as JSON
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterator

from composefs.errors import ComposefsError, InputOutputError, error_of_kind
from composefs.linux.closing import Closing
from composefs.linux.forks import Forks
from composefs.systemerrors import LOST_PROCESS, Doing, not_started

__all__ = ["IN_FLIGHT", "FilePool"]

IN_FLIGHT = 128
"""Files handed over and not answered; fewer than either socket holds, so that neither side waits for the other."""

_STARTING = "starting a process to read files"
_LOOK_EVERY = 0.25
"""Seconds between two looks whether a process has ended."""
_NUMBER = 8
_MAX_ANSWER = 1 << 16
_MAX_TEXT = 1024
"""Characters of each text of an error, of at most 12 bytes in JSON, so that all three fit in an answer."""


class FilePool(Closing):
    """Processes that call ``work`` with an open file and send back the bytes it returns; leaving the context ends them.

    :meth:`answers` has in the place of a result what ``work`` raised, if that is a ComposefsError or an OSError.
    """

    def __init__(self, work: Callable[[int], bytes]) -> None:
        self._work = work
        self._forks = Forks()
        self._last = 0
        self._next_look = 0.0
        self.unanswered = 0
        with Doing(_STARTING):
            self._tasks, self._their_tasks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._answers, self._their_answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)

    def start(self, count: int) -> None:
        """Start ``count`` processes, copies of this one; once, and within the context, so that a signal leaves none."""
        with Doing(_STARTING, not_started), self._their_tasks, self._their_answers:
            self._forks.start(count, self._serve)

    def submit(self, fd: int) -> int | None:
        """Hand over an open file, which stays the caller's to close; return its number.  At most IN_FLIGHT are out.

        None if it cannot be handed over now: of an unprivileged user, no more files may be on their way, in all
        processes together, than one process may have open (unix(7), ETOOMANYREFS).
        """
        try:
            socket.send_fds(self._tasks, [(self._last + 1).to_bytes(_NUMBER, "little")], [fd])
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                raise
            return None
        self._last += 1
        self.unanswered += 1
        return self._last

    def answers(self, at_most: int) -> Iterator[tuple[int, bytes | ComposefsError | OSError]]:
        """Yield (number, result or error) of each finished file; wait while more than ``at_most`` are unanswered."""
        while self.unanswered:
            try:
                # One that was killed answers no more, and the others keep the socket open.
                answer = b"" if self._any_ended() else self._answers.recv(_MAX_ANSWER, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if self.unanswered <= at_most:
                    return
                self._poll.poll(_LOOK_EVERY * 1000)
                continue
            if not answer:
                raise InputOutputError("a process that reads files ended early", hint=LOST_PROCESS)
            self.unanswered -= 1
            number, result = int.from_bytes(answer[:_NUMBER], "little"), answer[_NUMBER + 1 :]
            yield number, result if answer[_NUMBER:].startswith(b"+") else _error(result)

    def _any_ended(self) -> bool:
        """Look, now and then, whether a process has ended."""
        if (now := time.monotonic()) < self._next_look:
            return False
        self._next_look = now + _LOOK_EVERY
        return self._forks.any_ended()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        self._forks.close()
        self._tasks.close()
        self._answers.close()

    def _serve(self) -> None:
        """Be one of the processes, until there are no more tasks."""
        self._tasks.close()
        self._answers.close()
        while True:
            number, fds, _, _ = socket.recv_fds(self._their_tasks, _NUMBER, 1)
            if not number:
                return
            try:
                answer = b"+" + self._work(fds[0])
            except (ComposefsError, OSError) as error:
                answer = b"-" + _described(error)
            os.close(fds[0])
            self._their_answers.send(number + answer)


def _described(error: ComposefsError | OSError) -> bytes:
    import json

    if isinstance(error, OSError):
        return json.dumps({"errno": error.errno}).encode()
    texts = {"message": error.message, "hint": error.hint, "subject": error.subject}
    return json.dumps({"kind": error.kind} | {key: text and text[:_MAX_TEXT] for key, text in texts.items()}).encode()


def _error(described: bytes) -> ComposefsError | OSError:
    import json

    fields = json.loads(described)
    if "errno" in fields:
        return OSError(fields["errno"], os.strerror(fields["errno"] or 0))
    return error_of_kind(fields["kind"])(fields["message"], hint=fields["hint"], subject=fields["subject"])
