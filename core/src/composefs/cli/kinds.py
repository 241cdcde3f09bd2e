"""The kinds of arguments that a manifest declares, as types of click.

What reaches an extension is checked here: paths are absolute, numbers within what JSON holds exactly, choices known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from composefs.cli.complete import ImageRef, StreamRef, Word
from composefs.cli.frame import Path
from composefs.errors import UsageError
from composefs.protocol.limits import MAX_INTEGER

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from composefs.ext.manifest import Argument

__all__ = ["type_of"]

_DESCRIPTOR = re.compile(r"/dev/(?:stdin|fd/\d+)|/proc/(?:self|thread-self|\d+)/fd/\d+")


class AbsolutePath(Path):
    """A path, made absolute as the extension runs in another directory; symbolic links are left for it to follow.

    Those to files that are open here, such as /dev/stdin, are followed here: there they would lead to other files.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check the path and make it absolute."""
        from composefs.linux.files import absolute  # loads what opens and locks files, half a millisecond

        path = absolute(super().convert(value, param, ctx))
        return _open_file(path) if self._there and _DESCRIPTOR.fullmatch(path) else path


def _open_file(path: str) -> str:
    """Return the file that is open here as ``path``; raise UsageError for a pipe, say, which nobody else can open."""
    place = os.path.realpath(path)
    if not os.path.exists(place):
        raise UsageError(
            f"{path} is no file that the extension could read", subject=path, hint="write it to one, and give that"
        )
    return place


class PrefixedPath(AbsolutePath):
    """A path behind a word that says what it is, such as ``dir=PATH``; both arrive as one string."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        super().__init__(there=True)
        self._prefixes = prefixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check word and path and make the path absolute."""
        prefix = next(filter(value.startswith, self._prefixes), None)
        if prefix is None:
            self.fail(f"{value!r} is none of {', '.join(f'{each}PATH' for each in self._prefixes)}", param, ctx)
        return prefix + super().convert(value.removeprefix(prefix), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the words, then the shell's own completion of files."""
        if any(incomplete.startswith(prefix) for prefix in self._prefixes):
            return super().shell_complete(ctx, param, incomplete)
        from click.shell_completion import CompletionItem

        return [CompletionItem(prefix) for prefix in self._prefixes if prefix.startswith(incomplete)]


class Matching(Word):
    """A word of a certain form."""

    def __init__(self, name: str, form: str, what: str) -> None:
        self.name = name
        self._form = form
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the word."""
        if not isinstance(value, str) or not re.fullmatch(self._form, value):
            from composefs.ext.trace import without_secrets

            self.fail(f"{without_secrets(str(value))!r} is not {self._what}", param, ctx)
        return value


# A URL as far as the core looks into it: a scheme, and nothing that could end a line or a header.
URL = Matching("url", r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e\xa0-\U0010ffff]+", "a URL (SCHEME:…, without blanks)")
DIGEST = Matching("digest", r"(?:[a-z0-9]+:)?(?:[0-9a-f]{2})+", "a digest (lower-case hex digits, or HASH: and those)")


class Integer(click.types.IntParamType):
    """An integer that JSON can carry; help shows no range, as what is meaningful is the extension's to say."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check that it is within what every JSON reader holds exactly (RFC 8259, section 6)."""
        number = super().convert(value, param, ctx)
        if abs(number) > MAX_INTEGER:
            self.fail(f"{number} is not between -{MAX_INTEGER} and {MAX_INTEGER}", param, ctx)
        return number


_TYPES: Mapping[str, Callable[[], Any]] = {
    "string": lambda: click.STRING,
    "int": Integer,
    "bool": lambda: click.BOOL,
    "url": lambda: URL,
    "digest": lambda: DIGEST,
    "image": ImageRef,
    "secret-file": lambda: AbsolutePath(there=True, dir_okay=False),
    "path-read": lambda: AbsolutePath(there=True),
    "path-write": AbsolutePath,
}


def type_of(argument: Argument, refs: StreamRef) -> Any:
    """Return click's type for an argument of a manifest; ``refs`` is that of the names which the manifest declares."""
    if argument.kind == "choice":
        return click.Choice(list(argument.choices))
    if argument.prefixes:
        return PrefixedPath(argument.prefixes)
    return refs.of(argument.dir) if argument.kind == "ref" else _TYPES[argument.kind]()
