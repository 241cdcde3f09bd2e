"""What the calls of one session share: the repository, staging, and who may name what."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from composefs.digest import DEFAULT_ALGORITHM
from composefs.errors import ComposefsError, PermissionDeniedError, UsageError
from composefs.ext.drafts import Drafts
from composefs.ext.launch import Launched
from composefs.ext.limiter import ProgressLimiter
from composefs.ext.seen import Seen
from composefs.imageformats import DEFAULT_EROFS_FORMAT, EROFS_FORMATS
from composefs.observe import Observers
from composefs.protocol.lists import ListCheck, Lists
from composefs.protocol.params import check_ids, string
from composefs.protocol.staged import StagedFiles
from composefs.protocol.wire import Message

if TYPE_CHECKING:
    from composefs.repository import Repository
    from composefs.repository.names import Encoding

__all__ = ["Context"]


class Context:
    """The state of a session that calls work on; ``observer`` hears what the user is to be told.

    ``manifest`` says what the extension may do at all, ``command`` what this one may.  ``repository`` is None where it
    asks for none; ``algorithm`` is that of its digests, and ``erofs_default`` the format of images for which a call
    names none: without a repository, those of a new one.  ``private_fd`` is the core's own directory beside staging.
    ``features`` are those that were agreed on; ``log_lines`` is how many log lines have come.

    ``cancelled`` tells that the user has asked to stop, and the extension has been told so.  ``unwritten`` is the error
    if some of the output could not be written, or was malformed: then the run has failed, whatever its answer.
    ``reader_left`` tells that nobody reads the output any more.

    ``resources`` are closed when the conversation ends.
    """

    def __init__(self, launched: Launched, observer: Observers) -> None:
        self.line = launched.line
        self.manifest = launched.line.extension.manifest
        self.command = launched.line.command
        self.repository = launched.repository
        self.options = launched.options
        self.algorithm, self.erofs_default = DEFAULT_ALGORITHM, DEFAULT_EROFS_FORMAT
        if self.repository is not None:
            self.algorithm, self.erofs_default = self.repository.algorithm, self.repository.meta.erofs_default
            self.repository.store.interrupted = self.interrupted
        if self.options.erofs_default is not None:
            self.erofs_default = self.options.erofs_default
        self.limits = launched.limits
        self._places = launched.places
        self.private_fd = launched.staging.private
        self.observer = observer
        self.cancelled = False
        self.unwritten: ComposefsError | None = None
        self.reader_left = False
        self.features: tuple[str, ...] = ()
        self.log_lines = 0
        self.resources = ExitStack()
        self._interrupts = launched.interrupts
        self._sources: dict[str, Repository] = {}
        account = launched.account
        self.staged = StagedFiles(
            launched.staging.work_fd,
            None if account is None else (account.uid, account.gid),
            limit=self.limits.staging_bytes,
            # After the cancel that the first one sends, the extension may still ask for what it needs to clean up.
            interrupted=lambda: self._interrupts.count > self.cancelled,
        )
        self.seen = Seen(self.repository)
        self.drafts = Drafts(self.staged, self.limits, self.algorithm)
        self.lists = Lists(self.staged, self.limits)
        self.progress = ProgressLimiter(self.limits.progress_per_second)

    def interrupted(self) -> bool:
        """Tell whether the user has asked to stop."""
        return self._interrupts.count > 0

    @property
    def repo(self) -> Repository:
        """The repository of a call whose table entry says that there is one."""
        assert self.repository is not None
        return self.repository

    def source(self, params: Message) -> Repository:
        """The repository that a reading call means: ``from``, a path the user typed, or else the session's own."""
        if params.get("from") is None:
            if self.repository is None:
                raise PermissionDeniedError(f"the command {' '.join(self.command.name)} has no repository")
            return self.repository
        path = string(params, "from")
        if path not in self.line.typed("path-read"):
            raise PermissionDeniedError(f"{path} is no path that the user gave", subject=path)
        if path not in self._sources:
            from composefs.repository import Repository

            source = Repository.open(path, wait=self.options.wait, interrupted=self.interrupted)
            self.resources.enter_context(source)
            self.check_place(path, source.store.root)
            self._sources[path] = source
        return self._sources[path]

    def check_place(self, path: str, fd: int) -> None:
        """Check that what was opened is what was at a typed path before the extension started, for it may change that.

        It may write to the directory of a path that is not there, and put a link to anything in the place of any other.
        """
        status = os.fstat(fd)
        if self._places.get(path) != (status.st_dev, status.st_ino):
            raise PermissionDeniedError(
                f"{path} is not what it was before extension {self.manifest.name} started",
                subject=path,
                hint="look at what it has put there",
            )

    def own_stream(self, name: str) -> str:
        """Check that the manifest lets this extension name a stream so."""
        if not name.startswith(self.manifest.streams):
            raise PermissionDeniedError(
                f"stream {name} does not belong to extension {self.manifest.name}",
                subject=name,
                hint=f"its streams begin with {' or '.join(self.manifest.streams)}",
            )
        return name

    def own_ref(self, name: str) -> Encoding:
        """Check that a ref DIR/NAME is in a directory of this extension, and return the directory's encoding."""
        directory, _, rest = name.partition("/")
        for ref in self.manifest.refs:
            if ref.dir == directory and rest:
                return ref.encoding
        raise PermissionDeniedError(
            f"ref {name} does not belong to extension {self.manifest.name}",
            subject=name,
            hint=f"its refs are {' or '.join(ref.dir + '/NAME' for ref in self.manifest.refs)}",
        )

    def ids_check(self, key: str) -> ListCheck:
        """Return a check that every element of ``key`` has the form of an id."""
        return lambda block: check_ids(block, self.algorithm.hex_size, key)

    def format_of(self, params: Message) -> int:
        """The image format that a call asks for."""
        value = params.get("format")
        if value is None:
            return self.erofs_default
        if type(value) is not int or value not in EROFS_FORMATS:
            raise UsageError("format is not 0, 1 or 2")
        return value
