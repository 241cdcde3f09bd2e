"""docs/protocol.md, the schemas, their examples, the host's table of calls and its limits say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from composefs.errors import KINDS, UsageError, error_of_kind
from composefs.ext.calls import CALLS
from composefs.ext.manifest import parse_manifest
from composefs.protocol import FEATURES, VERSIONS, schemas
from composefs.protocol.limits import Limits
from composefs.protocol.params import staged_name
from composefs_ext import errors as of_the_sdk
from composefs_ext import memory
from composefs_ext import protocol as sdk
from support.strict import validate

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/protocol.md").read_text()
SHARED = ("common", "error", "manifest")
METHODS = tuple(name for name in schemas.names() if name not in SHARED)
SECTIONS = {match[1]: match[2] for match in re.finditer(r"^### (\S+)\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)}


def jsonc(text: str) -> Iterator[Any]:
    """The JSON values in a block with comments and shortened ids."""
    text = re.sub(r"(?<=\s)//.*", "", " " + text)
    text = re.sub(r'"([0-9a-f]{2})…"', lambda match: '"' + match[1] * 64 + '"', text).strip()
    decoder = json.JSONDecoder()
    while text:
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:].lstrip()


def block(text: str) -> str:
    found = re.search(r"```jsonc\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def fields(schema: Any) -> Iterator[str]:
    """The names of all properties in a schema; those behind a reference belong to the schema referred to."""
    if isinstance(schema, dict):
        for name, inner in schema.get("properties", {}).items():
            yield name
            yield from fields(inner)
        for key, inner in schema.items():
            if key not in ("properties", "examples"):
                yield from fields(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from fields(inner)


def test_page_schemas_and_core_have_the_same_methods() -> None:
    assert set(SECTIONS) == set(METHODS) == {*CALLS, "initialize", "run", "cancel"}
    notifications = {name for name in METHODS if schemas.load(name)["x-notification"]}
    assert notifications == {name for name, call in CALLS.items() if call.notification} | {"cancel"}


@pytest.mark.parametrize("name", schemas.names())
def test_schemas_are_valid_and_so_are_their_examples(name: str) -> None:
    schema = schemas.load(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"{name}.schema.json"
    assert schema["title"] == name
    assert schema["description"]
    assert schema.get("examples") or name == "common"
    for example in schema.get("examples", []):
        validate(name, example)


@pytest.mark.parametrize("method", METHODS)
def test_every_field_is_on_the_page(method: str) -> None:
    missing = {
        name
        for name in fields(schemas.load(method)["properties"])
        if not re.search(rf"\b{re.escape(name)}\b", SECTIONS[method])
    }
    repeated = {"from"} if method == "stream.cat" else set()
    assert missing - {"params", "result"} - repeated == set()


@pytest.mark.parametrize("method", METHODS)
def test_examples_on_the_page_are_valid(method: str) -> None:
    params, *result = jsonc(block(SECTIONS[method]))
    assert len(result) == (method != "cancel")
    validate(method, {"params": params, **({"result": result[0]} if result else {})})


def test_rules_are_numbered_and_only_these_are_referred_to() -> None:
    """That each rule is held by a check is proved in tests/conformance/test_ext_check.py."""
    numbers = [int(number) for number in re.findall(r"\*\*P-(\d+)\*\*", PAGE)]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    source = "".join(path.read_text() for path in (ROOT / "core/src/composefs").rglob("*.py"))
    assert {int(number) for number in re.findall(r"\bP-(\d+)\b", source + PAGE)} <= set(numbers)


def test_table_of_errors() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE[: PAGE.index("## Limits")], re.MULTILINE)
    assert dict(rows) == {kind: str(error_of_kind(kind).exit_status) for kind in KINDS}
    assert set(of_the_sdk.KINDS) == {*KINDS} - {"extension_failed"}  # of which no extension can tell
    section = PAGE[PAGE.index("## Errors") :]
    [example] = jsonc(block(section))
    validate("error", example["error"])
    assert set(fields(schemas.load("error"))) | set(fields(schemas.load("common")["$defs"]["error_data"])) <= set(
        re.findall(r"\w+", section)
    )


def test_table_of_limits() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE[PAGE.index("## Limits") :], re.MULTILINE)
    assert {name: int(value) for name, value in rows} == Limits()._asdict()
    assert set(schemas.load("initialize")["properties"]["params"]["properties"]["limits"]["properties"]) == set(
        dict(rows)
    )


def test_table_of_features() -> None:
    rows = re.findall(r"^\| (\d+) \| `?(\w+)`? \|", PAGE[PAGE.index("## Compatibility") :], re.MULTILINE)
    assert rows == [("1", "none"), *(("1", feature) for feature in FEATURES)]


def test_the_sdk_knows_the_version_the_features_and_the_limits() -> None:
    assert VERSIONS == (sdk.PROTOCOL_VERSION,)
    assert FEATURES == sdk.FEATURES == (sdk.RESULT_FILE, sdk.PACKS, sdk.DRAFTS, sdk.SIZES)
    limits = Limits()
    assert (limits.line, limits.unanswered, limits.rows) == (sdk.LINE_LIMIT, sdk.UNANSWERED, sdk.ROWS)
    assert (limits.progress_per_second, limits.range_bytes) == (sdk.PROGRESS_PER_SECOND, sdk.RANGE_BYTES)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, True) for name in ("a", "0", "-", "_x", "a.core-", "core", "Core-a", "x" * 128)),
        *((name, False) for name in ("", ".", "..", ".a", "core-", "core-a", "a/b", "a\n", "ä", "a b", "x" * 129)),
    ],
)
def test_the_core_in_memory_takes_the_names_of_staged_files_that_the_core_takes(
    tmp_path: Path, name: str, is_one: bool
) -> None:
    def takes(read: Callable[[str], object], refusal: type[Exception]) -> bool:
        try:
            read(name)
        except refusal:
            return False
        except of_the_sdk.NotFoundError:  # there is none of that name
            return True
        return True

    assert takes(partial(staged_name, key="name"), UsageError) is is_one
    assert takes(memory.MemoryRepository(tmp_path, "sha512").take, of_the_sdk.UsageError) is is_one


def test_manifest_on_the_page() -> None:
    section = PAGE[PAGE.index("## Manifest") :]
    [example] = jsonc(block(section))
    parse_manifest(json.dumps(example).encode(), "hello")
    validate("manifest", example)
    used = set(re.findall(r'"(\w+)":', json.dumps(example)))
    assert set(fields(schemas.load("manifest"))) - used == set()


def test_page_can_be_read_in_a_quarter_of_an_hour() -> None:
    assert len(PAGE.encode()) < 31_000
