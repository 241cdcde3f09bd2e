"""What of the file system a confined extension may read, run and write (P-36).

Read: system libraries and programs, the prefixes of its interpreter and of itself, certificates, the resolver's files,
the repository's objects, what the user typed, and the manifest's ``reads`` and ``execs``.  Write: staging, the cache
and what the user typed to be written.  Paths that do not exist are of no effect.
"""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping

from composefs.ext.commandline import CommandLine
from composefs.ext.discovery import BELOW_PREFIX, Extension
from composefs.linux.landlock import Access, Ruleset
from composefs.tuples import NamedTuple

__all__ = ["Reach", "reach_of"]

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")

_SETTINGS = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/alternatives"),
    *("/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem"),
    *("/etc/pki/tls/openssl.cnf", "/etc/pki/ca-trust", "/etc/ca-certificates", "/var/lib/ca-certificates"),
    *("/etc/crypto-policies", "/etc/gcrypt", "/etc/gnutls", "/run/systemd/resolve"),
    *("/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services"),
    *("/etc/protocols", "/etc/passwd", "/etc/group", "/etc/localtime", "/etc/timezone", "/etc/mime.types"),
    *("/etc/os-release", "/etc/locale.alias", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"),
    # A confined process cannot look into others here, as that needs the right to trace them.
    *("/proc", "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage"),
)

_RESOLVERS = ("/run/systemd/resolve", "/run/nscd", "/run/avahi-daemon")
"""Where sockets are by which the C library asks for the addresses of hosts."""

_SHEBANG_SIZE = 256
# A path behind words that say what it is: oci:PATH, ed25519=file:PATH, tls-ca-path=PATH, file:///PATH.
_WORDS = re.compile(r"(?:[A-Za-z0-9_-]+[:=])+")
# Where a tag or a digest may begin behind a path.
_TAGS = re.compile(r"(?<=.):|(?<=[^/])@", re.DOTALL)


class Reach(NamedTuple):
    """Paths, each with all beneath it, and whether the network may be used."""

    programs: tuple[str, ...]
    readable: tuple[str, ...]
    writable: tuple[str, ...]
    network: bool

    def ruleset(self) -> Ruleset:
        """Return what Landlock is to be told."""
        rules = Ruleset(network=self.network)
        for paths, access in (
            (self.programs, Access.READ | Access.EXECUTE),
            (self.readable, Access.READ),
            (self.writable, Access.READ | Access.WRITE),
            (_RESOLVERS if self.network else (), Access.CONNECT),
        ):
            for path in paths:
                rules.allow(path, access)
        return rules

    def search_path(self, path: str) -> str:
        """Return ``$PATH`` with the directories out of reach last, as what is found there first could not be run.

        They may still hold links to what can.
        """
        parts = path.split(":")
        far = [part for part in parts if not _is_beneath_any(part, self.programs)]
        if far:  # resolving all the links takes 2 ms, which most need not spend at each start
            places = [os.path.realpath(place) for place in self.programs]
            far = [part for part in far if not _is_beneath_any(os.path.realpath(part), places)]
        return ":".join([*(part for part in parts if part not in far), *far])


def reach_of(
    line: CommandLine,
    *,
    own: tuple[str, ...],
    objects: str | None,
    environment: Mapping[str, str],
    directory: str | None,
    extra: tuple[str, ...] = (),
) -> Reach:
    """Return the reach of a run.

    ``own`` are the directories that are the extension's for this run, ``objects`` the repository's.  ``environment`` is
    what the extension gets; relative paths in values are relative to ``directory``.  ``extra`` is what the user allows
    to be read besides.
    """
    home = environment.get("HOME", "")
    home = os.path.realpath(home) if home.startswith("/") else "/nonexistent"
    typed = line.typed("path-write")
    # A file is made, or replaced by renaming, in the directory that it is in.
    writable = [*own, "/dev/null", *(path if os.path.isdir(path) else os.path.dirname(path) for path in typed)]
    readable = [*_SETTINGS, *_resolver(), *extra, *_certificates(environment)]
    readable += line.typed("path-read", "secret-file")
    readable += _paths_in_values(line, directory)
    for pattern in line.extension.manifest.reads:
        readable += _expanded(pattern, environment)
    if objects is not None:
        readable.append(objects)
    programs = [
        *_PROGRAMS,
        *_own_places(line.extension, home, environment),
        *_wanted_programs(line.extension.manifest.execs, home, environment),
    ]
    return Reach(
        tuple(dict.fromkeys(programs)),
        tuple(dict.fromkeys(readable)),
        tuple(dict.fromkeys(writable)),
        "network" in line.command.permissions,
    )


def _is_beneath(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _is_beneath_any(path: str, directories: Iterable[str]) -> bool:
    return any(_is_beneath(path, directory) for directory in directories)


def _resolver() -> Iterator[str]:
    """Where resolv.conf really is: who rewrites it puts a new file there, which a rule for the old one would miss."""
    directory = os.path.dirname(os.path.realpath("/etc/resolv.conf"))
    if directory not in ("/", "/etc"):
        yield directory


def _certificates(environment: Mapping[str, str]) -> Iterator[str]:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        yield from filter(os.path.isabs, environment.get(name, "").split(":"))


def _paths_in_values(line: CommandLine, directory: str | None) -> Iterator[str]:
    """Paths that the user typed behind words: what stands there alone may be a path in an image, and gives nothing."""
    for value in line.typed("string", "url", "ref", "image", "path-read"):
        words = _WORDS.match(value)
        if words is None:
            continue
        # The path may have words with colons of its own: oci:PATH:TAG begins after the first word.
        for end in re.finditer(r"[:=]", words.group()):
            path = value[end.end() :]
            if path.startswith("//"):
                if not value[: end.end()].lower().endswith("file:"):
                    continue
                from urllib.parse import unquote  # takes 4 ms that a run without such a URL need not spend

                path = unquote("/" + path[2:].partition("/")[2])
            if path and (path.startswith("/") or directory):
                yield from _whole_or_tagged(path, directory or "/")


def _whole_or_tagged(path: str, directory: str) -> tuple[str, ...]:
    """The path, or what is before a tag or digest of it: the longest that there is, or all if there is none.

    What is before : or @ in a directory's name is another place, which nobody typed.
    """
    ends = [*(match.start() for match in _TAGS.finditer(path)), len(path)]
    places = [os.path.join(directory, path[:end]) for end in reversed(ends)]
    there = next(filter(os.path.lexists, places), None)
    return tuple(places) if there is None else (there,)


def _expanded(pattern: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Expand ~ and $VAR of a manifest's ``reads``; a variable may hold several paths, with : between them."""
    unknown = False

    def value(match: re.Match[str]) -> str:
        nonlocal unknown
        unknown |= not environment.get(match[1])
        return environment.get(match[1], "")

    text = re.sub(r"\$([A-Za-z_][A-Za-z0-9_]*)", value, pattern)
    if text == "~" or text.startswith("~/"):
        text = environment.get("HOME", "") + text[1:]
    if not unknown:
        yield from filter(os.path.isabs, text.split(":"))


def _own_places(extension: Extension, home: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Where the extension and its interpreter are, and what this core's own interpreter loads modules from."""
    programs = []
    for executable in dict.fromkeys((extension.executable, os.path.realpath(extension.executable))):
        directory = os.path.dirname(executable)
        yield from (directory,) if not _is_beneath(home, directory) else (executable, executable + ".json")
        programs.append(executable)
        if directory.endswith("/" + BELOW_PREFIX):
            prefix = directory.removesuffix("/" + BELOW_PREFIX)
            yield from _within(prefix or "/", home)
            # Where a launcher of an extension in Python goes on.
            programs.append(f"{prefix}/bin/composefs-ext-{extension.name}")
    for program in programs:
        yield from _of_interpreter(program, home, environment)
    for place in dict.fromkeys((sys.prefix, sys.base_prefix, *sys.path)):
        if os.path.isabs(place):
            yield from _within(place, home)
    yield from (f"/etc/{name}" for name in os.listdir("/etc") if name.startswith("python3"))  # Debian's sitecustomize


def _within(prefix: str, home: str) -> Iterator[str]:
    """The prefix, or only what programs consist of, where it holds the user's own files too."""
    if prefix == "/":
        return
    if _is_beneath(home, os.path.realpath(prefix)) or os.path.realpath(prefix) == f"{home}/.local":
        yield from (f"{prefix}/{name}" for name in ("bin", "lib", "lib64", "libexec"))
    else:
        yield prefix


def _prefixes(program: str, home: str) -> Iterator[str]:
    """The prefixes of PREFIX/bin/NAME, of what that is a link to, and of the Python that a virtual one is made of."""
    for path in dict.fromkeys((program, os.path.realpath(program))):
        prefix = os.path.dirname(os.path.dirname(path))
        yield path
        yield from _within(prefix, home)
        try:
            with open(f"{prefix}/pyvenv.cfg") as file:
                settings = dict(line.split(" = ", 1) for line in file if " = " in line)
        except (OSError, ValueError):
            continue
        if os.path.isabs(base := settings.get("home", "").strip()):
            yield from _within(os.path.dirname(base), home)


def _of_interpreter(program: str, home: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The prefixes of what runs a script; nothing for other programs."""
    interpreter = _interpreter(program, environment)
    if interpreter is not None:
        yield from _prefixes(interpreter, home)


def _interpreter(program: str, environment: Mapping[str, str]) -> str | None:
    """The interpreter that the first line of a script names, looked up in PATH if that is env(1)."""
    try:
        with open(program, "rb") as file:
            line = file.read(_SHEBANG_SIZE).partition(b"\n")[0]
    except OSError:
        return None
    if not line.startswith(b"#!"):
        return None
    interpreter, *words = os.fsdecode(line[2:]).split() or [""]
    if os.path.basename(interpreter) != "env":
        return interpreter if os.path.isabs(interpreter) else None
    name = next((word for word in words if not word.startswith("-") and "=" not in word), "")
    return next(_found_in_path(name, environment), None)


def _wanted_programs(names: tuple[str, ...], home: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Programs that the manifest wants to run, where they are not among the system's."""
    for name in names:
        for program in _found_in_path(name, environment):
            if not _is_beneath_any(os.path.realpath(program), _PROGRAMS):
                yield from _prefixes(program, home)
                yield from _of_interpreter(program, home, environment)


def _found_in_path(pattern: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Executables in the directories of PATH whose names fit ``pattern``, in their order."""
    for directory in environment.get("PATH", "").split(":"):
        if not os.path.isabs(directory):
            continue
        if "*" in pattern:
            try:
                names = fnmatch.filter(os.listdir(directory), pattern)
            except OSError:
                continue
        else:
            names = [pattern] if pattern else []
        for name in names:
            path = f"{directory}/{name}"
            if os.path.isfile(path) and os.access(path, os.X_OK):
                yield path
