"""A conversation with a running extension: agree on a version, serve its calls, take its result.

A single thread waits in poll(2) for whatever comes next: a message, room to write one, the end of the process, a signal
of the user's, or a time that is up.  Calls are served in the order in which they came, one at a time.  While nothing
has come, what serving them takes is imported (composefs.ext.preparation).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from composefs.errors import (
    CancelledError,
    ComposefsError,
    ExtensionError,
    ProtocolError,
    TooLargeError,
    UnsupportedError,
    UsageError,
)
from composefs.ext.channel import Channel
from composefs.ext.context import Context
from composefs.ext.launch import Launched
from composefs.ext.options import Timeouts
from composefs.ext.patience import STEP, Patience
from composefs.ext.preparation import preparations
from composefs.protocol import FEATURES, VERSIONS
from composefs.protocol.errors import METHOD_NOT_FOUND, from_wire, to_wire
from composefs.protocol.params import shown
from composefs.protocol.wire import JSONValue, Message
from composefs.systemerrors import from_os_error

if TYPE_CHECKING:
    from composefs.ext.calls import Call
    from composefs.protocol.limits import Limits

__all__ = ["Conversation", "Gone", "check_staging"]

_INITIALIZE = 1
_RUN = 2
_STAGING_CHECK_SECONDS = 1.0
_STAGING_CHECK_SHARE = 20
"""Staging is looked at about so often, and no more than one part in so many of the time goes into looking."""


class Gone(Exception):  # noqa: N818  # no error by itself: what it means depends on how the process ended
    """The extension closed its side before it gave a result."""


class Conversation:
    """The core's side of a conversation with a running extension."""

    def __init__(self, launched: Launched, channel: Channel, context: Context, timeouts: Timeouts) -> None:
        self._launched = launched
        self._channel = channel
        self._context = context
        self._timeouts = timeouts
        self._preparations = preparations(context)
        self._awaited = _INITIALIZE
        self._dead = False
        self._next_staging_check = time.monotonic() + _STAGING_CHECK_SECONDS
        self._patience = Patience()
        self._signals: list[tuple[float, int]] = []

    def serve(self, welcome: Message) -> Message | ComposefsError:
        """Talk until the extension has answered ``run``; return its result, or the error it answered.

        Raises ProtocolError and other errors that end the session, and Gone.
        """
        self._channel.send(_request(_INITIALIZE, "initialize", welcome))
        self._channel.write()
        while True:
            self._wait(self._check_clock())
            if self._channel.has_message:
                self._patience.now()
                outcome = self._handle(self._channel.next_message())
                self._patience.work_done()
                if outcome is not None:
                    return outcome
            elif self._channel.ended:
                raise Gone
            if self._channel.wants_write:
                self._channel.write()

    def _check_clock(self) -> float:
        """Do what is due, and return the seconds until something else will be."""
        look_again = self._channel.look()
        now, patience = time.monotonic(), self._patience.now()
        if self._launched.interrupts.count and not self._context.cancelled:
            self._cancel(patience)
        if self._awaited == _INITIALIZE and patience >= self._timeouts.initialize:
            raise ExtensionError(
                f"extension {self._context.manifest.name} did not answer initialize in "
                f"{self._timeouts.initialize:g} seconds",
                hint="is it an extension, and does it end each line with a newline, and flush it?",
            )
        if self._signals and patience >= self._signals[0][0]:
            self._launched.process.signal_group(self._signals.pop(0)[1])
        if now >= self._next_staging_check:
            check_staging(f"/proc/self/fd/{self._context.staged.fd}", self._context.limits)
            took = time.monotonic() - now
            self._next_staging_check = now + max(_STAGING_CHECK_SECONDS, _STAGING_CHECK_SHARE * took)
        deadlines = [when for when, _ in self._signals[:1]]
        if self._awaited == _INITIALIZE:
            deadlines.append(self._timeouts.initialize)
        # These are by the clock of patience, which has to be looked at every STEP seconds.
        waits = [min(when - patience, STEP) for when in deadlines]
        return max(0.0, min([look_again, self._next_staging_check - now, *waits]))

    def _cancel(self, patience: float) -> None:
        self._context.cancelled = True
        if self._awaited == _INITIALIZE:
            raise Gone  # nothing runs yet that could be cancelled: the end of input will do
        self._channel.send({"jsonrpc": "2.0", "method": "cancel", "params": {}})
        terminate = patience + self._timeouts.terminate
        self._signals = [(terminate, signal.SIGTERM), (terminate + self._timeouts.kill, signal.SIGKILL)]

    def _wait(self, seconds: float) -> None:
        """Wait for something to do, and read what came; raise Gone when it is dead and left nothing to be read."""
        if self._dead:
            # What it had written before it died still counts, even if something it left behind holds the pipe open.
            if not self._channel.has_message and not self._channel.read():
                raise Gone
            return
        timeout = 0 if self._channel.has_message or self._preparations else seconds
        ready = self._launched.wait(timeout, read=self._channel.wants_read, write=self._channel.wants_write)
        if self._preparations and not ready and not self._channel.has_message:
            self._preparations.pop()()
        if self._launched.process.stdout in ready:
            self._channel.read()
        if self._launched.error_text.fd in ready:
            self._launched.error_text.pass_on()
        if self._launched.process.pidfd in ready:
            self._dead = True
            self._channel.abandon_output()

    def _handle(self, message: Message) -> Message | ComposefsError | None:
        """Serve a call, or take the answer to one of ours; return the outcome of ``run`` if it is that."""
        if message.get("jsonrpc") != "2.0":
            raise ProtocolError('a message lacks "jsonrpc": "2.0"')
        if "method" not in message:
            return self._take_answer(message)
        method = message["method"]
        if type(method) is not str:
            raise ProtocolError("method is not a string")
        if self._awaited == _INITIALIZE:
            raise ProtocolError(f"{method[:100]!r} was called before initialize was answered")
        if "params" not in message:
            raise ProtocolError(f"{method[:100]!r} was sent without params", hint="if there are none, send {}")
        params = message["params"]
        if "id" not in message:
            self._take_notification(method, params)
            return None
        call_id = message["id"]
        if type(call_id) is not int:
            raise ProtocolError(f"the id of a call of {method[:100]!r} is not an integer")
        answer: Message = {"jsonrpc": "2.0", "id": call_id}
        try:
            answer["result"] = self._call(method, params)
        except (ComposefsError, OSError) as error:
            failure = error if isinstance(error, ComposefsError) else from_os_error(error, method)
            answer["error"] = to_wire(failure, code=METHOD_NOT_FOUND if _find(method) is None else None)
            self._log_failure(method, failure)
        self._channel.send(answer, answer=True)
        return None

    def _call(self, method: str, params: JSONValue) -> Message:
        call = _find(method)
        if call is None:
            raise UnsupportedError(f"there is no call {method[:100]!r}", subject=method[:100])
        if self._dead and self._context.cancelled and not call.notification:
            raise CancelledError(f"{method}: nobody is there to read the answer")
        if type(params) is not dict:
            raise UsageError(f"the params of {method} are not an object")
        from composefs.ext.calls import check_allowed

        check_allowed(method, call, self._context)
        return call.function(self._context, params)

    def _take_notification(self, method: str, params: JSONValue) -> None:
        """Serve what needs no answer.  A notification we do not know is ignored; one that must be a call is not."""
        call = _find(method)
        if call is None:
            return
        if not call.notification:
            raise ProtocolError(f"{method} was sent without an id")
        try:
            self._call(method, params)
        except ComposefsError as error:
            # Nobody waits for an answer, but what the user asked for should not be lost behind a good result, nor
            # another message that says nothing without a word.  What went wrong first is told.
            context = self._context
            if method == "output" and isinstance(error, UsageError) and not context.options.json:
                told = f"extension {context.manifest.name} gave output that is none: {error.message}"
                context.unwritten = context.unwritten or ProtocolError(told)
            self._log_failure(method, error)

    def _log_failure(self, method: str, error: ComposefsError) -> None:
        """Say which call it was, which the extension's own error does not when it passes this one on."""
        self._context.observer.log("debug", f"{self._context.manifest.name}: {method[:100]}: {error.message}")

    def _take_answer(self, message: Message) -> Message | ComposefsError | None:
        if message.get("id") != self._awaited or type(message.get("id")) is not int:
            raise ProtocolError(f"an answer has an id that was not asked for: {shown(message.get('id'))}")
        error, result = message.get("error"), message.get("result")
        if error is not None:
            if result is not None:
                raise ProtocolError("an answer has both a result and an error")
            return from_wire(error)
        if type(result) is not dict:
            raise ProtocolError("an answer has neither an error nor an object as result")
        if self._awaited == _RUN:
            return result
        self._take_welcome(result)
        return None

    def _take_welcome(self, result: Message) -> None:
        """Take the answer to ``initialize``, and send ``run``."""
        version = result.get("version")
        if type(version) is not int or version not in VERSIONS:
            picked = "no protocol version" if version is None else f"protocol version {repr(version)[:40]}"
            raise ProtocolError(f"the extension picked {picked}, and on offer are {list(VERSIONS)}")
        features = result.get("features", [])
        if type(features) is not list or not all(feature in FEATURES for feature in features):
            raise ProtocolError("the extension picked a feature that was not offered")
        self._context.features = tuple(features)
        self._awaited = _RUN
        options = self._context.options
        wire: Message = {"verbosity": options.verbosity, "json": options.json, "color": options.color}
        if options.directory is not None:
            wire["directory"] = options.directory
        command, arguments = list(self._context.command.name), self._context.line.arguments
        self._channel.send(_request(_RUN, "run", {"command": command, "arguments": arguments, "options": wire}))


def check_staging(directory: str, limits: Limits) -> None:
    """Bound what lies in staging, in directories of the extension's own too."""
    files = size = 0
    try:
        for status in _all_below(directory):
            size += status.st_blocks * 512
            files += 1
            if files > limits.staging_files:
                raise TooLargeError(f"the extension staged more than {limits.staging_files} files")
    except OSError as error:  # too deep for a path, or closed to us: a place to hide any number of files
        raise TooLargeError(f"what the extension staged cannot be counted: {error.strerror}") from error
    if size > limits.staging_bytes:
        raise TooLargeError(f"the extension staged more than {limits.staging_bytes} bytes")


def _all_below(directory: str) -> Iterator[os.stat_result]:
    """Yield what stat(2) says of everything below a directory; what is moved or removed meanwhile is passed over."""
    directories = [directory]
    while directories:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directories.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                yield entry.stat(follow_symlinks=False)


def _find(method: str) -> Call | None:
    from composefs.ext.calls import CALLS

    return CALLS.get(method)


def _request(request_id: int, method: str, params: Message) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
