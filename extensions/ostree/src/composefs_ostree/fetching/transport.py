"""Reading the files of an ostree repository: what to read, and how when the repository is a directory.

A :class:`Fetch` is one file wanted; it receives the bytes as they come and knows how many are too many.  A transport
(:class:`DirectoryTransport` here, :class:`composefs_ostree.remotes.http.HttpTransport`) works on many at a time, so
that one loop serves both: ``start`` queues a fetch, ``step`` does what can be done without waiting and returns those
that ended, ``descriptors`` and ``timeout`` say what to wait for.
"""

from __future__ import annotations

import errno
import os
from collections import deque

from composefs_ext import files
from composefs_ext.errors import (
    CorruptError,
    ExtError,
    FormatError,
    NoSpaceError,
    NotFoundError,
    TooLargeError,
    from_exception,
)
from composefs_ostree.formats.names import MAX_METADATA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from composefs_ext import Core
    from composefs_ostree.fetching.conditional import Conditions

    class Waitable(Protocol):
        """Something that goes on when descriptors are ready or time has passed."""

        def descriptors(self) -> tuple[Sequence[int], Sequence[int]]:
            """Return the descriptors to watch for reading and for writing."""

        def timeout(self) -> float | None:
            """Return after how many seconds ``step`` is due even if no descriptor is ready; None: never."""

    class Transport(Waitable, Protocol):
        """Where a repository's files come from."""

        def start(self, fetch: Fetch) -> None:
            """Queue a fetch."""

        def step(self) -> Sequence[Fetch]:
            """Go on with what was started and return the fetches that have ended, well or not (``fetch.error``)."""

        def where(self, path: str) -> str:
            """Return the URL or path of a file, for messages."""


__all__ = [
    "READ_SIZE",
    "DirectoryTransport",
    "Fetch",
    "ReadyFiles",
    "bad_object",
    "fetched",
    "open_regular",
    "read",
    "read_all",
    "wait",
]

_GZIP = b"\x1f\x8b\x08"
READ_SIZE = 64 << 10  # above 128 KiB, malloc maps the buffer of every read anew: 40 µs instead of 6 for a small file


class Fetch:
    """One file wanted.  This class collects it in memory; subclasses override ``begin`` and ``take``.

    ``path`` is relative to the repository, ``limit`` the most bytes that will be taken.  When it ended, ``error`` is
    None or says why; ``absent`` tells that there is no such file, which is an error as well.  A file that ``is_needed``
    and that the server refuses is not called absent: object stores refuse what is not there, and nobody else can know
    which it is.
    With ``conditions``, a web server sends nothing of what is here already, and they tell so.
    One that ``collects`` does nothing with the bytes until it has ended: a server's page about an error may pass for
    them until then, so that the connection can stay.
    """

    collects = True

    __slots__ = ("_parts", "_received", "absent", "attempts", "conditions", "error", "is_needed", "limit", "path")

    def __init__(self, path: str, limit: int = MAX_METADATA, conditions: Conditions | None = None) -> None:
        self.path = path
        self.limit = limit
        self.is_needed = False
        self.conditions = conditions
        self.attempts = 0
        self.error: ExtError | None = None
        self.absent = False
        self._parts: list[bytes] = []
        self._received = 0

    def begin(self) -> None:
        """Start from nothing: called before the first byte, and again when a transfer is repeated."""
        self.attempts += 1
        self.error = None
        self._parts = []
        self._received = 0

    def take(self, data: bytes) -> int | None:
        """Take the next bytes.  Anything but None ends the transfer with ``error``; nothing may be raised here."""
        self._received += len(data)
        if self._received > self.limit:
            self.error = TooLargeError(f"it is longer than {self.limit} bytes")
            return -1
        self._parts.append(data)
        return None

    @property
    def data(self) -> bytes:
        """The bytes that came."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


def open_regular(path: str, *, follow: bool = True) -> int:
    """Open a file for reading, through a symlink only if ``follow``; raise CorruptError unless it is a regular file."""
    try:
        fd = files.open_regular(path, follow=follow)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CorruptError("it is a symlink") from None
        raise
    if fd is None:
        raise CorruptError("it is not a regular file")
    return fd


class ReadyFiles:
    """Files on this machine, which are done one after the other: a `Waitable` for which nothing has to be waited.

    ``_queue`` has those that ``step`` will come to.
    """

    _queue: deque[Any]

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Return nothing to watch."""
        return [], []

    def timeout(self) -> float | None:
        """Return 0 while there is something to do."""
        return 0.0 if self._queue else None


class DirectoryTransport(ReadyFiles):
    """A repository in a directory.  A fetch is read when ``step`` comes to it, a few at a time."""

    _AT_ONCE = 16

    def __init__(self, directory: str, *parents: str) -> None:
        """Objects and refs that the repository lacks are looked for in its parents."""
        self._directories = (directory, *parents)
        self._queue: deque[Fetch] = deque()

    def start(self, fetch: Fetch) -> None:
        """Queue a fetch."""
        self._queue.append(fetch)

    def step(self) -> list[Fetch]:
        """Read the next few files."""
        ended = [self._queue.popleft() for _ in range(min(self._AT_ONCE, len(self._queue)))]
        for fetch in ended:
            fetch.begin()
            try:
                self._read(fetch)
            except (FileNotFoundError, NotADirectoryError):
                fetch.absent = True
                fetch.error = NotFoundError("not found")
            except (ExtError, OSError) as error:
                fetch.error = from_exception(error)
        return ended

    def _read(self, fetch: Fetch) -> None:
        fd = self._open(fetch.path)
        try:
            while data := os.read(fd, READ_SIZE):
                if fetch.take(data) is not None or len(data) < READ_SIZE:
                    return
        finally:
            os.close(fd)

    def _open(self, path: str) -> int:
        is_object = path.startswith("objects/")
        if is_object or path.startswith("refs/"):
            for directory in self._directories[:-1]:
                try:
                    return open_regular(f"{directory}/{path}", follow=not is_object)
                except (FileNotFoundError, NotADirectoryError):
                    continue
            return open_regular(f"{self._directories[-1]}/{path}", follow=not is_object)
        return open_regular(self.where(path))

    def where(self, path: str) -> str:
        """Return the absolute path of a file, in the repository itself."""
        return f"{self._directories[0]}/{path}"


def wait(waitable: Waitable, others: Sequence[int], longest: float | None = None) -> list[int]:
    """Sleep until the first or one of the other descriptors is ready; return the latter.

    ``longest`` bounds the sleep in seconds.
    """
    import select

    readers, writers = waitable.descriptors()
    timeouts = [seconds for seconds in (waitable.timeout(), longest) if seconds is not None]
    ready, _, _ = select.select([*others, *readers], writers, [], min(timeouts, default=None))
    return [fd for fd in ready if fd in others]


def read_all(core: Core, transport: Transport, fetches: Sequence[Fetch]) -> None:
    """Fetch some files while nothing else is going on.  The core is listened to meanwhile, because it may cancel."""
    for fetch in fetches:
        transport.start(fetch)
    left = len(fetches)
    while True:
        left -= len(transport.step())
        if not left:
            return
        if wait(transport, [core.fileno()]):
            core.pump(0)


def fetched(transport: Transport, fetch: Fetch) -> bytes | None:
    """Return what a fetch has brought, None if there is no such file; raise its error if it could not be read."""
    if fetch.absent:
        return None
    where = transport.where(fetch.path)
    if fetch.error is not None:
        raise bad_object(where, fetch.error)
    # Of what has a checksum that is the error, and it may begin so.
    if fetch.data.startswith(_GZIP) and not fetch.path.startswith(("objects/", "summaries/")):
        raise CorruptError(
            f"{where}: it comes compressed by gzip, which nobody has asked for",
            hint="the files of a repository have to be sent as they are: tell who runs the server, or the proxy",
            subject=where,
        )
    return fetch.data


def read(
    core: Core, transport: Transport, path: str, limit: int = MAX_METADATA, *, is_needed: bool = False
) -> bytes | None:
    """Read one file while nothing else is going on; None if there is no such file, its error if it cannot be read.

    One that ``is_needed`` must not be refused by the server either.
    """
    fetch = Fetch(path, limit)
    fetch.is_needed = is_needed
    read_all(core, transport, [fetch])
    return fetched(transport, fetch)


def bad_object(where: str, error: ExtError) -> ExtError:
    """Return the error to report for a file of the repository, given by its URL or path, that is not what it should be.

    Errors of transfers and of the system already say what to do; they get the name if they have none.
    """
    match error:
        case NotFoundError():
            return NotFoundError(
                f"{where}: {error.message.removeprefix(f'{where}: ')}, although the commit needs it",
                hint=error.hint or "the source is incomplete or being changed; try again later, or from another mirror",
                subject=where,
            )
        case NoSpaceError() if not (error.subject or "").startswith("/"):  # in staging; the core knows where that is
            return NoSpaceError(f"{where} cannot be stored: {error.message}", hint=error.hint, causes=error.causes)
        case CorruptError() | FormatError() | TooLargeError():
            return type(error)(
                f"{where}: {error.message.removeprefix(f'{where}: ')}",
                hint=error.hint
                or "the source is damaged or altered on its way; try again later, or from another mirror",
                subject=where,
            )
        case ExtError(subject=None):
            return type(error)(f"{where}: {error.message}", hint=error.hint, subject=where, causes=error.causes)
        case _:
            return error
