"""The automaton and the backtracker decide as an independent engine, Python's re, does on what both understand."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from composefs.boot.automaton import Automaton, Rule
from composefs.boot.pattern import parse

# Few letters, so that patterns match often.
LITERALS = st.sampled_from(["a", "b", "/", "/a", "ab", r"\.", r"\+", "é", "-", "d"])
SETS = st.sampled_from([".", "[ab]", "[^/]", "[a-c.]", r"\d", r"\w", "[^a]", "[]a]", "[a-]", r"[\]b]", r"[^\s/]"])
CONDITIONS = st.sampled_from([r"\b", r"\B", "^", "$", "(?=a)", "(?!b)", "(?<=a)", "(?<!/)", "(?=.*d)", "(?<!ab)"])
QUANTIFIERS = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{2,}", "*?", "+?", "??", "{0}"])


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda items: "(" + "|".join(items) + ")"),
        st.tuples(inner, QUANTIFIERS).map(lambda pair: f"({pair[0]}){pair[1]}"),
        st.tuples(SETS, QUANTIFIERS).map("".join),
        st.tuples(LITERALS.filter(str.isascii), QUANTIFIERS).map("".join),
        inner.map(lambda item: f"(?:{item})"),
    )


PLAIN = st.recursive(st.one_of(LITERALS, SETS), larger, max_leaves=8)
ANY = st.recursive(st.one_of(LITERALS, SETS, CONDITIONS), larger, max_leaves=8)
PATHS = st.text("ab/.\nd1é-", max_size=8).map(str.encode)


def expected(rules: list[tuple[str, int | None]], path: bytes, type_: int) -> int | None:
    """The last rule that re finds to match."""
    found = None
    for number, (text, wanted) in enumerate(rules):
        lookaround = any(look in text for look in ("(?=", "(?!", "(?<"))
        end = b"." if wanted is None else re.escape(bytes((wanted,)))
        flags = 0 if lookaround else re.DOTALL
        if re.match(b"(?:" + text.encode() + b")" + end + rb"\Z", path + bytes((type_,)), flags):
            found = number
    return found


def check(rules: list[tuple[str, int | None]], paths: list[bytes], type_: int) -> None:
    automaton = Automaton([Rule(parse(text), wanted) for text, wanted in rules])
    for path in paths:
        # Cut in two, as a directory and what is in it.
        state = automaton.read(automaton.read(automaton.start, path[:3]), path[3:])
        assert automaton.winner(state, path, type_) == expected(rules, path, type_), path


TYPES = st.sampled_from([None, ord("d"), ord("-")])


@given(st.lists(st.tuples(PLAIN, TYPES), min_size=1, max_size=6), st.lists(PATHS, max_size=12))
def test_plain_patterns_match_as_re_says(rules: list[tuple[str, int | None]], paths: list[bytes]) -> None:
    check(rules, paths, ord("d"))


@given(st.lists(st.tuples(ANY, TYPES), min_size=1, max_size=4), st.lists(PATHS, max_size=12))
def test_patterns_with_conditions_match_as_re_says(rules: list[tuple[str, int | None]], paths: list[bytes]) -> None:
    check(rules, paths, ord("-"))


@given(
    st.lists(st.sampled_from(["a", "b", "[ab]", "(a|b)", "([ab]*)", r"\2", r"\3", "/", "(.)"]), min_size=1, max_size=6),
    st.lists(PATHS, max_size=12),
)
def test_back_references_count_the_whole_rule_as_the_first_group(items: list[str], paths: list[bytes]) -> None:
    text = "".join(items)
    groups = 1 + sum(item.startswith("(") for item in items)
    if any(int(item[1]) > groups for item in items if item.startswith("\\")):
        return
    automaton = Automaton([Rule(parse(text), None)])
    # For re, which has no group around the whole, the numbers are one smaller.
    theirs = text.replace(r"\2", r"\1").replace(r"\3", r"\2")
    try:
        compiled = re.compile(theirs.encode() + rb"-\Z", 0 if "\\" in text else re.DOTALL)
    except re.error:  # a reference to a group that comes later: never set when it is needed
        compiled = re.compile(rb"(?!)")
    for path in paths:
        found = automaton.winner(automaton.read(automaton.start, path), path, ord("-"))
        assert (found is not None) == (compiled.match(path + b"-") is not None), path
