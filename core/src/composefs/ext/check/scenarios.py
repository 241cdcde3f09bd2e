"""The runs that the kit makes of one command, and how each of them must end.

The first is an ordinary one.  What the extension did there decides which others make sense: one in which the row of an
object.put is refused needs an object.put.  Where several things can be done otherwise at once, and the extension must
not mind, they are; only if it does mind are they tried singly, to tell which it was.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from composefs.ext.check.fields import LISTINGS
from composefs.ext.check.tap import Script
from composefs.ext.check.watch import Watch

if TYPE_CHECKING:
    from composefs.ext.options import Timeouts
    from composefs.protocol.wire import Message

__all__ = ["PLAIN", "Scenario", "judge", "scenarios"]

_STORING = ("object.put", "stream.put", "image.put", "repo.copy", "publish")
_KINDS = ("no_space", "busy", "corrupt", "io", "permission")
_POINTS = 5
_SAID = 300
_STATES_TOLD = ("exists", "conflict", "not_found")
"""What a command may say of what it has done before: the name is taken, or is not there any more."""
_MISUNDERSTOOD = frozenset({18, 19, 20, 21, 22, 30, 43})
"""What is broken by a call that is made with what an answer would have had, had it been no error, or by waiting on."""


class Scenario(NamedTuple):
    """A run: what is done otherwise, the rules that it tries, and what must come of it.

    ``same``: the command succeeds as ever; ``again``: it does, or says that it has been there; ``error``: it fails;
    ``row``, ``listing``: see `judge`; ``end``: the process ends; ``unknown``: it refuses to speak versions of the
    future.  ``single`` are runs that tell which part of this one was minded.
    """

    title: str
    script: Script
    rules: tuple[int, ...]
    expect: Literal["same", "again", "error", "row", "listing", "end", "unknown"] = "same"
    single: tuple[Scenario, ...] = ()


PLAIN = Scenario("an ordinary run", Script(), ())

_HARMLESS = (
    Scenario("versions and features of the future on offer", Script(offer=True), (25,)),
    Scenario("other numbers for the core's calls", Script(ids=True), (6,)),
    Scenario("unknown fields everywhere", Script(stray=True), (9,)),
    Scenario("an unknown notification after run", Script(notice=True), (9,)),
    Scenario("JSON written otherwise: order, blanks, no escapes", Script(text=True), (1,)),
    Scenario("lines that arrive in pieces", Script(pieces=True), (1,)),
    Scenario("a pipe that takes no more than a page at once", Script(narrow=True), (1,)),
)
_ALL = Scenario(
    "all that a later core may do otherwise",
    Script(offer=True, ids=True, text=True, pieces=True, narrow=True, stray=True, notice=True),
    (1, 6, 9, 25),
    single=_HARMLESS,
)


def scenarios(plain: Watch) -> Iterator[Scenario]:
    """Yield the runs that make sense after an ordinary one went well."""
    calls = plain.calls
    yield _ALL
    yield Scenario("versions of the future alone", Script(only_unknown=True), (25,), "unknown")
    if plain.picked:
        yield Scenario("no features on offer", Script(bare=True), (25,))
    if plain.files.stored:
        yield Scenario("a file that the core refuses", Script(refuse_row=True, slow=True), (32,), "row")
    if any(method in LISTINGS and f"{LISTINGS[method]}_into" not in params for method, params in _made(plain)):
        yield Scenario("a listing that is too long for a message", Script(too_large=True), (15,), "listing")
    for method, kind in zip([method for method in _STORING if method in calls], _KINDS, strict=False):
        yield Scenario(f"{method} refused: {kind}", Script(refuse=(method, kind)), (35,), "error")
    if "publish" in calls:
        yield Scenario(
            "publish refused with a kind of the future", Script(refuse=("publish", "x-eclipse")), (35,), "error"
        )
    for at in (0, *_points(len(calls))):
        yield Scenario(f"cancelled at {_call(plain, at)}", Script(cancel_at=at), (29,), "end")
    for at in (-1, 0, *_points(len(calls))):
        yield Scenario(f"the end of input at {_call(plain, at)}", Script(end_at=at), (29,), "end")
    if calls:  # the last, so that what is made with the time of now has become another
        yield Scenario("answers that come late", Script(slow=True), (8,))
    if "publish" in calls:
        yield Scenario("the same again, where it was published", Script(), (42,), "again")


def _points(count: int) -> Sequence[int]:
    """Return some of the numbers from 1 to count: the first, the last, and what lies between."""
    if count <= _POINTS:
        return range(1, count + 1)
    return sorted({1 + step * (count - 1) // (_POINTS - 1) for step in range(_POINTS)})


def _call(plain: Watch, at: int) -> str:
    return {-1: "initialize", 0: "run"}.get(at) or f"call {at}, {plain.calls[at - 1]}"


def judge(scenario: Scenario, watch: Watch, took: float | None, timeouts: Timeouts, failure: str | None) -> None:
    """Note what is wrong with how a run ended.

    ``took`` are the seconds from what was to end it to its end, ``failure`` is how the core sees the run.
    """
    watch.tried.update(scenario.rules)
    _judge_process(scenario, watch, took, timeouts)
    if watch.failed:
        _attribute(scenario, watch)
        return
    error = (watch.answer or {}).get("error")
    why = f": {error.get('message')}" if isinstance(error, dict) else f": {failure}" if failure else ""
    if scenario.expect == "unknown":
        if watch.welcomed is None or watch.welcomed.get("error") is None:
            what = "initialize is not answered with an error when only unknown versions are on offer"
            watch.find(scenario.rules[0], f"{what}{why}")
    elif scenario.expect == "end":
        return
    elif watch.answer is None:
        _judge_silence(scenario, watch, why)
    else:
        _judge_answer(scenario, watch, watch.answer, why)


def _judge_silence(scenario: Scenario, watch: Watch, why: str) -> None:
    """Note that the core was not answered; ``why`` is how it sees that, behind a colon."""
    wrote = _ends_of(watch.stderr.strip())
    tail = f"; it wrote: {wrote}" if wrote else ""
    what, rule = ("run", 30) if watch.welcomed is not None else ("initialize", 25)
    if what == "initialize":
        watch.late = watch.ended is not None and os.WIFSIGNALED(watch.ended.status)
    watch.find(scenario.rules[0] if scenario.rules else rule, f"{what} is not answered{why}{tail}")


def _judge_answer(scenario: Scenario, watch: Watch, answer: Message, why: str) -> None:
    """Look whether run was answered as it had to be; ``why`` is what the error in the answer says, behind a colon."""
    result, error = answer.get("result"), answer.get("error")
    kind = (error.get("data") or {}).get("kind") if isinstance(error, dict) else None
    rule = scenario.rules[0] if scenario.rules else 42
    match scenario.expect:
        case "same" if result is None:
            told = not watch.last_refusal or watch.last_refusal.endswith(why)
            refusal = "" if told else f"; before that, {watch.last_refusal}"
            watch.find(rule, f"{scenario.title}: the command fails{why}{refusal}")
        case "same" if not scenario.rules:
            for image in watch.hidden_images:
                what = f"the image {image} is in no images of publish, only in a stream: nobody can mount it"
                watch.find(27, what, warning=True)
        case "again" if result is None and kind not in _STATES_TOLD:
            watch.find(rule, f"{scenario.title}: the command fails{why}", warning=True)
        case "error" if result is not None:
            watch.find(rule, f"{scenario.title}: the command succeeds all the same")
        case "error" if scenario.script.refuse is not None:
            if kind not in (scenario.script.refuse[1], "other"):
                asked = f"not {scenario.script.refuse[1]}, with which the call was"
                watch.find(rule, f"{scenario.title}: run is answered with the kind {kind}, {asked}", warning=True)
        case "row" if watch.refused and result is not None and not watch.files.put_again:
            watch.find(
                rule,
                f"the row of the file {watch.files.refused} was answered with an error, the file not put again, "
                "and the command succeeds all the same",
            )
        case "listing" if not _listed_again(watch):
            watch.find(rule, f"a listing was answered too_large, and not asked for again in a file{why}",
                       warning=kind == "too_large")  # fmt: skip


def _ends_of(text: str) -> str:
    """Shorten what a program said when it died: what went wrong is at the end in Python, at the beginning elsewhere."""
    return text if len(text) <= 2 * _SAID else f"{text[:_SAID]}…\n…{text[-_SAID:]}"


def _attribute(scenario: Scenario, watch: Watch) -> None:
    """Give the first breach to the rule of what was otherwise in this run, if that is why; an ordinary run had none.

    Who misreads a message, or goes on without what was refused, says strange things from there on.
    """
    if not scenario.rules or scenario.single:
        return
    rule, first = scenario.rules[0], next(each for each in watch.findings if not each.warning)
    if scenario.expect == "same" or (scenario.expect in ("row", "error") and first.rule in _MISUNDERSTOOD):
        what = first.message if first.rule == rule else f"{scenario.title}: {first.message} (P-{first.rule})"
        watch.findings[:] = [first._replace(rule=rule, message=what)]


def _made(watch: Watch) -> list[tuple[str, Message]]:
    """Return the calls that were made, each with its parameters."""
    return list(zip(watch.calls, watch.params, strict=True))


def _listed_again(watch: Watch) -> bool:
    in_files = {method for method, params in _made(watch) if f"{LISTINGS.get(method)}_into" in params}
    return in_files.issuperset(method for method in watch.calls if method in LISTINGS)


def _judge_process(scenario: Scenario, watch: Watch, took: float | None, timeouts: Timeouts) -> None:
    """Look at how the process ended, and at what it left."""
    ended = watch.ended
    if ended is None:
        return
    if ended.exec_failure:
        hint = f" ({ended.hint})" if ended.hint else ""
        watch.find(30, f"the executable {ended}{hint}")
        return
    killed = os.WIFSIGNALED(ended.status) and os.WTERMSIG(ended.status) == signal.SIGKILL
    if took is not None and took >= timeouts.terminate and not watch.failed:
        watch.late = True
        what = {"end": scenario.title}.get(scenario.expect, "at the end of input after its answer to run")
        if killed:
            watch.find(29, f"{what}: it did not end, and had to be killed")
        else:
            watch.find(29, f"{what}: it did not end by itself, but on SIGTERM", warning=scenario.expect == "end")
    if ended.left and not os.WIFSIGNALED(ended.status):
        watch.find(29, f"it left processes running: {ended.left} (what it starts has to end before it does)")
    if watch.answer is not None and scenario.expect != "end":
        watch.tried |= {26, 29}
        if ended.status and not watch.failed:
            watch.find(30, f"it {ended} after its answer to run")
