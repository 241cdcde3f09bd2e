"""A core in memory, so that an extension's tests need neither cfsctl nor a repository.

    core = MemoryCore(tmp_path)
    core.run(handler, ["pull"], {"url": "http://127.0.0.1:8000"})
    assert core.refs == {"hello/main": "hello-1"}

The handler talks to it over real pipes with the real client; ``run_program`` does the same with an executable.  Object
ids are real fs-verity digests.  Streams and images are kept as what they were made of, so their ids are those of no
other core: a stream's is the digest of its parts, an image's that of its dump.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composefs_ext.core import Core
from composefs_ext.errors import CancelledError, ExtError, UnsupportedError, UsageError, from_wire, to_wire
from composefs_ext.extension import serve
from composefs_ext.fsverity import BLOCK_SIZE
from composefs_ext.memory import CALLS, MemoryRepository
from composefs_ext.protocol import FEATURES, LINE_LIMIT, PROTOCOL_VERSION, RANGE_BYTES, RESULT_FILE, ROWS, UNANSWERED

if TYPE_CHECKING:
    from composefs_ext.extension import Handler

__all__ = ["MemoryCore"]

_PUBLISHING = ("object.put", "stream.put", "image.put", "publish")


class MemoryCore(MemoryRepository):
    """Plays the core for one extension; keeps its state from run to run, as a repository would.

    What was put and published is in the attributes of ``MemoryRepository``.  ``calls`` lists the (method, parameters)
    of all runs, ``events`` the progress and log messages.  Put an error into ``refuse`` to have a method answered with
    it, and a method into ``cancel_at`` to have the run cancelled when it is called.  ``offers`` are the features that
    an extension may pick; those that it picked are in ``features``.

    ``manifest`` is the path of the extension's NAME.json: with it, names that are not the extension's are refused,
    commands that it does not have are no test's, and the defaults of arguments are filled in.
    """

    def __init__(
        self, directory: Path, *, algorithm: str = "sha512", writable: bool = True, manifest: Path | None = None
    ) -> None:
        super().__init__(directory / "staging", algorithm)
        self.writable = writable
        self.manifest: dict[str, Any] = {} if manifest is None else json.loads(manifest.read_bytes())
        name = self.manifest.get("name", "test")
        if manifest is not None:
            self.prefixes = tuple(self.manifest.get("streams", [f"{name}-"]))
            self.ref_directories = tuple(row["dir"] for row in self.manifest.get("refs", [{"dir": name}]))
        self.name = name
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.refuse: dict[str, ExtError] = {}
        self.cancel_at: str | None = None
        self.offers = list(FEATURES)
        self.cache = directory / "cache"
        self.staging.mkdir(parents=True, exist_ok=True)
        self.cache.mkdir(parents=True, exist_ok=True)
        self._cancelled = False

    def run(
        self,
        handler: Handler,
        command: Sequence[str],
        arguments: dict[str, Any] | None = None,
        *,
        features: Sequence[str] = (),
        **options: Any,
    ) -> dict[str, Any]:
        """Run a command in this process; return its result, or raise the error that it ended with.

        ``options`` are those of the run: verbosity, json, color, directory.
        """
        given = self._with_defaults(command, arguments or {})
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        outcome: list[dict[str, Any]] = []

        def converse() -> None:
            outcome.append(self._converse(our_in, our_out, command, given, options))

        thread = threading.Thread(target=converse)
        thread.start()
        try:
            serve(Core(their_in, their_out), handler, features=features)
        finally:
            os.close(their_out)
            thread.join()
            os.close(their_in)
        return _result(outcome)

    def run_program(
        self, argv: Sequence[str], command: Sequence[str], arguments: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Run a command with an executable as the extension, its standard error being ours."""
        given = self._with_defaults(command, arguments or {})
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=self.staging) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            our_in, our_out = os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno())
            process.stdin.close()
            outcome = self._converse(our_in, our_out, command, given, options)
        return _result([outcome])

    # The conversation

    def _converse(
        self, read_fd: int, write_fd: int, command: Sequence[str], arguments: dict[str, Any], options: dict[str, Any]
    ) -> dict[str, Any]:
        """Play one run over these descriptors and close them; return the answer to ``run`` (or to ``initialize``)."""
        self._cancelled = False
        answer: dict[str, Any] = {}
        try:
            with open(read_fd, "rb") as lines, open(write_fd, "wb", buffering=0) as out:
                _send(out.write, id=1, method="initialize", params=self._initialize())
                for line in lines:
                    message = json.loads(line)
                    if "method" in message:
                        self._serve(message, out.write)
                    elif message.get("id") == 1 and "result" in message:
                        self.features = message["result"].get("features", [])
                        params = {"command": list(command), "arguments": arguments, "options": options}
                        _send(out.write, id=2, method="run", params=params)
                    else:
                        answer = self._whole(message)
                        break
        except BrokenPipeError:
            pass  # it died; an empty answer says so
        for path in self.staging.iterdir():
            path.unlink()
        return answer

    def _whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to ``run`` with the result that it names a file of, if it does."""
        name = answer.get("result", {}).get(RESULT_FILE)
        return answer if name is None else {**answer, "result": json.loads(self.take(name))}

    def _with_defaults(self, command: Sequence[str], arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments as the core would send them, by the manifest if there is one."""
        if not self.manifest:
            return arguments
        [described] = [row for row in self.manifest["commands"] if row["name"] == list(command)]
        rows = described.get("arguments", [])
        unknown = set(arguments) - {row["name"] for row in rows}
        missing = {row["name"] for row in rows if row.get("required")} - set(arguments)
        assert not unknown, f"the manifest has no arguments {unknown}"
        assert not missing, f"the manifest requires the arguments {missing}"
        flags = {row["name"]: False for row in rows if row["kind"] == "bool"}
        return {**flags, **{row["name"]: row["default"] for row in rows if "default" in row}, **arguments}

    def _initialize(self) -> dict[str, Any]:
        repository = {
            "algorithm": self.algorithm,
            "block_size": BLOCK_SIZE,
            "erofs_formats": {"default": 1, "extra": []},
            "secure": False,
            "writable": self.writable,
        }
        return {
            "versions": [PROTOCOL_VERSION],
            "features": self.offers,
            "core": {"name": "composefs_ext.testing", "version": "0"},
            "extension": self.name,
            "repository": repository,
            "staging": str(self.staging),
            "cache": str(self.cache),
            "limits": {"unanswered": UNANSWERED, "rows": ROWS, "line": LINE_LIMIT, "range_bytes": RANGE_BYTES},
            "strict": True,
        }

    def _serve(self, message: dict[str, Any], write: Callable[[bytes], int]) -> None:
        method, params = message["method"], message.get("params", {})
        if method in ("progress", "log", "output"):
            if method == "output":
                self.output += params["text"] if "text" in params else self.take(params["file"]).decode()
            else:
                self.events.append((method, params))
            return
        self.calls.append((method, params))
        if method == self.cancel_at:
            self._cancelled = True
            _send(write, method="cancel", params={})
        try:
            if method in self.refuse:
                raise self.refuse[method]
            if self._cancelled and method in _PUBLISHING:
                raise CancelledError("cancelled")
            function = CALLS.get(method)
            if function is None:
                raise UnsupportedError(f"no method {method!r}")
            _send(write, id=message["id"], result=function(self, params))
        except ExtError as error:
            _send(write, id=message["id"], error=to_wire(error))
        except KeyError as error:
            _send(write, id=message["id"], error=to_wire(UsageError(f"{method}: there is no {error} in {params}")))


def _send(write: Callable[[bytes], int], **members: Any) -> None:
    line = json.dumps({"jsonrpc": "2.0", "x-stray": True, **members}).encode() + b"\n"
    while line:
        line = line[write(line) :]


def _result(outcome: list[dict[str, Any]]) -> dict[str, Any]:
    answer = outcome[0] if outcome else {}
    if "error" in answer:
        raise from_wire(answer["error"])
    if "result" not in answer:
        raise ExtError("the extension ended without an answer")
    result: dict[str, Any] = answer["result"]
    return result
