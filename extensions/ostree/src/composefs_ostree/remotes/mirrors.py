"""Several places that have the same repository, and several transports that look like one.

A *mirror list* (``url=mirrorlist=URL``) is a text with a base URL in each line, best first; what is not one of those is
a comment.  Source: ostree.repo-config(5), "Repository url/contenturl".
"""

from __future__ import annotations

from composefs_ext.errors import FormatError, NetworkError, NotFoundError, UsageError
from composefs_ostree.fetching.transport import descriptors_of, timeout_of
from composefs_ostree.remotes.failures import TimedOutError
from composefs_ostree.remotes.urls import check_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from composefs_ext.errors import ExtError
    from composefs_ostree.fetching.transport import Fetch, Transport

__all__ = ["MAX_MIRROR_LIST", "Mirrored", "Routed", "parse_mirror_list"]

MAX_MIRROR_LIST = 1 << 20
MAX_MIRRORS = 64
_MAX_SILENT = 5
"""How many mirrors may fall silent over one file before no other is asked for it: that takes a minute for each."""


def parse_mirror_list(data: bytes) -> list[str]:
    """Return the base URLs in a mirror list, in order, the first few; raise FormatError if there is none."""
    urls: dict[str, None] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        try:
            urls[check_url(line.strip())] = None
        except UsageError:
            continue
        if len(urls) == MAX_MIRRORS:
            break
    if not urls:
        raise FormatError("no line of the mirror list is an http or https URL")
    return list(urls)


class Mirrored:
    """A file comes from the first mirror that brings it; one that fails comes after the others from then on.

    Those that were *late*, as they kept a file waiting for too long, are the last, and are not asked for what another
    one lacks: not every file is everywhere, and they would keep each of these waiting.
    """

    def __init__(self, mirrors: Sequence[Transport], late: int = 0) -> None:
        """``late`` is how many of the mirrors, at the end, are known to be."""
        self._mirrors = mirrors
        self._order = list(range(len(mirrors)))
        self._late = set(self._order[len(mirrors) - late :])
        self._asked: dict[Fetch, dict[int, ExtError | None]] = {}
        """Of each fetch the mirrors that were asked, in this order, and why it failed there; None: it is under way."""
        self._turns = 0

    def start(self, fetch: Fetch) -> None:
        """Queue a fetch at the mirror that is best now."""
        self._asked[fetch] = {self._order[0]: None}
        self._mirrors[self._order[0]].start(fetch)

    def step(self) -> list[Fetch]:
        """Go on with all mirrors; what failed is queued at the next one."""
        return [fetch for mirror in self._mirrors for fetch in mirror.step() if not self._goes_on(fetch)]

    def next_mirror(self) -> bool:
        """Ask another mirror first from now on; False if all that were not late were first once."""
        self._turns += 1
        self._put_off(self._order[0])
        return self._turns < len(self._mirrors) - len(self._late)

    def _goes_on(self, fetch: Fetch) -> bool:
        """Tell whether a fetch that ended was started again."""
        asked = self._asked.pop(fetch)
        *_, number = asked
        asked[number] = fetch.error
        if isinstance(fetch.error, NetworkError):
            if isinstance(fetch.error, TimedOutError):
                self._late.add(number)
            self._put_off(number)
        elif not fetch.absent:
            return False
        following = next((number for number in self._order if number not in asked), None)
        is_enough = len(self._late.intersection(asked)) >= _MAX_SILENT
        is_lacked = any(isinstance(error, NotFoundError) for error in asked.values())
        if following is None or is_enough or (is_lacked and following in self._late):
            fetch.error = min(asked.items(), key=self._word)[1]
            return False
        fetch.attempts = 0
        self._asked[fetch] = {**asked, following: None}
        self._mirrors[following].start(fetch)
        return True

    def _word(self, answer: tuple[int, ExtError | None]) -> tuple[bool, bool, int]:
        """Order what the mirrors say of a file that none brings, whatever the order in which they were asked.

        One that has no such file counts: not every file is everywhere, nor needed.  Then the best one's word does.
        """
        number, error = answer
        return not isinstance(error, NotFoundError), number in self._late, number

    def _put_off(self, number: int) -> None:
        self._order.remove(number)
        self._order.append(number)
        self._order.sort(key=self._late.__contains__)

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Return the sockets of all mirrors."""
        return descriptors_of(self._mirrors)

    def timeout(self) -> float | None:
        """Return when the first of the mirrors has something to do."""
        return timeout_of(self._mirrors)

    def where(self, path: str) -> str:
        """Return the URL of a file at the mirror that is best now."""
        return self._mirrors[self._order[0]].where(path)


class Routed:
    """Objects and static deltas come from where content is, the rest from the repository itself.

    That is config, refs, summary and signatures; of a commit what is said of it may change, and the commit does not.
    """

    def __init__(self, metadata: Transport, content: Transport) -> None:
        self._metadata = metadata
        self._content = content

    def start(self, fetch: Fetch) -> None:
        """Queue a fetch where its file is."""
        self._of(fetch.path).start(fetch)

    def step(self) -> list[Fetch]:
        """Go on with both."""
        return [*self._metadata.step(), *self._content.step()]

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Return the sockets of both."""
        return descriptors_of((self._metadata, self._content))

    def timeout(self) -> float | None:
        """Return when the first of the two has something to do."""
        return timeout_of((self._metadata, self._content))

    def where(self, path: str) -> str:
        """Return the URL of a file."""
        return self._of(path).where(path)

    def _of(self, path: str) -> Transport:
        is_content = path.startswith(("objects/", "deltas/", "delta-indexes/")) and not path.endswith(".commitmeta")
        return self._content if is_content else self._metadata
