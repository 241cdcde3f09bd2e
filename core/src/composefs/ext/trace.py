"""The trace of a conversation: every line as it passes, without secrets and not at any length."""

from __future__ import annotations

import re

__all__ = ["redact", "without_secrets"]

_MAX_TRACED = 4000

# Patterns that the module re compiles, and keeps, when they are first used: few runs have use for them.
_USER_IN_URL = r'(:(?:\\?/){2})[^/\\\s"]*@'
_FIELD = r'(?i)("(?:[a-z_-]*(?:password|passwd|secret|token|authorization|api_?key))"\s*:\s*)"(?:[^"\\]|\\.)*"'
_QUERY = r'(?i)([?&](?:[a-z_-]*(?:password|secret|token|signature|api_?key|credential)))=[^&"\s\\]*'


def redact(line: bytes) -> str:
    """Return a line as text that can be shown, without secrets."""
    text = without_secrets(line.decode("utf-8", "backslashreplace").rstrip("\n"))
    if len(text) > _MAX_TRACED:
        text = f"{text[:_MAX_TRACED]}… ({len(line)} bytes)"
    return text


def without_secrets(text: str) -> str:
    """Strike out user names and passwords in URLs, and values of fields and queries that are named like secrets."""
    text = re.sub(_USER_IN_URL, r"\1***@", text)
    text = re.sub(_QUERY, r"\1=***", text)
    return re.sub(_FIELD, r'\1"***"', text)
