"""From the layers of an image to composefs images of it.

The core does to the tree what makes a container's files a system's (docs/protocol.md, P-39).

composefs-rs 0.9.0 reads some archives in a way of its own.  An image that it sealed is found all the same, because
:func:`find` tries its reading after ours.
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
    "Image",
    "described",
    "find",
    "image_ids",
    "layered",
    "layers_of",
    "of_tree",
    "put_images",
    "stacked",
    "tree_of",
]


class Image(NamedTuple):
    """A tree that has been described: the staged dump, and whether it has a /usr to take the root's metadata from."""

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


def layered(core: Core, layers: Iterable[StoredLayer], *, upstream: bool = False) -> Image:
    """Put layers over each other, the lowest first, and stage what comes of it.

    Raises FormatError, TooLargeError, CorruptError.
    """
    return described(core, tree_of(layers, upstream=upstream))


def tree_of(layers: Iterable[StoredLayer], *, upstream: bool = False) -> Directory:
    """Put layers over each other; return the root of what comes of it.  Raises as :func:`layered` does."""
    return stacked(((layer.name, entries(layer, upstream=upstream)) for layer in layers), upstream=upstream)


def stacked(layers: Iterable[tuple[str, Iterable[tuple[Entry, Content]]]], *, upstream: bool = False) -> Directory:
    """Put layers, given by name and entries, over each other; return the root.  Raises FormatError, TooLargeError."""
    filesystem = Filesystem(upstream=upstream)
    for name, each in layers:
        filesystem.apply(name, each)
    return filesystem.root


def described(core: Core, root: Directory) -> Image:
    """Stage a tree.  Raises TooLargeError."""
    return Image(stage_tree(core, root), b"usr" in root.children)


@contextmanager
def of_tree() -> Iterator[None]:
    """Say of what the core finds wrong with a tree whose it is: a path alone could be one of this machine."""
    try:
        yield
    except (FormatError, TooLargeError) as error:
        raise type(error)(f"the image's tree: {error.message}", hint=error.hint, subject=error.subject) from None


def put_images(core: Core, image: Image, wanted: Sequence[Variant]) -> dict[Variant, str]:
    """Have variants of an image made and stored, none named yet; return their ids."""
    return dict(zip(wanted, _ids(core.image_put, image, wanted), strict=True))


def image_ids(core: Core, image: Image, wanted: Sequence[Variant]) -> list[str]:
    """Return the ids that variants of an image have; nothing is stored."""
    return _ids(core.image_digest, image, wanted)


def _ids(call: Callable[..., Pending[Any]], image: Image, wanted: Sequence[Variant]) -> list[str]:
    """Call for each variant before the first answer is waited for."""
    pending = [
        call(
            image.dump,
            erofs_format=variant.erofs_format,
            transforms=image.transforms(bootable=variant.bootable, xattrs=variant.xattrs),
        )
        for variant in wanted
    ]
    with of_tree():
        return [answer.result()["id"] for answer in pending]


def find(core: Core, layers: Iterable[StoredLayer], image: Image, sought: Sought) -> tuple[Variant, Image]:
    """Find the variant that has the id, and the image to make it of; nothing is stored.

    ``layers`` are read only if ``image`` is not it.  Raises CorruptError if there is none.
    """
    tried = 0
    for upstream in (False, True):
        if upstream:
            image = layered(core, layers, upstream=True)
        ids = image_ids(core, image, sought.candidates)
        tried += len(ids)
        if sought.image in ids:
            return sought.candidates[ids.index(sought.image)], image
    raise CorruptError(
        f"none of the {tried} combinations of format, attributes and reading gives the expected image {sought.image}",
        hint=sought.remedy,
        subject=sought.image,
    )
