"""The documents of an image: index, manifest and config, of OCI and of Docker, and the descriptors that lead from one
to the next (OCI image specification: descriptor.md, manifest.md, image-index.md, config.md).

Parsers take the bytes and believe nothing: types, sizes and counts are checked, and FormatError says where it is wrong.
What a document says of its own type must agree with what it was said to be when it was fetched, and it may not look
like the other sort: a document that is read as a manifest here and as an index elsewhere is two images with one digest
(CVE-2021-41190).
"""

from __future__ import annotations

import re

from composefs_ext.errors import FormatError, UnsupportedError
from composefs_ext.tuples import NamedTuple
from composefs_oci.formats.digest import is_digest
from composefs_oci.formats.json_document import AGAIN, Fields, parse_object
from composefs_oci.formats.mediatypes import (
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    OCI_INDEX,
    OCI_MANIFEST,
    is_config,
    is_index,
    is_manifest,
)
from composefs_oci.formats.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Descriptor",
    "ImageConfig",
    "Manifest",
    "parse_config",
    "parse_index",
    "parse_manifest",
    "type_of",
]

MAX_LAYERS = 4096
MAX_MANIFESTS = 16384
_MAX_URLS = 64
_DOCUMENT = "schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "artifactType", "annotations"
"""Fields of a manifest or an index."""
_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}(?: ?;[ -~]{0,254})?"
)
"""With parameters, if there are any: ``podman artifact add`` writes ``text/plain; charset=utf-8``."""


class Descriptor(NamedTuple):
    """What a document says of a blob or another document; ``digest`` has its algorithm, ``size`` is in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = {}
    platform: Platform | None = None
    artifact_type: str | None = None
    urls: tuple[str, ...] = ()


class Manifest(NamedTuple):
    """An image's manifest, or an artifact's; ``raw`` are its bytes, ``subject`` what it refers to."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str | None
    annotations: Mapping[str, str]

    @property
    def is_image(self) -> bool:
        """Whether this is a container image; an artifact otherwise."""
        return is_config(self.config.media_type)


class ImageConfig(NamedTuple):
    """A container image's config; ``diff_ids`` are the digests of its uncompressed layers, the lowest first.

    ``created`` is the text of a time, or None; ``labels`` are what the image's author gave it.
    """

    platform: Platform
    created: str | None
    diff_ids: tuple[str, ...]
    labels: Mapping[str, str]


def type_of(data: bytes, served_as: str, what: str) -> str:
    """Return the media type of an index or a manifest, by what it was served as and what it says itself.

    ``served_as`` may be empty or a generic type.  Raise FormatError if they disagree or tell nothing, and
    UnsupportedError for what Docker has abandoned.
    """
    served = served_as.partition(";")[0].strip().lower()
    fields = parse_object(data, what)
    said = fields.text("mediaType", "")
    if {served, said} & DOCKER_SCHEMA1 or (not said and "fsLayers" in fields):
        raise UnsupportedError(
            f"{what} has the abandoned format of Docker, schema 1",
            hint="have the image pushed again by a current program: skopeo copy --format oci",
            subject=what,
        )
    if _is_known(served):
        if said and said != served:
            raise FormatError(
                f"{what} was served as {served} and says that it is {said[:200]!r}", hint=AGAIN, subject=what
            )
        return served
    if _is_known(said):
        return said
    if not said and fields.number("schemaVersion") == 2:
        if "manifests" in fields and "config" not in fields and "layers" not in fields:
            return OCI_INDEX
        if "config" in fields and "manifests" not in fields:
            return OCI_MANIFEST
    raise FormatError(
        f"{what} is neither an image's manifest nor an index: {(said or served or 'no media type')[:200]!r}",
        hint="check the name: only images and artifacts of OCI and Docker are understood",
        subject=what,
    )


def parse_manifest(data: bytes, media_type: str, what: str = "the manifest") -> Manifest:
    """Read a manifest of this type; raise FormatError."""
    fields = _document(data, media_type, what)
    if "manifests" in fields:
        raise fields.fail("manifests", "belongs to an index, and this is a manifest")
    config = fields.inner("config")
    if config is None:
        raise fields.fail("config", "is missing")
    subject = fields.inner("subject")
    return Manifest(
        data,
        media_type,
        _descriptor(config),
        tuple(map(_descriptor, fields.objects("layers", MAX_LAYERS))),
        None if subject is None or media_type == DOCKER_MANIFEST else _descriptor(subject),
        fields.text("artifactType", "") or None,
        fields.mapping("annotations"),
    )


def parse_index(data: bytes, media_type: str = OCI_INDEX, what: str = "the index") -> tuple[Descriptor, ...]:
    """Return what an index, or a manifest list, of this type leads to: manifests and indexes; raise FormatError."""
    fields = _document(data, media_type, what)
    for key in ("config", "layers"):
        if key in fields:
            raise fields.fail(key, "belongs to a manifest, and this is an index")
    fields.mapping("annotations")  # of no use here, but what they cannot be other readers refuse
    return tuple(map(_descriptor, fields.objects("manifests", MAX_MANIFESTS)))


def parse_config(data: bytes, what: str = "the config") -> ImageConfig:
    """Read a container image's config; raise FormatError."""
    fields = parse_object(data, what)
    fields.check_spelling("rootfs", "config", "created")
    rootfs = fields.inner("rootfs")
    if rootfs is None:
        raise fields.fail("rootfs", "is missing, so this is not the config of a container image")
    rootfs.check_spelling("type", "diff_ids")
    if rootfs.text("type") != "layers":
        raise rootfs.fail("type", "is not 'layers'")
    diff_ids = rootfs.texts("diff_ids", MAX_LAYERS)
    for number, diff_id in enumerate(diff_ids):
        if not is_digest(diff_id):
            raise rootfs.fail(f"diff_ids[{number}]", f"{diff_id[:160]!r} is not a digest")
    runtime = fields.inner("config")
    if runtime is not None:
        runtime.check_once("Labels")
    return ImageConfig(
        _platform(fields),
        fields.text("created", "") or None,
        diff_ids,
        runtime.mapping("Labels") if runtime else {},
    )


def _is_known(media_type: str) -> bool:
    return is_index(media_type) or is_manifest(media_type)


def _document(data: bytes, media_type: str, what: str) -> Fields:
    fields = parse_object(data, what)
    fields.check_spelling(*_DOCUMENT)
    if fields.number("schemaVersion") != 2:
        raise fields.fail("schemaVersion", "is not 2")
    said = fields.text("mediaType", media_type)
    if said != media_type:
        raise fields.fail("mediaType", f"is {said[:200]!r}, and the document was said to be {media_type}")
    return fields


def _descriptor(fields: Fields) -> Descriptor:
    fields.check_spelling("mediaType", "digest", "size", "annotations", "platform", "artifactType", "urls")
    media_type = fields.text("mediaType")
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise fields.fail("mediaType", f"{media_type[:200]!r} is not a media type")
    digest = fields.text("digest")
    if not is_digest(digest):
        raise fields.fail("digest", f"{digest[:160]!r} is not a digest")
    platform = fields.inner("platform")
    return Descriptor(
        media_type,
        digest,
        fields.number("size"),
        fields.mapping("annotations"),
        None if platform is None else _platform(platform),
        fields.text("artifactType", "") or None,
        fields.texts("urls", _MAX_URLS),
    )


def _platform(fields: Fields) -> Platform:
    fields.check_spelling("os", "architecture", "variant")
    return Platform(fields.text("os", ""), fields.text("architecture", ""), fields.text("variant", ""))
