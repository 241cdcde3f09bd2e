"""What a pull has to make: the layers that are missing, put over each other while they come, and the images of them."""

from __future__ import annotations

import gc
from typing import NamedTuple

from composefs_ext.errors import FormatError, TooLargeError
from composefs_oci.arrivals import Arrivals
from composefs_oci.image import described, find_expected, put_images, stacked
from composefs_oci.layers.stored import entries
from composefs_oci.layers.whole import open_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from composefs_ext import Core
    from composefs_oci.arrivals import Arrived
    from composefs_oci.formats.tar import Entry
    from composefs_oci.layers.fetch import Job
    from composefs_oci.layers.stored import Content, StoredLayer
    from composefs_oci.sources.source import Source
    from composefs_oci.variants import Variant

__all__ = ["Wanted", "make"]


class Wanted(NamedTuple):
    """What a pull has to make.

    ``order`` are the diff ids of all layers from bottom to top, ``jobs`` fetch those that are missing, by digest.
    ``images`` are to be made, and, if ``expected`` is an id, the one bootable image that has this id.
    """

    order: Sequence[str]
    jobs: Mapping[str, Job]
    images: Sequence[Variant]
    expected: str | None


def make(
    core: Core,
    open_source: Callable[[Callable[[str], object]], Source],
    wanted: Wanted,
    tell: Callable[[str, Arrived], object],
    tick: Callable[[], object],
) -> tuple[dict[Variant, str], Variant | None]:
    """Fetch layers and make images; return their ids, and the variant that has the expected one.

    ``tell`` and ``tick`` are called as :class:`~composefs_oci.arrivals.Arrivals` says.
    """
    order, jobs, images, expected = wanted
    missing = list(jobs)
    made: dict[Variant, str] = {}
    found: Variant | None = None
    gc.disable()  # a pull makes no cycles, but enough objects for a tenth of its time to go into looking for some
    with Arrivals(core, list(jobs.values()), open_source, lambda n, each: tell(missing[n], each), tick) as arrivals:
        if images or expected is not None:
            stack = _Stack(core, order, missing, arrivals)
            try:
                root = stacked(stack.coming())
            except (FormatError, TooLargeError):
                stack.settle()  # if it is damaged, that is what to say
                raise
            image = described(core, root)
            made = put_images(core, image, images)
            if expected is not None:
                found, image = find_expected(core, stack.layers(), image, expected)
                made |= put_images(core, image, [found])
        for number in range(len(missing)):
            arrivals.wait(number)
    return made, found


class _Stack:
    """The layers of an image from bottom to top: as they come, and whole when they are here."""

    def __init__(self, core: Core, order: Sequence[str], missing: Sequence[str], arrivals: Arrivals) -> None:
        self._core = core
        self._order = order
        self._missing = missing
        self._arrivals = arrivals
        self._coming: int | None = None
        self._held: dict[str, StoredLayer] = {}

    def coming(self) -> Iterator[tuple[str, Iterator[tuple[Entry, Content]]]]:
        """Yield name and entries of each layer."""
        for digest in self._order:
            if digest in self._missing:
                self._coming = self._missing.index(digest)
                yield digest, self._arrivals.entries(self._coming)
            else:
                self._coming = None
                yield digest, entries(self._open(digest))

    def settle(self) -> None:
        """Wait for the layer that came last, which shows whether it is the right one at all."""
        if self._coming is not None:
            self._arrivals.wait(self._coming)

    def layers(self) -> list[StoredLayer]:
        """Return all layers when all are here."""
        return [self._layer(digest) for digest in self._order]

    def _layer(self, digest: str) -> StoredLayer:
        if digest not in self._missing:
            return self._open(digest)
        return open_layer(self._core, digest, self._arrivals.wait(self._missing.index(digest)).stream)

    def _open(self, digest: str) -> StoredLayer:
        if digest not in self._held:
            self._held[digest] = open_layer(self._core, digest)
        return self._held[digest]
