"""What a pull has to make: the layers that are missing, put over each other while they come, and the images of them."""

from __future__ import annotations

from composefs_oci.arrivals import Arrivals
from composefs_oci.image import find_expected, layered, put_images
from composefs_oci.whole import open_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from composefs_ext import Core
    from composefs_oci.arrivals import Arrived
    from composefs_oci.fetch import Job
    from composefs_oci.source import Source
    from composefs_oci.stored import StoredLayer
    from composefs_oci.variants import Variant

__all__ = ["make"]


def make(
    core: Core,
    open_source: Callable[[Callable[[str], object]], Source],
    order: Sequence[str],
    jobs: Mapping[str, Job],
    wanted: Sequence[Variant],
    expected: str | None,
    tell: Callable[[str, Arrived], object],
    tick: Callable[[], object],
) -> tuple[dict[Variant, str], Variant | None]:
    """Fetch layers and make images; return their ids, and the variant that has the expected one.

    ``order`` are the diff ids of all layers from bottom to top, ``jobs`` those that are missing, by digest.  ``tell``
    and ``tick`` are called as :class:`~composefs_oci.arrivals.Arrivals` says.
    """
    missing = list(jobs)
    made: dict[Variant, str] = {}
    found: Variant | None = None
    with Arrivals(core, list(jobs.values()), open_source, lambda n, each: tell(missing[n], each), tick) as arrivals:
        if wanted or expected is not None:
            stack = _Stack(core, order, missing, arrivals)
            image = layered(core, stack)
            made = put_images(core, image, wanted)
            if expected is not None:
                found, image = find_expected(core, list(stack), image, expected)
                made |= put_images(core, image, [found])
        for number in range(len(missing)):
            arrivals.wait(number)
    return made, found


class _Stack:
    """The layers of an image from bottom to top, as often as they are asked for: from here, or as they arrive."""

    def __init__(self, core: Core, order: Sequence[str], missing: Sequence[str], arrivals: Arrivals) -> None:
        self._core = core
        self._order = order
        self._missing = missing
        self._arrivals = arrivals
        self._open: dict[str, StoredLayer] = {}

    def __iter__(self) -> Iterator[StoredLayer]:
        for digest in self._order:
            if digest not in self._open:
                self._open[digest] = self._layer(digest)
            yield self._open[digest]

    def _layer(self, digest: str) -> StoredLayer:
        if digest not in self._missing:
            return open_layer(self._core, digest)
        layer = self._arrivals.wait(self._missing.index(digest)).layer
        assert layer is not None
        return layer
