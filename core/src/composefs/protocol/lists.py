"""Lists too long for a message: parameters ``X`` or ``X_file``, results ``X`` or a file named by ``X_into``.

A list in a file is JSON Lines, one element a line (P-14, P-15).  Elements are checked by the caller's function, a block
of lines at a time, because a list may have millions of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from composefs.errors import FormatError, TooLargeError, UsageError
from composefs.protocol.limits import Limits
from composefs.protocol.params import shown, staged_name
from composefs.protocol.staged import READ_SIZE, StagedFiles
from composefs.protocol.wire import SCALARS, JSONValue, Message, depth_exceeds, encode, encode_scalars, parse_json
from composefs.tuples import NamedTuple

__all__ = ["Blocks", "ListCheck", "Lists", "check_integers", "check_objects", "json_lines"]

ListCheck = Callable[[list[JSONValue]], None]
"""Checks a block of a list's elements, and may cut each down to what is needed of it; raises UsageError."""


class Blocks(NamedTuple):
    """A list parameter of ``length`` rows, which were checked; ``read`` gives them anew, checked again, in blocks.

    Of a file that somebody changed meanwhile it gives what is there then.
    """

    length: int
    read: Callable[[], Iterator[list[JSONValue]]]


_BLOCK = 512
"""Elements written at a time."""


class Lists:
    """The lists that calls take and give: their files are staged ones, and the limits say how long they may be."""

    def __init__(self, staged: StagedFiles, limits: Limits) -> None:
        self._staged = staged
        self._limits = limits

    def take(self, params: Message, key: str, check: ListCheck) -> list[JSONValue]:
        """Return the list parameter ``key``, from the message or the staged file ``key_file``; empty without either.

        Raises UsageError when both are given or an element is wrong, TooLargeError above the limits, FormatError for a
        file that is not JSON Lines.
        """
        inline, file = params.get(key), params.get(key + "_file")
        if file is None:
            if inline is None:
                return []
            if type(inline) is not list:
                raise UsageError(f"{key} is not a list")
            if len(inline) > self._limits.rows:
                raise TooLargeError(
                    f"{key} has {len(inline)} rows, more than {self._limits.rows}", hint=f"give {key}_file instead"
                )
            check(inline)
            return inline
        if inline is not None:
            raise UsageError(f"give either {key} or {key}_file")
        return list(chain.from_iterable(self._checked(staged_name(file, key + "_file"), check)))

    def take_blocks(self, params: Message, key: str, check: ListCheck) -> Blocks:
        """Return what :meth:`take` does, without ever having all of a file in memory; raises the same.

        The file is read twice: what is wrong in its last line shows before anything was done of the first.
        """
        file = params.get(key + "_file")
        if file is None or params.get(key) is not None:
            rows = self.take(params, key, check)
            return Blocks(len(rows), lambda: iter([rows]))
        name = staged_name(file, key + "_file")

        def read() -> Iterator[list[JSONValue]]:
            return self._checked(name, check)

        return Blocks(sum(map(len, read())), read)

    def _checked(self, name: str, check: ListCheck) -> Iterator[list[JSONValue]]:
        """Yield a list in a file, some thousand rows at a time."""
        count = 0
        for block in _blocks(name, self._staged.pieces(name, self._limits.dump_bytes), self._limits.line):
            count += len(block)
            if count > self._limits.file_rows:
                raise TooLargeError(f"staged file {name} has more than {self._limits.file_rows} rows", subject=name)
            check(block)
            yield block

    def give(self, params: Message, key: str, rows: Iterable[JSONValue]) -> Message:
        """Return what an answer holds of the result list ``key``: nothing if it goes into the staged file ``key_into``.

        Whether the answer fits in a message is seen when it is sent: encoding it here too would double what a row
        costs.
        """
        into = params.get(key + "_into")
        if into is not None:
            self._staged.write(staged_name(into, key + "_into"), json_lines(rows))
            return {}
        inline = list(islice(rows, self._limits.rows + 1))
        self.check_room(params, key, len(inline))
        return {key: inline}

    def check_room(self, params: Message, key: str, count: int) -> None:
        """Raise TooLargeError if a result list of ``count`` rows has no place to go."""
        if count > self._limits.rows and params.get(key + "_into") is None:
            raise TooLargeError(f"{key} is too long for a message", hint=f"name a staged file with {key}_into")


def _blocks(name: str, pieces: Iterator[bytes], line_limit: int) -> Iterator[list[JSONValue]]:
    """Parse JSON Lines, the lines of a piece at once: an array made of them parses many times faster than each."""
    pending = b""
    number = 0
    for piece in pieces:
        complete, newline, rest = piece.rpartition(b"\n")
        if not newline:
            pending += piece
        else:
            lines = (pending + complete).split(b"\n")
            yield _parse_lines(name, number, lines)
            number += len(lines)
            pending = rest
        if len(pending) > max(line_limit, READ_SIZE):
            raise TooLargeError(f"{name}, line {number + 1}: longer than {line_limit} bytes", subject=name)
    if pending:
        yield _parse_lines(name, number, [pending])


def _parse_lines(name: str, before: int, lines: list[bytes]) -> list[JSONValue]:
    block: list[JSONValue] = []
    try:
        block = parse_json(b"[" + b",".join(lines) + b"]")
        fault = f"{len(block)} JSON elements, not one"
    except ValueError as error:
        fault = str(error)
    # A line with two elements, or an element on two lines, shows as a wrong count.
    if len(block) == len(lines):
        return block
    if len(lines) == 1:
        raise FormatError(f"{name}, line {before + 1}: {fault}", subject=name, offset=before + 1)
    return [row for number, line in enumerate(lines, before) for row in _parse_lines(name, number, [line])]


def json_lines(rows: Iterable[JSONValue]) -> Iterator[bytes]:
    """Return the text of a list in a file, in pieces."""
    iterator = iter(rows)
    while block := list(islice(iterator, _BLOCK)):
        # Ids, sizes and flags, of which a pull from a base asks for tens of thousands, take a tenth so.
        yield encode_scalars(block) if SCALARS.issuperset(map(type, block)) else b"".join(map(encode, block))


def check_objects(key: str, *fields: str, strings: bool = False) -> ListCheck:
    """Return a check that every element of ``key`` is an object, or else a string where ``strings`` may be.

    Only ``fields`` are kept, none of which is a list or object: what else a row may hold takes 25 times the memory of
    its text, and a list in a file has half a gigabyte of that.
    """
    known = frozenset(fields)

    def check(block: list[JSONValue]) -> None:
        for row in block:
            if type(row) is not dict and not (strings and type(row) is str):
                raise UsageError(f"{key} holds something that is not an object: {shown(row)}")
        # Every pull's every file passes here: what is as it should be is seen without a look at each row.
        if known.issuperset(chain.from_iterable(block)) and not depth_exceeds(block, 2):
            return
        for number, row in enumerate(block):
            if type(row) is dict:
                # An empty list or object is as wrong as a full one, wherever it is looked at.
                block[number] = {
                    field: type(value)() if type(value) in (list, dict) else value
                    for field, value in row.items()
                    if field in known
                }

    return check


def check_integers(key: str) -> ListCheck:
    """Return a check that every element of ``key`` is an integer; how large it may be was seen when it was read."""

    def check(block: list[JSONValue]) -> None:
        for value in block:
            if type(value) is not int:
                raise UsageError(f"{key}: {shown(value)} is not an integer")

    return check
