"""The check itself: objects, then the symlinks, then what each stream and each image refers to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from composefs.errors import ComposefsError, FormatError, NotFoundError
from composefs.fsck.damage import find_affected
from composefs.fsck.hashing import check_object, check_objects
from composefs.fsck.report import Report
from composefs.graph import Graph, Names, Problem, Start, Stock, read_names, read_stock
from composefs.graph.problem import Kind
from composefs.graph.references import names_in, starts_of, unreadable
from composefs.repository import Repository, metafile
from composefs.splitstream import Reader

__all__ = ["check", "silent"]

_LISTED = 1000
"""How many missing objects of a stream are told one by one; those behind them are told once these are back."""

_NOT_ASKED = -1
"""Instead of the size of an object, which is asked for when an image says what it should be."""


def silent(_done: int, _total: int) -> None:
    """Tell nobody how far the work is."""


def check(
    repository: Repository,
    *,
    metadata_only: bool = False,
    streams: Collection[str] | None = None,
    report: Callable[[int, int], object] = silent,
) -> Report:
    """Check a repository; ``metadata_only`` leaves out the content of objects, but for streams and images.

    With ``streams``, names of some, only these are checked and what they need; NotFoundError when one is not there.
    ``report`` is told how many objects are done, and of how many.  Whoever changes the repository meanwhile must leave
    it whole: the list of names is read before that of the objects, so that what is published in between is not missed.
    """
    found = Report(metadata_only=metadata_only, has_metadata=metafile.is_there(repository.store.root))
    names = read_names(repository)
    stock = read_stock(repository)
    if streams is not None:
        _restrict(repository, names, stock, streams)
    for problem in (*stock.problems, *names.problems):
        found.add(problem)
    if not metadata_only:
        for problem in check_objects(repository, stock, report):
            found.add(problem)
            found.objects_corrupted += 1
        found.objects_checked = len(stock)
    contents = _Contents(repository, stock, found)
    for name, object_id in names.streams.items():
        found.streams_checked += 1
        found.streams_corrupted += not contents.is_whole(Start(object_id, "stream", f"streams/{name}"))
    for image in names.images:
        found.images_checked += 1
        found.images_corrupted += not contents.is_whole(Start(image, "image", f"images/{image}"))
    contents.check_unnamed()
    if not found.ok:
        found.affected = find_affected(repository, names, set(map(bytes.fromhex, found.bad | found.useless)))
    return found


def _restrict(repository: Repository, names: Names, stock: Stock, streams: Collection[str]) -> None:
    """Leave in names and stock only the streams, and what can be seen to be needed by them."""
    for name in streams:
        if name not in names.streams:
            raise NotFoundError(f"there is no stream {name!r}", subject=name)
    names.problems.clear()
    names.images.clear()
    names.image_refs.clear()
    names.streams = {name: names.streams[name] for name in dict.fromkeys(streams)}
    names.stream_refs = {path: name for path, name in names.stream_refs.items() if name in names.streams}
    starts = [Start(each, "stream", name) for name, each in names.streams.items()]
    others = set(stock)
    others.difference_update(Graph(repository).reach(starts, []))
    stock.problems.clear()
    stock.ids = {prefix: [each for each in ids if each not in others] for prefix, ids in stock.ids.items()}


class _Contents:
    """Checks what is in streams and images, each object once."""

    def __init__(self, repository: Repository, stock: Stock, found: Report) -> None:
        self._repository = repository
        self._graph = Graph(repository, strict=True)
        self._sizes: dict[bytes, int | None] = dict.fromkeys(stock, _NOT_ASKED)  # of all objects that are there
        self._found = found
        self._whole: dict[tuple[str, bool], bool] = {}
        self._referred: list[Start] = []

    def is_whole(self, start: Start) -> bool:
        """Check one, unless that was done under another name."""
        key = (start.id, start.kind == "image")
        if key not in self._whole:
            self._whole[key] = self._check(start)
        return self._whole[key]

    def _check(self, start: Start) -> bool:
        if not self._has(start.id):
            self._missing("broken-symlink", start.where, start.id)
            return False
        try:
            return self._check_image(start) if start.kind == "image" else self._check_stream(start)
        except ComposefsError as error:
            self._found.add(unreadable(start, error))
            return False

    def check_unnamed(self) -> None:
        """Check the streams and images that others refer to, as far as they have not been checked by names."""
        while self._referred:
            start = self._referred.pop()
            if self._has(start.id):
                self.is_whole(start)

    def _has(self, object_id: str) -> bool:
        return bytes.fromhex(object_id) in self._sizes

    def _missing(self, kind: Kind, where: str, object_id: str, message: str | None = None) -> None:
        self._found.add(Problem(kind, where, message or f"object {object_id} is missing", object_id))
        self._found.missing.add(object_id)

    def _check_image(self, start: Start) -> bool:
        files = dict(self._graph.image(start.id))
        absent = sorted(files.keys() - self._sizes.keys())
        for each in absent:
            self._missing("image-missing-object", start.where, each.hex())
        return self._have_sizes(start, files) and not absent

    def _have_sizes(self, start: Start, files: Mapping[bytes, int]) -> bool:
        """Tell whether the objects that are there have the sizes of an image's files; the first other one is told."""
        new = [each for each in files if self._sizes.get(each) == _NOT_ASKED]
        self._sizes.update(zip(new, self._repository.objects.sizes(each.hex() for each in new), strict=True))
        for each, size in files.items():
            if self._sizes.get(each, size) != size and (object_id := each.hex()) not in self._found.bad:
                damage = check_object(self._repository, object_id)  # which was not done if only metadata are checked
                if damage is None:
                    message = f"a file has {size} bytes, and its object {object_id} {self._sizes[each]}"
                    self._found.add(Problem("image-invalid", start.where, message, start.id))
                    return False
                self._found.add(damage)
        return True

    def _check_stream(self, start: Start) -> bool:
        reader = self._graph.open_stream(start.id)
        if reader is None:
            if start.kind == "other":
                return True
            raise FormatError("it is not a splitstream")
        with reader:
            named = names_in(reader)
            absent = 0
            for each in reader.object_refs():
                if not self._has(each):
                    absent += 1
                    if absent <= _LISTED:
                        self._missing("missing-object-ref", start.where, each)
            if absent > _LISTED:
                more = absent - _LISTED
                words = "1 more object is missing" if more == 1 else f"{more} more objects are missing"
                self._found.add(Problem("missing-object-ref", start.where, words))
            for name, each in named:
                if not self._has(each):
                    self._missing("missing-named-ref", start.where, each, f"{name} names {each}, which is missing")
                    absent += 1
            self._referred += starts_of(named, start.where)
            return not absent and self._has_its_size(start, reader)

    def _has_its_size(self, start: Start, reader: Reader) -> bool:
        """Read a stream to its end, and add up the sizes of what it is made of."""
        size = of_last = 0
        last = -1
        try:
            for number, data in reader.chunks():
                if number < 0:
                    size += len(data)
                    continue
                if number != last:  # one may come millions of times
                    last, of_last = number, self._repository.objects.size(reader.object_ref(number)) or 0
                size += of_last
            if size != reader.size:
                raise FormatError(f"it has {size} bytes, its size says {reader.size}")
        except ComposefsError as error:
            self._found.add(Problem("stream-read-failed", start.where, error.message, start.id))
            return False
        return True
