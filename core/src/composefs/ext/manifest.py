"""The manifest, NAME.json: what an extension's commands look like and what it may touch (docs/protocol.md, "Manifest").

``--help``, completion and argument checking read only this file, so it is parsed by hand and strictly: a wrong type or
an unknown word rejects the extension with one line that says where.  Unknown fields are ignored, as everywhere in the
protocol; ``cfsctl ext check`` finds them with the JSON Schema.  The records are named tuples, as making a
dataclass takes 0.8 ms, and this module is on the way of every ``cfsctl --help``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from composefs.errors import FormatError
from composefs.protocol import VERSIONS
from composefs.protocol.wire import JSONValue, Message, parse_json
from composefs.tuples import NamedTuple

if TYPE_CHECKING:
    from composefs.repository.names import Encoding

__all__ = [
    "ARGUMENT_KINDS",
    "MAX_MANIFEST",
    "NAME",
    "Argument",
    "Command",
    "Example",
    "Manifest",
    "RefDirectory",
    "parse_manifest",
]

MAX_MANIFEST = 1 << 20
"""Bytes of a manifest."""

NAME = re.compile(r"[a-z][a-z0-9]*\Z")
"""What an extension may be called."""

ARGUMENT_KINDS = (
    "string",
    "int",
    "bool",
    "choice",
    "url",
    "secret-file",
    "path-read",
    "path-write",
    "ref",
    "image",
    "digest",
)
REPOSITORY_MODES = ("none", "read", "write")
PERMISSIONS = ("mount", "network")
STDIO = ("in", "out")

_WORD = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_ARGUMENT_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_PREFIX = re.compile(r"[a-z][a-z0-9._-]*\Z")
_DIRECTORY = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LETTER = re.compile(r"[A-Za-z]\Z")
_PROGRAM = re.compile(r"[^/\0]+\Z")
_PATH_PREFIX = re.compile(r"[a-z]+=\Z")

_TAKEN = ("help", "json")
_PLURALS: dict[type, str] = {str: "strings", int: "integers", dict: "objects"}

T = TypeVar("T")


class Argument(NamedTuple):
    """One option, or one operand if ``positional``.

    ``name`` is the key in ``run.arguments`` (``base_name``; the option is ``--base-name``, and ``-b`` too with the
    ``short`` ``b``).  ``default`` has the argument's type, or is None; ``choices`` belong to the kind ``choice``.
    One of ``prefixes`` (``dir=``), where there are some, stands before a path and says what it is.  ``dir`` is the
    directory of the refs that a word of the kind ``ref`` is completed from, None for all of the manifest's.
    """

    name: str
    kind: str
    positional: bool = False
    repeatable: bool = False
    required: bool = False
    default: JSONValue = None
    choices: tuple[str, ...] = ()
    help: str = ""
    metavar: str | None = None
    short: str | None = None
    prefixes: tuple[str, ...] = ()
    dir: str | None = None

    @property
    def option(self) -> str:
        """The spelling on the command line of one that is not positional."""
        return "--" + self.name.replace("_", "-")


class Example(NamedTuple):
    """A command line, and whether the conformance kit can run it, after those before it, without network.

    ``files`` are the paths and texts of the files that it needs, in the directory where it is run.
    """

    command: str
    description: str = ""
    offline: bool = False
    files: tuple[tuple[str, str], ...] = ()


class Command(NamedTuple):
    """A command, nested by words: ``("remote", "add")``.  ``permissions`` are those that this command gets."""

    name: tuple[str, ...]
    summary: str
    description: str = ""
    arguments: tuple[Argument, ...] = ()
    repository: str = "none"
    stdio: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    result_schema: JSONValue = None


class RefDirectory(NamedTuple):
    """A directory under streams/refs, and how names in it become file names."""

    dir: str
    encoding: Encoding


class Manifest(NamedTuple):
    """A whole NAME.json.  ``streams`` are the prefixes, ``refs`` the directories, of names it may give."""

    name: str
    summary: str
    version: str
    protocol: tuple[int, ...]
    package: str | None
    commands: tuple[Command, ...]
    permissions: tuple[str, ...]
    environment: tuple[str, ...]
    streams: tuple[str, ...]
    refs: tuple[RefDirectory, ...]
    reads: tuple[str, ...]
    execs: tuple[str, ...]


class _Reader:
    """Takes typed fields out of one object of the manifest; ``where`` leads to it in messages."""

    __slots__ = ("_object", "_where")

    def __init__(self, value: JSONValue, where: str) -> None:
        if type(value) is not dict:
            raise FormatError(f"{where or 'the manifest'} is not an object")
        self._object: Message = value
        self._where = where

    def place(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def fail(self, key: str, reason: str) -> FormatError:
        return FormatError(f"{self.place(key)} {reason}")

    def raw(self, key: str) -> JSONValue:
        return self._object.get(key)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._object.get(key, default)
        if type(value) is not str:
            raise self.fail(key, "is not a string" if key in self._object else "is missing")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self._object.get(key) is None else self.text(key)

    def word(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self.text(key)
        if not pattern.match(value):
            raise self.fail(key, f"{value[:80]!r} does not fit {pattern.pattern.removesuffix(chr(92) + 'Z')}")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        value = self.text(key, default)
        if value not in choices:
            raise self.fail(key, f"{value[:80]!r} is not one of {', '.join(choices)}")
        return value

    def flag(self, key: str) -> bool:
        value = self._object.get(key, False)
        if type(value) is not bool:
            raise self.fail(key, "is not true or false")
        return value

    def items(self, key: str, kind: type[T]) -> list[T]:
        value = self._object.get(key, [])
        if type(value) is not list or not all(type(item) is kind for item in value):
            raise self.fail(key, f"is not a list of {_PLURALS[kind]}")
        return value

    def words(
        self, key: str, allowed: Callable[[str], object], what: str, default: tuple[str, ...] = ()
    ) -> tuple[str, ...]:
        if self._object.get(key) is None:
            return default
        values = self.items(key, str)
        for value in values:
            if not allowed(value):
                raise self.fail(key, f"holds {value[:80]!r}, not {what}")
        if len(set(values)) != len(values):
            raise self.fail(key, "holds something twice")
        return tuple(values)

    def files(self, key: str) -> list[tuple[str, str]]:
        value = self._object.get(key, {})
        if type(value) is not dict:
            raise self.fail(key, "is not an object")
        for name, content in value.items():
            if type(content) is not str or not all(part not in ("", ".", "..") for part in name.split("/")):
                raise self.fail(key, f"holds {name[:80]!r}, which is not a relative path with a text")
        return list(value.items())

    def objects(self, key: str, parse: Callable[[_Reader], T]) -> tuple[T, ...]:
        return tuple(parse(_Reader(item, f"{self.place(key)}[{i}]")) for i, item in enumerate(self.items(key, dict)))


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Parse the manifest of extension ``name``; raise FormatError saying which field is wrong."""
    try:
        top = _Reader(parse_json(data), "")
    except ValueError as error:
        raise FormatError(f"not JSON: {error}") from None
    if top.word("name", NAME) != name:
        raise top.fail("name", f"is {top.text('name')!r}, but the file is called {name}.json")
    protocol = tuple(top.items("protocol", int))
    if not set(protocol) & set(VERSIONS):
        raise top.fail("protocol", f"has none of the versions {', '.join(map(str, VERSIONS))}")
    permissions = top.words("permissions", PERMISSIONS.__contains__, f"one of {', '.join(PERMISSIONS)}")
    manifest = Manifest(
        name=name,
        summary=top.text("summary"),
        version=top.text("version"),
        protocol=protocol,
        package=top.optional_text("package"),
        commands=top.objects("commands", lambda reader: _command(reader, permissions)),
        permissions=permissions,
        environment=top.words("environment", _VARIABLE.match, "a variable's name"),
        streams=top.words("streams", _PREFIX.match, "a prefix of stream names", (name + "-",)),
        refs=(RefDirectory(name, "flat"),) if top.raw("refs") is None else top.objects("refs", _ref_directory),
        reads=top.words("reads", bool, "a path"),
        execs=top.words("execs", _PROGRAM.match, "a program's name"),
    )
    _check_commands(top, manifest.commands)
    return manifest


def _check_commands(top: _Reader, commands: tuple[Command, ...]) -> None:
    names = [command.name for command in commands]
    if not names:
        raise top.fail("commands", "is empty")
    if len(set(names)) != len(names):
        raise top.fail("commands", "holds a name twice")
    for name in names:
        if any(name != other and other[: len(name)] == name for other in names):
            raise top.fail("commands", f"has {' '.join(name)} both as a command and as a group")


def _ref_directory(reader: _Reader) -> RefDirectory:
    return RefDirectory(
        reader.word("dir", _DIRECTORY),
        "path" if reader.choice("encoding", ("flat", "path"), "flat") == "path" else "flat",
    )


def _command(reader: _Reader, granted: tuple[str, ...]) -> Command:
    name = reader.words("name", _WORD.match, "a lower-case word")
    if not name:
        raise reader.fail("name", "is missing")
    arguments = reader.objects("arguments", _argument)
    if len({argument.name for argument in arguments}) != len(arguments):
        raise reader.fail("arguments", "holds a name twice")
    letters = [argument.short for argument in arguments if argument.short]
    if len(set(letters)) != len(letters):
        raise reader.fail("arguments", "holds a short name twice")
    if any(argument.repeatable for argument in [a for a in arguments if a.positional][:-1]):
        raise reader.fail("arguments", "has a repeatable operand that is not the last one")
    return Command(
        name,
        reader.text("summary"),
        reader.text("description", ""),
        arguments,
        reader.choice("repository", REPOSITORY_MODES, "none"),
        reader.words("stdio", STDIO.__contains__, "in or out"),
        reader.words("permissions", granted.__contains__, "a permission that the manifest itself asks for", granted),
        reader.objects("examples", _example),
        reader.raw("result_schema"),
    )


def _argument(reader: _Reader) -> Argument:
    kind = reader.choice("kind", ARGUMENT_KINDS)
    choices = reader.words("choices", bool, "a word")
    argument = Argument(
        reader.word("name", _ARGUMENT_NAME),
        kind,
        reader.flag("positional"),
        reader.flag("repeatable"),
        reader.flag("required"),
        reader.raw("default"),
        choices,
        reader.text("help", ""),
        reader.optional_text("metavar"),
        None if reader.raw("short") is None else reader.word("short", _LETTER),
        reader.words("prefixes", _PATH_PREFIX.match, "a word and ="),
        reader.optional_text("dir"),
    )
    if (kind == "choice") != bool(choices):
        raise reader.fail("choices", "belongs to the kind choice, and is needed there")
    if argument.prefixes and kind != "path-read":
        raise reader.fail("prefixes", "belongs to the kind path-read")
    if argument.dir is not None and kind != "ref":
        raise reader.fail("dir", "belongs to the kind ref")
    if argument.short and argument.positional:
        raise reader.fail("short", "is for options, not for operands")
    if argument.name in _TAKEN and not argument.positional:
        raise reader.fail("name", f"{argument.name!r} is an option that every command has")
    if kind == "bool" and (argument.positional or argument.repeatable):
        raise reader.fail("kind", "bool is a flag: neither positional nor repeatable")
    if argument.default is not None:
        values = argument.default if argument.repeatable else [argument.default]
        expected = {"int": int, "bool": bool}.get(kind, str)
        if type(values) is not list or any(type(value) is not expected for value in values):
            raise reader.fail("default", f"does not fit the kind {kind}")
        if choices and not set(values) <= set(choices):
            raise reader.fail("default", "is none of the choices")
        if kind == "ref" and "" in values:
            raise reader.fail("default", "is an empty name")
    return argument


def _example(reader: _Reader) -> Example:
    return Example(
        reader.text("command"), reader.text("description", ""), reader.flag("offline"), tuple(reader.files("files"))
    )
