"""File objects on their way into a repository: what a worker process makes of each, in the four modes.

The content comes from the composefs repository and is hashed on its way, so that nothing is exported but what has the
id under which it goes.  See :mod:`composefs_ostree.fetching.bare` and :mod:`composefs_ostree.fetching.content` for the
layouts.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from hashlib import sha256

from composefs_ext.errors import (
    CorruptError,
    ExtError,
    InputOutputError,
    PermissionDeniedError,
    UnsupportedError,
    from_exception,
)
from composefs_ext.files import attribute_names
from composefs_ostree.exporting.unfinished import create
from composefs_ostree.fetching.bare import USER_META
from composefs_ostree.fetching.content import RAW_DEFLATE
from composefs_ostree.fetching.files import failure
from composefs_ostree.fetching.jobs import Jobs
from composefs_ostree.fetching.stage import Stager
from composefs_ostree.formats.fileheader import checksum_header, head_size, parse_head
from composefs_ostree.formats.objects import Dirmeta, make_dirmeta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from hashlib import _Hash as Hash

    from composefs_ext import Repository
    from composefs_ostree.fetching.files import Failure
    from composefs_ostree.fetching.stage import Row
    from composefs_ostree.formats.commit_stream import Entry
    from composefs_ostree.formats.fileheader import FileHead

__all__ = ["ObjectWriter", "object_name"]

_BUFFER = 128 << 10
_ACL = b"system.posix_acl_access"
_KEEPS_FROM = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL})
"""How the system refuses owners and attributes; the last is for owners that a user namespace does not have."""
_NOT_KEPT = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""How a file system refuses what it has no place for, such as symlinks on FAT."""
_NEEDS = {
    "bare": "owners, modes, attributes and symlinks",
    "bare-user": "attributes",
    "bare-user-only": "modes and symlinks",
}
_HINT = "cfsctl ostree fsck shows what is wrong; cfsctl ostree pull --repair fetches it again"


def object_name(file_id: bytes, mode: str) -> str:
    """Return the name of a file object's file, without its directory."""
    return f"{file_id.hex()}.{'filez' if mode == 'archive' else 'file'}"


class ObjectWriter(Jobs):
    """Writes objects into the staging directory of a target, where its process is; the ``Files`` of a worker."""

    def __init__(
        self, staging: str, mode: str, level: int, files: Mapping[bytes, Entry], repository: Repository
    ) -> None:
        """``files`` are the objects, by id; ``level`` is that of the deflate streams of an archive."""
        super().__init__()
        self._staging = staging
        self._mode = mode
        self._level = level
        self._files = files
        self._repository = repository
        self._stager = Stager()
        self._buffer = memoryview(bytearray(_BUFFER))

    def where(self, file_id: bytes) -> str:
        """Return the path of an object's file, before it is renamed to where it belongs, to name it by."""
        return f"{self._staging}/{object_name(file_id, self._mode)}"

    def _do(self, file_id: bytes, _staged: str) -> Row | Failure:
        path = self.where(file_id)
        name = object_name(file_id, self._mode)  # who owns the repository may exchange what the path leads to
        try:
            data, content = self._files[file_id]
            end = head_size(data)
            head = parse_head(data[:end])
            if head.is_symlink:
                self._symlink(name, file_id, head, data[:end])
            else:
                source = -1 if content is None else self._open(content, head.size)
                try:
                    self._regular(name, file_id, head, data[:end], data[end:], source)
                finally:
                    if source >= 0:
                        os.close(source)
        except CorruptError as error:  # what is read, not the path that is written
            return failure(file_id, f"file object {file_id.hex()}", error)
        except OSError as error:
            if error.errno == errno.EIO and (unreadable := self._unreadable(self._files[file_id].content)):
                return failure(file_id, f"file object {file_id.hex()}", unreadable)
            error.filename = path  # a symlink's names its target
            return failure(file_id, path, _refused(error, self._mode))
        except Exception as error:  # noqa: BLE001  the coordinator reports whatever goes wrong here
            return failure(file_id, path, from_exception(error, path))
        return file_id, b"", head.size, None

    def _open(self, content: str, size: int) -> int:
        try:
            return self._repository.open(content, size)
        except FileNotFoundError:
            raise CorruptError(f"object {content} is missing in the composefs repository", hint=_HINT) from None
        except PermissionError as error:
            raise from_exception(error) from None

    def _unreadable(self, content: str | None) -> ExtError | None:
        """Return the error of an object that cannot be read, if that is so: the target's disk is not to blame."""
        if content is None:
            return None
        try:
            with open(self._repository.open(content), "rb", buffering=0) as file:
                while file.readinto(self._buffer):
                    pass
        except CorruptError as error:
            return error
        except OSError as error:
            return InputOutputError(f"object {content}: {error.strerror}", hint=_HINT)
        return None

    def _symlink(self, path: str, file_id: bytes, head: FileHead, raw: bytes) -> None:
        _check(sha256(checksum_header(raw)).digest(), file_id)
        match self._mode:
            case "archive":
                self._write(path, raw)
            case "bare-user":
                self._write(path, head.target + b"\0", _user_meta(head))
            case _:
                os.symlink(head.target, os.fsencode(path))
                if self._mode == "bare":
                    os.chown(path, head.uid, head.gid, follow_symlinks=False)
                    for name, value in head.xattrs:
                        os.setxattr(path, name, value, follow_symlinks=False)
                    self._check_kept(os.lstat(path), head)

    def _write(self, path: str, content: bytes, meta: bytes | None = None) -> None:
        with create(path) as file:
            file.write(content)
            file.flush()
            if meta is not None:
                os.setxattr(file.fileno(), USER_META, meta)
                os.utime(file.fileno(), (0, 0))

    def _regular(self, path: str, file_id: bytes, head: FileHead, raw: bytes, inline: bytes, source: int) -> None:
        digest = sha256(checksum_header(raw))
        if self._mode == "archive":
            size = self._deflate(path, raw, [inline] if source < 0 else self._pieces(source), digest)
        elif source < 0:
            size = len(inline)
            digest.update(inline)
            self._write(path, inline)
        else:
            size = self._stager.stage(source, path, head.size, digest)
        if size != head.size:
            raise CorruptError(f"its content has {size} bytes, not {head.size}", hint=_HINT)
        _check(digest.digest(), file_id)
        if self._mode != "archive":
            self._dress(path, head)

    def _deflate(self, path: str, raw: bytes, pieces: Iterable[bytes | memoryview], digest: Hash) -> int:
        """Write an archive's file from the head and the pieces of the content; return the content's size."""
        packer = zlib.compressobj(self._level, zlib.DEFLATED, RAW_DEFLATE)
        size = 0
        with create(path) as file:
            file.write(raw)
            for piece in pieces:
                size += len(piece)
                digest.update(piece)
                file.write(packer.compress(piece))
            file.write(packer.flush())
        return size

    def _pieces(self, source: int) -> Iterator[memoryview]:
        while count := os.readv(source, [self._buffer]):
            yield self._buffer[:count]

    def _dress(self, path: str, head: FileHead) -> None:
        """Give a file of a bare repository what its mode keeps at it."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fchmod(fd, 0o600)  # who is not root gives attributes only to what they may write
            match self._mode:
                case "bare":
                    os.fchown(fd, head.uid, head.gid)
                    for name, value in head.xattrs:
                        os.setxattr(fd, name, value)
                    os.fchmod(fd, head.mode & 0o7777)
                    _check_attributes(fd, head)
                case "bare-user":
                    os.setxattr(fd, USER_META, _user_meta(head))
                    os.fchmod(fd, head.mode & 0o775 | 0o400)
                case _:
                    os.fchmod(fd, head.mode & 0o775)
            if self._mode != "bare-user":
                self._check_kept(os.fstat(fd), head)
            os.utime(fd, (0, 0))
        finally:
            os.close(fd)

    def _check_kept(self, status: os.stat_result, head: FileHead) -> None:
        """Raise UnsupportedError where the file system only seems to take a mode or an owner, as NTFS-3G by default."""
        is_kept = stat.S_IMODE(status.st_mode) == stat.S_IMODE(head.mode)
        if self._mode == "bare":
            is_kept = is_kept and (status.st_uid, status.st_gid) == (head.uid, head.gid)
        if not is_kept:
            raise _not_kept(self._mode)


def _check_attributes(fd: int, head: FileHead) -> None:
    """Raise UnsupportedError for attributes that are not those of the object: it would be another one.

    The kernel fits an ACL to the mode; directories may have one for all that is made in them, and NFS v4 always does.
    """
    wanted = dict(head.xattrs)
    if _ACL in wanted and os.getxattr(fd, _ACL) != wanted[_ACL]:
        raise UnsupportedError(
            f"its ACL does not go with its mode {head.mode & 0o7777:04o}, and no file system keeps both",
            hint="export to a repository of the mode archive or bare-user, or commit the tree with --no-xattrs",
        )
    for name in attribute_names(fd):
        if name.startswith("system.") and os.fsencode(name) not in wanted:
            raise UnsupportedError(
                f"the file system or its directory has given it another attribute, {name}",
                hint="export to a repository of the mode archive or bare-user",
            )


def _user_meta(head: FileHead) -> bytes:
    return make_dirmeta(Dirmeta(head.uid, head.gid, head.mode, head.xattrs))


def _check(digest: bytes, file_id: bytes) -> None:
    if digest != file_id:
        raise CorruptError("what the composefs repository has of it does not have its checksum", hint=_HINT)


def _refused(error: OSError, mode: str) -> ExtError:
    if mode == "bare" and error.errno in _KEEPS_FROM:
        return PermissionDeniedError(
            f"{error.strerror}: a bare repository has the owners and attributes of its files at its objects",
            hint="run it as root, or export to another directory, with --mode=archive or --mode=bare-user",
        )
    if mode != "archive" and error.errno in _NOT_KEPT:
        return _not_kept(mode)
    return from_exception(error)


def _not_kept(mode: str) -> UnsupportedError:
    return UnsupportedError(
        f"its file system does not keep {_NEEDS[mode]}, which a repository of the mode {mode} needs",
        hint="export to a directory on another one, or with --mode=archive",
    )
