"""Types of command line words that the repository or the extensions can complete.

The words are not checked here, but where they are used; only an extension's ref may not be empty.  Completion is best
effort: whatever fails, a missing repository first of all, completes nothing and says nothing.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from composefs.cli.settings import Settings, settings_of
from composefs.errors import ComposefsError

__all__ = [
    "AnyName",
    "ExtensionName",
    "ImageName",
    "ImageRef",
    "NameElsewhere",
    "RefName",
    "StreamOrImageName",
    "StreamRef",
    "Word",
]


if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from composefs.cli.refs import Ref
    from composefs.repository import Repository
    from composefs.repository.names import Encoding

    Word = click.ParamType[str]
else:
    Word = click.ParamType  # generic since click 8.4 only


def _silently(_message: str) -> None:
    """Leave out what is no ref: completion has no place to say so."""


def _refs(repository: Repository, prefix: str) -> list[Ref]:
    from composefs.cli.refs import refs_with

    return refs_with(prefix, repository, _silently)


def _below_refs(word: str) -> str:
    """Return the beginning of a name that a word has behind ``refs/``; empty while the word may still become that."""
    return "" if "refs/".startswith(word) else word.removeprefix("refs/")


class _Completed(Word, ABC):
    """A word that is completed from a list."""

    @abstractmethod
    def candidates(self, settings: Settings, word: str) -> Iterable[str]:
        """Return all that the word could become; others may be among them."""

    def repository_of(self, ctx: click.Context) -> Settings | None:
        """Return the settings by which to open the repository; None while the line does not say which it is."""
        return settings_of(ctx.find_root())

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the candidates that begin with the word."""
        settings = self.repository_of(ctx)
        if settings is None:
            return []
        if settings.repo is not None:  # the shell gives it as it was typed
            settings = settings._replace(repo=os.path.expanduser(os.path.expandvars(settings.repo)))
        try:
            words = sorted(self.candidates(settings, incomplete))
        except (ComposefsError, OSError):
            return []
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in words if word.startswith(incomplete) and word.isprintable()]


class ImageName(_Completed):
    """An image: its id, ``refs/`` and its name, or a ref of a stream that names it."""

    name = "image"

    def candidates(self, settings: Settings, word: str) -> Iterable[str]:
        """Return the names of images, and the refs of streams: to tell which name an image, each would be read."""
        with settings.open_repository() as repository:
            refs = _refs(repository, _below_refs(word))
            return [f"refs/{ref.name}" if ref.kind == "image" else ref.name for ref in refs]


class ImageRef(_Completed):
    """A name of an image, or for one, which another may have so far."""

    name = "ref"

    def candidates(self, settings: Settings, word: str) -> Iterable[str]:
        """Return the names that images have."""
        with settings.open_repository() as repository:
            return [name for name, _ in repository.images.list_refs(word, odd=_silently)]


class StreamOrImageName(_Completed):
    """A stream, by its name, a ref, or ``refs/`` and the path of a ref's file; or an image."""

    name = "name"

    def candidates(self, settings: Settings, word: str) -> Iterable[str]:
        """Return the streams, and the names of images."""
        below = _below_refs(word)
        with settings.open_repository() as repository:
            return [
                *(name for name, _ in repository.streams.list(word)),
                *(ref.name if ref.kind == "stream" else f"refs/{ref.name}" for ref in _refs(repository, below)),
                *(f"refs/{name}" for name, _ in repository.refs.list(below, odd=_silently)),
            ]


class RefName(_Completed):
    """A ref of an image or a stream."""

    name = "ref"

    def candidates(self, settings: Settings, word: str) -> Iterable[str]:
        """Return all refs."""
        with settings.open_repository() as repository:
            return [ref.name for ref in _refs(repository, word)]


class AnyName(_Completed):
    """A ref, or a stream by its own name."""

    name = "name"

    def candidates(self, settings: Settings, word: str) -> Iterable[str]:
        """Return all refs and streams."""
        with settings.open_repository() as repository:
            return [
                *(ref.name for ref in _refs(repository, word)),
                *(name for name, _ in repository.streams.list(word)),
            ]


class NameElsewhere(AnyName):
    """The same in another repository, which an option of the command names."""

    def __init__(self, option: str) -> None:
        self._option = option

    def repository_of(self, ctx: click.Context) -> Settings | None:
        """Return the settings for that repository, once the line has the option."""
        path = ctx.params.get(self._option)
        return settings_of(ctx.find_root())._replace(repo=path, no_repo=False) if path else None


class ExtensionName(_Completed):
    """An extension that can be run."""

    name = "extension"

    def candidates(self, settings: Settings, word: str) -> Iterable[str]:  # noqa: ARG002 - they are few
        """Return the extensions that would run."""
        from composefs.ext import discovery

        return [each.name for each in discovery.list_all() if each.state == "active"]


class StreamRef(_Completed):
    """A name of a stream, within the (directory, encoding) pairs that an extension names streams in."""

    name = "ref"

    def __init__(self, directories: Sequence[tuple[str, Encoding]]) -> None:
        self._directories = directories

    def of(self, directory: str | None) -> StreamRef:
        """Return the same for one of the directories, or for all (None)."""
        return StreamRef([each for each in self._directories if directory in (None, each[0])])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what can name nothing, as a variable of a script that is not set."""
        return str(value) or self.fail("an empty name", param, ctx)

    def candidates(self, settings: Settings, word: str) -> Iterable[str]:
        """Return the names, without the directory."""
        with settings.open_repository() as repository:
            return [
                name.removeprefix(f"{directory}/")
                for directory, encoding in self._directories
                for name, _ in repository.refs.list(f"{directory}/{word}", encoding, odd=_silently)
            ]
