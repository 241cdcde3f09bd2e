"""A pattern as a small program for two machines: the automaton, and the backtracker for what an automaton cannot do.

The instructions are the classical ones of R. Cox, "Regular Expression Matching: the Virtual Machine Approach" (2009):
consume a byte, go on in several places, remember where a group begins and ends, check a condition, match.

The backtracker tries the alternatives in the order that PCRE does, which matters for what groups hold.  It keeps the
states that have failed, so each is looked at once; with back references a state includes the groups, and there may be
exponentially many.  `Work` bounds that: a policy that takes too long is refused, not waited for.
"""

from __future__ import annotations

from typing import NamedTuple

from composefs.boot.pattern import Pattern
from composefs.boot.syntax import (
    ALL_BYTES,
    WORD,
    Alternatives,
    Assertion,
    BackReference,
    Dot,
    Group,
    Literal,
    Look,
    Repeat,
    Sequence,
    Set,
    Syntax,
    byte_range,
    width,
)
from composefs.errors import TooLargeError

__all__ = ["MATCH", "Branch", "Check", "Consume", "Instruction", "Program", "Work", "compile_pattern", "matches"]

MAX_STATES = 500_000
"""States that the backtracker keeps for one path, some 100 bytes each."""

_NO_NEWLINE = ALL_BYTES ^ byte_range("\n", "\n")

Captures = tuple[tuple[int, int], ...]
"""For each remembered place, in the order of numbers: (number, position)."""


class Consume(NamedTuple):
    """One byte of a set."""

    members: int


_BYTES = tuple([Consume(1 << byte) for byte in range(256)])


class Branch(NamedTuple):
    """Go on at each of these places, the first being the preferred one."""

    targets: tuple[int, ...]


class Remember(NamedTuple):
    """Note the position: the begin of group n as 2 n, its end as 2 n + 1."""

    slot: int


class Check(NamedTuple):
    """An assertion."""

    kind: str


class LookAround(NamedTuple):
    """Run another program here, or so many bytes before here, without consuming anything."""

    programs: tuple[tuple[int, Program], ...]
    negative: bool


class Again(NamedTuple):
    """Consume what a group has matched."""

    number: int


class Match(NamedTuple):
    """The end."""


MATCH = Match()
Instruction = Consume | Branch | Remember | Check | LookAround | Again | Match
Program = list[Instruction]


class Work:
    """A number of steps that may be made, for all patterns and paths together."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Take steps away; TooLargeError if there are not so many."""
        self.left -= steps
        if self.left < 0:
            raise TooLargeError(
                "the SELinux policy takes too long to apply", hint="simplify the expressions of its file_contexts"
            )


def compile_pattern(pattern: Pattern, work: Work) -> Program:
    """Write the program of what comes after a pattern's stem, without Match at the end.

    Counted repetitions are written out, so ``work`` bounds the instructions.  Raises TooLargeError.
    """
    program: Program = []
    _Compiler(program, _NO_NEWLINE if pattern.pcre else ALL_BYTES, pattern.references, work).emit(pattern.rest)
    return program


class _Compiler:
    def __init__(self, program: Program, dot: int, groups: frozenset[int], work: Work) -> None:
        """``groups`` are those whose places are wanted."""
        self.program = program
        self.dot = dot
        self.groups = groups
        self.work = work

    def add(self, instruction: Instruction) -> int:
        self.work.spend(1)
        self.program.append(instruction)
        return len(self.program) - 1

    def emit(self, syntax: Syntax) -> None:
        self.work.spend(1)  # Also for nothing, a million times.
        match syntax:
            case Literal(data):
                for byte in data:
                    self.add(_BYTES[byte])
            case Set(members):
                self.add(Consume(members))
            case Dot():
                self.add(Consume(self.dot))
            case Sequence(items):
                for item in items:
                    self.emit(item)
            case Alternatives(items):
                self.alternatives(items)
            case Repeat():
                self.repeat(syntax)
            case Group(number, item) if number in self.groups:
                self.add(Remember(2 * number))
                self.emit(item)
                self.add(Remember(2 * number + 1))
            case Group(_, item):
                self.emit(item)
            case Look():
                self.look(syntax)
            case Assertion(kind):
                self.add(Check(kind))
            case BackReference(number):
                self.add(Again(number))

    def alternatives(self, items: tuple[Syntax, ...]) -> None:
        fork = self.add(Branch(()))
        starts, ends = [], []
        for item in items:
            starts.append(len(self.program))
            self.emit(item)
            ends.append(self.add(Branch(())))
        self.program[fork] = Branch(tuple(starts))
        for end in ends:
            self.program[end] = Branch((len(self.program),))

    def repeat(self, repeat: Repeat) -> None:
        item, low, high, lazy = repeat
        for _ in range(low):
            self.emit(item)
        skips = []
        for _ in range(1 if high is None else high - low):
            fork = self.add(Branch(()))
            self.emit(item)
            if high is None:
                self.add(Branch((fork,)))
            skips.append(fork)
        for fork in skips:
            ways = (fork + 1, len(self.program))
            self.program[fork] = Branch(ways[::-1] if lazy else ways)

    def look(self, look: Look) -> None:
        programs = []
        for branch in look.branches:
            inner = _Compiler([], self.dot, self.groups, self.work)
            inner.emit(branch)
            inner.add(MATCH)
            back = 0 if look.ahead else width(branch)
            assert back is not None  # the parser has looked
            programs.append((back, inner.program))
        self.add(LookAround(tuple(programs), look.negative))


def matches(program: Program, text: bytes, start: int, work: Work) -> bool:
    """Tell whether a program that ends with Match matches text from ``start`` on."""
    return _run(program, text, start, (), work) is not None


def _run(program: Program, text: bytes, start: int, captures: Captures, work: Work) -> Captures | None:
    """Return the groups of the first match in order of preference, or None."""
    work.spend(10)
    pending = [(0, start, captures)]
    seen: set[tuple[int, int, Captures]] = set()
    steps = 0
    while pending:
        at, position, captures = pending.pop()
        while True:
            steps += 1
            if steps > 0xFFF:
                work.spend(steps)
                steps = 0
            instruction = program[at]
            if isinstance(instruction, Consume):
                if position >= len(text) or not instruction.members >> text[position] & 1:
                    break
                position += 1
            elif isinstance(instruction, Branch):
                # Every loop goes through a branch, so it is enough to know these states again.
                state = at, position, captures
                if state in seen:
                    break
                if len(seen) >= MAX_STATES:
                    raise TooLargeError("a regular expression of the SELinux policy does not get done with a path")
                seen.add(state)
                at, *others = instruction.targets
                pending += [(target, position, captures) for target in reversed(others)]
                continue
            elif isinstance(instruction, Match):
                work.spend(steps)
                return captures
            elif isinstance(instruction, Remember):
                steps += 5  # as it takes that long
                captures = tuple(sorted({**dict(captures), instruction.slot: position}.items()))
            elif isinstance(instruction, Check):
                if not _holds(instruction.kind, text, position):
                    break
            elif isinstance(instruction, Again):
                held = dict(captures)
                begin, end = held.get(2 * instruction.number), held.get(2 * instruction.number + 1)
                if begin is None or end is None or not text.startswith(text[begin:end], position):
                    break
                position += end - begin
            else:
                found = _look(instruction, text, position, captures, work)
                if (found is None) != instruction.negative:
                    break
                captures = captures if found is None else found
            at += 1
    work.spend(steps)
    return None


def _look(look: LookAround, text: bytes, position: int, captures: Captures, work: Work) -> Captures | None:
    for back, program in look.programs:
        if back <= position:
            found = _run(program, text, position - back, captures, work)
            if found is not None:
                return found
    return None


def _holds(kind: str, text: bytes, position: int) -> bool:
    if kind == "start":
        return position == 0
    if kind == "end":
        return position == len(text)
    before = position > 0 and WORD >> text[position - 1] & 1
    after = position < len(text) and WORD >> text[position] & 1
    return (before != after) == (kind == "word boundary")
