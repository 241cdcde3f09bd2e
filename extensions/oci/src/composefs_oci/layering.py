"""What a pull has to make: the layers that are missing, put over each other while they come, and the images of them."""

from __future__ import annotations

import gc
from functools import cache

from composefs_ext.errors import FormatError, TooLargeError
from composefs_oci.arrivals import Arrivals
from composefs_oci.image import find_variant, merge_entries, put_images, stage
from composefs_oci.layers.stored import entries, open_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composefs_ext import Core
    from composefs_oci.documents import Counts
    from composefs_oci.layers.fetch import Job
    from composefs_oci.layers.stored import StoredLayer
    from composefs_oci.sources.source import Opener
    from composefs_oci.variants import Sought, Variant

__all__ = ["make"]


def make(
    core: Core,
    open_source: Opener,
    order: Sequence[str],
    jobs: Mapping[str, Job],
    images: Sequence[Variant],
    sought: Sequence[Sought],
) -> tuple[dict[Variant, str], dict[str, str], Counts]:
    """Fetch layers and make images; return the images' ids, those of the layers' streams by digest, and what came.

    ``order`` are the diff ids of all layers from bottom to top, ``jobs`` fetch those that are missing, by digest.
    ``images`` are to be made, and those that are ``sought`` by their ids.
    """
    made: dict[Variant, str] = {}
    gc.disable()  # a pull makes no cycles, but enough objects for a tenth of its time to go into looking for some
    with Arrivals(core, jobs, open_source) as arrivals:

        @cache  # an image can name a layer thousands of times
        def stored(digest: str) -> StoredLayer:
            return open_layer(core, digest, arrivals.wait(digest) if digest in jobs else None)

        if images or sought:
            coming = (
                (digest, arrivals.entries(digest) if digest in jobs else entries(stored(digest))) for digest in order
            )
            progress = core.progress("image")
            try:
                root = merge_entries(coming)
            except (FormatError, TooLargeError) as error:
                if error.subject is not None and error.subject in jobs:
                    arrivals.wait(error.subject)  # if the layer is damaged, that is what to say
                raise
            tree = stage(core, root)
            made = put_images(core, tree, images)
            for each in sought:
                variant, its_tree = find_variant(core, map(stored, order), tree, each)
                made |= put_images(core, its_tree, [variant])
            progress.finish()
        return made, *arrivals.wait_for_all()
