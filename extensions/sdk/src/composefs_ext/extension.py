"""Start an extension: ``main`` guards standard input and output, shakes hands, runs the command and reports its end.

    def pull(request, core): ...

    def main():
        composefs_ext.main(pull)

While the handler runs, the wire is on descriptors that nobody else knows: ``print`` goes to standard error, and reading
standard input finds its end, so that neither a stray print nor a child process can break the conversation.
"""

from __future__ import annotations

import gc
import os
import sys

from composefs_ext.core import Core
from composefs_ext.errors import (
    CancelledError,
    CoreGoneError,
    ExtError,
    ProtocolError,
    TooLargeError,
    from_exception,
    to_wire,
)
from composefs_ext.protocol import RESULT_FILE
from composefs_ext.wire import to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Any, NoReturn

    Handler = Callable[["Request", Core], "dict[str, Any] | None"]
else:
    import _signal as signal  # the same functions, without names for the numbers, for which signal loads enum

__all__ = ["Request", "main", "serve"]

_DEBUG_VERBOSITY = 2
_GC_THRESHOLD = 50_000  # objects between two searches for cycles; Python's own threshold is 700

EXIT_PROTOCOL = 10
"""Exit status when the conversation broke down and no answer could carry the reason."""


class Request:
    """The command to run: its words (``["remote", "add"]``), and its arguments as the manifest declares them.

    ``verbosity`` is the number of ``-v`` less that of ``-q``; ``json`` tells that the user wants the result object;
    ``directory`` is the user's working directory, or None, for relative paths inside of other values.
    """

    def __init__(self, params: dict[str, Any]) -> None:
        options = params.get("options") or {}
        self.command: tuple[str, ...] = tuple(params["command"])
        self.arguments: dict[str, Any] = params.get("arguments") or {}
        self.verbosity: int = options.get("verbosity", 0)
        self.json: bool = options.get("json", False)
        self.color: bool = options.get("color", False)
        self.directory: str | None = options.get("directory")

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument's value, or the default when the user did not give it."""
        value = self.arguments.get(name)
        return default if value is None else value


def main(handler: Handler, *, features: Sequence[str] = ()) -> NoReturn:
    """Serve one run over standard input and output and exit.

    ``handler(request, core)`` does the work.  What it returns is the run's result: a dictionary, with ``status`` 0 or 1
    for the exit status of ``cfsctl`` if wanted, or None for an empty one.  An exception becomes an error with its kind;
    one that is not of ``composefs_ext.errors`` becomes one line, with the traceback in the debug log.
    ``features`` are the optional parts of the protocol that the handler can use; that results may have any length is
    seen to here.
    """
    if os.isatty(0):
        name = os.path.basename(sys.argv[0])
        print(f"{name}: this is an extension of cfsctl, run it as: cfsctl {name.rpartition('-')[2]} …", file=sys.stderr)
        sys.exit(2)
    # Next to nothing of what is imported is garbage; to look for some takes a twentieth of a short run.
    gc.set_threshold(_GC_THRESHOLD)
    core = Core(*_guard_stdio())

    def terminate(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends us at once
        core.cancel()

    signal.signal(signal.SIGTERM, terminate)
    status = serve(core, handler, features=features)
    sys.stderr.flush()
    # The core waits for our end, and taking the interpreter down in order would add 10 ms to it.
    os._exit(status)


def serve(core: Core, handler: Handler, *, features: Sequence[str] = ()) -> int:
    """Handle one ``initialize`` and one ``run`` on a connection, until the core closes it; return the exit status."""
    try:
        request = _next(core, "initialize")
        try:
            accepted = core.accept(request.get("params") or {}, features)
        except ExtError as error:
            core.answer_error(request, to_wire(error))
        else:
            core.answer(request, accepted)
            request = _next(core, "run")
            outcome = _run(core, request, handler)
            if isinstance(outcome, ExtError):
                core.answer_error(request, to_wire(outcome))
            else:
                _answer(core, request, outcome)
        while not core.closed:
            core.pump(None)
    except (CancelledError, KeyboardInterrupt):  # while nothing ran, or because the core has gone
        return 0
    except ProtocolError as error:
        print(f"the conversation with cfsctl broke down: {error}", file=sys.stderr)
        return EXIT_PROTOCOL
    return 0


def _run(core: Core, message: dict[str, Any], handler: Handler) -> dict[str, Any] | ExtError:
    """Call the handler; return its result or the error to answer with."""
    try:
        request = Request(message.get("params") or {})
        core.debug = request.verbosity >= _DEBUG_VERBOSITY
        result = handler(request, core)
        core.drain()
    except (CoreGoneError, ProtocolError):
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  whatever a handler raises is reported as one line
        report = from_exception(error, core.staging.path)
        if report is not error and core.debug and not core.closed:
            import traceback

            core.log("debug", "".join(traceback.format_exception(error)))
        return report
    return result or {}


def _answer(core: Core, request: dict[str, Any], result: dict[str, Any]) -> None:
    """Answer with a handler's result, in a file where it is too long for a message; or with an error if it is no JSON.

    Raises CoreGoneError and ProtocolError as every message may.
    """
    try:
        try:
            core.answer(request, result)
        except TooLargeError:
            if RESULT_FILE not in core.features:
                raise TooLargeError("the result is too long for this cfsctl", hint="update cfsctl") from None
            name = core.staging.write(to_json(result), "result")
            core.answer(request, {RESULT_FILE: name, "status": result.get("status", 0)})
    except (TooLargeError, TypeError, ValueError, RecursionError, OSError) as error:
        core.answer_error(request, to_wire(from_exception(error, core.staging.path)))


def _next(core: Core, method: str) -> dict[str, Any]:
    """Wait for the core's next call, which must be this one."""
    while not core.requests:
        core.pump(None)
    request = core.requests.popleft()
    if request.get("method") != method:
        raise ProtocolError(f"cfsctl called {request.get('method')!r} where {method!r} was due")
    return request


def _guard_stdio() -> tuple[int, int]:
    """Move the wire to descriptors of our own; standard input becomes empty, standard output standard error."""
    read_fd = os.dup(0)  # dup makes descriptors that children do not inherit
    write_fd = os.dup(1)
    empty, filler = os.pipe()  # /dev/null may be missing
    os.close(filler)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return read_fd, write_fd
