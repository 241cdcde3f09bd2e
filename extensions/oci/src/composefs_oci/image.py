"""From the layers of an image to composefs images of it: which there are, how they are called, how they are made.

The core does to the tree what makes a container's files a system's (docs/protocol.md, P-39); here is which variants
there are, and under which name the config's stream keeps each:

====================================================  ========================================
``composefs.image``, ``composefs.image.v1``           plain, EROFS format 2, formats 0 and 1
``composefs.image.boot``, ``composefs.image.boot.v1`` bootable
those with ``.xattrs=keep-user-xattrs``               bootable, attributes ``user.*`` kept
====================================================  ========================================

composefs-rs 0.9.0 reads some archives in a way of its own.  An image that it sealed is found all the same, because
:func:`find_expected` tries its reading after ours.
"""

from __future__ import annotations

from typing import NamedTuple

from composefs_ext.errors import CorruptError
from composefs_oci.dump import stage_tree
from composefs_oci.filesystem import Filesystem
from composefs_oci.names import IMAGE_PREFIX
from composefs_oci.stored import entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Literal

    from composefs_ext import Core, Repository
    from composefs_ext.rows import Transforms
    from composefs_oci.filesystem import Node
    from composefs_oci.stored import StoredLayer

    Xattrs = Literal["allowlist-only", "keep-user-xattrs"]

__all__ = [
    "BOOT_PREFIX",
    "Image",
    "Variant",
    "bootable_variants",
    "find_expected",
    "keyed_variants",
    "layered",
    "mountable",
    "put_images",
    "tree_of",
    "variants",
]

BOOT_PREFIX = f"{IMAGE_PREFIX}.boot"
"""How the keys of bootable images begin, whichever it is."""

ALLOWLIST: Xattrs = "allowlist-only"
KEEP_USER: Xattrs = "keep-user-xattrs"


class Variant(NamedTuple):
    """One of the images that can be made of the same layers."""

    erofs_format: int
    bootable: bool = False
    xattrs: Xattrs = ALLOWLIST

    @property
    def key(self) -> str | None:
        """The named reference that keeps such an image; None: none does."""
        if self.xattrs != ALLOWLIST and not self.bootable:
            return None
        return (
            (BOOT_PREFIX if self.bootable else IMAGE_PREFIX)
            + ("" if self.erofs_format == 2 else ".v1")
            + ("" if self.xattrs == ALLOWLIST else f".xattrs={self.xattrs}")
        )


class Image(NamedTuple):
    """A tree that has been described: the staged dump, and whether it has a /usr to take the root's metadata from."""

    dump: str
    has_usr: bool

    def transforms(self, *, bootable: bool = False, xattrs: Xattrs = ALLOWLIST) -> Transforms:
        """What the core shall do to it.

        An image without /usr is no system but a program or data: its root keeps what the layers say of it (0755, owner
        and time 0 where they say nothing), and /run what is in it.  It cannot be made bootable, as the core will say.
        """
        return {"usr_to_root": self.has_usr or bootable, "xattrs": xattrs, "bootable": bootable}


def variants(repository: Repository, *, bootable: bool = False) -> list[Variant]:
    """Return the images that the repository wants of every pull: the default format first."""
    by_key: dict[str | None, Variant] = {}
    for erofs_format in (repository.erofs_default, *repository.erofs_extra):
        variant = Variant(erofs_format, bootable)
        by_key.setdefault(variant.key, variant)
    return list(by_key.values())


def bootable_variants() -> list[Variant]:
    """Return the images that may have been sealed, in the order in which composefs-rs tries them."""
    return [Variant(erofs_format, True, xattrs) for xattrs in (ALLOWLIST, KEEP_USER) for erofs_format in (1, 2)]


def keyed_variants() -> dict[str, Variant]:
    """Return every image that a key keeps, by key; format 1 stands for format 0 too."""
    every = [Variant(1), Variant(2), *bootable_variants()]
    return {str(variant.key): variant for variant in every}


def mountable(repository: Repository, *, bootable: bool = False) -> list[str]:
    """Return the keys of images in the order in which they are taken: the repository's format first."""
    wanted = [Variant(repository.erofs_default, bootable)]
    wanted += [each for each in bootable_variants() if bootable] or [Variant(1), Variant(2)]
    return list(dict.fromkeys(str(variant.key) for variant in wanted))


def layered(core: Core, layers: Iterable[StoredLayer], *, upstream: bool = False) -> Image:
    """Put layers over each other, the lowest first, and stage what comes of it.

    They may be given while they arrive: each is applied before the next one is asked for.  Raises FormatError,
    TooLargeError, CorruptError.
    """
    root = tree_of(layers, upstream=upstream)
    return Image(stage_tree(core, root), b"usr" in (root.children or {}))


def tree_of(layers: Iterable[StoredLayer], *, upstream: bool = False) -> Node:
    """Put layers over each other; return the root of what comes of it.  Raises as :func:`layered` does."""
    filesystem = Filesystem(upstream=upstream)
    for layer in layers:
        filesystem.apply(layer.name, entries(layer, upstream=upstream))
    return filesystem.root


def put_images(core: Core, image: Image, wanted: Sequence[Variant]) -> dict[Variant, str]:
    """Have variants of an image made and stored, none named yet; return their ids."""
    pending = [
        core.image_put(
            image.dump,
            erofs_format=variant.erofs_format,
            transforms=image.transforms(bootable=variant.bootable, xattrs=variant.xattrs),
        )
        for variant in wanted
    ]
    return {variant: answer.result()["id"] for variant, answer in zip(wanted, pending, strict=True)}


def find_expected(core: Core, layers: Sequence[StoredLayer], image: Image, expected: str) -> tuple[Variant, Image]:
    """Find the bootable variant that has this id, and the image to make it of; nothing is stored.

    Raises CorruptError if there is none.
    """
    candidates = bootable_variants()
    tried = 0
    for upstream in (False, True):
        if upstream:
            image = layered(core, layers, upstream=True)
        pending = [
            core.image_digest(
                image.dump,
                erofs_format=variant.erofs_format,
                transforms=image.transforms(bootable=True, xattrs=variant.xattrs),
            )
            for variant in candidates
        ]
        for variant, answer in zip(candidates, pending, strict=True):
            tried += 1
            if answer.result()["id"] == expected:
                for left in pending:
                    left.result()
                return variant, image
    raise CorruptError(
        f"none of the {tried} combinations of format, attributes and reading gives the expected image {expected}",
        hint="the image is not the one that was sealed, or was sealed with other options",
        subject=expected,
    )
