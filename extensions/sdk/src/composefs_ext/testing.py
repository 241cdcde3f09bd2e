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
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composefs_ext.core import PROTOCOL_VERSION, Core
from composefs_ext.errors import (
    CancelledError,
    ConflictError,
    CorruptError,
    ExistsError,
    ExtError,
    MissingObjectError,
    NotFoundError,
    UnsupportedError,
    UsageError,
    from_wire,
    to_wire,
)
from composefs_ext.extension import serve
from composefs_ext.fsverity import BLOCK_SIZE, fsverity_digest

if TYPE_CHECKING:
    from composefs_ext.extension import Handler

__all__ = ["MemoryCore"]

_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_PUBLISHING = ("object.put", "stream.put", "image.put", "publish")


class MemoryCore:
    """Plays the core for one extension; keeps its state from run to run, as a repository would.

    ``objects`` maps ids to contents, ``streams`` and ``images`` what has been put by id, ``stream_names``,
    ``image_refs`` and ``refs`` what has been published.  ``calls`` lists the (method, parameters) of all runs,
    ``events`` the progress and log messages, ``output`` what was printed.  Put an error into ``refuse`` to have a
    method answered with it, and a method into ``cancel_at`` to have the run cancelled when it is called.
    """

    def __init__(self, directory: Path, *, algorithm: str = "sha512", writable: bool = True) -> None:
        self.algorithm = algorithm
        self.writable = writable
        self.objects: dict[str, bytes] = {}
        self.streams: dict[str, dict[str, Any]] = {}
        self.images: dict[str, bytes] = {}
        self.stream_names: dict[str, str] = {}
        self.image_refs: dict[str, str] = {}
        self.refs: dict[str, str] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.output = ""
        self.refuse: dict[str, ExtError] = {}
        self.cancel_at: str | None = None
        self.staging = directory / "staging"
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

        ``options`` are those of the run: verbosity, json, color.
        """
        with ExitStack() as stack:
            their_in, our_out = os.pipe()
            our_in, their_out = os.pipe()
            stack.callback(os.close, their_in)
            outcome: list[dict[str, Any]] = []

            def converse() -> None:
                outcome.append(self._converse(our_in, our_out, command, arguments or {}, options))

            thread = threading.Thread(target=converse)
            thread.start()
            try:
                serve(Core(their_in, their_out), handler, features=features)
            finally:
                os.close(their_out)
                thread.join()
        return _result(outcome)

    def run_program(
        self, argv: Sequence[str], command: Sequence[str], arguments: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Run a command with an executable as the extension, its standard error being ours."""
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=self.staging) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            our_in, our_out = os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno())
            process.stdin.close()
            outcome = self._converse(our_in, our_out, command, arguments or {}, options)
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
                        params = {"command": list(command), "arguments": arguments, "options": options}
                        _send(out.write, id=2, method="run", params=params)
                    else:
                        answer = message
                        break
        except BrokenPipeError:
            pass  # it died; an empty answer says so
        for path in self.staging.iterdir():
            path.unlink()
        return answer

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
            "features": [],
            "core": {"name": "composefs_ext.testing", "version": "0"},
            "extension": "test",
            "repository": repository,
            "staging": str(self.staging),
            "cache": str(self.cache),
            "limits": {"unanswered": 64, "rows": 1000, "line": 1 << 20},
            "strict": True,
        }

    def _serve(self, message: dict[str, Any], write: Callable[[bytes], int]) -> None:
        method, params = message["method"], message.get("params", {})
        if method in ("progress", "log", "output"):
            if method == "output":
                self.output += params["text"] if "text" in params else self._take(params["file"]).decode()
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
            function = (
                getattr(self, "_" + method.replace(".", "_"), None) if "." in method or method == "publish" else None
            )
            if function is None:
                raise UnsupportedError(f"no method {method!r}")
            _send(write, id=message["id"], result=function(params))
        except ExtError as error:
            _send(write, id=message["id"], error=to_wire(error))
        except KeyError as error:
            _send(write, id=message["id"], error=to_wire(UsageError(f"{method}: there is no {error} in {params}")))

    # Staged files and lists

    def _path(self, name: str) -> Path:
        if not name or name[0] == "." or name.startswith("core-") or not _NAME_CHARACTERS.issuperset(name):
            raise UsageError(f"{name!r} is no name for a staged file")
        return self.staging / name

    def _take(self, name: str) -> bytes:
        data = self._read(name)
        self._path(name).unlink()
        return data

    def _read(self, name: str) -> bytes:
        path = self._path(name)
        if not path.is_file() or path.is_symlink():
            raise NotFoundError(f"there is no staged file {name!r}")
        return path.read_bytes()

    def _write(self, name: str, data: bytes) -> None:
        if self._path(name).exists():
            raise ExistsError(f"there is a staged file {name!r} already")
        self._path(name).write_bytes(data)

    def _list(self, params: dict[str, Any], key: str) -> list[Any]:
        if f"{key}_file" in params:
            return [json.loads(line) for line in self._read(params[f"{key}_file"]).splitlines()]
        return list(params.get(key, ()))

    def _give(self, params: dict[str, Any], key: str, rows: Iterable[Any]) -> dict[str, Any]:
        rows = list(rows)
        if f"{key}_into" not in params:
            return {key: rows}
        self._write(params[f"{key}_into"], b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        return {}

    # The calls

    def _object_put(self, params: dict[str, Any]) -> dict[str, Any]:
        return self._give(params, "objects", [self._put_row(row) for row in self._list(params, "files")])

    def _put_row(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            data = self._read(row["name"])
            digest = fsverity_digest(data, self.algorithm)
            if row.get("size", len(data)) != len(data) or row.get("expect", digest) != digest:
                raise CorruptError(f"staged file {row['name']!r} is not what was expected")
        except ExtError as error:
            return {"error": to_wire(error)}
        self._path(row["name"]).unlink()
        stored = "present" if digest in self.objects else "moved"
        self.objects[digest] = data
        return {"id": digest, "size": len(data), "stored": stored}

    def _object_has(self, params: dict[str, Any]) -> dict[str, Any]:
        return self._give(params, "present", [digest in self.objects for digest in self._list(params, "ids")])

    def _object_get(self, params: dict[str, Any]) -> dict[str, Any]:
        self._need([params["id"]])
        self._write(params["into"], self.objects[params["id"]])
        return {"size": len(self.objects[params["id"]])}

    def _stream_put(self, params: dict[str, Any]) -> dict[str, Any]:
        parts = {key: self._list(params, key) for key in ("chunks", "object_refs", "named_refs")}
        inline = self._read(params["inline"]) if "inline" in params else b""
        self._need([*parts["object_refs"], *(digest for _, digest in parts["named_refs"])])
        if -sum(chunk for chunk in parts["chunks"] if chunk < 0) != len(inline):
            raise UsageError("the chunks do not add up to the inline bytes")
        if any(chunk >= len(parts["object_refs"]) for chunk in parts["chunks"]):
            raise UsageError("a chunk names an object reference that is not in the list")
        stream = {"content_type": params["content_type"], "inline": inline, **parts}
        digest = fsverity_digest(repr(sorted(stream.items())).encode(), self.algorithm)
        self.streams[digest] = stream
        return {"id": digest, "size": len(self._reassemble(stream))}

    def _stream_get(self, params: dict[str, Any]) -> dict[str, Any]:
        digest = self._stream_id(params)
        stream = self.streams[digest]
        if "inline_into" in params:
            self._write(params["inline_into"], stream["inline"])
        for key in ("chunks", "object_refs"):
            if f"{key}_into" in params:
                self._give(params, key, stream[key])
        return {
            "id": digest,
            "content_type": stream["content_type"],
            "size": len(self._reassemble(stream)),
            **self._give(params, "named_refs", stream["named_refs"]),
        }

    def _stream_cat(self, params: dict[str, Any]) -> dict[str, Any]:
        data = self._reassemble(self.streams[self._stream_id(params)])
        if params.get("stdout"):
            self.output += data.decode("latin-1")
        else:
            self._write(params["into"], data)
        return {"size": len(data)}

    def _stream_list(self, params: dict[str, Any]) -> dict[str, Any]:
        rows = (
            {"name": name, "id": digest}
            for name, digest in sorted(self.stream_names.items())
            if name.startswith(params.get("prefix", ""))
            and params.get("content_type", self.streams[digest]["content_type"]) == self.streams[digest]["content_type"]
        )
        return self._give(params, "streams", rows)

    def _image_put(self, params: dict[str, Any]) -> dict[str, Any]:
        answer = self._image_digest(params)
        if params.get("expect", answer["id"]) != answer["id"]:
            raise CorruptError(f"the image is {answer['id']}, expected was {params['expect']}")
        self.images[answer["id"]] = self._read(params["dump"])
        return answer

    def _image_digest(self, params: dict[str, Any]) -> dict[str, Any]:
        dump = self._read(params["dump"])
        digests = (line.split(b" ")[10] for line in dump.splitlines())
        self._need([digest.decode() for digest in digests if digest != b"-"])
        return {"id": fsverity_digest(dump, self.algorithm), "size": len(dump)}

    def _publish(self, params: dict[str, Any]) -> dict[str, Any]:
        names, refs = dict(self.stream_names), dict(self.refs)
        answer: dict[str, Any] = {"streams": [], "images": [], "refs": [], "remove_refs": []}
        for row in self._list(params, "streams"):
            previous = names.get(row["name"])
            self._need([row["id"]])
            _check_expect(row, previous)
            choice = row.get("if_exists", "fail")
            if previous not in (None, row["id"]) and choice == "fail":
                raise ExistsError(f"there is a stream {row['name']!r} already")
            if previous is None or choice == "replace":
                names[row["name"]] = row["id"]
            answer["streams"].append({"name": row["name"], "id": names[row["name"]], "previous": previous})
        images = self._list(params, "images")
        for row in images:
            if row["id"] not in self.images:
                raise MissingObjectError(f"there is no image {row['id']}")
            answer["images"].append({"id": row["id"]})
        for row in self._list(params, "refs"):
            _check_expect(row, refs.get(row["name"]))
            if row["target"] not in names:
                raise NotFoundError(f"there is no stream {row['target']!r} for the ref {row['name']!r}")
            answer["refs"].append({"name": row["name"], "previous": refs.get(row["name"])})
            refs[row["name"]] = row["target"]
        for row in self._list(params, "remove_refs"):
            name = row if isinstance(row, str) else row["name"]
            if name not in refs:
                raise NotFoundError(f"there is no ref {name!r}")
            answer["remove_refs"].append({"name": name, "previous": refs.pop(name)})
        self.stream_names, self.refs = names, refs
        self.image_refs.update({row["ref"]: row["id"] for row in images if "ref" in row})
        return answer

    def _ref_get(self, params: dict[str, Any]) -> dict[str, Any]:
        if params["name"] not in self.refs:
            raise NotFoundError(f"there is no ref {params['name']!r}")
        return self._ref_row(params["name"])

    def _ref_list(self, params: dict[str, Any]) -> dict[str, Any]:
        rows = (self._ref_row(name) for name in sorted(self.refs) if name.startswith(params.get("prefix", "")))
        return self._give(params, "refs", rows)

    # Lookups

    def _ref_row(self, name: str) -> dict[str, Any]:
        return {"name": name, "target": self.refs[name], "id": self.stream_names[self.refs[name]]}

    def _stream_id(self, params: dict[str, Any]) -> str:
        if "id" in params:
            digest = params["id"]
        else:
            name = self._ref_get({"name": params["ref"]})["target"] if "ref" in params else params["name"]
            digest = self.stream_names.get(name)
        if digest not in self.streams:
            raise NotFoundError(f"there is no such stream: {params}")
        return str(digest)

    def _need(self, digests: Iterable[str]) -> None:
        for digest in digests:
            if digest not in self.objects and digest not in self.streams and digest not in self.images:
                raise MissingObjectError(f"object {digest} is not in the repository", subject=digest)

    def _reassemble(self, stream: dict[str, Any]) -> bytes:
        data, position = bytearray(), 0
        for chunk in stream["chunks"]:
            if chunk >= 0:
                data += self.objects[stream["object_refs"][chunk]]
            else:
                data += stream["inline"][position : position - chunk]
                position -= chunk
        return bytes(data)


def _send(write: Callable[[bytes], int], **members: Any) -> None:
    line = json.dumps({"jsonrpc": "2.0", "x-stray": True, **members}).encode() + b"\n"
    while line:
        line = line[write(line) :]


def _check_expect(row: dict[str, Any], previous: str | None) -> None:
    if "expect" in row and row["expect"] != previous:
        raise ConflictError(f"{row['name']!r} is {previous}, expected was {row['expect']}")


def _result(outcome: list[dict[str, Any]]) -> dict[str, Any]:
    answer = outcome[0] if outcome else {}
    if "error" in answer:
        raise from_wire(answer["error"])
    if "result" not in answer:
        raise ExtError("the extension ended without an answer")
    result: dict[str, Any] = answer["result"]
    return result
