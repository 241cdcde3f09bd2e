"""Bringing an image in: what of it is here already, what comes from a source, what is stored and named.

Missing layers are fetched in parallel, named one by one, and put over each other while they come; manifest, config and
tag get their names together at the end.
"""

from __future__ import annotations

from contextlib import suppress

from composefs_ext.errors import (
    UNREADABLE,
    ConflictError,
    FormatError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from composefs_ext.tuples import NamedTuple
from composefs_oci.documents import Counts, config_refs, manifest_refs, put_document
from composefs_oci.formats.descriptors import parse_config
from composefs_oci.formats.mediatypes import is_tar_layer
from composefs_oci.held import HeldConfig, open_config, open_manifest, read_document
from composefs_oci.names import BLOB, CONFIG, LAYER, MANIFEST, config_stream, layer_stream, manifest_stream
from composefs_oci.variants import BOOT_PREFIX, Sought, Variant, bootable_variants, variants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from composefs_ext import Core
    from composefs_ext.rows import Published, RefUpdate, StreamName
    from composefs_oci.formats.descriptors import Descriptor, Manifest
    from composefs_oci.held import HeldManifest
    from composefs_oci.sources.source import Opener

__all__ = ["Received", "Receiver", "Terms"]

_ATTEMPTS = 5
_WHATEVER: dict[str, Any] = {}
"""What a name has to be when it is replaced, where that does not matter."""


class Terms(NamedTuple):
    """How an image is pulled, whichever it is."""

    bootable: bool = False
    expected: str | None = None
    """The id that the bootable image must have, in one of its variants."""
    damaged: frozenset[str] = frozenset()
    """Objects that are here, and no good."""


class Received(NamedTuple):
    """An image that is stored and named."""

    digest: str
    config: str
    """The config's digest."""
    manifest_id: str
    """The id of the manifest's stream."""
    images: dict[str, str]
    """The ids of its composefs images, by key."""
    counts: Counts
    expected: Variant | None
    """The variant that has the expected id."""
    published: Published
    """What the names were before."""


class _Images(NamedTuple):
    """What is to become of the images of a config."""

    kept: dict[str, str]
    """The ids of those that stay, by key."""
    lacking: list[Variant]
    """Those that are to be made."""
    sought: list[Sought]
    """Those that are to be made and to have a certain id."""


class _Here(NamedTuple):
    """What is here of a manifest: its stream, that of its config, and the config; None for what is not, or is no good.

    With each stream comes what its name has to be when it is replaced.
    """

    manifest: HeldManifest | None
    manifest_expect: dict[str, Any]
    config: HeldConfig | None
    config_expect: dict[str, Any]
    document: bytes | None


class Receiver:
    """One manifest on its way in: :meth:`receive` does it."""

    def __init__(
        self,
        core: Core,
        read_blob: Callable[[Descriptor], bytes],
        open_source: Opener,
        digest: str,
        manifest: Manifest,
        terms: Terms,
    ) -> None:
        """``manifest`` is one of OCI and has this digest; ``open_source`` opens the source once more, for a worker."""
        self._core = core
        self._read_blob = read_blob
        self._open_source = open_source
        self._digest = digest
        self._manifest = manifest
        self._terms = terms
        self._layers: dict[str, str] = {}  # their streams by digest, in order
        self._counts = Counts()

    def receive(self, refs: Sequence[RefUpdate] = ()) -> Received:
        """Have everything stored that is not, name it, and then set the refs."""
        if self._terms.bootable and not self._manifest.is_image:
            raise UsageError(
                f"{self._digest} is an artifact, of which no bootable image can be made", subject=self._digest
            )
        here = self._look()
        document = here.document
        if document is None:
            document = self._read_blob(self._manifest.config)
        made = self._store(document, here.config)
        images = made
        for attempt in range(1, _ATTEMPTS + 1):
            config_id = self._put_config(here, document, images)
            manifest_id = self._put_manifest(here.manifest, config_id)
            try:
                published = self._publish(here, config_id, manifest_id, images, refs)
                break
            except ConflictError:  # somebody pulled the same meanwhile: what that made is kept
                if attempt == _ATTEMPTS:
                    raise
                here = self._look()
                held = here.config.images if here.config else {}
                images = {key: image for key, image in held.items() if key.startswith(BOOT_PREFIX)} | made
        config = self._manifest.config.digest
        return Received(self._digest, config, manifest_id, images, self._counts, self._expected(images), published)

    # What is here

    def _look(self) -> _Here:
        core, digest = self._core, self._manifest.config.digest
        manifest, manifest_expect = _opened(lambda: open_manifest(core, self._digest))
        config, config_expect, document = None, _WHATEVER, None
        if self._manifest.is_image:
            config, config_expect = _opened(lambda: open_config(core, digest))
        elif manifest is not None:  # several artifacts may share a config; the name is that of the last one
            config, _ = _opened(lambda: open_config(core, digest, manifest.config_id))
        if config is not None:
            with suppress(*UNREADABLE):
                document = read_document(core, config.id, digest)
        return _Here(manifest, manifest_expect, config, config_expect, document)

    def _wanted(self, document: bytes) -> tuple[list[str], dict[str, Descriptor]]:
        """Return the layers from bottom to top, by the digests that they have here, and what leads to each."""
        layers = self._manifest.layers
        if not self._manifest.is_image:
            by_digest = {layer.digest: layer for layer in layers}
            return list(by_digest), by_digest
        diff_ids = list(parse_config(document, f"the config {self._manifest.config.digest}").diff_ids)
        if len(diff_ids) != len(layers):
            from composefs_ext.text import counted

            raise FormatError(
                f"the image {self._digest} has {counted(len(layers), 'layer')}, but its config has"
                f" {counted(len(diff_ids), 'diff id')}",
                hint="the image was put together wrongly",
                subject=self._digest,
            )
        by_digest = {}
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            if not is_tar_layer(layer.media_type):
                hint = "only artifacts can have such layers"
                if layer.media_type.endswith("+encrypted"):
                    hint = "have it decrypted: skopeo copy --decryption-key FILE … oci:PATH:TAG, and pull that"
                raise UnsupportedError(
                    f"the layer {layer.digest} is of the type {layer.media_type}, no archive of files",
                    hint=hint,
                    subject=layer.digest,
                )
            by_digest.setdefault(diff_id, layer)
        return diff_ids, by_digest

    def _held_layers(self, digests: Sequence[str]) -> dict[str, str]:
        """Return the streams of those layers that are here and sound."""
        damaged = self._terms.damaged
        # A layer of files gives its archive back, so it stands for the blob as well.
        types = (LAYER,) if self._manifest.is_image else (LAYER, BLOB)
        pending = [
            (digest, self._core.stream_get(name=layer_stream(digest), object_refs=bool(damaged))) for digest in digests
        ]
        held = {}
        for digest, answer in pending:
            with suppress(NotFoundError, *UNREADABLE):
                stream = answer.result()
                if stream.content_type in types and damaged.isdisjoint((stream.id, *stream.object_refs)):
                    held[digest] = stream.id
        return held

    # What is not

    def _store(self, document: bytes, config: HeldConfig | None) -> dict[str, str]:
        """Have layers and images stored; return the images by key."""
        order, layers = self._wanted(document)
        held = self._held_layers(list(layers))
        self._layers = dict.fromkeys(layers, "") | held
        missing = {digest: layer for digest, layer in layers.items() if digest not in held}
        images = self._sort_images(config) if self._manifest.is_image else _Images({}, [], [])
        if not missing and not images.lacking and not images.sought:
            return images.kept
        # What has nothing to make is done in a fifth of a second, and half of that is importing.
        from composefs_oci.layering import make
        from composefs_oci.layers.fetch import Job

        jobs = {digest: Job(layer, digest if self._manifest.is_image else None) for digest, layer in missing.items()}
        made, streams, counts = make(self._core, self._open_source, order, jobs, images.lacking, images.sought)
        self._counts = self._counts.plus(counts)
        self._layers |= streams
        return images.kept | {variant.key: image for variant, image in made.items()}

    def _sort_images(self, config: HeldConfig | None) -> _Images:
        """Tell which images stay, which are to be made, and which are to have a certain id.

        Bootable ones that the config names are wanted too: one that is lost is made again, and no other one in its
        place unless that is asked for.
        """
        terms, repository = self._terms, self._core.repo
        named = config.images if config else {}
        wanted = variants(repository)
        if terms.bootable and terms.expected is None:
            wanted += variants(repository, bootable=True)
        keys = {variant.key for variant in wanted}
        present = self._core.object_has(list(named.values())).result() if named else []
        good = {
            key
            for (key, image), here in zip(named.items(), present, strict=True)
            if here and image not in terms.damaged
        }
        staying = {key: image for key, image in named.items() if key in keys or key.startswith(BOOT_PREFIX)}
        kept = {key: image for key, image in staying.items() if key in good}
        sought = [Sought.lost(key, image) for key, image in staying.items() if key not in keys | good]
        if terms.expected is not None and self._expected(kept) is None:
            sought.append(Sought.sealed(terms.expected))
        return _Images(kept, [variant for variant in wanted if variant.key not in kept], sought)

    def _expected(self, images: dict[str, str]) -> Variant | None:
        """Return the variant of these that has the expected id."""
        sealed = self._terms.expected
        return next((each for each in bootable_variants() if sealed and images.get(each.key) == sealed), None)

    def _put_config(self, here: _Here, document: bytes, images: dict[str, str]) -> str:
        """Have the config's stream stored if it is not; return its id."""
        held, layers = here.config, self._layers
        is_same = held is not None and here.document is not None and (held.layers, held.images) == (layers, images)
        if held is not None and is_same and self._is_sound(held.id):
            return held.id
        return self._put_document(CONFIG, document, config_refs(layers, images))

    def _put_manifest(self, held: HeldManifest | None, config_id: str) -> str:
        layers = self._layers
        if held is not None and (held.config_id, held.layers) == (config_id, layers) and self._is_sound(held.id):
            return held.id
        named = manifest_refs(self._manifest.config.digest, config_id, layers)
        return self._put_document(MANIFEST, self._manifest.raw, named)

    def _is_sound(self, stream: str) -> bool:
        if not self._terms.damaged:
            return True
        refs = self._core.stream_get(id=stream, named_refs=True, object_refs=True).result().object_refs
        return self._terms.damaged.isdisjoint((stream, *refs))

    def _put_document(self, content_type: str, data: bytes, named_refs: list[tuple[str, str]]) -> str:
        stream, counts = put_document(self._core, content_type, data, named_refs)
        self._counts = self._counts.plus(counts)
        return stream

    def _publish(
        self, here: _Here, config_id: str, manifest_id: str, images: dict[str, str], refs: Sequence[RefUpdate]
    ) -> Published:
        """Name everything.  Also if nothing is new: who pulled it may have been killed before it was durable."""
        layers: list[StreamName] = [
            {"name": layer_stream(digest), "id": stream, "if_exists": "replace"}
            for digest, stream in self._layers.items()
        ]
        config: StreamName = {"name": config_stream(self._manifest.config.digest), "id": config_id}
        config["if_exists"] = "replace" if here.config is None or here.config.id != config_id else "keep"
        config |= here.config_expect  # type: ignore[typeddict-item]
        manifest: StreamName = {"name": manifest_stream(self._digest), "id": manifest_id, "if_exists": "replace"}
        manifest |= here.manifest_expect  # type: ignore[typeddict-item]
        return self._core.publish(
            streams=[*layers, config, manifest],
            images=[{"id": image} for image in sorted(set(images.values()))],
            refs=refs,
        ).result()


def _opened(read: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """Return what can be read, else None, and what its name has to be when it is replaced."""
    try:
        held = read()
    except NotFoundError:
        return None, {"expect": None}
    except UNREADABLE:
        return None, _WHATEVER
    return held, {"expect": held.id}
