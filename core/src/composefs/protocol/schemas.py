"""The JSON Schemas of version 1, one file a message, and their validation.

jsonschema is imported here and only when something is validated: by the conformance kit, and in strict runs
(composefs.ext.options).  A schema describes one exchange, ``{params, result}``, and carries examples of it.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from composefs.errors import UsageError
from composefs.protocol.wire import JSONValue

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

__all__ = ["first_error", "load", "names", "validate"]

_SUFFIX = ".schema.json"
_DIRECTORY = resources.files("composefs.protocol") / "v1"


@cache
def names() -> tuple[str, ...]:
    """Every schema's name: the methods, and ``common``, ``error``, ``manifest``."""
    return tuple(
        sorted(file.name.removesuffix(_SUFFIX) for file in _DIRECTORY.iterdir() if file.name.endswith(_SUFFIX))
    )


@cache
def load(name: str) -> dict[str, JSONValue]:
    """Read a schema."""
    schema: dict[str, JSONValue] = json.loads((_DIRECTORY / (name + _SUFFIX)).read_bytes())
    return schema


@cache
def _validator(name: str) -> Validator:
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    resources_by_uri = [(load(each)["$id"], Resource.from_contents(load(each))) for each in names()]
    registry: Registry[JSONValue] = Registry().with_resources(resources_by_uri)
    return Draft202012Validator(load(name), registry=registry)


def first_error(name: str, value: JSONValue) -> ValidationError | None:
    """Check ``value`` against a schema; return what does not fit, or None."""
    from jsonschema.exceptions import best_match

    found: ValidationError | None = best_match(_validator(name).iter_errors(value))
    return found


def validate(name: str, value: JSONValue) -> None:
    """Check ``value`` against a schema; raise UsageError naming the first place that does not fit."""
    error = first_error(name, value)
    if error is not None:
        raise UsageError(f"{name}: at {error.json_path}: {error.message[:400]}")
