"""How an OCI image's parts are called in a repository: its streams, and the tags that name manifests.

The colon of a digest stays in the name.  A layer of files is named by the digest of its uncompressed tar (the *diff
id*), any other by that of the blob.  Source: repositories of composefs-rs 0.9.0.
"""

from __future__ import annotations

from composefs_ext.errors import FormatError, UsageError
from composefs_oci.formats.digest import is_digest

__all__ = [
    "BLOB",
    "CONFIG",
    "CONFIG_REF",
    "IMAGE_PREFIX",
    "LAYER",
    "MANIFEST",
    "REFERRER_REFS",
    "TAG_REFS",
    "config_stream",
    "digest_of_stream",
    "layer_ref",
    "layer_stream",
    "manifest_stream",
    "referrer_ref",
    "tag_ref",
]

MANIFEST = "66696e616d69636f"
CONFIG = "67666e6f6369636f"
LAYER = "726579616c69636f"
BLOB = "626f6c625f69636f"
"""Content types: ``ocimanif``, ``ociconfg``, ``ocilayer`` and ``oci_blob`` as little-endian numbers."""

CONFIG_REF = "config:"
"""How the named reference of a manifest's stream begins that leads to the config; behind it stands its digest."""
IMAGE_PREFIX = "composefs.image"
"""How the named references of a config's stream begin that keep images."""

TAG_REFS = "oci"
_LAYER_REFS = "oci-layers"
REFERRER_REFS = "oci-referrers"
"""Directories of refs: tags, names given to single layers, and SUBJECT/ARTIFACT."""

_MANIFEST_PREFIX = "oci-manifest-"
_CONFIG_PREFIX = "oci-config-"
_LAYER_PREFIX = "oci-layer-"


def manifest_stream(digest: str) -> str:
    """Return the name of a manifest's stream."""
    return _MANIFEST_PREFIX + digest


def config_stream(digest: str) -> str:
    """Return the name of a config's stream."""
    return _CONFIG_PREFIX + digest


def layer_stream(digest: str) -> str:
    """Return the name of a layer's stream: by diff id, or for what is not a tar by the blob's digest."""
    return _LAYER_PREFIX + digest


def digest_of_stream(name: str) -> str:
    """Return the digest in the name of a stream of any of these sorts; raise FormatError if there is none."""
    for prefix in (_MANIFEST_PREFIX, _CONFIG_PREFIX, _LAYER_PREFIX):
        digest = name.removeprefix(prefix)
        if digest != name and is_digest(digest):
            return digest
    raise FormatError(f"{name[:200]!r} is not the name of an OCI stream")


def tag_ref(name: str) -> str:
    """Return a tag's ref; raise UsageError for a name that cannot be a tag."""
    if not name:
        raise UsageError("an image's name cannot be empty")
    if name.startswith("@") or is_digest(name):
        raise UsageError(
            f"{name!r} cannot be the name of an image",
            hint="it would be taken for a digest",
        )
    return f"{TAG_REFS}/{name}"


def layer_ref(name: str) -> str:
    """Return the ref of a name given to a single layer."""
    return f"{_LAYER_REFS}/{name}"


def referrer_ref(subject: str, artifact: str) -> str:
    """Return the ref that says that one manifest refers to another; both are digests."""
    return f"{REFERRER_REFS}/{subject}/{artifact}"
