"""Find extensions: an executable NAME with NAME.json beside it, in the directories of the search order.

The order is ``$COMPOSEFS_EXT_PATH``, the user's libexec, the interpreter's prefix, /usr/local/libexec, /usr/libexec;
the first of a name wins.  Nothing found is hidden: what is shadowed, malformed, not trusted by root or claims names
that belong to an earlier one is listed with the reason.  Nothing is executed.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Literal

from composefs.errors import ComposefsError, ExtensionError, FormatError, NotFoundError, PermissionDeniedError
from composefs.ext.manifest import MAX_MANIFEST, NAME, Manifest, parse_manifest
from composefs.ext.trust import distrust
from composefs.linux.capabilities import effective_capabilities
from composefs.tuples import NamedTuple

__all__ = ["BELOW_PREFIX", "SEARCH_VARIABLE", "Extension", "Found", "find", "list_all", "not_there", "search_path"]

SEARCH_VARIABLE = "COMPOSEFS_EXT_PATH"
BELOW_PREFIX = "libexec/composefs/ext"
"""Where extensions are in an installation prefix."""


class Extension(NamedTuple):
    """One that can be run."""

    name: str
    executable: str
    manifest: Manifest


class Found(NamedTuple):
    """One that was found.  ``reason`` says why it is not active; ``extension`` is None if it could not be read."""

    name: str
    executable: str
    state: Literal["active", "shadowed", "rejected"]
    reason: str | None = None
    extension: Extension | None = None


def _privileged() -> bool:
    """Whether setuid, setgid or file capabilities give this process more than its user has."""
    if os.getuid() != os.geteuid() or os.getgid() != os.getegid():
        return True
    if os.geteuid() == 0:
        return False
    try:
        return effective_capabilities() != 0
    except OSError:
        return False


def search_path() -> list[str]:
    """The directories to search, in order; the user's own only when the process has no borrowed privileges."""
    directories = []
    if not _privileged():
        directories += _asked_for()
        home = os.environ.get("HOME", "")
        if home.startswith("/"):
            directories.append(f"{home}/.local/{BELOW_PREFIX}")
    directories += [f"{prefix}/{BELOW_PREFIX}" for prefix in (sys.prefix, "/usr/local", "/usr")]
    return list(dict.fromkeys(map(_absolute, directories)))


def _absolute(directory: str) -> str:
    if ".." not in directory:
        return os.path.abspath(directory)
    from composefs.linux.files import absolute  # which no other start needs

    return absolute(directory)


def _asked_for() -> list[str]:
    return [part for part in os.environ.get(SEARCH_VARIABLE, "").split(":") if part]


def not_there() -> list[str]:
    """What ``$COMPOSEFS_EXT_PATH`` names that is no directory, such as the executable itself."""
    return [] if _privileged() else [part for part in _asked_for() if not os.path.isdir(part)]


def list_all(search: Sequence[str] | None = None) -> list[Found]:
    """Return every candidate in search order, alphabetically within a directory."""
    return list(_examined(search))


def _examined(search: Sequence[str] | None) -> Iterator[Found]:
    active: list[Extension] = []
    for directory in search_path() if search is None else search:
        for name in _candidates(directory):
            each = _examine(f"{directory}/{name}", name, active)
            if each.state == "active" and each.extension is not None:
                active.append(each.extension)
            yield each


def find(name: str, search: Sequence[str] | None = None) -> Extension:
    """Return the active extension ``name``.

    Raises NotFoundError if there is none, ExtensionError if only rejected ones were found.
    """
    rejected = None
    for each in _examined(search):  # what comes after the first cannot change whether it is active
        if each.name != name:
            continue
        if each.state == "active" and each.extension is not None:
            return each.extension
        rejected = rejected or each
    if rejected is not None:
        raise ExtensionError(
            f"extension {name} at {rejected.executable} is refused: {rejected.reason}",
            subject=rejected.executable,
            hint="cfsctl ext list shows every extension found, and why some are not used",
        )
    raise NotFoundError(f"there is no extension {name}", subject=name, hint="cfsctl ext list shows those installed")


def _candidates(directory: str) -> list[str]:
    try:
        entries = sorted(os.listdir(directory))
    except OSError:
        return []
    present = set(entries)
    # A lone NAME.json is listed as well: half an installation should not go unnoticed.
    names = {entry.removesuffix(".json") if entry.endswith(".json") else entry for entry in entries}
    return sorted(name for name in names if name in present or NAME.match(name))


def _examine(executable: str, name: str, active: list[Extension]) -> Found:
    if not NAME.match(name):
        return Found(name, executable, "rejected", "the name is not a lower-case letter followed by letters and digits")
    try:
        extension = _load(executable, name)
    except FormatError as error:
        return Found(name, executable, "rejected", f"{name}.json: {error.message}")
    except ComposefsError as error:
        return Found(name, executable, "rejected", error.message)
    except OSError as error:
        missing = error.errno == errno.ENOENT and error.filename == f"{executable}.json"
        why = f"its manifest {name}.json is not beside it" if missing else f"{error.filename}: {error.strerror}"
        return Found(name, executable, "rejected", why)
    for other in active:
        if other.name == name:
            return Found(name, executable, "shadowed", f"{other.executable} comes first", extension)
        overlap = _overlap(extension.manifest, other.manifest)
        if overlap:
            return Found(name, executable, "rejected", f"{overlap} belongs to {other.executable}", extension)
    return Found(name, executable, "active", None, extension)


def _load(executable: str, name: str) -> Extension:
    manifest_path = executable + ".json"
    if os.geteuid() == 0:
        for path in (executable, manifest_path):
            reason = distrust(path)
            if reason:
                raise PermissionDeniedError(f"root does not trust it: {reason}")
    if not stat.S_ISREG(os.stat(executable).st_mode) or not os.access(executable, os.X_OK):
        raise PermissionDeniedError(f"{executable} is not an executable file")
    fd = os.open(manifest_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_MANIFEST:
            raise FormatError(f"not a regular file of at most {MAX_MANIFEST} bytes")
        data = file.read(MAX_MANIFEST)
    return Extension(name, executable, parse_manifest(data, name))


def _overlap(mine: Manifest, theirs: Manifest) -> str | None:
    """The name that both would own, or None."""
    for prefix in mine.streams:
        for other in theirs.streams:
            if prefix.startswith(other) or other.startswith(prefix):
                return f"the stream prefix {prefix}"
    directories = {ref.dir for ref in theirs.refs}
    for ref in mine.refs:
        if ref.dir in directories:
            return f"the ref directory {ref.dir}"
    return None
