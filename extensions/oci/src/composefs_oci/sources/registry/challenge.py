"""Challenges: what a registry wants to see before it answers (RFC 7235, section 4.1; RFC 6750, section 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from composefs_ext.tuples import NamedTuple

__all__ = ["Challenge", "parse_challenges"]

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # a word of the grammar
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*')
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?=[\s,]|$)")
_COMMA = re.compile(r"[\s,]*,[\s,]*")
_MAX_HEADER = 16384


class Challenge(NamedTuple):
    """A scheme of authentication, in lower case, and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Read a header WWW-Authenticate; what cannot be read, and all that follows it, is left out."""
    header = header[:_MAX_HEADER]
    challenges: list[Challenge] = []
    position = 0
    while scheme := _SCHEME.match(header, position):
        position = scheme.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            position = parameter.end()
            comma = _COMMA.match(header, position)
            if comma is None:
                break
            position = comma.end()
        challenges.append(Challenge(scheme[1].lower(), parameters))
    return challenges
