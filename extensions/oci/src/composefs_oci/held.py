"""Images that the repository holds: finding them by name, and reading what their streams say.

A manifest's stream names its config's stream and its layers, a config's stream its layers and the images made of them
(docs/formats/oci.md).  Documents are compared with the digests that they are called by whenever they are read.
"""

from __future__ import annotations

import os

from composefs_ext.errors import CorruptError, NotFoundError, UnsupportedError, UsageError
from composefs_ext.tuples import NamedTuple
from composefs_oci.formats.digest import ALGORITHMS, digest_of, is_beginning, is_digest
from composefs_oci.formats.json_document import MAX_DOCUMENT
from composefs_oci.names import (
    CONFIG,
    CONFIG_REF,
    IMAGE_PREFIX,
    MANIFEST,
    TAG_REFS,
    config_stream,
    digest_of_stream,
    manifest_stream,
    tag_ref,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from composefs_ext import Core, Stream

__all__ = [
    "HeldConfig",
    "HeldManifest",
    "find_config",
    "find_manifest",
    "find_tagged",
    "held_tags",
    "not_here",
    "open_config",
    "open_manifest",
    "read_bytes",
    "read_document",
    "whole_digest",
]

_REMEDY = "run cfsctl oci fsck, and cfsctl oci pull --repair to fetch again what is damaged"


class HeldManifest(NamedTuple):
    """A manifest's stream: its id, the config's digest and stream, and the layers' streams by digest."""

    digest: str
    id: str
    config: str
    config_id: str
    layers: dict[str, str]


class HeldConfig(NamedTuple):
    """A config's stream: its id, the layers' streams by digest in their order, and the images by key."""

    digest: str
    id: str
    layers: dict[str, str]
    images: dict[str, str]


def find_manifest(core: Core, name: str, source: str | None = None) -> str:
    """Return the digest of the manifest that a name says: a tag, the digest itself, or how only this one begins.

    A digest may have @ before it; what has one, or is a whole digest, is no tag.  ``source`` is another repository to
    look in.
    Raises NotFoundError if there is no such image; if a whole digest was given, that shows when it is opened.
    """
    return find_tagged(core, name, source) or _find_digest(core, name, [manifest_stream], source)


def find_config(core: Core, name: str, stream_id: str | None = None) -> HeldConfig:
    """Return the config of the image that a name says, as in :func:`find_manifest`, or the digest of the config.

    ``stream_id`` is the config's stream, where somebody knows it.  Raises NotFoundError; UnsupportedError for what is
    no image, which its manifest tells, but not a config that is named itself.
    """
    digest = find_tagged(core, name)
    if digest is None:
        digest = _find_digest(core, name, [manifest_stream, config_stream])
        if core.stream_get(name=manifest_stream(digest), named_refs=True).found() is None:
            return open_config(core, digest, stream_id)
    manifest = open_manifest(core, digest)
    config = open_config(core, manifest.config, stream_id or manifest.config_id)
    if not config.images:  # whoever pulls an image makes one of it
        from composefs_oci.formats.descriptors import parse_manifest
        from composefs_oci.formats.mediatypes import OCI_MANIFEST

        document = read_document(core, manifest.id, digest)
        if not parse_manifest(document, OCI_MANIFEST, f"the manifest {digest}").is_image:
            raise UnsupportedError(f"{name} is an artifact, of which no image is made", subject=name)
    return config


def find_tagged(core: Core, name: str, source: str | None = None) -> str | None:
    """Return the digest of the manifest that has this tag, if one has; ``source`` is another repository."""
    if name.startswith("@") or is_digest(name):
        return None
    try:
        return digest_of_stream(core.ref_get(tag_ref(name), source).result()["target"])
    except NotFoundError as error:
        _require_repository(source, error)
        return None


def _find_digest(core: Core, name: str, streams: Sequence[Callable[[str], str]], source: str | None = None) -> str:
    digest = name.removeprefix("@")
    if is_digest(digest):
        return digest
    if name.startswith("@") and not is_beginning(digest):
        raise UsageError(
            f"{digest[:200]!r} is neither a digest, sha256: and 64 digits, nor the first digits of one",
            hint="cfsctl oci images shows those of the images",
        )
    found = whole_digest(core, digest, streams, source)
    if found is None:
        error = not_here(name, source)
        if source is None and name.startswith(("docker://", "oci:", "oci-archive:")):  # as skopeo has it
            error.hint = f"cfsctl oci pull brings it, skopeo inspect shows it where it is; {error.hint}"
        raise error
    return found


def whole_digest(
    core: Core, beginning: str, streams: Sequence[Callable[[str], str]], source: str | None = None
) -> str | None:
    """Return the only digest that begins so, of the streams here of these sorts, or None if there is none.

    ``streams`` make a stream's name of a digest.  Raises UsageError if there are several.
    """
    if not is_beginning(beginning):
        return None
    heads = [beginning] if ":" in beginning else [f"{algorithm}:{beginning}" for algorithm in ALGORITHMS]
    pending = [core.stream_list(stream(head), source=source) for stream in streams for head in heads]
    found = sorted({digest_of_stream(row["name"]) for rows in pending for row in rows.result()})
    if len(found) > 1:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise UsageError(f"{len(found)} digests here begin with {beginning}: {shown}", hint="give more digits of it")
    return found[0] if found else None


def held_tags(core: Core) -> list[tuple[str, str]]:
    """Return the tags by name, and the stream that each names."""
    rows = core.ref_list(f"{TAG_REFS}/").result()
    return sorted((row["name"].removeprefix(f"{TAG_REFS}/"), row["target"]) for row in rows)


def _require_repository(source: str | None, error: NotFoundError) -> None:
    """Raise the error again where it is the repository ``source`` that is not there, and not what was looked for."""
    if source is not None and error.subject == source:
        error.hint = "check the path after --from"
        raise error


def not_here(name: str, source: str | None = None) -> NotFoundError:
    """Return the error for an image that is not here, or not in the repository ``source``."""
    from shlex import quote

    where, repo = ("here", "") if source is None else (f"in {source}", f"--repo {quote(source)} ")
    hint = f"cfsctl {repo}oci images lists those that are"
    if name.startswith(f"{TAG_REFS}/"):  # as `cfsctl ref list` shows it
        hint = f"leave out {TAG_REFS}/; {hint}"
    return NotFoundError(f"no image {where} is called {name!r}", hint=hint, subject=name)


def open_manifest(core: Core, digest: str, *, stream_id: str | None = None, source: str | None = None) -> HeldManifest:
    """Read a manifest's stream, by its id or else by its name; ``source`` is another repository.

    Raises NotFoundError if it is not here, CorruptError if it is none.
    """
    name = manifest_stream(digest)
    stream = _open(core, digest, name, MANIFEST, stream_id, source)
    configs = {ref: each for ref, each in stream.named_refs if ref.startswith(CONFIG_REF)}
    if len(configs) != 1:
        raise CorruptError(f"{name} names {len(configs)} configs, not one", hint=_REMEDY, subject=name)
    [(config, config_id)] = configs.items()
    layers = {ref: each for ref, each in stream.named_refs if is_digest(ref)}
    return HeldManifest(digest, stream.id, config.removeprefix(CONFIG_REF), config_id, layers)


def open_config(core: Core, digest: str, stream_id: str | None = None) -> HeldConfig:
    """Read a config's stream, by its id or else by its name; raise as :func:`open_manifest` does."""
    stream = _open(core, digest, config_stream(digest), CONFIG, stream_id)
    layers = {ref: each for ref, each in stream.named_refs if is_digest(ref)}
    images = {ref: each for ref, each in stream.named_refs if ref.startswith(IMAGE_PREFIX)}
    return HeldConfig(digest, stream.id, layers, images)


def _open(
    core: Core, digest: str, name: str, content_type: str, stream_id: str | None, source: str | None = None
) -> Stream:
    """Read the stream of a document of this type, by its id or else by its name."""
    try:
        stream = core.stream_get(
            name=None if stream_id else name, id=stream_id, source=source, named_refs=True
        ).result()
    except NotFoundError as error:
        _require_repository(source, error)
        raise not_here(digest, source) from None
    if stream.content_type != content_type:
        raise CorruptError(
            f"{name} has the content type {stream.content_type}, not {content_type}", hint=_REMEDY, subject=name
        )
    return stream


def read_document(core: Core, stream_id: str, digest: str) -> bytes:
    """Return the manifest or config that a stream holds; raise CorruptError if it has not this digest."""
    data = read_bytes(core, stream_id, digest)
    if (now := digest_of(data, digest)) != digest:
        raise CorruptError(f"what is here as {digest} has the digest {now}", hint=_REMEDY, subject=digest)
    return data


def read_bytes(core: Core, stream_id: str, digest: str) -> bytes:
    """Return what a manifest's or config's stream holds, unchecked; raise CorruptError if it is too much for one."""
    into = core.staging.new_name("document")
    size = core.stream_cat(id=stream_id, into=into).result()
    if size > MAX_DOCUMENT:
        os.unlink(core.staging.path_of(into))
        raise CorruptError(f"{digest} has {size} bytes, more than any manifest or config", hint=_REMEDY, subject=digest)
    return core.staging.read(into)
