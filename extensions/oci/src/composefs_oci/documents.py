"""Storing manifests and configs: one object each, whatever the size, and what their streams name, in what order."""

from __future__ import annotations

from composefs_ext.tuples import NamedTuple
from composefs_oci.names import CONFIG_REF
from composefs_oci.variants import BOOT_PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composefs_ext import Core

__all__ = ["Counts", "config_refs", "manifest_refs", "put_document"]


class Counts(NamedTuple):
    """What came: objects that are new and their bytes, objects that were there, bytes kept inline."""

    new: int = 0
    stored: int = 0
    present: int = 0
    inlined: int = 0

    def plus(self, more: Counts) -> Counts:
        """Return the sums of these and more."""
        return Counts(*map(sum, zip(self, more, strict=True)))


def config_refs(layers: Mapping[str, str], images: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what a config's stream names: the layers in their order, plain images, bootable images."""
    keys = sorted(images, key=lambda key: (key.startswith(BOOT_PREFIX), key))
    return [*layers.items(), *((key, images[key]) for key in keys)]


def manifest_refs(config: str, config_id: str, layers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what a manifest's stream names: the config, and the layers in their order."""
    return [(CONFIG_REF + config, config_id), *layers.items()]


def put_document(
    core: Core, content_type: str, data: bytes, named_refs: Sequence[tuple[str, str]]
) -> tuple[str, Counts]:
    """Have a document and its stream stored; return the stream's id, and what came."""
    name = core.staging.write(data, "document")
    [stored] = core.object_put([{"name": name, "size": len(data)}]).result()
    put = core.stream_put(content_type, chunks=[0], object_refs=[stored["id"]], named_refs=named_refs)
    is_new = stored.get("stored") != "present"
    return put.result()["id"], Counts(new=1, stored=len(data)) if is_new else Counts(present=1)
