"""The repository that ``testing.MemoryCore`` serves: the protocol's calls on dictionaries.

It refuses what the core would refuse: an extension that succeeds here has stored what it names, and named it in one
call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from composefs_ext.errors import (
    ConflictError,
    CorruptError,
    ExistsError,
    ExtError,
    FormatError,
    MissingObjectError,
    NotFoundError,
    PermissionDeniedError,
    TooLargeError,
    UnsupportedError,
    UsageError,
)
from composefs_ext.fsverity import fsverity_digest
from composefs_ext.protocol import DRAFTS, PACKS, RANGE_BYTES, SIZES

__all__ = ["CALLS", "MemoryRepository"]

_NAME = re.compile(r"(?!\.|core-)[A-Za-z0-9._-]{1,128}\Z")


class MemoryRepository:
    """Objects, streams, images and refs in dictionaries; each call takes parameters and returns a result object.

    ``objects`` maps ids to contents, ``streams`` and ``images`` what has been put by id, ``stream_names``,
    ``image_refs`` and ``refs`` what has been published.  ``staging`` is the directory of staged files.
    """

    def __init__(self, staging: Path, algorithm: str) -> None:
        self.staging = staging
        self.algorithm = algorithm
        self.objects: dict[str, bytes] = {}
        self.streams: dict[str, dict[str, Any]] = {}
        self.images: dict[str, bytes] = {}
        self.drafts: dict[str, bytes] = {}
        self.stream_names: dict[str, str] = {}
        self.image_refs: dict[str, str] = {}
        self.refs: dict[str, str] = {}
        self.features: list[str] = []
        self.output = ""
        """What was printed to the user's standard output."""
        self.prefixes: tuple[str, ...] = ("",)
        """What the names of published streams begin with, and below, where refs must be; at first, anything goes."""
        self.ref_directories: tuple[str, ...] | None = None

    # Staged files and lists

    def _path(self, name: str) -> Path:
        if not _NAME.match(name):
            raise UsageError(f"{name!r} is no name for a staged file")
        return self.staging / name

    def take(self, name: str) -> bytes:
        """Return a staged file's content and remove it."""
        data = self._read(name)
        self._path(name).unlink()
        return data

    def _read(self, name: str) -> bytes:
        path = self._path(name)
        if path.is_symlink():
            raise UsageError(f"the staged file {name!r} is a symlink")
        if not path.is_file():
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

    def _required(self, params: dict[str, Any], key: str) -> list[Any]:
        """Return a list that must be there."""
        if (key in params) == (f"{key}_file" in params):
            raise UsageError(f"give exactly one of {key}, {key}_file")
        return self._list(params, key)

    def _give(self, params: dict[str, Any], key: str, rows: Iterable[Any]) -> dict[str, Any]:
        rows = list(rows)
        if f"{key}_into" not in params:
            return {key: rows}
        self._write(params[f"{key}_into"], b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        return {}

    # The calls

    def _object_put(self, params: dict[str, Any]) -> dict[str, Any]:
        ends: dict[str, int] = {}  # of the last range of each pack
        return self._give(params, "objects", [self._put_row(row, ends) for row in self._required(params, "files")])

    def _put_row(self, row: dict[str, Any], ends: dict[str, int]) -> dict[str, Any]:
        try:
            data = self._read(row["name"])
            if "offset" in row:
                data = self._cut(row, data, ends)
            digest = fsverity_digest(data, self.algorithm)
            if row.get("size", len(data)) != len(data) or row.get("expect", digest) != digest:
                raise CorruptError(f"staged file {row['name']!r} is not what was expected")
        except ExtError as error:
            return {"error": {"kind": error.kind, "message": error.message}}
        if "offset" not in row:
            self._path(row["name"]).unlink()
        stored = "present" if digest in self.objects else "copied" if "offset" in row else "moved"
        self.objects[digest] = data
        return {"id": digest, "size": len(data), "stored": stored}

    def _cut(self, row: dict[str, Any], pack: bytes, ends: dict[str, int]) -> bytes:
        """Return the range of a pack that a row asks for."""
        offset, size = row["offset"], row.get("size")
        if PACKS not in self.features:
            raise UsageError("offset needs the feature packs, which was not picked")
        if type(offset) is not int or offset < ends.get(row["name"], 0):
            raise UsageError(f"the offset {offset!r} is not an integer from where the range before it ends")
        if type(size) is not int or size < 0:
            raise UsageError("a range has no size, or that is not an integer from 0")
        if size > RANGE_BYTES:
            raise TooLargeError(f"a range of {size} bytes is larger than {RANGE_BYTES}")
        ends[row["name"]] = offset + size
        return pack[offset : offset + size]

    def _object_has(self, params: dict[str, Any]) -> dict[str, Any]:
        ids = self._required(params, "ids")
        sizes = self._list(params, "sizes") or [None] * len(ids)
        stored = ((self.objects.get(digest), size) for digest, size in zip(ids, sizes, strict=True))
        present = [data is not None and size in (None, len(data)) for data, size in stored]
        return self._give(params, "present", present)

    def _object_get(self, params: dict[str, Any]) -> dict[str, Any]:
        self._need([params["id"]])
        self._write(params["into"], self.objects[params["id"]])
        return {"size": len(self.objects[params["id"]])}

    def _stream_put(self, params: dict[str, Any]) -> dict[str, Any]:
        parts = {key: self._list(params, key) for key in ("chunks", "object_refs", "named_refs")}
        inline = self._read(params["inline"]) if "inline" in params else b""
        self._need([*parts["object_refs"], *(digest for _, digest in parts["named_refs"])])
        if -sum(chunk for chunk in parts["chunks"] if chunk < 0) != len(inline):
            raise FormatError("the chunks do not add up to the inline bytes")
        if any(chunk >= len(parts["object_refs"]) for chunk in parts["chunks"]):
            raise FormatError("a chunk names an object reference that is not in the list")
        stream = {"content_type": params["content_type"], "inline": inline, **parts}
        digest = fsverity_digest(repr(sorted(stream.items())).encode(), self.algorithm)
        self.streams[digest] = stream
        return {"id": digest, "size": len(self._reassemble(stream))}

    def _stream_get(self, params: dict[str, Any]) -> dict[str, Any]:
        name = self._stream_name(params)
        digest = self._stream_id(params)
        stream = self.streams[digest]
        if "inline_into" in params:
            self._write(params["inline_into"], stream["inline"])
        for key in ("chunks", "object_refs"):
            if f"{key}_into" in params:
                self._give(params, key, stream[key])
        if SIZES in self.features and "sizes_into" in params:
            found = map(self.objects.get, stream["object_refs"])
            self._give(params, "sizes", [None if data is None else len(data) for data in found])
        return {
            "id": digest,
            **({} if name is None else {"name": name}),
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

    def _image_draft(self, params: dict[str, Any]) -> dict[str, Any]:
        if DRAFTS not in self.features:
            raise UnsupportedError(f"image.draft is a call of the feature {DRAFTS}, which was not picked")
        part = self._read(params["part"])
        if part and not part.endswith(b"\n"):
            raise FormatError("the part of a dump does not end with a newline")
        self.drafts[params["draft"]] = self.drafts.get(params["draft"], b"") + part
        return {}

    def _dump(self, params: dict[str, Any]) -> bytes:
        """Return a whole dump, with the draft that came before."""
        dump = self._read(params["dump"])
        if DRAFTS not in self.features or "draft" not in params:
            return dump
        if params["draft"] not in self.drafts:
            raise NotFoundError(f"there is no draft {params['draft']}")
        return self.drafts.pop(params["draft"]) + dump

    def _image_put(self, params: dict[str, Any]) -> dict[str, Any]:
        dump = self._dump(params)
        answer = self._made(dump, params)
        if params.get("expect", answer["id"]) != answer["id"]:
            raise CorruptError(f"the image is {answer['id']}, expected was {params['expect']}")
        self.images[answer["id"]] = dump
        return answer

    def _image_digest(self, params: dict[str, Any]) -> dict[str, Any]:
        return self._made(self._dump(params), params)

    def _made(self, dump: bytes, params: dict[str, Any]) -> dict[str, Any]:
        self._need(_digests(dump))
        for columns in map(bytes.split, dump.splitlines()):
            stored = self.objects.get(columns[10].decode())
            if stored is not None and columns[9] == b"-" and int(columns[1]) != len(stored):
                raise CorruptError(f"{columns[0].decode()} is not of the {len(stored)} bytes of its object")
        # An image here is no more than its dump; other transforms make another one.
        image = dump + repr(sorted(params.get("transforms", {}).items())).encode() * ("transforms" in params)
        return {"id": fsverity_digest(image, self.algorithm), "size": len(image)}

    def _image_objects(self, params: dict[str, Any]) -> dict[str, Any]:
        return self._give(params, "ids", sorted(set(_digests(self._image(params)))))

    def _image_dump(self, params: dict[str, Any]) -> dict[str, Any]:
        if params.get("paths") or "paths_file" in params:
            raise UnsupportedError("the core in memory dumps whole images only")
        dump = self._dump(params) if "dump" in params else self._image(params)
        self._write(params["into"], dump)
        return {"size": len(dump)}

    def _image(self, params: dict[str, Any]) -> bytes:
        if "id" in params:
            return self.images[self._known(params["id"], self.images, "an image")]
        if params["name"] not in self.image_refs:
            raise NotFoundError(f"there is no image {params['name']!r}")
        return self.images[self.image_refs[params["name"]]]

    def _check_own(self, kind: str, name: str) -> None:
        if kind == "stream":
            own = name.startswith(self.prefixes)
        else:
            own = self.ref_directories is None or name.partition("/")[0] in self.ref_directories
        if not own:
            raise PermissionDeniedError(f"{kind} {name} does not belong to the extension", subject=name)

    def _publish(self, params: dict[str, Any]) -> dict[str, Any]:
        """Make names visible: all of them, or none if anything is refused."""
        for key, kind in (("streams", "stream"), ("refs", "ref")):
            for row in self._list(params, key):
                self._check_own(kind, row["name"])
        names, refs = dict(self.stream_names), dict(self.refs)
        images = self._list(params, "images")
        answer = {  # in this order, as a ref may be to a stream that gets its name here
            "streams": [self._name_stream(row, names) for row in self._list(params, "streams")],
            "images": [self._list_image(row) for row in images],
            "refs": [_set_ref(row, refs, names) for row in self._list(params, "refs")],
            "remove_refs": [_remove_ref(row, refs) for row in self._list(params, "remove_refs")],
        }
        self.stream_names, self.refs = names, refs
        self.image_refs.update({row["ref"]: row["id"] for row in images if "ref" in row})
        return {key: row for each in answer.items() for key, row in self._give(params, *each).items()}

    def _name_stream(self, row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
        name, choice = row["name"], row.get("if_exists", "fail")
        previous = names.get(name)
        self._need([row["id"]])
        _check_expect(row, previous)
        if previous not in (None, row["id"]) and choice == "fail":
            raise ExistsError(f"there is a stream {name!r} already")
        if previous is None or choice == "replace":
            names[name] = row["id"]
        return {"name": name, "id": names[name], "previous": previous}

    def _list_image(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["id"] not in self.images:
            raise MissingObjectError(f"there is no image {row['id']}")
        return {"id": row["id"]}

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

    def _stream_name(self, params: dict[str, Any]) -> str | None:
        """Return the name of the stream that is asked for, None if it is by its id."""
        if "id" in params:
            return None
        name: str = self._ref_get({"name": params["ref"]})["target"] if "ref" in params else params["name"]
        if name not in self.stream_names:
            raise NotFoundError(f"there is no stream {name!r}")
        return name

    def _stream_id(self, params: dict[str, Any]) -> str:
        name = self._stream_name(params)
        return self._known(params["id"], self.streams, "a stream") if name is None else self.stream_names[name]

    def _known(self, digest: str, those: Container[str], what: str) -> str:
        """Return the id of a stream or an image, one of ``those``."""
        self._need([digest])
        if digest not in those:
            raise FormatError(f"object {digest} is not {what}", subject=digest)
        return digest

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


def _digests(dump: bytes) -> list[str]:
    digests = (line.split(b" ")[10] for line in dump.splitlines())
    return [digest.decode() for digest in digests if digest != b"-"]


def _set_ref(row: dict[str, Any], refs: dict[str, str], names: Container[str]) -> dict[str, Any]:
    name, target = row["name"], row["target"]
    previous = refs.get(name)
    _check_expect(row, previous)
    if target not in names:
        raise NotFoundError(f"there is no stream {target!r} for the ref {name!r}")
    refs[name] = target
    return {"name": name, "previous": previous}


def _remove_ref(row: str | dict[str, Any], refs: dict[str, str]) -> dict[str, Any]:
    name = row if isinstance(row, str) else row["name"]
    if name not in refs:
        raise NotFoundError(f"there is no ref {name!r}")
    return {"name": name, "previous": refs.pop(name)}


def _check_expect(row: dict[str, Any], previous: str | None) -> None:
    if "expect" in row and row["expect"] != previous:
        raise ConflictError(f"{row['name']!r} is {previous}, expected was {row['expect']}")


CALLS = {
    "object.put": MemoryRepository._object_put,
    "object.has": MemoryRepository._object_has,
    "object.get": MemoryRepository._object_get,
    "stream.put": MemoryRepository._stream_put,
    "stream.get": MemoryRepository._stream_get,
    "stream.cat": MemoryRepository._stream_cat,
    "stream.list": MemoryRepository._stream_list,
    "image.draft": MemoryRepository._image_draft,
    "image.put": MemoryRepository._image_put,
    "image.digest": MemoryRepository._image_digest,
    "image.dump": MemoryRepository._image_dump,
    "image.objects": MemoryRepository._image_objects,
    "publish": MemoryRepository._publish,
    "ref.get": MemoryRepository._ref_get,
    "ref.list": MemoryRepository._ref_list,
}
"""The calls by their names on the wire."""
