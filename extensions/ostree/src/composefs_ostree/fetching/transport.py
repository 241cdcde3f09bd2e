"""Reading the files of an ostree repository: what to read, and what is asked of whoever brings it.

A :class:`Fetch` is one file wanted; it receives the bytes as they come and knows how many are too many.  A transport
(that of :mod:`composefs_ostree.fetching.directories` or of :mod:`composefs_ostree.remotes.http`) works on many at a
time, so that one loop serves both: ``start`` queues a fetch, ``step`` does what can be done without waiting and returns
those that ended, ``descriptors`` and ``timeout`` say what to wait for.
"""

from __future__ import annotations

from composefs_ext.errors import CorruptError, ExtError, NotFoundError, TooLargeError, from_exception
from composefs_ostree.fetching.blame import blamed
from composefs_ostree.formats.names import MAX_METADATA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

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
    "Fetch",
    "descriptors_of",
    "fetched",
    "is_page",
    "read",
    "read_all",
    "timeout_of",
    "wait",
]

_SMALL = 512
"""Bytes of a piece from which on it is kept as an object of its own; a server may send two at a time."""

_GZIP = b"\x1f\x8b\x08"
_PAGE_BYTES = 1024


class Fetch:
    """One file wanted.  This class collects it in memory; subclasses override ``begin`` and ``_take``.

    ``path`` is relative to the repository, ``limit`` the most bytes that will be taken.  When it ended, ``error`` is
    None or says why.  A file that ``is_needed`` and that the server refuses is not called absent: object stores refuse
    what is not there, and nobody else can know which it is.
    With ``conditions``, a web server sends nothing of what is here already, and they tell so.
    One that ``collects`` does nothing with the bytes until it has ended: a server's page about an error may pass for
    them until then, so that the connection can stay.  Before the end pycurl does not tell the status of an answer.
    """

    collects = True

    __slots__ = ("_parts", "_received", "attempts", "conditions", "error", "is_needed", "limit", "path")

    def __init__(
        self,
        path: str,
        limit: int = MAX_METADATA,
        conditions: Conditions | None = None,
        *,
        is_needed: bool = False,
    ) -> None:
        self.path = path
        self.limit = limit
        self.is_needed = is_needed
        self.conditions = conditions
        self.attempts = 0
        self.error: ExtError | None = None
        self._parts: list[bytes | bytearray] = []
        self._received = 0

    def begin(self) -> None:
        """Start from nothing: called before the first byte, and again when a transfer is repeated."""
        self.attempts += 1
        self.error = None
        self._parts = []
        self._received = 0

    def take(self, data: bytes) -> int | None:
        """Take the next bytes.  Anything but None ends the transfer with ``error``; nothing is raised."""
        self._received += len(data)
        try:
            self._take(data)
        except (ExtError, OSError) as error:
            self.error = from_exception(error)
            return -1
        return None

    def _take(self, data: bytes) -> None:
        """Take bytes that are counted already; raise what is wrong with them."""
        if self._received > self.limit:
            raise TooLargeError(f"it is longer than {self.limit} bytes")
        self._keep(data)

    def _keep(self, data: bytes) -> None:
        """Keep bytes; the first, as which nearly all that is small comes whole, stay as they came."""
        if not self._parts or len(data) >= _SMALL:
            self._parts.append(data)
        elif isinstance(last := self._parts[-1], bytearray):
            last += data
        else:
            self._parts.append(bytearray(data))

    @property
    def absent(self) -> bool:
        """Whether there is no such file, which is an error as well."""
        return isinstance(self.error, NotFoundError)

    @property
    def data(self) -> bytes:
        """The bytes that came."""
        if len(self._parts) == 1:
            return self._parts[0]  # type: ignore[return-value]  # the first is kept as it came
        return b"".join(self._parts)


def wait(waitable: Waitable, others: Sequence[int], longest: float | None = None) -> list[int]:
    """Sleep until the first or one of the other descriptors is ready; return the latter.

    ``longest`` bounds the sleep in seconds.
    """
    import select

    readers, writers = waitable.descriptors()
    timeouts = [seconds for seconds in (waitable.timeout(), longest) if seconds is not None]
    ready, _, _ = select.select([*others, *readers], writers, [], min(timeouts, default=None))
    return [fd for fd in ready if fd in others]


def descriptors_of(several: Iterable[Waitable]) -> tuple[list[int], list[int]]:
    """Return the descriptors of all."""
    readers: list[int] = []
    writers: list[int] = []
    for each in several:
        more_readers, more_writers = each.descriptors()
        readers += more_readers
        writers += more_writers
    return readers, writers


def timeout_of(several: Iterable[Waitable]) -> float | None:
    """Return when the first of them has something to do."""
    return min((seconds for each in several if (seconds := each.timeout()) is not None), default=None)


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
        raise blamed(where, fetch.error)
    # Of what has a checksum that is the error, and it may begin so.
    if fetch.path.startswith(("objects/", "summaries/")) and not fetch.path.endswith(".commitmeta"):
        return fetch.data
    if fetch.data.startswith(_GZIP):
        raise CorruptError(
            f"{where}: it comes compressed by gzip, which nobody has asked for",
            hint="the files of a repository have to be sent as they are: tell who runs the server, or the proxy",
            subject=where,
        )
    if is_page(fetch.data):
        raise CorruptError(
            f"{where}: this is a web page, not the file that was asked for",
            hint="of what is not there a server has to say so, by status 404; a network that wants a login may answer "
            "with its own page for everything",
            subject=where,
        )
    return fetch.data


def is_page(data: bytes) -> bool:
    """Tell whether something is a web page, which some servers and networks send in the place of other files."""
    start = data[:_PAGE_BYTES].lstrip().lower()
    return start.startswith(b"<") and (b"<html" in start or b"<!doctype html" in start)


def read(
    core: Core, transport: Transport, path: str, limit: int = MAX_METADATA, *, is_needed: bool = False
) -> bytes | None:
    """Read one file while nothing else is going on; None if there is no such file, its error if it cannot be read.

    One that ``is_needed`` must not be refused by the server either.
    """
    fetch = Fetch(path, limit, is_needed=is_needed)
    read_all(core, transport, [fetch])
    return fetched(transport, fetch)
