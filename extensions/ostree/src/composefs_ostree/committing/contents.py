"""From a file of the tree to a file object: what a worker process does with each job.

The content is read once: hashed for the file's id, copied into staging on the way (or reflinked there), and, if it
is an object of a repository whose files have no fs-verity, measured against that object's name, because nobody else
has looked at it since it was stored.
"""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from hashlib import sha256

from composefs_ext.errors import CorruptError, FormatError, NotFoundError, TooLargeError, from_exception
from composefs_ext.files import Naming
from composefs_ext.fsverity import Hasher, fsverity_digest
from composefs_ostree.fetching.blame import STAGING
from composefs_ostree.fetching.files import failure
from composefs_ostree.fetching.jobs import Jobs
from composefs_ostree.fetching.stage import IN_STAGING, Stager, check_space, copy_range, create_staged, write_all
from composefs_ostree.formats.fileheader import regular_head, symlink_head, with_size
from composefs_ostree.formats.objects import make_xattrs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from composefs_ext.errors import ExtError
    from composefs_ext.packs import Packs
    from composefs_ostree.committing.inodes import Inode, Listing, Meta
    from composefs_ostree.fetching.files import Failure

__all__ = ["JOB_SIZE", "MadeRow", "Maker"]

JOB_SIZE = 32
"""A job's number as a worker gets it: as long as the ids that it otherwise gets."""

_BUFFER = 128 << 10
_CACHED_HEADS = 1024

MadeRow = tuple[bytes, bytes, int, str | tuple[str, int] | None, bytes, str | None]
"""Job, head and inline content, size, where it is staged, file id, id of the content where it is an object already.

It is staged as a file, whose name that is, or in a pack (the pack's name, position); or it is not (None).
"""


_REMEDY = "mend it where the tree comes from; if that was changed meanwhile, run the command again"


class Maker(Jobs):
    """The files of the listed trees, made into file objects on request; the ``Files`` of a worker."""

    def __init__(self, trees: Listing, packs: Packs, inline_limit: int, measured: str | None) -> None:
        """Content of up to ``inline_limit`` bytes is returned; other that is small, and no reflink, is in ``packs``.

        ``measured`` is the algorithm by which objects are named, None where the kernel measures them as they are read.
        """
        super().__init__()
        self._trees = trees
        self._packs = packs
        self._inline_limit = inline_limit
        self._measured = measured
        self._stager = Stager()
        self._buffer = memoryview(bytearray(_BUFFER))

    def where(self, job: bytes) -> str:
        """Return the path of a job's file."""
        return self._trees.where(int.from_bytes(job, "big"))

    def _do(self, job: bytes, staged: str) -> MadeRow | Failure:
        try:
            inode = self._trees.read(int.from_bytes(job, "big"))
            try:
                if inode.object_id is None:
                    return self._make(job, inode, staged)
                with Naming(f"object {inode.object_id}"):  # nothing is written of one
                    return self._make(job, inode, staged)
            finally:
                if inode.owned:
                    os.close(inode.fd)
        except Exception as error:  # noqa: BLE001  the coordinator reports whatever goes wrong here
            return failure(job, self.where(job), _of_a_tree(error))

    def _make(self, job: bytes, inode: Inode, staged: str) -> MadeRow:
        meta = inode.meta
        if stat.S_ISLNK(meta.mode):
            head, hashed = symlink_head(meta.uid, meta.gid, meta.mode, inode.target, make_xattrs(meta.xattrs))
            _check_target(inode.target)
            return job, head, 0, None, sha256(hashed).digest(), None
        size = inode.size
        sizeless, hashed = _head(meta)
        head = with_size(sizeless, size)
        digest = sha256(hashed)
        if size <= self._inline_limit:
            content = inode.inline if inode.inline is not None else self._read(inode)
            digest.update(content)
            return job, head + content, size, None, digest.digest(), None
        if inode.object_id is not None:
            self._hash_object(inode, digest)
            return job, head, size, None, digest.digest(), inode.object_id
        if size <= self._packs.largest and not (inode.is_whole and self._stager.can_clone):
            content = inode.inline if inode.inline is not None else self._read(inode)
            digest.update(content)
            with IN_STAGING:
                return job, head, size, self._packs.add(content), digest.digest(), None
        try:
            if self._stage(inode, staged, digest) != size:
                raise _changed()
        except BaseException:
            if os.path.exists(staged):
                os.unlink(staged)
            raise
        return job, head, size, staged, digest.digest(), None

    def _read(self, inode: Inode) -> bytes:
        """Return a small content."""
        if inode.pieces is None:
            content = os.pread(inode.fd, inode.size + 1, 0)
        else:
            content = b"".join(
                [bytes(size) if start < 0 else os.pread(inode.fd, size, start) for start, size in inode.pieces]
            )
        if len(content) != inode.size:
            raise _changed()
        if inode.object_id is not None and self._measured is not None:
            _check_object(inode, fsverity_digest(content, self._measured))
        return content

    def _hash_object(self, inode: Inode, digest: Hash) -> None:
        measured = None if self._measured is None else Hasher(self._measured)
        done = 0
        while count := os.preadv(inode.fd, [self._buffer], done):
            piece = self._buffer[:count]
            digest.update(piece)
            if measured is not None:
                measured.update(bytes(piece))
            done += count
        if done != inode.size:
            raise CorruptError(f"its object {inode.object_id} has {done} bytes, not {inode.size}", hint=_FSCK)
        if measured is not None:
            _check_object(inode, measured.hexdigest())

    def _stage(self, inode: Inode, staged: str, digest: Hash) -> int:
        """Bring the content into the new file ``staged`` and hash it; return how many bytes it has."""
        if inode.is_whole:
            return self._stager.stage(inode.fd, staged, inode.size, digest)
        fd = create_staged(staged)
        try:
            check_space(fd, inode.size)
            if inode.inline is not None:
                digest.update(inode.inline)
                write_all(fd, inode.inline)
                return len(inode.inline)
            done = 0
            for start, size in inode.pieces or ():
                done += size
                if start < 0:
                    _hash_zeros(digest, size)
                    with IN_STAGING:
                        os.ftruncate(fd, done)
                elif copy_range(inode.fd, start, size, fd, done - size, digest, self._buffer) != size:
                    raise CorruptError("the archive ends inside of it")
            return done
        finally:
            os.close(fd)


_FSCK = "run cfsctl fsck"


@lru_cache(_CACHED_HEADS)
def _head(meta: Meta) -> tuple[bytes, bytes]:
    return regular_head(meta.uid, meta.gid, meta.mode, make_xattrs(meta.xattrs))


def _changed() -> CorruptError:
    return CorruptError("it was changed while it was read, or ends too early", hint="run the command again")


def _check_target(target: bytes) -> None:
    try:
        target.decode()
    except UnicodeDecodeError:
        raise FormatError(
            "the symlink's target is not UTF-8, and ostree takes no other",
            hint="replace it, or leave it out",
        ) from None


def _check_object(inode: Inode, measured: str) -> None:
    if measured != inode.object_id:
        raise CorruptError(f"its object {inode.object_id} is damaged", hint=_FSCK, subject=inode.object_id)


def _hash_zeros(digest: Hash, size: int) -> None:
    zeros = bytes(min(size, _BUFFER))
    while size:
        count = min(size, _BUFFER)
        digest.update(zeros[:count])
        size -= count


def _of_a_tree(error: Exception) -> ExtError:
    """Return an error with the remedy for a tree, where one without would get that of a repository to pull from."""
    told = from_exception(error)
    if isinstance(told, NotFoundError) and told.subject != STAGING:
        return CorruptError("it was there when the tree was listed, and is gone", hint=_REMEDY)
    if isinstance(told, (CorruptError, FormatError, TooLargeError)):
        told.hint = told.hint or _REMEDY
    return told
