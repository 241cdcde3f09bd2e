"""Look at a message with its schema: what is wrong in it, which fields are unknown, which files it names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from composefs.protocol import schemas
from composefs.protocol.params import shown
from composefs.protocol.wire import JSONValue, Message

if TYPE_CHECKING:
    from jsonschema import ValidationError

__all__ = ["LISTINGS", "Breach", "breach", "row_breach", "staged_names", "unknown_fields"]

LISTINGS = {"stream.list": "streams", "ref.list": "refs", "image.objects": "ids"}
"""Calls whose result may be of any length, and the list in it."""

_OWN_FIELDS = "x-"
"""Unknown fields that begin so are nobody's mistake."""

_ROWS = 1000
"""Rows of a list in a file that are looked at together: as many as a message may have."""

_SHOWN = 200
"""Characters of what is wrong that are shown."""

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
    return None if error is None else _breach(error, f"{method}: {error.json_path.removeprefix('$.')}")


def row_breach(method: str, params: Message, key: str, rows: list[JSONValue]) -> Breach | None:
    """Check the rows of the file ``key_file`` as if the call, which fits its schema otherwise, held them itself."""
    name = params[f"{key}_file"]
    others = {field: value for field, value in params.items() if field != f"{key}_file"}
    for start in range(0, len(rows), _ROWS):
        error = schemas.first_error(method, {"params": {**others, key: rows[start : start + _ROWS]}})
        if error is not None:
            number, *rest = list(error.absolute_path)[2:] or [0]
            where = "".join(f": {each}" for each in rest)
            return _breach(error, f"{method}: {key}_file {name}, line {start + int(number) + 1}{where}")
    return None


def _breach(error: ValidationError, where: str) -> Breach:
    asked, instance = cast("JSONValue", error.validator_value), cast("JSONValue", error.instance)
    pattern = str(error.schema.get("pattern", "")) if isinstance(error.schema, dict) else ""
    message = error.message if len(error.message) < _SHOWN else error.message[:_SHOWN] + "…"
    if error.validator == "pattern" and _STAGED_PATTERN in pattern:
        rule = 12
        message = f"{shown(instance)} is not 1 to 128 of A-Z a-z 0-9 . _ -, beginning neither with . nor core-"
    elif error.validator == "pattern" and _ID_PATTERN in pattern:
        rule = 18
        message = f"{shown(instance)} is not an id of 64 or 128 lower-case hex digits"
    elif error.validator == "maxItems":
        rule = 14
        message = f"{len(instance)} rows, more than {asked}: give them in several calls, or a file"
    elif error.validator == "not":
        rule = 14
        message = f"both {' and '.join(asked['required'])} are given: one is enough"
    elif "paths" in error.absolute_path:
        rule = 19
    else:
        rule = 43
        if error.validator == "oneOf" and all("required" in each for each in asked):
            message = f"not exactly one of {', '.join(each['required'][0] for each in asked)} is given"
    return Breach(rule, f"{where}: {message}")


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
