"""All patterns of a policy at once, over paths that share their beginnings.

A policy has thousands of patterns and an operating system tens of thousands of paths; trying each on each is 10⁸
matches.  Here a path is read once, whatever the number of patterns, byte by byte through the states of a deterministic
automaton which is made as it is needed; and as a directory's state is where the paths of its entries go on, only the
entry's own name is read.

Most patterns begin with a literal, the *stem*.  The stems are a trie, whose nodes are part of the states: a pattern
costs nothing until a path has come to the end of its stem, and is compiled only then.  In a state, the patterns under
way are the set of their next instructions.  What an automaton cannot do (lookaround, back references, word boundaries)
is held from the end of the stem on and run by the backtracker on the whole path.

Reading is linear in the path, and the work of making states is bounded by `Work`; so is their number.
"""

from __future__ import annotations

from typing import NamedTuple

from composefs.boot.pattern import Pattern
from composefs.boot.program import MATCH, Branch, Check, Consume, Instruction, Program, Work, compile_pattern, matches
from composefs.boot.syntax import ALL_BYTES
from composefs.errors import TooLargeError

__all__ = ["Automaton", "Rule", "State"]

MAX_STATES = 100_000
"""States that are kept; then they are forgotten and made again."""
MAX_STEMS = 1_000_000
"""Nodes of the trie, some 300 bytes each; 6,500 rules have 50,000."""
MAX_INSTRUCTIONS = 2_000_000
"""Instructions of all patterns together."""
MAX_STEPS = 30_000_000
"""Steps for a whole tree, half a minute at worst; 6,500 rules on 70,000 paths take 2 million, in a second."""


class Rule(NamedTuple):
    """A pattern, and the byte for the type of file that must follow (None: any type)."""

    pattern: Pattern
    type: int | None


class Stem:
    """A node of the trie: the rules whose stem ends here, and the nodes for the bytes that may follow."""

    __slots__ = ("next", "rules")

    def __init__(self) -> None:
        self.next: dict[int, Stem] = {}
        self.rules: list[int] = []


class State:
    """Where a path is: the trie's node if there is one, what patterns are under way, which are held."""

    __slots__ = ("edges", "found", "held", "stem", "under_way")

    def __init__(self, stem: Stem | None, under_way: tuple[int, ...], held: tuple[int, ...]) -> None:
        self.stem = stem
        self.under_way = under_way
        self.held = held
        self.edges: dict[int, State] = {}
        self.found: int | None = None


def _stems(rules: list[Rule]) -> Stem:
    """Make the trie and return its root."""
    root = Stem()
    nodes = 1
    for number, rule in enumerate(rules):
        stem = root
        for byte in rule.pattern.stem:
            following = stem.next.get(byte)
            if following is None:
                following = stem.next[byte] = Stem()
                nodes += 1
            stem = following
        stem.rules.append(number)
        if nodes > MAX_STEMS:
            raise TooLargeError("the SELinux policy's expressions are too many")
    return root


class Automaton:
    """The rules, of which a later one wins over an earlier one."""

    def __init__(self, rules: list[Rule], work: Work | None = None) -> None:
        self._rules = rules
        self._work = work or Work(MAX_STEPS)
        self._instructions = Work(MAX_INSTRUCTIONS)
        self._program: Program = []
        self._started: dict[int, tuple[int, ...]] = {}
        self._closures: dict[int, tuple[int, ...]] = {}
        self._ends: dict[int, int] = {}
        self._backtracked: dict[int, Program] = {}
        self._states: dict[tuple[Stem | None, tuple[int, ...], tuple[int, ...]], State] = {}
        self.start = self._state(_stems(rules), set(), ())

    def read(self, state: State, data: bytes) -> State:
        """Go on from a state with the next bytes of a path."""
        for byte in data:
            following = state.edges.get(byte)
            state = self._following(state, byte) if following is None else following
        return state

    def winner(self, state: State, path: bytes, type_: int) -> int | None:
        """Return the last rule that matches the path that led to the state, of a file of a type."""
        final = state.edges.get(type_) or self._following(state, type_)
        best = final.found
        if best is None:
            best = final.found = max((self._ends[at] for at in final.under_way if at in self._ends), default=-1)
        self._work.spend(len(state.held))
        # They are in descending order.
        text = path + bytes((type_,))
        for number in state.held:
            if number <= best:
                break
            pattern, wanted = self._rules[number]
            if wanted in (None, type_) and matches(self._backtracked[number], text, len(pattern.stem), self._work):
                return number
        return None if best < 0 else best

    def _following(self, state: State, byte: int) -> State:
        program = self._program
        reached: set[int] = set()
        for at in state.under_way:
            instruction = program[at]
            if isinstance(instruction, Consume) and instruction.members >> byte & 1:
                reached.update(self._closures.get(at + 1) or self._closure(at + 1))
        self._work.spend(10 + len(state.under_way) + len(reached) + len(state.held))
        stem = None if state.stem is None else state.stem.next.get(byte)
        following = self._state(stem, reached, state.held)
        state.edges[byte] = following
        return following

    def _state(self, stem: Stem | None, reached: set[int], held: tuple[int, ...]) -> State:
        """Find or make a state; the rules whose stem ends here set out."""
        if stem is not None and stem.rules:
            for number in stem.rules:
                reached.update(self._set_out(number))
            held = tuple(sorted({*held, *(each for each in stem.rules if each in self._backtracked)}, reverse=True))
        key = stem, tuple(sorted(reached)), held
        state = self._states.get(key)
        if state is None:
            if len(self._states) >= MAX_STATES:
                for each in self._states.values():
                    each.edges.clear()
                self._states.clear()
            state = self._states[key] = State(*key)
        return state

    def _set_out(self, number: int) -> tuple[int, ...]:
        """Return where a rule is after its stem; it is compiled the first time."""
        started = self._started.get(number)
        if started is None:
            pattern, type_ = self._rules[number]
            program = compile_pattern(pattern, self._instructions)
            program.append(Consume(ALL_BYTES if type_ is None else 1 << type_))
            if pattern.plain:
                started = self._closure(self._add(program, number))
            else:
                started = ()
                self._backtracked[number] = [*program, Check("end"), MATCH]
            self._started[number] = started
        return started

    def _add(self, program: Program, number: int) -> int:
        base = len(self._program)
        for instruction in program:
            if isinstance(instruction, Branch):
                self._program.append(Branch(tuple([base + target for target in instruction.targets])))
            else:
                self._program.append(instruction)
        self._ends[len(self._program)] = number
        self._program.append(MATCH)
        return base

    def _closure(self, at: int) -> tuple[int, ...]:
        """Return the instructions that consume or match and can be reached from one without consuming."""
        seen = {at}
        pending = [at]
        for each in pending:
            instruction: Instruction = self._program[each]
            if isinstance(instruction, Branch):
                fresh = [target for target in instruction.targets if target not in seen]
                seen.update(fresh)
                pending += fresh
        self._work.spend(len(pending))
        closure = tuple([each for each in pending if not isinstance(self._program[each], Branch)])
        self._closures[at] = closure
        return closure
