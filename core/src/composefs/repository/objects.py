"""Objects: files named by their fs-verity digest, ``objects/XX/REST``.

An object gets its name by link(2), which never replaces: the file that is there may be durable already, an equal new
one is not.  Only when the one that is there turns out to be damaged (a power cut may leave it short or zeroed) the new
one takes its place.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from composefs import fsverity
from composefs.digest import parse_id
from composefs.errors import BusyError, CancelledError, ComposefsError, CorruptError, MissingObjectError
from composefs.linux import verity
from composefs.linux.closing import Descriptor
from composefs.linux.content import PIECE, clone, read_pieces, write_piece
from composefs.linux.files import NewFile, open_file, sync_file_system, write_all
from composefs.repository.names import object_name
from composefs.repository.sealing import OBJECT_MODE, seal
from composefs.repository.store import Store, no_directory, not_regular

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Objects", "Stored", "listed", "store_copy"]

How = Literal["moved", "reflinked", "copied", "present"]

_LISTED = 20
"""How many objects an error names."""

_REMEDY = "put it back with `cfsctl fsck --repair --from REPO`, or pull with --repair what names it"


class Stored(NamedTuple):
    """An object that is now in the repository; ``stored`` tells how it came in."""

    id: str
    size: int
    stored: How


class Unnamed(Protocol):
    """A finished file that can take a name in ``objects/``."""

    fd: int

    def link(self, at: int, name: str) -> None:
        """Take a name that is free; FileExistsError if it is not."""

    def replace(self, at: int, name: str) -> None:
        """Take a name away from the file that has it."""


class Objects:
    """The objects of a repository: looking for them, reading them, and storing copies.

    :mod:`composefs.repository.adoption` takes whole files in instead, :mod:`composefs.repository.packs` parts of files.

    ``algorithm`` is that of their ids; ``unsynced`` tells that some were stored for which no barrier has waited yet.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.algorithm = store.algorithm
        self._empty = fsverity.digest_bytes(b"", store.algorithm).hex()
        self.unsynced = False

    def path(self, object_id: str) -> Path:
        """Return where an object is, or would be."""
        from pathlib import Path  # takes 4 ms to load

        return Path(self._store.path, "objects", object_name(parse_id(object_id, self.algorithm)))

    def size(self, object_id: str) -> int | None:
        """Return an object's size in bytes, or None if it is missing.

        A file of no bytes that should have some, as a power cut leaves them, is missing.
        """
        return self.sizes([parse_id(object_id, self.algorithm)])[0]

    def sizes(self, ids: Iterable[str]) -> list[int | None]:
        """Return what :meth:`size` does for many ids, which the caller has checked to be ids.

        A pull that starts from a base asks for all that it holds.
        """
        found: list[int | None] = []
        lstat, objects, regular, empty = os.stat, self._store.objects, stat.S_ISREG, self._empty
        for object_id in ids:
            try:
                status = lstat(object_name(object_id), dir_fd=objects, follow_symlinks=False)
            except FileNotFoundError:
                found.append(None)
                continue
            except OSError as error:
                raise self._error(error, "looking for", object_id) from error
            size = status.st_size
            found.append(size if regular(status.st_mode) and (size or object_id == empty) else None)
        return found

    def has(self, object_id: str) -> bool:
        """Tell whether an object is there; its content is not looked at."""
        return self.size(object_id) is not None

    def require(self, ids: Collection[str], what: str, known: Mapping[str, int] | None = None) -> dict[str, int]:
        """Return the sizes of objects by id, but for those that are ``known``, which are not looked for.

        Raises MissingObjectError, naming ``what`` and the first missing ones, unless all are there.
        """
        unknown = [parse_id(object_id, self.algorithm) for object_id in ids if not known or object_id not in known]
        sizes = zip(unknown, self.sizes(unknown), strict=True)
        found = {object_id: size for object_id, size in sizes if size is not None}
        if missing := sorted(set(unknown) - found.keys()):
            raise _missing(missing, what)
        return found

    def require_files(self, files: Mapping[str, int], what: str, known: Mapping[str, int] | None = None) -> None:
        """Require the objects of a tree, given with its files' sizes; CorruptError for an object of another size."""
        known = known or {}
        found = self.require(files, what, known)
        for object_id, size in files.items():
            stored = known[object_id] if object_id in known else found[object_id]
            if stored != size:
                raise CorruptError(
                    f"{what} says that a file has {size} bytes, and its object {object_id} has {stored}",
                    subject=object_id,
                    hint="`cfsctl fsck` tells if the object is damaged",
                )

    def open(self, object_id: str, *, verify: bool = False) -> int:
        """Open an object for reading; with ``verify``, check its digest first.

        The kernel's measurement is enough for that; in an insecure repository, the content is read.  Raises
        MissingObjectError and CorruptError.
        """
        parse_id(object_id, self.algorithm)
        try:
            fd = open_file(object_name(object_id), self._store.objects)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise _missing([object_id], "opening an object") from error
            if odd := not_regular(object_name(object_id), self._store.objects):
                raise _damaged(object_id, f"it is {odd}") from error
            raise self._error(error, "opening", object_id) from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise _damaged(object_id, "it is not a regular file")
            if verify:
                self.verify(fd, object_id)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _error(self, error: OSError, doing: str, object_id: str) -> ComposefsError:
        """Turn an error met at the place of an object into one of ours; what should not stand there is damage."""
        if error.errno == errno.EISDIR:  # which no file takes the place of
            return _damaged(object_id, "it is a directory", "move that away, and run the command again")
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            remedy = "put its objects back with `cfsctl fsck --repair --from REPO`"
            return no_directory(f"objects/{object_id[:2]}", remedy)
        return self._store.failed(error, f"{doing} object {object_id}")

    def cat(self, object_id: str, write: Callable[[bytes | memoryview], object]) -> int:
        """Pass an object's bytes to ``write``, piece by piece, and return their number.

        Its digest is checked: first, where fs-verity vouches for it, else when all has been written, which is not to be
        used then if this raises CorruptError.
        """
        with Descriptor(self.open(object_id)) as fd:
            hasher = None if self.measured(fd, object_id) else fsverity.Hasher(self.algorithm)
            size = 0
            for piece in self._pieces(fd, object_id):
                if hasher:
                    hasher.update(piece)
                write(piece)
                size += len(piece)
            if hasher:
                _check_digest(hasher.digest().hex(), object_id)
            return size

    def _pieces(self, fd: int, object_id: str) -> Iterator[memoryview]:
        """Read an object; what fails where the pieces go is not taken for a failure to read."""
        try:
            yield from read_pieces(fd)
        except OSError as error:
            raise self._store.failed(error, f"reading object {object_id}") from error

    def verify(self, fd: int, object_id: str) -> None:
        """Raise CorruptError unless an open file has the digest, by fs-verity if the repository is secure."""
        if self.measured(fd, object_id):
            return
        try:
            actual = fsverity.digest_fd(fd, self.algorithm).hex()
        except OSError as error:
            raise self._store.failed(error, f"reading object {object_id}") from error
        _check_digest(actual, object_id)

    def measured(self, fd: int, object_id: str) -> bool:
        """Tell whether the kernel vouches for an object; CorruptError if it contradicts, or must vouch and does not."""
        try:
            measured = verity.measure(fd)
        except OSError as error:
            raise self._store.failed(error, f"measuring the fs-verity of object {object_id}") from error
        if measured == (self.algorithm, bytes.fromhex(object_id)):
            return True
        if measured is not None:
            raise _damaged(object_id, f"its fs-verity digest is {measured[1].hex()}")
        if self._store.secure:
            raise CorruptError(f"object {object_id} has no fs-verity, which this repository demands", subject=object_id)
        return False

    def store_parts(self, parts: Iterable[bytes | bytearray | memoryview]) -> Stored:
        """Store an object that comes in pieces."""
        self._store.require_writable("storing an object")
        self._store.require_space(0, "storing an object")
        hasher = fsverity.Hasher(self.algorithm)
        with self._store.doing("storing an object"), NewFile(self._store.scratch, OBJECT_MODE) as new:
            for part in parts:
                hasher.update(part)
                write_all(new.fd, part)
            return self.finish(new, hasher.digest().hex(), hasher.size, "copied")

    def store_hashed(self, data: memoryview, object_id: str, *, likely: bool = False) -> Stored:
        """Store bytes of which the caller has computed the id, and which nobody can change since.  Raises ``OSError``.

        If they are ``likely`` to be there already, that is looked at first, which saves two thirds of the time if they
        are, and costs a sixth if they are not.
        """
        if likely and self._is_intact(object_id, len(data), data):
            return Stored(object_id, len(data), "present")
        with NewFile(self._store.scratch, OBJECT_MODE) as new:
            write_all(new.fd, data)
            return self.finish(new, object_id, len(data), "copied")

    def store_fd(self, fd: int, *, from_reserve: bool = False) -> Stored:
        """Store a copy of an open file's content, sharing its blocks where the file system can.

        The content is read from the start, whatever the offset, and may change meanwhile: the id is that of the copy.
        With ``from_reserve`` the disk may become full.
        """
        self._store.require_writable("storing an object")
        try:
            status = os.fstat(fd)
            if status.st_size <= PIECE:
                data = os.pread(fd, PIECE, 0)
                if len(data) == status.st_size:
                    return self._store_small(data, fd, from_reserve)
            if not from_reserve:  # holes stay holes; blocks are counted in 512 bytes, inode(7)
                self._store.require_space(min(status.st_size, status.st_blocks * 512), "storing an object")
            with NewFile(self._store.scratch, OBJECT_MODE) as new:
                object_id, size, how = store_copy(fd, new, self._store)
                return self.finish(new, object_id, size, how)
        except OSError as error:
            raise self._store.failed(error, "storing an object") from error

    def _store_small(self, data: bytes, fd: int, from_reserve: bool) -> Stored:
        """Store what was read of a small file, of which most of a tree are: read and hashed once, present or not."""
        size = len(data)
        object_id = fsverity.digest_bytes(data, self.algorithm).hex()
        if self.size(object_id) == size and self._is_intact(object_id, size, fd):
            return Stored(object_id, size, "present")
        if not from_reserve:
            self._store.require_space(size, "storing an object")
        with NewFile(self._store.scratch, OBJECT_MODE) as new:
            if clone(fd, new.fd):  # the file may have changed since
                object_id, size = fsverity.digest_fd(new.fd, self.algorithm).hex(), os.fstat(new.fd).st_size
                return self.finish(new, object_id, size, "reflinked")
            write_all(new.fd, data)
            return self.finish(new, object_id, size, "copied")

    def barrier(self) -> None:
        """Wait until everything stored so far is on the disk: the one durability barrier."""
        with self._store.doing("making everything durable"):
            sync_file_system(self._store.root)
        self.unsynced = False

    def finish(self, new: NewFile, object_id: str, size: int, how: How) -> Stored:
        """Give a file that we have written fs-verity, in a secure repository, and its name.  Raises ``OSError``."""
        if self._store.secure:
            new.reopen_read_only()
            if not seal(new.fd, self._store):
                raise BusyError(f"object {object_id}: another process keeps the new file open", retryable=True)
            self.measured(new.fd, object_id)
        return self.give_name(new, object_id, size, how)

    def give_name(self, new: Unnamed, object_id: str, size: int, how: How) -> Stored:
        """Name a finished file, unless an intact object has the name.  Raises NoSpaceError and others, with the id."""
        try:
            directory, name = self._store.fanout(object_id[:2]), object_id[2:]
            try:
                new.link(directory, name)
            except FileExistsError:
                if self._is_intact(object_id, size, new.fd):
                    return Stored(object_id, size, "present")
                new.replace(directory, name)
        except OSError as error:
            raise self._error(error, "storing", object_id) from error
        self.unsynced = True
        return Stored(object_id, size, how)

    def _is_intact(self, object_id: str, size: int, same: int | memoryview) -> bool:
        """Tell whether the stored object has the right size and content: by fs-verity, or as it equals ``same``.

        That is an open file, or bytes in memory.
        """
        try:
            fd = open_file(object_name(object_id), self._store.objects)
        except OSError:
            return False  # a symlink, or no longer there
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                return False
            if self.measured(fd, object_id):
                for _ in read_pieces(fd):  # fs-verity has vouched for the digest, not for the pages
                    pass
                return True
            return _same_content(fd, same) if isinstance(same, int) else os.pread(fd, size, 0) == same.tobytes()
        except (CorruptError, OSError):
            return False
        finally:
            os.close(fd)


def store_copy(fd: int, new: NewFile, store: Store) -> tuple[str, int, How]:
    """Fill a new file from another one; return the id, size and way of what is in it.

    Zeros take no room: a file may be nearly all holes, as disks of virtual machines are.  Raises ``OSError``, and
    CancelledError when interrupted.
    """
    if clone(fd, new.fd):
        digest = fsverity.digest_fd(new.fd, store.algorithm, store.interrupted)
        return digest.hex(), os.fstat(new.fd).st_size, "reflinked"
    hasher = fsverity.Hasher(store.algorithm)
    for piece in read_pieces(fd):
        hasher.update(piece)
        write_piece(new.fd, piece)
        if store.interrupted():
            raise CancelledError("interrupted while a file was copied")
    os.ftruncate(new.fd, hasher.size)  # where it ends with zeros
    return hasher.digest().hex(), hasher.size, "copied"


def listed(ids: Sequence[str]) -> str:
    """Return ids for a message: the first ones, and how many more there are."""
    return ", ".join(ids[:_LISTED]) + (f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else "")


def _missing(ids: list[str], what: str) -> MissingObjectError:
    """Make the error for objects that are not there."""
    noun = "object" if len(ids) == 1 else f"{len(ids)} objects"
    return MissingObjectError(
        f"{what}: the repository lacks {noun} {listed(ids)}",
        subject=ids[0],
        hint=_REMEDY,
    )


def _check_digest(actual: str, object_id: str) -> None:
    """Raise CorruptError unless the content of an object has the digest that the object is named by."""
    if actual != object_id:
        raise _damaged(object_id, f"its content has the digest {actual}")


def _damaged(object_id: str, reason: str, remedy: str = _REMEDY) -> CorruptError:
    return CorruptError(f"object {object_id} is damaged: {reason}", subject=object_id, hint=remedy)


def _same_content(one: int, other: int) -> bool:
    position = 0
    while data := os.pread(one, PIECE, position):
        if data != os.pread(other, PIECE, position):
            return False
        position += len(data)
    return not os.pread(other, 1, position)
