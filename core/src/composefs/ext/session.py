"""One run of an extension: the conversation with its process, the polite end of that, and what came of it.

composefs.ext.launch starts the process, and sees to it that nothing is left, whatever happens.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from composefs import __version__
from composefs.digest import BLOCK_SIZE
from composefs.errors import ComposefsError, ExtensionError, ProtocolError, UsageError
from composefs.ext.channel import Channel
from composefs.ext.context import Context
from composefs.ext.conversation import Conversation, Gone
from composefs.ext.discovery import Extension
from composefs.ext.launch import Launched
from composefs.ext.options import Timeouts
from composefs.ext.patience import STEP, Patience
from composefs.ext.process import Ended
from composefs.observe import Observers
from composefs.protocol import FEATURES, RESULT_FILE, VERSIONS
from composefs.protocol.params import staged_name
from composefs.protocol.wire import Message

__all__ = ["RunResult", "converse"]


class RunResult(NamedTuple):
    """What the extension answered: its ``status``, 0 or 1, which is the exit status unless --json, and the object.

    With --json, ``file`` holds the object instead where it is too long for a message; it is the caller's to close, and
    nothing in it has been looked at.
    """

    status: int
    result: Message
    file: BinaryIO | None = None


def converse(
    launched: Launched, observer: Observers, *, timeouts: Timeouts = Timeouts(), channel: Channel | None = None
) -> RunResult:
    """Serve an extension until it has ended and return its result.

    The conformance kit looks on, and meddles, by a ``channel`` of its own.

    Raises what the extension answered as an error of its kind; ProtocolError if it broke a rule, ExtensionError if it
    died or could not be executed, CancelledError if the user interrupted it.
    """
    extension, interrupts = launched.line.extension, launched.interrupts
    outcome: Message | ComposefsError | None = None
    try:
        context = Context(launched, observer)
        if channel is None:
            channel = Channel(launched.process.stdout, launched.process.stdin, launched.limits, observer)
        conversation = Conversation(launched, channel, context, timeouts)
        with context.resources, suppress(Gone):
            outcome = conversation.serve(_welcome(context, launched.staging.place, launched.cache))
        killed = not _let_end(launched, channel, timeouts)
    except ProtocolError as error:
        error.message = f"extension {extension.name} broke the protocol: {error.message}"
        raise
    finally:
        ended = launched.end()  # after a broken rule, or an error of ours, there is nothing to be polite about
    if context.cancelled:
        raise interrupts.error(f"extension {extension.name}")
    return _judge(extension, context, outcome, ended, killed=killed)


def _welcome(context: Context, staging: str, cache: str | None) -> Message:
    """The parameters of ``initialize``."""
    repository = context.repository
    described: Message | None = None
    if repository is not None:
        described = {
            "algorithm": context.algorithm.name,
            "block_size": BLOCK_SIZE,
            "erofs_formats": {"default": context.erofs_default, "extra": list(repository.meta.erofs_extra)},
            "secure": repository.secure,
            "writable": repository.writable and context.command.repository == "write",
            "path": repository.store.path,
            "objects": f"{repository.store.path}/objects",
        }
    return {
        "versions": list(VERSIONS),
        "features": list(FEATURES),
        "core": {"name": "composefs-python", "version": __version__},
        "extension": context.manifest.name,
        "repository": described,
        "staging": staging,
        "cache": cache,
        "limits": context.limits._asdict(),
        "strict": False,  # as the conformance kit alone is
    }


def _let_end(launched: Launched, channel: Channel, timeouts: Timeouts) -> bool:
    """Let an extension end that has nothing more to say: by the end of its input, then SIGTERM, then SIGKILL.

    Say whether it did so by itself.
    """
    if _wait_for_exit(launched, channel, timeouts.terminate):
        return True
    launched.process.signal_group(signal.SIGTERM)
    if not _wait_for_exit(launched, channel, timeouts.kill):
        launched.process.kill_group()
    return False


def _wait_for_exit(launched: Launched, channel: Channel, seconds: float) -> bool:
    """Write out what is left, close the extension's input, and discard what it still says until it ends."""
    process, error_text = launched.process, launched.error_text
    patience = Patience()
    while (left := seconds - patience.now()) > 0:
        channel.write()
        if not channel.wants_write:
            process.close_stdin()
        ready = launched.wait(min(left, STEP), read=not channel.ended, write=channel.wants_write)
        if process.stdout in ready:
            channel.discard()  # first: the conformance kit wants to see what came even if the end came meanwhile
        if process.pidfd in ready:
            return True
        if error_text.fd in ready:
            error_text.pass_on()
    return False


def _judge(
    extension: Extension, context: Context, outcome: Message | ComposefsError | None, ended: Ended, *, killed: bool
) -> RunResult:
    """Turn what was answered, and how the process ended, if not ``killed`` by us, into a result or an exception."""
    name = f"extension {extension.name}"
    if isinstance(outcome, ComposefsError):
        raise BrokenPipeError if context.reader_left else outcome
    if outcome is None:
        raise _without_result(extension, ended, killed=killed)
    if context.unwritten is not None:
        raise context.unwritten
    status = outcome.get("status", 0)
    if type(status) is not int or status not in (0, 1):
        raise ProtocolError(f"{name} gave a result with a status that is neither 0 nor 1")
    if ended.status or ended.exec_failure:
        context.observer.log("warning", f"{name} {ended} after its result")
    if ended.left:
        context.observer.log("warning", f"{name} left processes behind, which were killed ({ended.left})")
    return RunResult(status, outcome, _result_file(name, context, outcome))


def _without_result(extension: Extension, ended: Ended, *, killed: bool) -> ExtensionError:
    """Return the error for an extension that has answered nothing."""
    name = f"extension {extension.name}"
    hint = ended.hint
    if ended.exec_failure:
        message = f"{name} {ended}"
    elif killed:
        message = f"{name} closed its standard output without a result, and did not end until it {ended}"
        hint = None
    else:
        message = f"{name} {ended} without a result"
    return ExtensionError(message, subject=extension.executable, hint=hint)


def _result_file(name: str, context: Context, outcome: Message) -> BinaryIO | None:
    """Open the staged file with the object that --json prints, if the result names one (P-44)."""
    if RESULT_FILE not in context.features or RESULT_FILE not in outcome or not context.options.json:
        return None
    try:
        fd = context.staged.open(staged_name(outcome[RESULT_FILE], RESULT_FILE), context.limits.dump_bytes)
    except UsageError as error:
        raise ProtocolError(f"{name} gave a result that is no file: {error.message}") from error
    return os.fdopen(fd, "rb", buffering=0)
