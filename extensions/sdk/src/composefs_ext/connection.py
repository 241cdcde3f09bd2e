"""The conversation with the core: calls that need not wait for each other, and answers in the order of the calls.

``Connection.send`` returns a :class:`Pending` at once; ``Pending.result`` waits.  Sending never deadlocks: while the
pipe to the core is full, answers are read, and when the core's limit of unanswered calls is reached, ``send`` waits for
the oldest one.  One thread owns a connection.

An extension with a select loop of its own watches ``fileno()`` for reading and calls ``pump()`` when it is readable.
``pump`` handles every complete line that has arrived, so nothing stays behind in a buffer that select cannot see.
"""

from __future__ import annotations

import os
import select
from collections import deque

from composefs_ext.errors import (
    CancelledError,
    CoreGoneError,
    NotFoundError,
    ProtocolError,
    UnsupportedError,
    from_wire,
    to_wire,
)
from composefs_ext.protocol import UNANSWERED
from composefs_ext.wire import LineBuffer, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Generic, TypeVar

    T = TypeVar("T")

    class _Generic(Generic[T]):
        pass
else:
    # Importing typing would be a twentieth of the start-up of an extension that has nothing to do.
    T = None

    class _Generic:
        __slots__ = ()
        __class_getitem__ = classmethod(lambda cls, _: cls)


__all__ = ["Connection", "Pending"]

_READ_SIZE = 1 << 16  # above 128 KiB, malloc maps the buffer of every read anew, which costs 40 µs


def _identity(result: dict[str, Any]) -> Any:
    return result


class Pending(_Generic[T]):
    """A call that was sent.  ``done`` tells whether the answer is here; ``result()`` waits for it and returns it."""

    __slots__ = ("_connection", "_decode", "_error", "_id", "_is_optional", "_result", "_staged", "done", "method")

    def __init__(
        self,
        connection: Connection,
        number: int,
        method: str,
        decode: Callable[[dict[str, Any]], T],
        staged: tuple[str, ...],
    ) -> None:
        self.method = method
        self.done = False
        self._connection = connection
        self._id = number
        self._decode = decode
        self._staged = staged
        self._result: dict[str, Any] = {}
        self._error: Any = None
        self._is_optional = False

    def optional(self) -> Pending[T]:
        """Let a failure of this call fail the run only if somebody asks for the result; return itself."""
        self._is_optional = True
        self._connection.unseen.pop(self._id, None)
        return self

    def result(self) -> T:
        """Wait for the answer; return it, or raise the error that the core answered with."""
        while not self.done:
            self._connection.pump(None)
        self._connection.unseen.pop(self._id, None)
        if self._error is not None:
            raise from_wire(self._error)  # made anew: one that was raised holds on to everything it has passed
        return self._decode(self._result)

    def found(self) -> T | None:
        """Wait for the answer as :meth:`result` does, but return None where what was asked for is not there."""
        try:
            return self.result()
        except NotFoundError:
            return None

    def _answer(self, message: dict[str, Any]) -> None:
        for path in self._staged:  # lists that this SDK staged for the call; the core has read them
            try:
                os.unlink(path)
            except OSError:  # staging goes away with the run
                continue
        self.done = True
        if "error" in message:
            self._error = message["error"]
            if not self._is_optional:
                self._connection.unseen[self._id] = from_wire(self._error)
            return
        result = message.get("result")
        if not isinstance(result, dict):
            raise ProtocolError(f"{self.method}: the core's answer has neither a result object nor an error")
        self._result = result


class Connection:
    """JSON-RPC over two descriptors, which it makes non-blocking and does not close.

    ``requests`` holds the core's own calls (``initialize``, ``run``) that nobody has taken yet, ``unseen`` the errors
    of calls whose result nobody has asked for, by call number, ``cancelled`` becomes true when the core says so.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._readable = select.poll()
        self._readable.register(read_fd, select.POLLIN)
        self._either = select.poll()
        self._either.register(read_fd, select.POLLIN)
        self._either.register(write_fd, select.POLLOUT)
        self._lines = LineBuffer()
        self._waiting: deque[Pending[Any]] = deque()
        self._refusals: list[bytes] = []  # answers to calls that we do not know, for the next write
        self._last_id = 0
        self._writing = False
        self._cancel_raised = False
        self.unanswered = UNANSWERED
        self.stray_field = False  # in strict mode: send a field that the core must ignore
        self.requests: deque[dict[str, Any]] = deque()
        self.unseen: dict[int, BaseException] = {}
        self.cancelled = False
        self.closed = False

    def fileno(self) -> int:
        """The descriptor to watch for reading in a select loop."""
        return self._read_fd

    def send(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        decode: Callable[[dict[str, Any]], T] = _identity,
        staged: tuple[str, ...] = (),
    ) -> Pending[T]:
        """Send a call and return without waiting for its answer, unless the core's window is full.

        ``decode`` turns the result object into what ``Pending.result`` returns; ``staged`` are paths of files to
        remove once the core has answered.
        """
        while len(self._waiting) >= self.unanswered:
            self.pump(None)
        self._raise_if_cancelled()
        self._last_id += 1
        pending = Pending(self, self._last_id, method, decode, staged)
        line = encode({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": self._stray(params)})
        self._waiting.append(pending)
        self._write(line)
        return pending

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification, which has no answer."""
        self._write(encode({"jsonrpc": "2.0", "method": method, "params": self._stray(params)}))

    def answer(self, request: dict[str, Any], result: dict[str, Any]) -> None:
        """Answer a call of the core."""
        self._write(encode({"jsonrpc": "2.0", "id": request.get("id"), "result": result}))

    def answer_error(self, request: dict[str, Any], error: dict[str, Any]) -> None:
        """Answer a call of the core with an ``error`` member (see ``errors.to_wire``)."""
        self._write(encode({"jsonrpc": "2.0", "id": request.get("id"), "error": error}))

    def pump(self, timeout: float | None = 0.0) -> None:
        """Wait up to ``timeout`` seconds (None: for ever) for input, then handle all that is there.

        Raises CancelledError once when the core cancels, and CoreGoneError when it has closed the conversation.
        """
        self._raise_if_cancelled()
        if self._readable.poll(None if timeout is None else timeout * 1000):
            self._read()
        self._raise_if_cancelled()
        self._flush()

    def cancel(self) -> None:
        """Note that the run is cancelled, and raise that unless a line is half written; for a signal handler."""
        self.cancelled = True
        if not self._writing:
            self._raise_if_cancelled()

    def drain(self) -> None:
        """Wait until every call is answered, then raise the first error whose call nobody asked about."""
        while self._waiting:
            self.pump(None)
        for error in self.unseen.values():
            raise error

    def _stray(self, params: dict[str, Any] | None) -> dict[str, Any]:
        params = params or {}
        return {**params, "x-stray": "ignore me"} if self.stray_field else params

    def _raise_if_cancelled(self) -> None:
        # Once only: what a handler does to clean up may still talk to the core.
        if self.cancelled and not self._cancel_raised:
            self._cancel_raised = True
            raise CancelledError("cancelled")

    def _flush(self) -> None:
        refusals, self._refusals = self._refusals, []
        self._write(b"".join(refusals))

    def _write(self, lines: bytes) -> None:
        self._writing = True
        try:
            rest = memoryview(lines)
            while rest and not self.closed:
                try:
                    rest = rest[os.write(self._write_fd, rest) :]
                except BlockingIOError:
                    self._either.poll()
                    self._read()  # the core may be waiting for us to take its answers before it reads on
                except BrokenPipeError:
                    self.closed = True
        finally:
            self._writing = False
        self._raise_if_cancelled()  # a signal during the write had to wait for its end
        if self.closed:
            raise CoreGoneError("cfsctl has ended the conversation")

    def _read(self) -> None:
        while not self.closed:
            try:
                data = os.read(self._read_fd, _READ_SIZE)
            except BlockingIOError:
                return
            if not data:
                self.closed = True
                return
            for line in self._lines.feed(data):
                self._handle(decode(line))
            if len(data) < _READ_SIZE:
                return

    def _handle(self, message: dict[str, Any]) -> None:
        method = message.get("method")
        if method is None:
            if not self._waiting or message.get("id") != self._waiting[0]._id:
                raise ProtocolError(f"the core answered call {message.get('id')!r}, which is not the oldest one")
            self._waiting.popleft()._answer(message)
        elif method == "cancel":
            self.cancelled = True
        elif method in ("initialize", "run"):
            self.requests.append(message)
        elif "id" in message:
            # Not written here: we may be in the middle of writing another line.
            error = to_wire(UnsupportedError(f"this extension has no method {str(method)[:80]!r}"))
            self._refusals.append(encode({"jsonrpc": "2.0", "id": message["id"], "error": error}))
