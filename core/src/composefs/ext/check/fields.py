"""Look at a message with its schema: what is wrong in it, which fields are unknown, which files and rows it names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from composefs.protocol import schemas
from composefs.protocol.limits import Limits
from composefs.protocol.wire import JSONValue, Message

__all__ = ["LISTINGS", "Breach", "breach", "put_rows", "staged_names", "unknown_fields", "with_rows"]

LISTINGS = {"stream.list": "streams", "ref.list": "refs", "image.objects": "ids"}
"""Calls whose result may be of any length, and the list in it."""

_OWN_FIELDS = "x-"
"""Unknown fields that begin so are nobody's mistake."""

_STAGED = "/staged_name"
_ID_PATTERN = "[0-9a-f]{64}"
_STAGED_PATTERN = "(?!"


class Breach(NamedTuple):
    """The rule that a wrong parameter breaks, and what is wrong."""

    rule: int
    message: str


def breach(method: str, params: Message) -> Breach | None:
    """Check the parameters of a call against its schema."""
    error = schemas.first_error(method, {"params": params})
    if error is None:
        return None
    pattern = str(error.schema.get("pattern", "")) if isinstance(error.schema, dict) else ""
    if error.validator == "pattern" and _STAGED_PATTERN in pattern:
        rule = 12
    elif error.validator == "pattern" and _ID_PATTERN in pattern:
        rule = 18
    elif error.validator in ("maxItems", "not"):
        rule = 14
    elif "paths" in error.absolute_path:
        rule = 19
    else:
        rule = 43
    if error.validator == "maxItems":
        message = f"more than {error.validator_value} rows"
    else:
        message = error.message if len(error.message) < 200 else error.message[:200] + "…"
    return Breach(rule, f"{method}: {error.json_path.removeprefix('$.')}: {message}")


def unknown_fields(method: str, params: Message) -> Iterator[str]:
    """Yield the fields that the schema does not have, but for those that begin with ``x-``."""
    schema = schemas.load(method)["properties"]["params"]
    yield from _unknown(schema, params, method)


def _unknown(schema: JSONValue, value: JSONValue, where: str) -> Iterator[str]:
    parts = list(_parts(schema))
    if isinstance(value, dict):
        properties = {name: inner for part in parts for name, inner in part.get("properties", {}).items()}
        if not properties:
            return  # an object of any form
        for name, inner in value.items():
            if name in properties:
                yield from _unknown(properties[name], inner, f"{where}.{name}")
            elif not name.startswith(_OWN_FIELDS):
                yield f"{where}.{name}"
    elif isinstance(value, list):
        for part in parts:
            if isinstance(part.get("items"), dict):
                for inner in value:
                    yield from _unknown(part["items"], inner, where)


def _parts(schema: JSONValue) -> Iterator[Message]:
    """Yield a schema with its references resolved, and the alternatives in it."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        file, _, pointer = schema["$ref"].partition("#/$defs/")
        yield from _parts(schemas.load(file.removesuffix(".schema.json"))["$defs"][pointer])
    yield schema
    for key in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(key, ()):
            yield from _parts(inner)


def staged_names(method: str, params: Message) -> Iterator[tuple[str, str]]:
    """Yield (field, name) of the staged files that a call's parameters name, but for those inside of lists."""
    properties = schemas.load(method)["properties"]["params"].get("properties", {})
    for field, inner in properties.items():
        name = params.get(field)
        if isinstance(name, str) and str(inner.get("$ref", "")).endswith(_STAGED):
            yield field, name


def put_rows(params: Message, staging: str) -> Iterator[JSONValue]:
    """Yield the rows of ``object.put``, in the message or in a file of the directory ``staging``, as far as they go."""
    name = params.get("files_file")
    if name is None:
        yield from params.get("files", ())
        return
    with suppress(OSError, ValueError), open(os.path.join(staging, name), "rb") as file:
        for line in file:
            yield json.loads(line)


def with_rows(params: Message, staging: str) -> Message:
    """Return the parameters of ``object.put`` with the rows of its file as ``files``.

    They are none if they are more than staging may hold files, or malformed.
    """
    if "files_file" not in params:
        return params
    most = Limits().staging_files
    rows = list(islice(put_rows(params, staging), most + 1))
    is_good = len(rows) <= most and all(type(row) is dict and "name" in row for row in rows)
    return {**params, "files": rows if is_good else []}
