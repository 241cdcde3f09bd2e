"""From a file object of a ``bare`` repository to a verified file in staging.

The object is a file of its own; what the four modes differ in is where owner, mode and extended attributes stand:

====================  ==============================================  ===============================================
mode                  regular file                                    symlink
====================  ==============================================  ===============================================
bare                  the file's own                                  a symlink; its own
bare-user             attribute ``user.ostreemeta``: ``(uuua(ayay))``  a regular file holding target and NUL; the same
bare-user-only        its own mode, uid 0, gid 0, no attributes       a symlink; uid 0, gid 0, no attributes
bare-split-xattrs     its own, attributes in ``….file-xattrs-link``   a symlink; the same
====================  ==============================================  ===============================================

The head that an archive would have in front of the content is made of these, and with it the object is hashed.

Source: ostree-repo.c of libostree (``_ostree_repo_load_file_bare``) and ostree.repo(5).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256

from composefs_ext.errors import CorruptError
from composefs_ext.files import attribute_names, open_regular, read_regular
from composefs_ostree.fetching.stage import Stager
from composefs_ostree.formats.fileheader import regular_head, symlink_head, with_size
from composefs_ostree.formats.objects import MAX_XATTRS, make_xattrs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ostree.fetching.stage import Row, SmallContents
    from composefs_ostree.formats.objects import Xattrs

__all__ = ["USER_META", "BareReader", "own_xattrs"]

USER_META = "user.ostreemeta"
"""The attribute in which bare-user keeps owner, mode and attributes of a file."""
_MAX_TARGET = 4096
_CACHED_HEAD = 4096
_cached_head = lru_cache(1024)(regular_head)


class BareReader:
    """The file objects of one repository in one of the bare modes."""

    def __init__(self, directory: str, mode: str, small: SmallContents) -> None:
        self._directory = directory
        self._mode = mode
        self._small = small
        self._stager = Stager()

    def path(self, file_id: bytes) -> str:
        """Return the path of an object."""
        name = file_id.hex()
        return f"{self._directory}/objects/{name[:2]}/{name[2:]}.file"

    def read(self, file_id: bytes, staged: str) -> Row | None:
        """Return an object's row, None if there is no such object.

        Raises CorruptError or FormatError for an object that is not what its name says, OSError if it cannot be read.
        """
        path = self.path(file_id)
        try:
            if self._mode != "bare-user":
                status = os.lstat(path)
                if stat.S_ISLNK(status.st_mode):
                    return self._symlink(file_id, path, status)
            fd = open_regular(path, follow=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return self._regular(file_id, path, fd, staged)
        finally:
            os.close(fd)

    def _symlink(self, file_id: bytes, path: str, status: os.stat_result) -> Row:
        target = os.readlink(os.fsencode(path))
        uid, gid, xattrs = self._kept(path, path, status)
        return self._target(file_id, uid, gid, status.st_mode, target, xattrs)

    def _kept(self, file: int | str, path: str, status: os.stat_result) -> tuple[int, int, bytes]:
        """Return owner and serialised attributes that all modes but bare-user keep at a file or symlink."""
        match self._mode:
            case "bare":
                xattrs = make_xattrs(own_xattrs(file))
            case "bare-user-only":
                return 0, 0, b""
            case _:
                xattrs = _split_xattrs(path)
        return status.st_uid, status.st_gid, xattrs

    def _target(self, file_id: bytes, uid: int, gid: int, mode: int, target: bytes, xattrs: bytes) -> Row:
        head, hashed = symlink_head(uid, gid, mode, target, xattrs)
        self._check(file_id, sha256(hashed).digest())
        return file_id, head, 0, None

    def _regular(self, file_id: bytes, path: str, fd: int, staged: str) -> Row:
        status = os.fstat(fd)
        size = status.st_size
        mode = status.st_mode
        if self._mode != "bare-user":
            uid, gid, xattrs = self._kept(fd, path, status)
        else:
            uid, gid, mode, xattrs = _user_meta(fd)
            if stat.S_ISLNK(mode):
                if size > _MAX_TARGET:
                    raise CorruptError(f"it is a symlink with a target of {size} bytes")
                target = os.read(fd, _MAX_TARGET).partition(b"\0")[0]  # libostree reads up to the first NUL too
                return self._target(file_id, uid, gid, mode, target, xattrs)
        make = _cached_head if len(xattrs) < _CACHED_HEAD else regular_head
        sizeless, hashed = make(uid, gid, mode, xattrs)
        head = with_size(sizeless, size)
        digest = sha256(hashed)
        if size <= self._small.inline_limit or (size <= self._small.largest and not self._stager.can_clone):
            content = os.read(fd, size + 1)
            if len(content) != size:
                raise CorruptError("it was changed while it was read")
            digest.update(content)
            self._check(file_id, digest.digest())
            return self._small.row(file_id, head, content)
        try:
            if self._stager.stage(fd, staged, size, digest) != size:
                raise CorruptError("it was changed while it was read")
            self._check(file_id, digest.digest())
        except BaseException:
            with suppress(FileNotFoundError):  # it may be that it could not be made
                os.unlink(staged)
            raise
        return file_id, head, size, staged

    def _check(self, file_id: bytes, digest: bytes) -> None:
        if digest == file_id:
            return
        hint = None
        if self._mode == "bare-user-only":
            hint = (
                "it is damaged, or had an owner, attributes or a mode that bare-user-only does not keep: pull from a "
                "repository of another mode, or have it committed with --canonical-permissions --no-xattrs"
            )
        raise CorruptError("its checksum does not match its name", hint=hint)


def own_xattrs(file: int | str | bytes) -> Xattrs:
    """Return the extended attributes of an open file, or of a symlink; ostree leaves out those without a value."""
    names = attribute_names(file)
    if not names:
        return ()
    pairs = [(os.fsencode(name), os.getxattr(file, name, follow_symlinks=isinstance(file, int))) for name in names]
    return tuple(sorted([pair for pair in pairs if pair[1]]))


def _user_meta(fd: int) -> tuple[int, int, int, bytes]:
    """Return owner, mode and serialised extended attributes that bare-user keeps in an attribute."""
    try:
        meta = os.getxattr(fd, USER_META)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):  # the file system has none of any file
            raise
        hint = "copy the repository with its attributes, to a file system that has them: cp -a, or rsync -aX"
        raise CorruptError(f"it has no attribute {USER_META}", hint=hint) from None
    if len(meta) < 12:
        raise CorruptError(f"its attribute {USER_META} has {len(meta)} bytes")
    uid, gid, mode = struct.unpack_from(">III", meta)
    return uid, gid, mode, meta[12:]


def _split_xattrs(path: str) -> bytes:
    """Return the serialised extended attributes that bare-split-xattrs keeps in a file beside the object."""
    link = f"{path}-xattrs-link"
    try:
        return read_regular(link, MAX_XATTRS, follow=False)
    except FileNotFoundError:
        raise CorruptError(f"its attributes are missing: there is no {link}") from None
    except CorruptError as error:
        raise CorruptError(f"its attributes in {link} are damaged: {error.message}") from None
