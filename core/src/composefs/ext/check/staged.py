"""Read what a call gives, and is answered, in staged files: the same lists as in messages, a row a line.

The files are the extension's: they are opened as the core opens them, following no link and waiting for nobody.  What
is longer than `LOOKED_AT`, or has more than `ROWS_LOOKED_AT` rows, is left to the core.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from composefs.digest import Algorithm
from composefs.errors import ComposefsError
from composefs.ext.check.fields import staged_names
from composefs.fsverity import digest_bytes, digest_fd
from composefs.linux.closing import Descriptor
from composefs.protocol.limits import Limits
from composefs.protocol.params import staged_name
from composefs.protocol.staged import StagedFiles
from composefs.protocol.wire import JSONValue, Message, parse_json

__all__ = ["Malformed", "answered", "content_id", "lists_in_files", "read"]

LOOKED_AT = 64 << 20
"""Bytes of a staged file that is looked at."""

ROWS_LOOKED_AT = Limits().staging_files
"""Rows of a list that is looked at, which takes 0.1 ms for each."""


class Malformed(NamedTuple):
    """What is in place of the rows of a file that is not JSON Lines."""

    reason: str


@contextmanager
def _staged(staging: str) -> Iterator[StagedFiles]:
    with Descriptor(os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        yield StagedFiles(fd)


def read(staging: str, name: JSONValue) -> bytes | None:
    """Return what is in a staged file; None if it cannot be read, or is too long to be looked at."""
    with suppress(ComposefsError, OSError), _staged(staging) as staged:
        return staged.read(staged_name(name, "name"), LOOKED_AT)
    return None


def lists_in_files(method: str, params: Message, staging: str) -> dict[str, list[JSONValue] | Malformed]:
    """Return the lists ``X`` that a call gives in files ``X_file``, but for those that cannot be looked at."""
    found = {}
    for field, name in staged_names(method, params):
        key = field.removesuffix("_file")
        if key != field and (data := _read_list(staging, name)) is not None:
            found[key] = _parse(data)
    return found


def answered(key: str, params: Message, result: Message, staging: str) -> list[Message]:
    """Return the rows ``key`` of an answer, from the message or from the file that the call named for them."""
    if f"{key}_into" not in params:
        return list(result.get(key, ()))
    rows = _parse(_read_list(staging, params[f"{key}_into"]) or b"")
    if isinstance(rows, Malformed) or not all(type(row) is dict for row in rows):
        return []
    return rows


def _read_list(staging: str, name: JSONValue) -> bytes | None:
    data = read(staging, name)
    return None if data is None or data.count(b"\n") > ROWS_LOOKED_AT else data


def _parse(data: bytes) -> list[JSONValue] | Malformed:
    rows = []
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n") if data else (), 1):
        try:
            rows.append(parse_json(line))
        except ValueError as error:
            return Malformed(f"line {number} is {f'not JSON: {error}' if line.strip() else 'empty'}")
    return rows


def content_id(row: Message, staging: str, algorithm: Algorithm) -> str | None:
    """Return the id of what a row of ``object.put`` is for; None if that cannot be read."""
    with (
        suppress(ComposefsError, OSError),
        _staged(staging) as staged,
        Descriptor(staged.open(staged_name(row["name"], "name"), Limits().staging_bytes)) as fd,
    ):
        if "offset" in row:
            size = min(row["size"], Limits().range_bytes)
            return digest_bytes(os.pread(fd, size, row["offset"]), algorithm).hex()
        return digest_fd(fd, algorithm).hex()
    return None
