"""A manifest of Docker as one of OCI: the same config and layers under the media types that OCI gave them.

A repository holds OCI manifests, as every reader of it expects those.  The manifest gets another digest thereby, that
of the bytes which are stored; config and layers keep theirs.  The same manifest always becomes the same bytes, those
that Go programs write.
"""

from __future__ import annotations

import json

from composefs_oci.formats.descriptors import parse_manifest
from composefs_oci.formats.mediatypes import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST, oci_layer_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_oci.formats.descriptors import Descriptor, Manifest

__all__ = ["as_oci"]


def as_oci(manifest: Manifest) -> Manifest:
    """Return an OCI manifest as it is, and one of Docker converted."""
    if manifest.media_type != DOCKER_MANIFEST:
        return manifest
    config = manifest.config
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _fields(config, OCI_CONFIG if config.media_type == DOCKER_CONFIG else config.media_type),
        "layers": [_fields(layer, oci_layer_type(layer.media_type)) for layer in manifest.layers],
    }
    return parse_manifest(json.dumps(document, separators=(",", ":")).encode(), OCI_MANIFEST)


def _fields(descriptor: Descriptor, media_type: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"mediaType": media_type, "digest": descriptor.digest, "size": descriptor.size}
    if descriptor.urls:
        fields["urls"] = list(descriptor.urls)
    return fields
