"""A repository as an object: how it is opened, checked and locked, and its parts.

With this module only that is imported which opening takes.  The rest is when it is first used: by then an extension has
been started, and loads on another processor.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Self

from composefs.digest import Algorithm
from composefs.errors import FormatError, ReadOnlyError, UnsupportedError
from composefs.linux.closing import Closing
from composefs.linux.files import absolute, refusal_to_write
from composefs.meta import Meta
from composefs.repository import metafile
from composefs.repository.setup import init
from composefs.repository.staging import sweep
from composefs.repository.store import WRITABLE, Store, no_directory
from composefs.systemerrors import from_os_error

if TYPE_CHECKING:
    from pathlib import Path

    from composefs.repository.images import Images
    from composefs.repository.objects import Objects
    from composefs.repository.publication import Publication, Published
    from composefs.repository.refs import Refs
    from composefs.repository.streams import Streams

__all__ = ["Repository"]


class Repository(Closing):
    """An open repository, locked against garbage collection until it is closed; use it as a context manager.

    ``objects``, ``streams``, ``images`` and ``refs`` are its parts, ``meta`` its meta.json, ``store`` its directory.
    """

    def __init__(self, store: Store, meta: Meta) -> None:
        self.store = store
        self.meta = meta

    init = staticmethod(init)

    @cached_property
    def objects(self) -> Objects:
        """The objects."""
        from composefs.repository.objects import Objects

        return Objects(self.store)

    @cached_property
    def refs(self) -> Refs:
        """The refs of streams."""
        from composefs.repository.refs import Refs

        return Refs(self.store)

    @cached_property
    def streams(self) -> Streams:
        """The streams."""
        from composefs.repository.streams import Streams

        return Streams(self.store, self.objects)

    @cached_property
    def images(self) -> Images:
        """The images, with their refs."""
        from composefs.repository.images import Images

        return Images(self.store, self.objects)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        algorithm: Algorithm | None = None,
        require_verity: bool = False,
        writable: bool = False,
        exclusive: bool = False,
        wait: float = 0.0,
        interrupted: Callable[[], bool] | None = None,
    ) -> Self:
        """Open a repository.

        ``algorithm`` is what it must have, ``require_verity`` refuses an insecure one.  ``exclusive`` keeps everybody
        else out, as garbage collection must; ``wait`` is for how many seconds to wait for the lock, and ``interrupted``
        is asked meanwhile whether to give up.  Raises NotFoundError, BusyError, CancelledError, FormatError,
        UnsupportedError and, for ``writable``, ReadOnlyError, before anything is done.
        """
        path = absolute(path)
        if path.startswith(("/proc/", "/dev/fd/")):
            path = os.path.realpath(path)  # what is open here; in an extension's process these lead to its own files
        root = metafile.open_root(path)
        store: Store | None = None
        try:
            what = f"the repository {path}"
            metafile.lock_root(root, what, exclusive=exclusive, wait=wait, interrupted=interrupted)
            state = metafile.read(root, path)
            meta = state.meta
            if algorithm is not None and meta.algorithm != algorithm:
                raise FormatError(
                    f"the repository {path} uses {meta.algorithm}, not {algorithm}",
                    subject=path,
                    hint=f"leave out --hash {algorithm}, or choose another repository",
                )
            if require_verity and not state.secure:
                raise UnsupportedError(f"the repository {path} is insecure: it does not demand fs-verity", subject=path)
            if writable:
                _require_write_access(root, path, state)
            store = Store(path, root, meta.algorithm, secure=state.secure, writable=writable)
            if writable:
                sweep(store.scratch)
            return cls(store, meta)
        except BaseException as error:
            if store:
                store.close()
            else:
                os.close(root)
            if isinstance(error, OSError):
                raise from_os_error(error, f"opening the repository {path}") from error
            raise

    @property
    def path(self) -> Path:
        """Where it is, absolute."""
        from pathlib import Path

        return Path(self.store.path)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of its ids."""
        return self.store.algorithm

    @property
    def secure(self) -> bool:
        """Whether every object must have fs-verity."""
        return self.store.secure

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self.store.writable

    def publish(self, publication: Publication) -> Published:
        """Make stored things visible; see :mod:`composefs.repository.publish`."""
        from composefs.repository.publish import Publisher  # an extension starts before this is needed

        return Publisher(self.store, self.objects, self.streams, self.images, self.refs).publish(publication)

    def close(self) -> None:
        """Close it and give up the lock."""
        self.store.close()


def _require_write_access(root: int, path: str, state: metafile.State) -> None:
    """Raise ReadOnlyError, with the reason, unless the repository can be written."""
    if state.legacy:
        from shlex import quote

        like = f"--algorithm {state.meta.algorithm.meta_name}{'' if state.secure else ' --insecure'}"
        raise ReadOnlyError(
            f"the repository {path} has no {metafile.META}: it is from before composefs-rs 0.7",
            subject=path,
            hint=f"upgrade it with `cfsctl init --ensure {like} {quote(path)}`",
        )
    if unknown := state.meta.unknown_features:
        raise ReadOnlyError(
            f"the repository {path} has features that this program cannot keep up: {', '.join(unknown)}",
            subject=path,
            hint="use a newer composefs to write to it",
        )
    if os.fstatvfs(root).f_flag & os.ST_RDONLY:
        raise ReadOnlyError(f"the repository {path} is on a read-only file system", subject=path, hint=WRITABLE)
    for name in (".", "objects", "streams", "images"):
        try:
            mode = os.stat(name, dir_fd=root, follow_symlinks=False).st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(mode):
            raise no_directory(f"{path}/{name}")
        if (reason := refusal_to_write(name, root)) is not None:
            raise _refused(os.path.normpath(os.path.join(path, name)), path, reason)


def _refused(where: str, path: str, reason: OSError) -> ReadOnlyError:
    if reason.errno == errno.EROFS:
        return ReadOnlyError(f"{where} is on a read-only file system", subject=path, hint=WRITABLE)
    hint = from_os_error(reason, where).hint
    return ReadOnlyError(f"no permission to write to {where}", subject=path, hint=hint)
