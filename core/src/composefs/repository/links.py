"""Symlinks of a repository: read with care, and written by one function."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from composefs.errors import CorruptError, ExistsError, FormatError
from composefs.linux.closing import Descriptor
from composefs.linux.files import open_directory, random_name, sync_directory
from composefs.repository.names import TEMPORARY_PREFIX, parse_object_link, parse_ref_link
from composefs.repository.store import Store, no_directory

__all__ = [
    "MAX_DEPTH",
    "Odd",
    "list_refs",
    "make_directories",
    "make_room",
    "open_refs",
    "point",
    "read_entry",
    "read_link",
    "read_ref",
    "read_ref_link",
    "walk",
]

MAX_DEPTH = 64
"""Directories below one another that refs may be in; who made more of them would keep everybody from listing refs."""

Odd = Callable[[str], object]
"""Gets a message for each thing that does not belong where it is, so that the others can be listed."""

T = TypeVar("T")


def read_link(name: str, at: int | None, where: str) -> str | None:
    """Return a symlink's target, or None if there is nothing; CorruptError, naming ``where``, for anything else.

    ``at`` is None for a directory that is not there.
    """
    if at is None:
        return None
    try:
        return os.readlink(name, dir_fd=at)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise CorruptError(f"{where} is not a symlink", subject=where) from error
        raise


def read_entry(name: str, store: Store, directory: str) -> str | None:
    """Return the id of the object that a name in ``streams`` or ``images`` stands for, or None if there is none."""
    where = f"{directory}/{name}"
    with store.doing(f"reading {where}"):
        link = read_link(name, store.find(directory), where)
    return None if link is None else parse_object_link(link, store.algorithm, where)


def point(name: str, at: int, target: str) -> None:
    """Make the symlink ``name`` point to ``target``: the one place where a repository's names appear and change.

    Anybody sees the old target or the new one, never neither, and after a power cut too once the directory is synced.
    """
    temporary = TEMPORARY_PREFIX + random_name()
    os.symlink(target, temporary, dir_fd=at)
    try:
        os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)
    except BaseException:
        os.unlink(temporary, dir_fd=at)
        raise


def open_directories(parts: Sequence[str], at: int) -> int | None:
    """Open a directory below another one, following no symlink; None if it is missing."""
    fd = os.dup(at)
    for part in parts:
        try:
            below = open_directory(part, fd)
        except (FileNotFoundError, NotADirectoryError):
            return None
        finally:
            os.close(fd)
        fd = below
    return fd


def open_refs(parts: Sequence[str], at: int | None, where: str) -> int | None:
    """Open ``refs`` in ``streams`` or ``images``, or a directory below it; None if either is missing.

    CorruptError, naming ``where``, if ``refs`` itself is anything else: in what passes for a repository without refs,
    everything is garbage.
    """
    if at is None:
        return None
    try:
        refs = open_directory("refs", at)
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise no_directory(where) from error
    with Descriptor(refs):
        return open_directories(parts, refs)


def read_ref(parts: Sequence[str], store: Store, directory: str) -> str | None:
    """Return what the ref of this path below ``refs`` names, or None; ``directory`` is ``streams`` or ``images``.

    Raises CorruptError and the errors of the system.
    """
    link = read_ref_link(parts, store, directory)
    return None if link is None else parse_ref_link(link, len(parts) - 1, "/".join([directory, "refs", *parts]))


def read_ref_link(parts: Sequence[str], store: Store, directory: str) -> str | None:
    """Return where a ref's symlink points, whatever its shape; otherwise as :func:`read_ref`.

    A directory with other refs in it is no ref, and no error either.
    """
    where = "/".join([directory, "refs", *parts])
    with store.doing(f"reading {where}"):
        fd = open_refs(parts[:-1], store.find(directory), f"{directory}/refs")
        if fd is None:
            return None
        with Descriptor(fd):
            try:
                return read_link(parts[-1], fd, where)
            except CorruptError:
                if stat.S_ISDIR(os.stat(parts[-1], dir_fd=fd, follow_symlinks=False).st_mode):
                    return None
                raise


def make_room(name: str, at: int, where: str) -> None:
    """Remove an empty directory with the name of a ref that is to be; ExistsError if it has refs in it."""
    try:
        os.rmdir(name, dir_fd=at)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        raise ExistsError(f"{where} cannot be a ref: there are refs below it") from error


def make_directories(parts: Sequence[str], at: int, where: str) -> int:
    """Open a directory below another one, making it and those above it where they are missing.

    Each new one is durable before something is put into it.  ExistsError when a symlink, another ref, is in the way.
    """
    fd = os.dup(at)
    for part in parts:
        try:
            try:
                below = open_directory(part, fd)
            except FileNotFoundError:
                os.mkdir(part, 0o775, dir_fd=fd)  # a group may share refs, by its umask; never all
                sync_directory(fd)
                below = open_directory(part, fd)
        except NotADirectoryError as error:
            raise ExistsError(f"{where}: {part!r} is a ref already, so nothing can be below it") from error
        finally:
            os.close(fd)
        fd = below
    return fd


def list_refs(store: Store, directory: str, prefix: str, read: Callable[[str, str], T], odd: Odd) -> list[T]:
    """Return what ``read`` makes of each ref whose path below ``refs`` begins with ``prefix``; nothing else is read.

    ``directory`` is as in :func:`read_ref`; ``read`` gets the path below ``refs`` and what the ref names.  ``odd`` is
    told of what is no ref, and of the CorruptErrors and FormatErrors of ``read``.
    """
    where = f"{directory}/refs"
    found = []
    with store.doing(f"listing {where}"):
        fd = open_refs([], store.find(directory), where)
        if fd is None:
            return []
        with Descriptor(fd):
            for path, link in walk(fd, where, prefix, odd=lambda place, reason: odd(f"{place} {reason}")):
                try:
                    found.append(read(path, parse_ref_link(link, path.count("/"), f"{where}/{path}")))
                except (CorruptError, FormatError) as error:
                    odd(error.message)
    return found


def walk(at: int, where: str, prefix: str = "", *, odd: Callable[[str, str], object]) -> Iterator[tuple[str, str]]:
    """Yield (path, target) of each symlink at any depth below a directory whose path begins with ``prefix``.

    Those of a directory come by name, and before those of the directories in it; temporary ones are left out.  ``odd``
    is told of everything else that is no directory, and of directories too deep: the path, which begins with ``where``
    the directory is, and what is wrong with it.
    """
    stack: list[list[str]] = [[]]
    while stack:
        parts = stack.pop()
        fd = open_directories(parts, at)
        if fd is None:
            continue  # removed meanwhile
        above = "".join(f"{part}/" for part in parts)
        with Descriptor(fd):
            below = []
            for name in sorted(os.listdir(fd)):
                path = above + name
                wanted = path.startswith(prefix)
                if name.startswith(TEMPORARY_PREFIX) or not (wanted or prefix.startswith(f"{path}/")):
                    continue
                try:
                    target, is_directory = _look_at(name, fd)
                except FileNotFoundError:
                    continue  # removed meanwhile
                if is_directory and len(parts) < MAX_DEPTH:
                    below.append([*parts, name])
                elif not wanted:
                    continue  # it leads nowhere
                elif target is not None:
                    yield path, target
                else:
                    odd(f"{where}/{path}", f"is below {MAX_DEPTH} directories" if is_directory else "is not a symlink")
        stack += reversed(below)


def _look_at(name: str, at: int) -> tuple[str | None, bool]:
    """Return what a symlink points to, None for anything else, and whether it is a directory."""
    while True:
        try:
            return os.readlink(name, dir_fd=at), False
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
        if not stat.S_ISLNK(mode):  # else a directory has made way for a ref in between
            return None, stat.S_ISDIR(mode)
