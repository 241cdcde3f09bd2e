"""How much each ref of a repository holds, alone and together with others.

A ref holds an object when garbage collection would keep the object for that ref's sake.  Sizes are those of the files,
in bytes, without what the file system adds or shares.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from composefs.graph import Graph, Start, read_names, read_stock, refs_of
from composefs.repository import Repository
from composefs.repository.lookup import find
from composefs.repository.store import no_directory

__all__ = ["Holding", "Usage", "measure"]


@dataclass(frozen=True, slots=True)
class Holding:
    """What a ref, stream or image holds.

    ``name`` is the ref's path, ``streams/refs/…`` or ``images/refs/…``, or the name as the user gave it; ``kind`` is
    "stream" or "image", and ``id`` is its id.  ``objects`` counts all that it holds, ``size`` is their bytes;
    ``alone_objects`` and ``alone_size`` are of those that would be garbage without it.
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
    refs = {ref.where: ref for ref in refs_of(names)}
    measured = [_start_of(repository, text, refs) for text in dict.fromkeys(wanted)] or list(refs.values())
    objects = _Objects(Graph(repository))
    held_by_refs = [objects.held_by(ref) for ref in refs.values()]
    of_refs = len(objects.numbers)  # what refs hold has numbers below this
    held = [objects.held_by(start) for start in measured]
    holders = array("I", bytes(4 * len(objects.numbers)))  # by object, how many refs hold it
    for numbers in held_by_refs:
        for number in numbers:
            holders[number] += 1
    sizes = _sizes(repository, objects.numbers)
    holdings = []
    for start, numbers in zip(measured, held, strict=True):
        itself = 1 if start.where in refs else 0
        alone = [number for number in numbers if holders[number] == itself]  # by no other ref
        size, alone_size = sum(sizes[number] for number in numbers), sum(sizes[number] for number in alone)
        holdings.append(Holding(start.kind, start.where, start.id, len(numbers), size, len(alone), alone_size))
    unheld = (each for each in read_stock(repository) if objects.numbers.get(each, of_refs) >= of_refs)
    garbage = _sizes(repository, unheld)
    return Usage(holdings, of_refs, sum(sizes[:of_refs]), len(garbage), sum(garbage))


class _Objects:
    """The objects that were met, by number: with 4 bytes for each, a hundred refs to trees of 20,000 files take 8 MB.

    ``numbers`` has the number of each, by raw id, in the order in which they were met.
    """

    def __init__(self, graph: Graph) -> None:
        self.numbers: dict[bytes, int] = {}
        self._graph = graph
        self._held: dict[tuple[str, str], array[int]] = {}

    def held_by(self, start: Start) -> array[int]:
        """Return the numbers of what a stream or image holds, itself included; it is followed once for all its refs."""
        key = start.id, start.kind
        if key not in self._held:
            ids, numbers = self._graph.reach([start]), self.numbers
            self._held[key] = array("I", {numbers.setdefault(each, len(numbers)) for each in ids})
        return self._held[key]


def _sizes(repository: Repository, ids: Iterable[bytes]) -> array[int]:
    return array("Q", (size or 0 for size in repository.objects.sizes(each.hex() for each in ids)))


def _start_of(repository: Repository, text: str, refs: Mapping[str, Start]) -> Start:
    """Return what a name means: one of the refs, given by their paths, or a stream or image called as it was typed."""
    found = find(repository, text)
    this = Start(found.id, found.kind, text)
    return this if found.ref is None else refs.get(f"{found.kind}s/refs/{found.ref}", this)
