"""The JSON Schemas of version 1, one file a message, and their validation.

jsonschema is imported here and only when something is validated, by the conformance kit.  A schema describes one
exchange, ``{params, result}``, and carries examples of it.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from composefs.protocol.wire import JSONValue

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

__all__ = ["first_error", "load", "malformed", "misfit", "names"]

_SECONDS = 5
"""Of a processor's time that may be spent on comparing one value with somebody's schema."""

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
    from jsonschema import Draft202012Validator, validators
    from referencing import Registry, Resource

    # To JSON Schema 6.0 is an integer; to the core, as to a typed language's JSON library, it is not (P-43).
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _checker, value: type(value) is int)
    exact: type[Validator] = validators.extend(Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]
    resources_by_uri = [(load(each)["$id"], Resource.from_contents(load(each))) for each in names()]
    registry: Registry[JSONValue] = Registry().with_resources(resources_by_uri)
    return exact(load(name), registry=registry)


def first_error(name: str, value: JSONValue) -> ValidationError | None:
    """Check ``value`` against a schema; return what does not fit, or None."""
    from jsonschema.exceptions import best_match

    found: ValidationError | None = best_match(_validator(name).iter_errors(value))
    return found


def malformed(schema: JSONValue) -> str | None:
    """Say why somebody's schema is none that can be used by itself; None if it is, or there is none."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if schema is None:
        return None
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"{error.json_path}: {error.message[:200]}"
    return None


def misfit(schema: JSONValue, value: JSONValue) -> str | None:
    """Say where a value does not fit somebody's schema, or what that lacks; None if it fits, or the schema is none.

    A schema that is elsewhere is not fetched.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    if malformed(schema) is not None:
        return None
    try:
        with _limited():
            error = best_match(Draft202012Validator(schema, registry=Registry()).iter_errors(value))
    except Unresolvable as missing:
        return f"its schema refers to {missing.ref}, which is not in it"
    except RecursionError:
        return "its schema refers to itself without end"
    except TimeoutError:
        return f"to compare it with its schema takes more than {_SECONDS} seconds"
    return None if error is None else f"{error.json_path}: {error.message[:200]}"


@contextmanager
def _limited() -> Iterator[None]:
    """Raise TimeoutError after a while of work: a pattern can take ages to fit, and references double what there is."""

    def give_up(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
