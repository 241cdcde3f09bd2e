"""The composefs images that can be made of an image's layers, and under which name the config's stream keeps each.

====================================================  ========================================
``composefs.image``, ``composefs.image.v1``           plain, EROFS format 2, formats 0 and 1
``composefs.image.boot``, ``composefs.image.boot.v1`` bootable
those with ``.xattrs=keep-user-xattrs``               bootable, attributes ``user.*`` kept
====================================================  ========================================
"""

from __future__ import annotations

from composefs_ext.tuples import NamedTuple
from composefs_oci.names import IMAGE_PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from composefs_ext import Repository

    Xattrs = Literal["allowlist-only", "keep-user-xattrs"]

__all__ = ["BOOT_PREFIX", "Sought", "Variant", "bootable_variants", "keyed_variants", "mountable", "variants"]

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
    def key(self) -> str:
        """The named reference that keeps such an image."""
        return (
            (BOOT_PREFIX if self.bootable else IMAGE_PREFIX)
            + ("" if self.erofs_format == 2 else ".v1")
            + ("" if self.xattrs == ALLOWLIST else f".xattrs={self.xattrs}")
        )


def variants(repository: Repository, *, bootable: bool = False) -> list[Variant]:
    """Return the images that the repository wants of every pull: the default format first."""
    by_key: dict[str, Variant] = {}
    for erofs_format in (repository.erofs_default, *repository.erofs_extra):
        variant = Variant(erofs_format, bootable)
        by_key.setdefault(variant.key, variant)
    return list(by_key.values())


def bootable_variants() -> list[Variant]:
    """Return the images that may have been sealed, in the order in which composefs-rs tries them."""
    return [Variant(erofs_format, True, xattrs) for xattrs in (ALLOWLIST, KEEP_USER) for erofs_format in (1, 2)]


class Sought(NamedTuple):
    """A bootable image that has to have this id; which variants it may be, and what to do if it is none of them."""

    image: str
    candidates: Sequence[Variant]
    remedy: str

    @classmethod
    def sealed(cls, image: str) -> Sought:
        """Seek the image that the user expects."""
        remedy = "the image is not the one that was sealed, or was sealed with other options"
        return cls(image, bootable_variants(), remedy)

    @classmethod
    def lost(cls, key: str, image: str) -> Sought:
        """Seek an image that was here under this key.  It may be sealed, so that no other one does."""
        every = [Variant(erofs_format, True, xattrs) for erofs_format in (0, 1, 2) for xattrs in (ALLOWLIST, KEEP_USER)]
        remedy = (
            "what was here is lost; to have another one, untag the image, run cfsctl gc, and pull it with --bootable"
        )
        return cls(image, [variant for variant in every if variant.key == key], remedy)


def keyed_variants() -> dict[str, Variant]:
    """Return every image that a key keeps, by key; format 1 stands for format 0 too."""
    return {variant.key: variant for variant in (Variant(1), Variant(2), *bootable_variants())}


def mountable(repository: Repository, *, bootable: bool) -> list[str]:
    """Return the keys of images in the order in which they are taken: the repository's format first."""
    wanted = [Variant(repository.erofs_default, bootable)]
    wanted += bootable_variants() if bootable else [Variant(1), Variant(2)]
    return list(dict.fromkeys(variant.key for variant in wanted))
