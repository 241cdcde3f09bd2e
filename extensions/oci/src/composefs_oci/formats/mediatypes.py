"""Media types of OCI and Docker: what a document or a blob is.

Sources: OCI image specification, media-types.md; Docker's "Image Manifest V 2, Schema 2".  How a layer is compressed
its type says too, but not always rightly; see :mod:`composefs_oci.layers.decompress`.
"""

from __future__ import annotations

__all__ = [
    "DOCKER_CONFIG",
    "DOCKER_INDEX",
    "DOCKER_MANIFEST",
    "DOCKER_SCHEMA1",
    "OCI_CONFIG",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "ROOTS",
    "is_config",
    "is_index",
    "is_manifest",
    "is_tar_layer",
    "oci_layer_type",
]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_SCHEMA1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

ROOTS = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX)
"""What a registry is asked for: the documents that a reference can lead to."""

_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_OCI_KEPT_BACK = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"

_OCI_LAYERS = frozenset(kind + ending for kind in (_OCI_LAYER, _OCI_KEPT_BACK) for ending in ("", "+gzip", "+zstd"))
_DOCKER_LAYERS = {
    _DOCKER_LAYER: _OCI_LAYER,
    f"{_DOCKER_LAYER}.gzip": f"{_OCI_LAYER}+gzip",
    f"{_DOCKER_LAYER}.zstd": f"{_OCI_LAYER}+zstd",
    _DOCKER_FOREIGN: _OCI_KEPT_BACK,
    f"{_DOCKER_FOREIGN}.gzip": f"{_OCI_KEPT_BACK}+gzip",
}
"""Layers of files, and the type that OCI has for each of Docker."""


def is_index(media_type: str) -> bool:
    """Whether this is a list of manifests."""
    return media_type in (OCI_INDEX, DOCKER_INDEX)


def is_manifest(media_type: str) -> bool:
    """Whether this is the manifest of an image or an artifact."""
    return media_type in (OCI_MANIFEST, DOCKER_MANIFEST)


def is_config(media_type: str) -> bool:
    """Whether a manifest with a config of this type is that of a container image; all others are artifacts."""
    return media_type in (OCI_CONFIG, DOCKER_CONFIG)


def is_tar_layer(media_type: str) -> bool:
    """Whether this is a layer of files."""
    return media_type in _OCI_LAYERS or media_type in _DOCKER_LAYERS


def oci_layer_type(media_type: str) -> str:
    """Return OCI's type for a layer of Docker; other types stay as they are."""
    return _DOCKER_LAYERS.get(media_type, media_type)
