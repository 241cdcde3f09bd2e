"""Look at every message of a run, and note the breach of a rule where it happens.

The core itself refuses most of this with an error or by ending the run; what it does not say is which rule it was, and
what it forgives (an unknown field, a message after the result) would break with the next core.
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from composefs.digest import Algorithm
from composefs.errors import KINDS
from composefs.ext.calls import CALLS
from composefs.ext.check import fields
from composefs.ext.check.files import Files
from composefs.ext.check.refusals import rule_broken
from composefs.ext.check.report import Finding
from composefs.ext.manifest import Command, Manifest
from composefs.ext.trace import redact
from composefs.protocol import DRAFTS, RESULT_FILE, SIZES, schemas
from composefs.protocol.wire import JSONValue, Message, decode
from composefs.splitstream import names_image

if TYPE_CHECKING:
    from composefs.ext.check.silence import Silence
    from composefs.ext.process import Ended

__all__ = ["Watch"]

_LINES_SHOWN = 6
_REFUSAL_SHOWN = 2
_LINES_KEPT = 400
_SHOWN = 400


class _Unanswered(NamedTuple):
    """A call that came when there were so many ``findings``, and the extension ``was_told`` of a refused row or not."""

    method: str
    params: Message
    findings: int
    was_told: bool


class Watch:
    """Looks at one run, which ``run`` describes; ``files`` looks at what is in staging.

    ``calls`` are the methods called, in order, and ``params`` what with.  ``answer`` is what run was answered with.
    ``images`` are the ids of those that were published, ``content_types`` those of the streams that were put.
    ``versions`` and ``features`` are those on offer that are known, ``ids`` those of initialize and run: as `Tap` says.
    """

    versions: tuple[int, ...]
    features: tuple[str, ...]
    ids: tuple[int, int]

    def __init__(self, run: str, manifest: Manifest, command: Command, algorithm: Algorithm) -> None:
        self.run = run
        self.manifest = manifest
        self.command = command
        self.findings: list[Finding] = []
        self.tried: set[int] = set()
        self.calls: list[str] = []
        self.params: list[Message] = []
        self.images: set[JSONValue] = set()
        self.content_types: set[str] = set()
        self.answer: Message | None = None
        self.welcomed: Message | None = None
        self.ended: Ended | None = None
        self.stderr = ""
        self.last_refusal = ""
        self.late = False  # a time was up, which may be the machine's fault
        self.is_told = False  # of a row that we had refused
        self.refused = False  # we are the reason of errors that the core answers from here on
        self.files = Files(self.find, self.tried, self._picked, algorithm)
        self._garbled = False
        self._last_sent = "run"
        self._unanswerable = ""
        self._lines: list[str] = []
        self._refusal: tuple[str, ...] = ()
        self._open: dict[int, _Unanswered] = {}
        self._done: dict[str, int] = {}
        self._drafts: set[str] = set()
        self._images: dict[str, set[str]] = {}  # that a stream which was put names
        self._published: set[str] = set()  # ids of streams and images

    def find(self, rule: int, message: str, *, warning: bool = False) -> None:
        """Note a breach, with what was said before it, and around the refusal that it may come of."""
        lines = tuple(self._lines[-_LINES_SHOWN:])
        if self._refusal and self._refusal[-1] not in lines:
            lines = (*self._refusal, "…", *lines[-_LINES_SHOWN + len(self._refusal) :])
        self.findings.append(Finding(rule, message, self.run, warning, lines))

    @property
    def failed(self) -> bool:
        """Whether something worse than a warning was found."""
        return any(not each.warning for each in self.findings)

    @property
    def succeeded(self) -> bool:
        """Whether run was answered with a result, whatever rules were broken."""
        return self.answer is not None and "result" in self.answer

    # Lines

    def sent(self, line: bytes) -> None:
        """Note what the core wrote."""
        self._note("> ", line)
        if self.refused and not self._refusal:
            self._refusal = tuple(self._lines[-_REFUSAL_SHOWN:])

    def _note(self, direction: str, line: bytes) -> None:
        text = redact(line[: _SHOWN + 1])
        self._lines.append(direction + (text[:_SHOWN] + "…" if len(line) > _SHOWN else text))
        if len(self._lines) > _LINES_KEPT:
            del self._lines[: _LINES_KEPT // 2]

    def received(self, line: bytes) -> None:
        """Look at a line of the extension, as it came."""
        self._note("< ", line)
        self.tried |= {1, 2, 3, 4, 5, 17, 37}
        try:
            message = json.loads(line.decode(), object_pairs_hook=self._object)
        except (ValueError, RecursionError) as error:
            if self._garbled:
                return  # the rest of what was broken at its beginning
            self._garbled = True
            self._find_garbled(line, error)
            return
        if type(message) is not dict:
            self.find(1, "a message is not an object")
            return
        try:
            decode(line)
        except Exception as error:  # noqa: BLE001 - whatever the strict reader minds
            self.find(4, str(error))
            return
        if message.get("jsonrpc") != "2.0":
            self.find(3, 'a message lacks "jsonrpc": "2.0"')
        elif "method" in message:
            self._received_call(message)
        else:
            self._received_answer(message)

    def _find_garbled(self, line: bytes, error: ValueError | RecursionError) -> None:
        """Note what is wrong with a line that is no JSON."""
        if isinstance(error, RecursionError):
            self.find(4, "a message is nested too deep")
        elif not line.strip():
            self.find(1, "a line is empty: a newline ends each message, and there is no other")
        elif line.startswith(BOM_UTF8):
            self.find(1, "a line begins with a byte order mark, which belongs to no JSON")
        elif str(error).startswith("Extra data"):
            self.find(1, f"a line has more than one message, or has more behind it: {error}")
        elif line.lstrip()[:1] in (b"{", b"["):
            self.find(1, f"a line is not JSON in UTF-8: {error} (in a string, a newline is \\n)")
        else:
            self.find(5, "a line on standard output is not a message: text for people goes to standard error")

    def _object(self, members: list[tuple[str, JSONValue]]) -> Message:
        """Make an object of its members, and note a name that it has twice: which one counts, each reader decides."""
        made = dict(members)
        if len(made) < len(members):
            (twice, _), *_ = Counter(name for name, _ in members).most_common(1)
            self.find(1, f"an object in a message has the field {twice[:100]!r} more than once", warning=True)
        return made

    def _received_call(self, message: Message) -> None:
        method, number = message["method"], message.get("id")
        if type(method) is not str:
            self.find(3, "the method of a call is not a string")
        elif type(message.get("params")) is not dict:
            rule = 43 if "params" in message else 3
            self.find(rule, f"the params of {method} are no object: without any they are {{}}")
        elif self.answer is not None:
            self.find(26, f"{method} was sent after the answer to run")
        elif self.welcomed is None:
            self.find(6, f"{method} was called before initialize was answered")
        elif "id" not in message:
            self.tried.add(11)
            if method not in CALLS:
                self._unanswerable = method
            elif not CALLS[method].notification:
                self.find(11, f"{method} was sent without an id")
        elif type(number) is not int:
            self.find(6, f"the id of a call of {method} is not an integer")
        elif number in self._open:
            self.find(6, f"{method} was called with the id {number} of a call that is not answered yet")
        else:
            self.tried |= {6, 8}
            self._open[number] = _Unanswered(method, message["params"], len(self.findings), self.is_told)

    def _received_answer(self, message: Message) -> None:
        number, ids = message.get("id"), self.ids
        self.tried.add(6)
        if "result" in message and "error" in message:
            spare = [name for name in ("result", "error") if message[name] is None]
            which = f'"{spare[0]}": null, which is to be left out' if spare else "both a result and an error"
            self.find(3, f"an answer has {which}", warning=bool(spare))
        if type(number) is not int:
            self.find(6, f"an answer has the id {number!r}, which is no integer, as the id of the call was")
        elif number == ids[0] and self.welcomed is None:
            self.welcomed = message
            self._check_welcome(message)
        elif number == ids[1] and self.answer is None and self.welcomed is not None:
            self.answer = message
            self._check_result(message)
        elif number == ids[1] and self.answer is not None:
            self.find(26, "run was answered twice")
        else:
            self.find(6, f"an answer has the id {number!r}, and is to none: initialize has {ids[0]}, run {ids[1]}")

    def _result(self, message: Message, method: str) -> Message | None:
        """Return the result in an answer, checking the error instead if it is one; None if there is no result."""
        if message.get("error") is not None:
            self._check_error(message["error"])
            return None
        result = message.get("result")
        if type(result) is not dict:
            self.find(3, f"the answer to {method} has neither an error nor an object as result")
            return None
        return result

    def _check_welcome(self, message: Message) -> None:
        self.tried.add(25)
        result = self._result(message, "initialize")
        if result is None:
            return
        features = self.features
        spoken = [version for version in self.versions if version in self.manifest.protocol]
        if not self.versions:
            self.find(25, "a version was picked that was not on offer: initialize is to be answered unsupported then")
        elif type(result.get("version")) is not int or result["version"] not in spoken:
            self.find(25, f"version {result.get('version')!r} was picked; on offer, and in the manifest, are {spoken}")
        elif type(picked := result.get("features", [])) is not list or any(each not in features for each in picked):
            self.find(25, f"features {picked!r} were picked; on offer are {list(features)}")

    def _check_result(self, message: Message) -> None:
        self.tried.add(30)
        result = self._result(message, "run")
        if result is None:
            return
        if type(result.get("status", 0)) is not int or result.get("status", 0) not in (0, 1):
            self.find(41, f"status is {result['status']!r}, neither 0 nor 1")
        if RESULT_FILE in result and self._picked(RESULT_FILE):
            whole = self.files.result(result[RESULT_FILE])
            if whole is None:
                return
            result = whole
        schema = self.command.result_schema
        if schema is not None:
            self.tried.add(41)
            misfit = schemas.misfit(schema, result)
            if misfit is not None:
                self.find(41, f"the result: {misfit}")

    @property
    def picked(self) -> list[JSONValue]:
        """The features that the extension has picked."""
        welcome = (self.welcomed or {}).get("result")
        features = welcome.get("features") if type(welcome) is dict else None
        return features if type(features) is list else []

    def _picked(self, feature: str) -> bool:
        return feature in self.picked

    def _check_error(self, error: JSONValue) -> None:
        self.tried.add(35)
        wrong = schemas.first_error("error", error)
        if wrong is not None:
            where = f"error{wrong.json_path.removeprefix('$')}"
            self.find(35, f"an answer has an error that is not as it should be: {where}: {wrong.message[:200]}")
            return
        if error.get("data", {}).get("kind") not in KINDS and not self.refused:
            self.find(35, f"an error has the kind {error.get('data', {}).get('kind')!r}", warning=True)
        if "\n" in error["message"]:
            self.find(35, "the message of an error has more than one line: users are shown one", warning=True)

    # Calls and answers, in the order in which the core serves them

    def serving(self, message: Message) -> None:
        """Look at a call or notification that is about to be served."""
        method, params = message["method"], message.get("params")
        if message.get("id") is not None:
            self.calls.append(method)
            self.params.append(params if type(params) is dict else {})
        self.files.lists = {}
        if method not in CALLS or type(params) is not dict:
            return
        self.tried |= {10, 43}
        wrong = fields.breach(method, params)
        if wrong is not None:
            self.find(*wrong)
            return
        for field in fields.unknown_fields(method, params):
            self.find(10, f"{field} is no field of the protocol")
        self._check_allowed(method)
        self.files.serving(method, params)
        if method == "image.draft" or "draft" in params:
            self._check_draft(method, params["draft"])
        if method == "stream.get" and "sizes_into" in params and not self._picked(SIZES):
            self.find(10, f"{method}: sizes_into is a field of the feature {SIZES}, which was not picked")
        if method == "progress":
            self._check_progress(params)

    def _check_allowed(self, method: str) -> None:
        call, mode = CALLS[method], self.command.repository
        self.tried.add(31)
        if call.permission is not None and call.permission not in self.command.permissions:
            self.find(31, f"{method} needs the permission {call.permission}")
        elif call.needs_more(mode):
            self.find(31, f"{method} needs a command with repository {call.repository}, not {mode}")

    def _check_draft(self, method: str, name: str) -> None:
        """Look at a call that names a draft; what its part must be is for the core to say."""
        self.tried.add(46)
        if not self._picked(DRAFTS):
            self.find(10, f"{method}: draft is a field of the feature {DRAFTS}, which was not picked")
        elif method == "image.draft":
            self._drafts.add(name)
        elif name in self._drafts:
            self._drafts.remove(name)
        else:
            self.find(46, f"{method}: there is no draft {name}, or it was used before")

    def _check_progress(self, params: Message) -> None:
        self.tried.add(40)
        name, done, total = params["id"], params.get("done"), params.get("total")
        if params["kind"] == "started":
            self._done.pop(name, None)
        if done is not None:
            if done < self._done.get(name, 0):
                self.find(40, f"progress of {name} went back from {self._done[name]} to {done}")
            if total is not None and done > total:
                self.find(40, f"progress of {name} is {done} of {total}")
            self._done[name] = done

    def answered(self, answer: Message) -> None:
        """Look at what the core answers to a call."""
        call, error = self._open.pop(answer["id"], None), answer.get("error")
        if call is None:
            return
        method, params = call.method, call.params
        self._last_sent = f"the {'answer to' if error is None else 'error for'} {method}"
        if error is not None:
            self.last_refusal = f"{method} was answered: {error['message']}"
        if method not in CALLS:
            return
        self.tried |= {18, 21, 23}
        if "from" in params or method == "image.mount":
            self.tried.add(24)
        images = {each for name, each in self.files.lists.get("named_refs", ()) if names_image(name)}
        if images:
            self.tried.add(22)
        if error is None and method == "object.put":
            self.files.put(params, answer["result"], was_told=call.was_told)
        elif error is None and method == "stream.put":
            self._images[answer["result"]["id"]] = images
            self.content_types.add(params["content_type"])
        elif error is None and method == "publish":
            self._published |= {row["id"] for key in ("streams", "images") for row in self.files.lists.get(key, ())}
            self.images |= {row["id"] for row in self.files.lists.get("images", ())}
        elif error is not None and not self.refused and len(self.findings) == call.findings:
            rule = rule_broken(method, params, error)
            if rule is not None:
                hint = f" ({error['data']['hint']})" if "hint" in error["data"] else ""
                self.find(rule, f"{method}: {error['data']['kind']}: {error['message']}{hint}")

    # The end

    @property
    def hidden_images(self) -> list[str]:
        """The images that streams which were published name, and that were not: nobody can mount them."""
        named = [images for stream, images in self._images.items() if stream in self._published]
        return sorted(set().union(*named) - self._published)

    def kept_waiting(self, silence: Silence, begun: bytes, unread: int) -> None:
        """Note that nothing is to be expected any more, and what the extension may be waiting for.

        ``begun`` is what it has written of a line, ``unread`` the number of bytes that it has not read.
        """
        since = f"for {silence.patience:g} seconds nothing came, and all of it slept ({', '.join(silence.names)})"
        if begun:
            self._note("< ", begun)
            self._garbled = True  # whatever ends it now
            self.find(1, f"a line does not end: {since}, but no newline has come (is it written, and flushed?)")
            return
        if unread:
            state = f"it has not read what it was sent, {unread} bytes up to {self._last_sent}"
        else:
            state = f"it has read all that it was sent, up to {self._last_sent}, and has no call to be answered"
        if self._unanswerable:
            state += f", as its {self._unanswerable} had no id"
        remedy = "does it flush what it writes? while it waits for something else, let it send progress"
        self.find(30, f"run is not answered: {since}; {state} ({remedy})")

    def after_the_end(self, data: bytes) -> None:
        """Note what the extension wrote when it had nothing more to say."""
        self.tried.add(26)
        if data and not any(each.rule == 26 for each in self.findings):
            self._note("< ", data)
            self.find(26, "something was written after the answer to run")
