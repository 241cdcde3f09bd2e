"""From the layers of an image to composefs images of it: merged, staged as one dump, made by the core.

The core does to the tree what makes a container's files a system's (docs/protocol.md, P-39).

composefs-rs 0.9.0 reads some archives in a way of its own.  An image that it sealed is found all the same, because
:func:`find_variant` tries its reading after ours.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import NamedTuple

from composefs_ext.errors import CorruptError, FormatError, TooLargeError
from composefs_oci.dump import stage_tree
from composefs_oci.filesystem import Filesystem
from composefs_oci.formats.descriptors import parse_config
from composefs_oci.held import read_document
from composefs_oci.layers.stored import entries, open_layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from composefs_ext import Core
    from composefs_ext.connection import Pending
    from composefs_ext.rows import Transforms
    from composefs_oci.filesystem import Directory
    from composefs_oci.formats.tar import Entry
    from composefs_oci.held import HeldConfig
    from composefs_oci.layers.stored import Content, StoredLayer
    from composefs_oci.variants import Sought, Variant, Xattrs

__all__ = [
    "StagedTree",
    "find_variant",
    "image_ids",
    "layers_of",
    "merge_entries",
    "merge_layers",
    "naming_the_tree",
    "put_images",
    "stage",
    "stage_layers",
]


class StagedTree(NamedTuple):
    """An image's tree, written to staging: the dump's name there, and whether it has a /usr for the root's metadata."""

    dump: str
    has_usr: bool

    def transforms(self, *, bootable: bool, xattrs: Xattrs) -> Transforms:
        """What the core shall do to it.

        An image without /usr is no system but a program or data: its root keeps what the layers say of it (0755, owner
        and time 0 where they say nothing), and /run what is in it.  It cannot be made bootable, as the core will say.
        """
        return {"usr_to_root": self.has_usr or bootable, "xattrs": xattrs, "bootable": bootable}


def layers_of(core: Core, config: HeldConfig) -> Iterator[StoredLayer]:
    """Return the layers of an image that is here, the lowest first, each opened when it comes up.

    Raises CorruptError or FormatError for the config, and as :func:`~composefs_oci.layers.stored.open_layer` does.
    """
    document = read_document(core, config.id, config.digest)
    return open_layers(core, parse_config(document, f"the config {config.digest}").diff_ids)


def stage_layers(core: Core, layers: Iterable[StoredLayer], *, upstream: bool = False) -> StagedTree:
    """Merge layers, the lowest first, and stage the tree.  Raises FormatError, TooLargeError, CorruptError."""
    return stage(core, merge_layers(layers, upstream=upstream))


def stage(core: Core, root: Directory) -> StagedTree:
    """Write a tree, given by its root, to staging.  Raises TooLargeError."""
    return StagedTree(stage_tree(core, root), b"usr" in root.children)


def merge_layers(layers: Iterable[StoredLayer], *, upstream: bool = False) -> Directory:
    """Put layers over each other, the lowest first; return the tree's root.  Raises as :func:`stage_layers` does.

    ``upstream`` reads and merges them as composefs-rs 0.9.0 does.
    """
    return merge_entries(((layer.name, entries(layer, upstream=upstream)) for layer in layers), upstream=upstream)


def merge_entries(
    layers: Iterable[tuple[str, Iterable[tuple[Entry, Content]]]], *, upstream: bool = False
) -> Directory:
    """Do what :func:`merge_layers` does with layers given by name and entries.  Raises FormatError, TooLargeError."""
    filesystem = Filesystem(upstream=upstream)
    for name, each in layers:
        filesystem.apply(name, each)
    return filesystem.root


@contextmanager
def naming_the_tree() -> Iterator[None]:
    """Name the image's tree in what the core finds wrong with it: a path alone could be one of this machine."""
    try:
        yield
    except (FormatError, TooLargeError) as error:
        raise type(error)(f"the image's tree: {error.message}", hint=error.hint, subject=error.subject) from None


def put_images(core: Core, tree: StagedTree, wanted: Sequence[Variant]) -> dict[Variant, str]:
    """Have variants of an image made of a tree and stored, none named yet; return their ids."""
    return dict(zip(wanted, _ids(core.image_put, tree, wanted), strict=True))


def image_ids(core: Core, tree: StagedTree, wanted: Sequence[Variant]) -> list[str]:
    """Return the ids that variants of an image have; nothing is stored."""
    return _ids(core.image_digest, tree, wanted)


def _ids(call: Callable[..., Pending[Any]], tree: StagedTree, wanted: Sequence[Variant]) -> list[str]:
    """Call for each variant before the first answer is waited for."""
    pending = [
        call(
            tree.dump,
            erofs_format=variant.erofs_format,
            transforms=tree.transforms(bootable=variant.bootable, xattrs=variant.xattrs),
        )
        for variant in wanted
    ]
    with naming_the_tree():
        return [answer.result()["id"] for answer in pending]


def find_variant(
    core: Core, layers: Iterable[StoredLayer], tree: StagedTree, sought: Sought
) -> tuple[Variant, StagedTree]:
    """Find the variant that has the id that is sought, and the tree to make it of; nothing is stored.

    ``layers`` are those of ``tree``; only if none of its variants is the one they are read again, as composefs-rs reads
    them.  Raises CorruptError if there is none.
    """
    tried = 0
    for upstream in (False, True):
        if upstream:
            tree = stage_layers(core, layers, upstream=True)
        ids = image_ids(core, tree, sought.candidates)
        tried += len(ids)
        if sought.image in ids:
            return sought.candidates[ids.index(sought.image)], tree
    raise CorruptError(
        f"none of the {tried} combinations of format, attributes and reading gives the expected image {sought.image}",
        hint=sought.remedy,
        subject=sought.image,
    )
