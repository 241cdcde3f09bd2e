"""How much each ref of a repository holds, alone and together with others.

A ref holds an object when garbage collection would keep the object for that ref's sake.  Sizes are those of the files,
in bytes, without what the file system adds or shares.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from composefs.graph import Graph, Start, read_names, read_stock, refs_of
from composefs.repository import Repository
from composefs.repository.lookup import find
from composefs.repository.store import no_directory

__all__ = ["Holding", "Usage", "measure"]


@dataclass(frozen=True, slots=True)
class Holding:
    """``name`` is ``streams/refs/…``, ``images/refs/…`` or as the user gave it, ``id`` that of its stream or image.

    ``objects`` and ``size`` are all that it holds, ``alone_…`` what would be garbage without it.
    """

    kind: str
    name: str
    id: str
    objects: int
    size: int
    alone_objects: int
    alone_size: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The holdings asked for; all that refs hold, each object once; and what no ref holds."""

    holdings: list[Holding]
    objects: int
    size: int
    garbage_objects: int
    garbage_size: int


def measure(
    repository: Repository, wanted: Iterable[str] = (), *, odd: Callable[[str], object] = lambda _message: None
) -> Usage:
    """Measure what the ``wanted`` hold, by default every ref.

    ``wanted`` are names as :func:`composefs.repository.lookup.find` takes them; one that is no ref is measured beside
    the refs.  Raises NotFoundError for an unknown one, and what reading a stream or image raises; CorruptError where
    refs cannot be listed, as nothing could be told from garbage.  ``odd`` gets messages about what is no ref.
    """
    names = read_names(repository)
    for problem in names.problems:
        if problem.kind == "unexpected-file-type":
            raise no_directory(problem.where)
        odd(str(problem))
    holders = refs_of(names)
    refs = len(holders)
    shown = list(range(refs))
    if chosen := dict.fromkeys(wanted):
        shown = [_choose(repository, text, holders) for text in chosen]
    graph = Graph(repository)
    # 4 bytes for an object that a ref holds: a hundred refs to trees of 20,000 files take 8 MB.
    numbers: dict[bytes, int] = {}
    reached: dict[tuple[str, str], array[int]] = {}  # by what refs name: it is followed once, however many there are
    for start in holders:
        if start[:2] not in reached:
            reached[start[:2]] = array("I", {numbers.setdefault(each, len(numbers)) for each in graph.reach([start])})
    held = [reached[start[:2]] for start in holders]
    of_refs = max((max(numbered) for numbered in held[:refs]), default=-1) + 1  # numbers below it: refs come first
    sizes = _sizes(repository, numbers)
    count = array("I", bytes(4 * len(numbers)))
    for holding in held[:refs]:
        for number in holding:
            count[number] += 1
    holdings = []
    for index in shown:
        alone = [number for number in held[index] if count[number] == (index < refs)]  # by no other ref
        start = holders[index]
        size, alone_size = sum(sizes[number] for number in held[index]), sum(sizes[number] for number in alone)
        holdings.append(Holding(start.kind, start.where, start.id, len(held[index]), size, len(alone), alone_size))
    garbage = _sizes(repository, (each for each in read_stock(repository) if numbers.get(each, of_refs) >= of_refs))
    return Usage(holdings, of_refs, sum(sizes[:of_refs]), len(garbage), sum(garbage))


def _sizes(repository: Repository, ids: Iterable[bytes]) -> array[int]:
    return array("Q", (size or 0 for size in repository.objects.sizes(each.hex() for each in ids)))


def _choose(repository: Repository, text: str, holders: list[Start]) -> int:
    """Return the place among the holders of what a name means, which is added if it is no ref."""
    found = find(repository, text)
    where = f"{found.kind}s/refs/{found.ref}"
    for index, start in enumerate(holders):
        if start.where == where:
            return index
    holders.append(Start(found.id, found.kind, text))
    return len(holders) - 1
