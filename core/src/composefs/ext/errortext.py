"""What an extension writes to standard error: text for people, passed on without control characters, and bounded."""

from __future__ import annotations

import codecs
import os
from contextlib import suppress

from composefs.errors import TooLargeError
from composefs.linux.closing import Closing
from composefs.protocol.errors import printable

__all__ = ["MAX_ERROR_TEXT", "ErrorText"]

MAX_ERROR_TEXT = 1 << 18
"""Bytes in a run."""

_PIECE = 1 << 16


class ErrorText(Closing):
    """Passes on what comes through ``fd``, a pipe that does not block, to the descriptor ``to``, standard error."""

    def __init__(self, fd: int, name: str, to: int) -> None:
        self.fd = fd
        self._to = to
        self.ended = False
        self._name = name
        self._left = MAX_ERROR_TEXT
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def pass_on(self) -> None:
        """Pass on what is there; raise TooLargeError if that is more than anybody reads."""
        while not self.ended:
            try:
                data = os.read(self.fd, _PIECE)
            except BlockingIOError:
                return
            self.ended = not data
            text = self._decoder.decode(data[: self._left], final=self.ended)
            flooded = len(data) > self._left
            self._left -= len(data)
            # Text that is cut off gets an end of line: our own message follows.
            with suppress(OSError):
                os.write(self._to, (printable(text, len(text)) + "\n" * flooded).encode())
            if flooded:
                self.ended = True
                raise TooLargeError(
                    f"extension {self._name} wrote more than {MAX_ERROR_TEXT} bytes to standard error and was killed",
                    subject=self._name,
                )

    def close(self) -> None:
        """Pass on the rest, when nobody is left to write more, and close; for the second time, do nothing."""
        if self.fd < 0:
            return
        with suppress(TooLargeError):
            self.pass_on()
        os.close(self.fd)
        self.fd = -1
