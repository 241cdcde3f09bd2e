"""The SELinux policy that is in a tree: which label a path has.

``/etc/selinux/config`` names the policy; ``contexts/files`` below its directory has lines of an expression, perhaps a
type of file, and a label (selabel_file(5)), and pairs of paths, of which the first gets its labels as the second does.
All of it comes from the image and is read within limits.

The rules are those of composefs-rs 0.9.0: ``file_contexts``, then ``.local``, then ``.homedirs``; the last line that
matches wins.  libselinux sorts exact paths last; this does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from composefs.boot.automaton import Automaton, Rule, State
from composefs.boot.lookup import Files, decoded
from composefs.boot.pattern import Pattern, parse
from composefs.errors import ComposefsError, FormatError, TooLargeError
from composefs.paths import shown

__all__ = ["Policy", "load"]

CONFIG = b"/etc/selinux/config"
FILE_CONTEXTS = b"file_contexts"
RULE_SUFFIXES = (b"", b".local", b".homedirs")
SUBSTITUTION_SUFFIXES = (b".subs", b".subs_dist")

MAX_CONFIG = 64 << 10
MAX_FILE = 8 << 20
"""Bytes of one file of a policy; a distribution's file_contexts has half a MiB."""
MAX_EXPRESSIONS = 2 << 20
"""Characters of all different expressions, of which each may take 200 bytes; a distribution has a quarter of a MiB."""
MAX_LINE = 8192
"""Characters of a line; so labels and paths are no longer either."""
MAX_LINES = 100_000
"""Lines of a file."""

NO_LABEL = "<<none>>"
_TYPES = {f"-{letter}": ord(letter) for letter in "bcdpls-"}
_NAME = re.compile(r"[^/\0]+")
_SPACES = re.compile(r"[ \t\r\v\f]+")


class Policy:
    """Labels by path.  A path is read from where its directory ended: see `Automaton`."""

    def __init__(self, rules: list[Rule], labels: list[bytes | None], substitutes: dict[bytes, bytes]) -> None:
        self._automaton = Automaton(rules)
        self._labels = labels
        self._substitutes = substitutes
        self.start = self._automaton.start

    def go(self, state: State, path: bytes, more: bytes) -> tuple[State, bytes]:
        """Return the state and the path after ``path``, whose state is given, and ``more``.

        It is another path if the policy says so; what is below goes on from that one.
        """
        path += more
        other = self._substitutes.get(path)
        if other is not None:
            return self._automaton.read(self.start, other), other
        return self._automaton.read(state, more), path

    def below(self, state: State, path: bytes) -> tuple[State, bytes]:
        """Return the state and the path with which the names in a directory go on."""
        return (state, path) if path.endswith(b"/") else (self._automaton.read(state, b"/"), path + b"/")

    def label(self, state: State, path: bytes, type_: int) -> bytes | None:
        """Return the label of a path, whose state is given, for a type (one of ``bcdpls-``); None for no label.

        Raises TooLargeError when the policy takes too long, or an expression that is compiled now too much.
        """
        number = self._automaton.winner(state, path, type_)
        return None if number is None else self._labels[number]


def load(files: Files) -> Policy | None:
    """Read the policy of a tree; None if there is none or none is enabled.

    Raises FormatError, with the line as offset, where composefs-rs would not make an image either, and TooLargeError.
    """
    config = files.read(CONFIG, MAX_CONFIG)
    name = None if config is None else _policy_name(decoded(config, shown(CONFIG)))
    if name is None:
        return None
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise FormatError(f"{shown(CONFIG)}: SELINUXTYPE={name[:200]!r} is not the name of a directory")
    base = b"/etc/selinux/%b/contexts/files/%b" % (name.encode(), FILE_CONTEXTS)
    rules, labels = _read_rules(files, base)
    return Policy(rules, labels, _read_substitutes(files, base))


def _read_rules(files: Files, base: bytes) -> tuple[list[Rule], list[bytes | None]]:
    """Read the rules, and the label of each."""
    rules: list[Rule] = []
    labels: list[bytes | None] = []
    parsed: dict[str, Pattern] = {}
    characters = 0
    for suffix in RULE_SUFFIXES:
        path = base + suffix
        data = files.read(path, MAX_FILE)
        if data is None and not suffix:
            raise FormatError(f"the SELinux policy has no file {shown(path)}", hint="install it or empty SELINUXTYPE")
        for number, words in _lines(data, path):
            try:
                expression, type_, label = _rule(words)
                if expression not in parsed:
                    characters += len(expression)
                    if characters > MAX_EXPRESSIONS:
                        raise TooLargeError(f"the expressions have more than {MAX_EXPRESSIONS} characters")
                    parsed[expression] = parse(expression)
            except ComposefsError as error:
                error.message = f"{shown(path)}, line {number}: {error.message}"
                error.offset = number
                raise
            rules.append(Rule(parsed[expression], type_))
            labels.append(label)
    return rules, labels


def _read_substitutes(files: Files, base: bytes) -> dict[bytes, bytes]:
    """Read the paths that get their labels as others do, each with its other."""
    found: dict[bytes, bytes] = {}
    for suffix in SUBSTITUTION_SUFFIXES:
        path = base + suffix
        for number, words in _lines(files.read(path, MAX_FILE), path):
            if len(words) != 2:
                reason = f"a substitution has two paths, not {len(words)}"
                raise FormatError(f"{shown(path)}, line {number}: {reason}", offset=number)
            found[words[0].encode()] = words[1].encode()
    return found


def _policy_name(config: str) -> str | None:
    """Return the value of the first SELINUXTYPE, in capitals or not; a comment's key begins with a #."""
    for line in config.split("\n"):
        key, equals, value = line.partition("=")
        if equals and key.strip().upper() == "SELINUXTYPE":
            return value.strip()
    return None


def _lines(data: bytes | None, path: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield number, from 1, and words of the lines that are neither empty nor comments."""
    for number, line in enumerate(decoded(data or b"", shown(path)).split("\n"), 1):
        if len(line) > MAX_LINE or number > MAX_LINES:
            raise TooLargeError(f"{shown(path)}, line {number}: more than {MAX_LINES} lines or {MAX_LINE} characters")
        words = [word for word in _SPACES.split(line) if word]
        if words and not words[0].startswith("#"):
            yield number, words


def _rule(words: list[str]) -> tuple[str, int | None, bytes | None]:
    """Return the expression, type and label of a line."""
    expression, *others = words
    type_ = None
    if others and others[0].startswith("-"):
        word = others.pop(0)
        if word not in _TYPES:
            raise FormatError(f"{word[:20]!r} is no type of file (one of {' '.join(_TYPES)})")
        type_ = _TYPES[word]
    if len(others) != 1:
        raise FormatError("there is no label" if not others else "there is something after the label")
    return expression, type_, None if others[0] == NO_LABEL else others[0].encode()
