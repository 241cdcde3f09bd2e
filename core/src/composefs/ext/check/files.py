"""Look at the staged files of a run: those that a call names, in its parameters or in rows, and what is in them.

Rows are the same in a message and in a file, and are looked at in the same way.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from composefs.digest import Algorithm
from composefs.errors import UsageError
from composefs.ext.check import fields, staged
from composefs.protocol import PACKS, RESULT_FILE
from composefs.protocol.limits import Limits
from composefs.protocol.params import staged_name
from composefs.protocol.wire import JSONValue, Message, parse_json

__all__ = ["Files"]

_HEX = b"0123456789abcdef"
_COLUMNS = 11
"""Of a line of a dump, before the extended attributes."""


def _shown(column: bytes) -> str:
    return column[:140].decode("ascii", "backslashreplace")


class Files:
    """Looks at what a run has in staging: breaches go to ``find``, and rules that are put to the test into ``tried``.

    ``directory`` is known once initialize is sent.  ``lists`` are those of the call that is served, if they are right.
    ``stored`` tells whether ``object.put`` took anything, ``put_again`` whether it took at last what a refused row was
    for.  ``refused`` is that row's file.
    """

    def __init__(
        self, find: Callable[[int, str], None], tried: set[int], picked: Callable[[str], bool], algorithm: Algorithm
    ) -> None:
        self._find = find
        self._tried = tried
        self._picked = picked
        self._algorithm = algorithm
        self._taken: set[str] = set()
        self._refused_id: str | None = None
        self.refused = ""
        self.directory = ""
        self.lists: dict[str, list[JSONValue]] = {}
        self.stored = False
        self.put_again = False

    # What is about to be served

    def serving(self, method: str, params: Message) -> None:
        """Look at the files of a call that fits its schema, and at its lists in files as if they were in it."""
        self.lists = {}
        for field, name in fields.staged_names(method, params):
            if field == "into" or field.endswith("_into"):
                self._tried.add(13)
                if os.path.lexists(self._path(name)):
                    self._find(13, f"{method}: {field} names the file {name}, which exists")
            else:
                self._look_at(f"{method}: {field}", name)
        for field in ("dump", "part"):
            if method.startswith("image.") and field in params:
                self._look_at_dump(f"{method}: {params[field]}", params[field], may_end_early=field == "dump")
        if self._read_lists(method, params) and method == "object.put":
            self._look_at_rows(self.lists.get("files", []))
        if method == "output" and "file" in params:
            self._taken.add(params["file"])

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _look_at(self, where: str, name: str) -> None:
        self._tried |= {12, 16}
        try:
            info = os.lstat(self._path(name))
        except OSError:
            rule, what = (16, "was taken before") if name in self._taken else (12, "does not exist")
            self._find(rule, f"{where} names the file {name}, which {what}")
            return
        self._taken.discard(name)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            self._find(12, f"{where} names {name}, which is not a regular file with one link")

    def _read_lists(self, method: str, params: Message) -> bool:
        """Keep the lists of a call, and say whether they are right."""
        lists = {name: value for name, value in params.items() if type(value) is list}
        for key, found in staged.lists_in_files(method, params, self.directory).items():
            where = f"{method}: {key}_file {params[f'{key}_file']}"
            if isinstance(found, staged.Malformed):
                self._find(14, f"{where}, {found.reason}: each line is to hold a row")
                return False
            wrong = fields.row_breach(method, params, key, found)
            if wrong is not None:
                self._find(*wrong)
                return False
            for field in dict.fromkeys(fields.unknown_fields(method, {key: found})):
                self._find(10, f"{where}: {field} is no field of the protocol")
            lists[key] = found
        self.lists = lists
        if lists or method == "object.put":
            self._tried.add(14)
        return True

    def _look_at_rows(self, rows: list[JSONValue]) -> None:
        ends: dict[str, int] = {}
        for row in rows:
            self._look_at("object.put: files", row["name"])
            if "offset" in row:
                self._look_at_range(row["name"], row["offset"], row["size"], ends)

    def _look_at_range(self, name: str, offset: int, size: int, ends: dict[str, int]) -> None:
        """Look at a range of a pack; ``ends`` has where the last one of each ended."""
        if not self._picked(PACKS):
            self._find(10, f"object.put: files.offset is a field of the feature {PACKS}, which was not picked")
            return
        self._tried.add(45)
        what = f"object.put: the range {offset}+{size} of {name}"
        limit = Limits().range_bytes
        if size > limit:
            self._find(45, f"{what} is larger than {limit}")
            return
        if offset < ends.get(name, 0):
            self._find(45, f"{what} begins before {ends[name]}, where the one before it ends")
        ends[name] = offset + size
        with suppress(OSError):
            if ends[name] > os.path.getsize(self._path(name)):
                self._find(45, f"{what} ends behind the end of the file")

    def _look_at_dump(self, where: str, name: str, *, may_end_early: bool) -> None:
        """Look at the lines of a dump; only that of a whole dump ``may_end_early``, without its last newline (P-46)."""
        self._tried |= {19, 20}
        for number, line in enumerate(io.BytesIO(staged.read(self.directory, name) or b""), 1):
            if not may_end_early and not line.endswith(b"\n"):
                return
            wrong = self._wrong_in(line.rstrip(b"\n").split(b" ", 11))
            if wrong is not None:
                rule, what = wrong
                self._find(rule, f"{where}, line {number}: {what}")
                return

    def _wrong_in(self, columns: list[bytes]) -> tuple[int, str] | None:
        """Return what the core forgives in a line of a dump, with its rule; all else is for the core to refuse."""
        if len(columns) < _COLUMNS:
            return 19, f"{len(columns)} columns, not {_COLUMNS}: what is not there is -"
        path, payload, digest = (columns[each] for each in (0, 8, 10))
        if not path.startswith(b"/"):
            return 19, f"PATH is {_shown(path)}, which does not begin with /"
        if digest.strip(_HEX):
            return None
        if payload != digest[:2] + b"/" + digest[2:]:
            digits = _shown(digest)
            return 20, f"PAYLOAD is {_shown(payload)}, not the path of DIGEST, {digits[:2]}/{digits[2:6]}…"
        return None

    # What was answered

    def put(self, params: Message, result: Message, *, was_told: bool) -> None:
        """Look at what the rows of the last ``object.put`` were answered: which files are gone, and what is stored.

        ``was_told``: it was made by who had been told of a refused row.  Other files may have the same content.
        """
        gone = set()
        rows = staged.answered("objects", params, result, self.directory)
        for given, stored in zip(self.lists.get("files", []), rows, strict=False):
            name = given["name"]
            if "id" in stored:
                self.stored = True
                self.put_again |= was_told and stored["id"] == self._refused_id
                if "offset" not in given:
                    gone.add(name)
            elif name in gone:
                self._find(16, f"object.put: files names the file {name} again, which was taken for a row before it")
        self._taken |= gone

    def refuse(self, row: Message) -> bool:
        """Note that the core is about to refuse a row, and say whether it could be told that it is put again."""
        self.refused = row["name"]
        self._refused_id = staged.content_id(row, self.directory, self._algorithm)
        return self._refused_id is not None

    # The result

    def result(self, name: JSONValue) -> Message | None:
        """Return the result in a staged file, or None if there is none, or too much of it to be looked at here."""
        self._tried.add(44)
        try:
            self._look_at(f"the answer to run: {RESULT_FILE}", staged_name(name, RESULT_FILE))
            data = staged.read(self.directory, name)
            result = None if data is None else parse_json(data)
        except (UsageError, ValueError) as error:
            self._find(44, f"the answer to run: {RESULT_FILE}: {error}")
            return None
        if result is not None and type(result) is not dict:
            self._find(44, f"the answer to run: {RESULT_FILE}: {name} holds no object")
            return None
        return result
