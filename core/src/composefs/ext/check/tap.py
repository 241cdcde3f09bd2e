"""A channel that records and meddles: by it, a run of the kit differs from an ordinary one.

A `Script` says how: more is offered in ``initialize``, the same messages are written in other ways, answers are held
back, a call is refused, or the run cancelled or closed at it.  The core behind the channel serves as always.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import termios
import time
import uuid
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

from composefs.errors import ProtocolError
from composefs.ext.channel import Channel
from composefs.ext.check.fields import LISTINGS
from composefs.ext.check.silence import Silence
from composefs.ext.check.watch import Watch
from composefs.ext.conversation import check_staging
from composefs.ext.launch import Launched
from composefs.ext.patience import STEP
from composefs.observe import Observers
from composefs.protocol import FEATURES, VERSIONS
from composefs.protocol.wire import Message

__all__ = ["Script", "Tap"]

_IDS = {"initialize": 9_007_199_254_740_000, "run": -77}
_VERSIONS = [99, 98]
_FEATURES = ["x-telepathy"]
_STRAY = {
    "x-later": {"text": "später — \u2028 \U0001d11e", "n": 2**53 - 1, "f": -1e-7, "none": None, "deep": [[[[[[{}]]]]]]}
}
_NOTICE = {"jsonrpc": "2.0", "method": "x-notice", "params": {"any": ["thing"]}}
_PIECES = 11
_CONSUMED_WITHIN = 0.05
_QUIET_FOR_MS = 30
_HARMLESS = {"method": "image.digest", "params": {"dump": "core-nothing"}}


class Script(NamedTuple):
    """What a run does otherwise.  Calls are counted from 1; 0 is before the first, −1 before initialize.

    ``only_unknown`` offers nothing but versions of the future, ``bare`` no features, ``ids`` numbers the core's calls
    oddly, ``text`` writes JSON with other blanks, order and escapes, ``pieces`` writes lines in pieces, ``narrow`` has
    the extension write to a pipe that is full after a page, ``stray`` adds unknown fields, ``notice`` sends an unknown
    notification, ``slow`` holds answers back while calls come.  ``refuse`` answers a method, from its first call on,
    with an error of a kind; ``refuse_row`` has the core refuse the first file of the first ``object.put``;
    ``too_large`` answers a listing without ``_into`` so.
    """

    offer: bool = False
    only_unknown: bool = False
    bare: bool = False
    ids: bool = False
    text: bool = False
    pieces: bool = False
    narrow: bool = False
    stray: bool = False
    notice: bool = False
    slow: bool = False
    refuse: tuple[str, str] | None = None
    refuse_row: bool = False
    too_large: bool = False
    cancel_at: int | None = None
    end_at: int | None = None


class Tap(Channel):
    """The channel of one run: ``watch`` is shown everything that passes, ``silence`` says when to wait no longer."""

    def __init__(
        self, launched: Launched, observer: Observers, *, script: Script, watch: Watch, silence: Silence
    ) -> None:
        super().__init__(launched.process.stdout, launched.process.stdin, launched.limits, observer)
        self._script = script
        self._watch = watch
        watch.versions, watch.features = () if script.only_unknown else VERSIONS, () if script.bare else FEATURES
        watch.ids = (_IDS["initialize"], _IDS["run"]) if script.ids else (1, 2)
        self._silence = silence
        self._interrupts = launched.interrupts
        self._answers: dict[int, Message] = {}
        self._served = 0
        self._row_refused = False
        self._concluded = False
        self._owes_answer = False
        self.interfered_at: float | None = None
        self._answered_at: float | None = None
        if script.narrow:
            fcntl.fcntl(self._read_fd, fcntl.F_SETPIPE_SZ, 1)  # a page: the least that there is

    # From the extension

    def read(self) -> bool:
        """Read once; whatever the core finds fatal, and was not explained yet, is too many calls."""
        try:
            return super().read()
        except ProtocolError as error:
            if not self._watch.failed:
                self._watch.find(8, error.message)
            raise

    def _lines_of(self, data: bytes) -> list[bytes]:
        """Cut what was read into lines, look at each, and give our ids back their places."""
        try:
            lines = super()._lines_of(data)
        except ProtocolError as error:
            self._watch.find(2, error.message)
            raise
        self._silence.end()
        return [self._look_at(line) for line in lines]

    def _look_at(self, line: bytes) -> bytes:
        script, ids = self._script, self._watch.ids
        self._watch.received(line)
        if self._watch.answer is not None and self._answered_at is None:
            self._answered_at = time.monotonic()
            self._owes_answer = False
        if script.ids:
            with suppress(ValueError, RecursionError):
                message = json.loads(line)
                if type(message) is dict and "method" not in message and message.get("id") in ids:
                    message["id"] = 1 + ids.index(message["id"])
                    return json.dumps(message).encode()
        return line

    def next_message(self) -> Message:
        """Take the message that came first; interfere where the script says so."""
        message = super().next_message()
        self._concluded = message.get("id") == 2 and "method" not in message
        if "method" not in message or type(message["method"]) is not str:
            return message
        if type(message.get("id")) is int and self._watch.welcomed is not None:
            self._served += 1
            self._interfere(self._served)
        self._watch.serving(message)
        return self._refused(message)

    def look(self) -> float:
        """Interrupt an extension from which nothing is to be expected any more, though it owes the answer to run."""
        if not self._owes_answer:
            return inf
        if self.has_message or (self.wants_read and _unread(self._read_fd)):
            self._silence.end()  # it may be us who keep it waiting
        elif self._silence.lasts():
            # Where looking takes long the core looks seldom: what it would have found later comes before silence.
            check_staging(self._watch.files.directory, self._limits)
            self._owes_answer = False
            unread = _unread(self._write_fd) + self._outbox_bytes
            self._watch.kept_waiting(self._silence, self._reader.pending, unread)
            self._cancel()
        return STEP

    def _interfere(self, at: int) -> None:
        if at == self._script.cancel_at:
            self._cancel()
        elif at == self._script.end_at:
            self._end_input()
            self._cancel()

    def _cancel(self) -> None:
        self.interfered_at = time.monotonic()
        self._watch.refused = True
        self._interrupts.count += 1  # As Ctrl-C does, which may be ignored here: a shell's & has it so in scripts.

    def _end_input(self) -> None:
        self.abandon_output()
        null = os.open(os.devnull, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.dup2(null, self._write_fd, inheritable=False)
        os.close(null)

    def _refused(self, message: Message) -> Message:
        """Return the call as it is to be served: where it is refused, one that does nothing, in its place."""
        script, method, params = self._script, message["method"], message.get("params")
        if type(message.get("id")) is not int or type(params) is not dict:
            return message
        error: Message | None = None
        if script.refuse is not None and method == script.refuse[0]:
            kind = script.refuse[1]
            data = {"kind": kind, "hint": "it is the kit that refuses", **_STRAY}
            error = {"code": -32000, "message": f"{method} is refused for a test: {kind}", "data": data}
        elif script.too_large and method in LISTINGS and f"{LISTINGS[method]}_into" not in params:
            data = {"kind": "too_large", "hint": f"name a staged file with {LISTINGS[method]}_into"}
            error = {"code": -32000, "message": f"{LISTINGS[method]} is too long for a message", "data": data}
        elif script.refuse_row and method == "object.put" and not self._row_refused:
            rows = self._watch.files.lists.get("files")
            if not rows or not self._watch.files.refuse(rows[0]):
                return message
            self._row_refused = True
            self._watch.refused = True
            return {**message, "params": self._with_rows(params, [{**rows[0], "size": 2**52}, *rows[1:]])}
        if error is None:
            return message
        self._watch.refused = True
        self._answers[message["id"]] = error
        return {**message, **_HARMLESS}

    def _with_rows(self, params: Message, rows: list[Message]) -> Message:
        """Return the parameters of an ``object.put`` with other rows; the extension's file of them stays as it is."""
        if "files_file" not in params:
            return {**params, "files": rows}
        name = uuid.uuid4().hex
        with open(os.path.join(self._watch.files.directory, name), "x", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        return {**params, "files_file": name}

    def discard(self) -> None:
        """Read once, when the conversation is over, and look what still comes."""
        with suppress(BlockingIOError):
            data = os.read(self._read_fd, 1 << 16)
            self.ended = not data
            if self._concluded:
                self._watch.after_the_end(data)

    def left_over(self) -> None:
        """Look at what came together with the answer to run, and nobody served."""
        if self._inbox and self._concluded:
            self._watch.after_the_end(b"...")

    def seconds_to_end(self) -> float | None:
        """Return the seconds that the extension has had to end, or None if it was never to."""
        since = self.interfered_at or self._answered_at
        return None if since is None else time.monotonic() - since

    # To the extension

    def send(self, message: Message, *, answer: bool = False) -> None:
        """Send a message as the script wants it written."""
        script, method = self._script, message.get("method")
        if answer and (error := self._answers.pop(message["id"], None)) is not None:
            message = {"jsonrpc": "2.0", "id": message["id"], "error": error}
        if answer:
            self._watch.answered(message)
        if method == "initialize":
            message = self._welcome(message)
        if method in _IDS and script.ids:
            message = {**message, "id": _IDS[method]}
        if script.stray:
            message = self._with_stray(message)
        before = len(self._outbox)
        super().send(message, answer=answer)
        if len(self._outbox) > before:
            self._rewrite()
            self._watch.sent(self._outbox[-1][0])
            self._silence.end()
        if method in ("run", "cancel"):
            self._owes_answer = method == "run"
        if method == "run":
            if script.notice:
                super().send(dict(_NOTICE))
            self._interfere(0)

    def _welcome(self, message: Message) -> Message:
        script, params = self._script, dict(message["params"])
        self._watch.files.directory = params["staging"]
        params["strict"] = script.stray
        if script.offer:
            params["versions"] = [*_VERSIONS, *params["versions"]]
            params["features"] = [*_FEATURES, *params["features"]]
        if script.only_unknown:
            params["versions"] = list(_VERSIONS)
        if script.bare:
            params["features"] = []
        self._interfere(-1)
        return {**message, "params": params}

    def _with_stray(self, message: Message) -> Message:
        message = {**_STRAY, **message}
        for key in ("params", "result"):
            value = message.get(key)
            if type(value) is dict:
                inner = {name: _strayed(each) for name, each in value.items()}
                message[key] = {**inner, **_STRAY}
        return message

    def _rewrite(self) -> None:
        """Write the last line anew, as another JSON library might."""
        if not self._script.text:
            return
        line, answer = self._outbox.pop()
        text = json.dumps(_reversed(json.loads(line)), ensure_ascii=False, separators=(" , ", "\t: "))
        other = text.encode() + b"\n"
        if len(other) > self._limits.line:
            other = line
        self._outbox.append((other, answer))
        self._outbox_bytes += len(other) - len(line)

    def write(self) -> None:
        """Write what the pipe takes, in the script's way."""
        if self._script.slow and self.wants_read and _readable(self._read_fd, _QUIET_FOR_MS):
            return  # it is still calling: let it have no answers for now
        if self._script.pieces and not self._broken and self._outbox:
            self._write_in_pieces()
        super().write()
        self._watch.is_told = self._row_refused and not self._outbox

    def _write_in_pieces(self) -> None:
        line, answer = self._outbox[0]
        size = max(1, len(line) // _PIECES | 1)
        position = 0
        with suppress(BlockingIOError, BrokenPipeError):
            while len(line) - position > size:
                position += os.write(self._write_fd, line[position : position + size])
                _wait_until_read(self._write_fd)
        self._outbox[0] = (line[position:], answer)
        self._outbox_bytes -= position


def _strayed(value: Any) -> Any:
    """Put a stray field into an object of a message, and into the rows of a list."""
    if isinstance(value, list) and value and all(type(row) is dict for row in value):
        return [{**row, **_STRAY} for row in value]
    return value


def _reversed(value: Any) -> Any:
    """Turn the order of all fields around."""
    if isinstance(value, dict):
        return {name: _reversed(value[name]) for name in reversed(value)}
    return [_reversed(each) for each in value] if isinstance(value, list) else value


def _readable(fd: int, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(milliseconds))


def _wait_until_read(fd: int) -> None:
    """Wait until the reader of a pipe has taken what is in it, but not for ever."""
    deadline = time.monotonic() + _CONSUMED_WITHIN
    while time.monotonic() < deadline:
        if not _unread(fd):
            return
        time.sleep(0.0005)


def _unread(fd: int) -> int:
    """Return how many bytes are in a pipe."""
    (waiting,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))
    return int(waiting)
