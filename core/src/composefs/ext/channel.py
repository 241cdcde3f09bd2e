"""Messages in and out of an extension's pipes, without ever blocking.

Incoming lines are parsed as they arrive and wait in the inbox; outgoing lines wait in the outbox.  Both are bounded:
while either is full nothing more is read, so that the pipe fills up and the extension waits (P-8).  The core never
waits for the extension to read while it has something to read itself.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from math import inf

from composefs.errors import ProtocolError, TooLargeError, UsageError
from composefs.ext.trace import redact
from composefs.observe import Observers
from composefs.protocol.errors import to_wire
from composefs.protocol.limits import Limits
from composefs.protocol.wire import LineReader, Message, decode, encode

__all__ = ["Channel"]

_READ_SIZE = 1 << 16  # above 128 KiB, malloc maps the buffer of every read anew, which costs 40 µs
_OUTBOX_BYTES = 1 << 20


class Channel:
    """The two non-blocking descriptors ``read_fd`` and ``write_fd``, which stay the caller's."""

    def __init__(self, read_fd: int, write_fd: int, limits: Limits, observer: Observers) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._limits = limits
        self._observer = observer
        self._tracing = observer.tracing
        self._reader = LineReader(limits.line)
        self._inbox: deque[tuple[Message, int]] = deque()
        self._inbox_bytes = 0
        self._calls_waiting = 0
        self._outbox: deque[tuple[bytes, bool]] = deque()
        self._outbox_bytes = 0
        self._answers_waiting = 0
        self.ended = False
        self._broken = False

    @property
    def wants_read(self) -> bool:
        """Whether there is room for more."""
        return not self.ended and self._inbox_bytes < self._limits.line and self._outbox_bytes < _OUTBOX_BYTES

    @property
    def wants_write(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._outbox)

    @property
    def has_message(self) -> bool:
        """Whether a message waits and there is room for its answer."""
        return bool(self._inbox) and self._outbox_bytes < _OUTBOX_BYTES

    def read(self) -> bool:
        """Read once; say whether anything came.  Sets ``ended`` at the end of the stream.  Raises ProtocolError."""
        try:
            data = os.read(self._read_fd, _READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            self.ended = True
            return False
        for line in self._lines_of(data):
            if self._tracing:
                self._observer.trace("<-", redact(line))
            message = decode(line)
            self._inbox.append((message, len(line)))
            self._inbox_bytes += len(line)
            self._calls_waiting += "method" in message and "id" in message
            # Counted at arrival, while all before it are unanswered: a caller that keeps to the window never gets here.
            if self._calls_waiting + self._answers_waiting > self._limits.unanswered:
                raise ProtocolError(
                    f"more than {self._limits.unanswered} calls are unanswered", hint="wait for answers before calling"
                )
        return True

    def _lines_of(self, data: bytes) -> list[bytes]:
        """Return the lines that end in what was read; the conformance kit overrides this to look at them."""
        return self._reader.feed(data)

    def look(self) -> float:
        """Return the seconds until this is to be called again: never; the conformance kit looks on by this."""
        return inf

    def discard(self) -> None:
        """Read once and forget it, when nothing that may still come matters."""
        with suppress(BlockingIOError):
            self.ended = not os.read(self._read_fd, _READ_SIZE)

    def next_message(self) -> Message:
        """Take the message that came first."""
        message, size = self._inbox.popleft()
        self._inbox_bytes -= size
        self._calls_waiting -= "method" in message and "id" in message
        return message

    def send(self, message: Message, *, answer: bool = False) -> None:
        """Queue a message; ``answer`` counts it towards the window until it is written.

        An answer that is too long becomes an error.  Of what the core asks, only ``run`` can be: UsageError.
        """
        if self._broken:
            return
        line = encode(message)
        if len(line) > self._limits.line:
            if not answer:
                raise UsageError(
                    f"the command's arguments take more than the {self._limits.line} bytes of a message",
                    hint="give fewer or shorter ones",
                )
            error = TooLargeError(
                "the answer does not fit in a message", hint="name a staged file for each list, with its name and _into"
            )
            line = encode({"jsonrpc": "2.0", "id": message["id"], "error": to_wire(error)})
        if self._tracing:
            self._observer.trace("->", redact(line))
        self._outbox.append((line, answer))
        self._outbox_bytes += len(line)
        self._answers_waiting += answer

    def abandon_output(self) -> None:
        """Forget what waits to be written, and all that would: nobody reads it any more."""
        self._broken = True
        self._outbox.clear()
        self._outbox_bytes = 0
        self._answers_waiting = 0

    def write(self) -> None:
        """Write what the pipe takes now."""
        while self._outbox:
            line, answer = self._outbox[0]
            try:
                count = os.write(self._write_fd, line)
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.abandon_output()
                return
            self._outbox_bytes -= count
            if count < len(line):
                self._outbox[0] = (line[count:], answer)
                return
            self._outbox.popleft()
            self._answers_waiting -= answer
