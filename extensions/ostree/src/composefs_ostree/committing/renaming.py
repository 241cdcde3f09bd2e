"""``--tar-pathname-filter REGEX,REPLACEMENT``: other names for the members of archives.

ostree's are the expressions of PCRE, these are Python's: they agree on what names need.  A name is without ``./`` and
``/`` before it; a directory's has a slash behind it, as archives have it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from composefs_ext.errors import UsageError

__all__ = ["renamer"]


def renamer(text: str) -> Callable[[str], str]:
    """Return what gives a name for a name; raise UsageError for what is no expression with a replacement."""
    expression, comma, replacement = text.partition(",")
    if not comma:
        raise UsageError(
            f"--tar-pathname-filter {text[:80]!r} is not REGEX,REPLACEMENT", hint="for example '^etc(/|$),usr/etc\\1'"
        )
    # \0 is all that is replaced, for which Python has another word.
    template = re.sub(r"\\(.)", lambda match: r"\g<0>" if match[1] == "0" else match[0], replacement, flags=re.DOTALL)
    try:
        pattern = re.compile(expression)
        pattern.sub(template, "")  # it looks at the template first
    except (re.error, IndexError, OverflowError, RecursionError) as error:
        raise UsageError(f"--tar-pathname-filter {text[:80]!r}: {error}", hint="REGEX is in Python's syntax") from None
    return lambda name: pattern.sub(template, name)
