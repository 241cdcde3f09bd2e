"""The trace of a conversation: every line as it passes, without secrets and not at any length."""

from __future__ import annotations

import re

__all__ = ["redact", "without_secrets"]

_MAX_TRACED = 4000

_USER_IN_URL = re.compile(r'(:(?:\\?/){2})[^/\\\s"]*@')
_SECRET_FIELD = re.compile(
    r'("(?:[a-z_-]*(?:password|passwd|secret|token|authorization|api_?key))"\s*:\s*)"(?:[^"\\]|\\.)*"', re.IGNORECASE
)
_QUERY = re.compile(
    r'([?&](?:[a-z_-]*(?:password|secret|token|signature|api_?key|credential)))=[^&"\s\\]*', re.IGNORECASE
)


def redact(line: bytes) -> str:
    """Return a line as text that can be shown, without secrets."""
    text = without_secrets(line.decode("utf-8", "backslashreplace").rstrip("\n"))
    if len(text) > _MAX_TRACED:
        text = f"{text[:_MAX_TRACED]}… ({len(line)} bytes)"
    return text


def without_secrets(text: str) -> str:
    """Strike out user names and passwords in URLs, and values of fields and queries that are named like secrets."""
    text = _USER_IN_URL.sub(r"\1***@", text)
    text = _QUERY.sub(r"\1=***", text)
    return _SECRET_FIELD.sub(r'\1"***"', text)
