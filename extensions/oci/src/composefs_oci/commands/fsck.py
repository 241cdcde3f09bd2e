"""``fsck`` of images: documents and layers against their digests, images against the layers.

What the repository's own check finds, damaged and missing objects, is part of it; this adds what that cannot know:
that a layer is whole and belongs to another image, that a tag leads nowhere, that an image is not that of its layers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn, TypeVar

from composefs_ext import Core, Request, Stream
from composefs_ext.errors import CorruptError, ExtError, MissingObjectError
from composefs_ext.workers import in_threads
from composefs_oci.formats.descriptors import parse_config, parse_manifest
from composefs_oci.formats.digest import digest_of, digest_of_hash, new_hash
from composefs_oci.formats.mediatypes import OCI_MANIFEST
from composefs_oci.held import (
    HeldConfig,
    HeldManifest,
    find_manifest,
    held_tags,
    open_config,
    open_manifest,
    read_bytes,
)
from composefs_oci.image import image_ids, stage_layers
from composefs_oci.layers.stored import open_layers
from composefs_oci.names import digest_of_stream, manifest_stream
from composefs_oci.variants import Variant, keyed_variants

T = TypeVar("T")

__all__ = ["fsck"]

SEAL = "containers.composefs.fsverity"
"""The label of a config that names the image which has to be here."""
REMEDY = "cfsctl oci pull --repair fetches again what is damaged"
_PIECE = 256 << 10
_READINGS = ((False, 1), (True, 1), (False, 0))
"""How an image may have been made of its layers, the likeliest way first: whether as composefs-rs reads them, and in
which EROFS format an image is whose key ends in ``.v1``, as that stands for two."""


def fsck(request: Request, core: Core) -> dict[str, Any]:
    """Check the image that the request names, or all tags and the repository; print and return what is wrong."""
    if request.get("image"):
        digest = find_manifest(core, request.arguments["image"])
        open_manifest(core, digest)
        images = [(request.arguments["image"], manifest_stream(digest))]
        checking = [manifest_stream(digest)]
    else:
        images = held_tags(core)
        checking = None
    progress = core.progress("images", total=len(images))
    repository = core.repo_fsck(checking).result()
    check = _Check(core)
    errors: list[str] = []
    corrupted = 0
    for name, stream in images:
        found = check.image(stream)
        progress.advance()
        corrupted += bool(found)
        errors += [f"fsck: {problem.kind}: {name}: {problem.text}" for problem in found]
    progress.finish()
    ok = not errors and repository["ok"]
    good = len(images) - corrupted
    lines = [*_report(repository), f"oci images: {good}/{len(images)} ok"]
    if errors:
        lines += [f"oci errors: {len(errors)}", *(f"  - {error}" for error in errors)]
    if not ok:
        lines.append(REMEDY)
    core.output("\n".join(lines) + "\n")
    facts = {
        "ok": ok,
        "images_checked": len(images),
        "images_corrupted": corrupted,
        "errors": errors,
        "repo": repository,
    }
    return facts if request.json or ok else {**facts, "status": 1}


def _report(repository: dict[str, Any]) -> Iterator[str]:
    """Yield what cfsctl fsck prints."""
    yield "meta.json: ok"
    for what in ("objects", "streams", "images"):
        checked = repository[f"{what}_checked"]
        yield f"{what}: {checked - repository[f'{what}_corrupted']}/{checked} ok"
    for key, what in (("broken_links", "broken links"), ("missing_objects", "missing objects")):
        if repository[key]:
            yield f"{what}: {repository[key]}"
    yield from repository["errors"]
    yield f"status: {'ok' if repository['ok'] else 'corrupted'}"


class _Problem(NamedTuple):
    kind: str
    text: str


class _FoundError(Exception):
    """There is a problem behind which nothing can be checked."""


class _Check:
    """Checks images, each manifest, layer and config once."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._found: list[_Problem] = []
        self._manifests: dict[str, list[_Problem]] = {}
        self._layers: dict[str, _Problem | None] = {}

    def image(self, stream: str) -> list[_Problem]:
        """Return what is wrong with the image whose manifest's stream has this name."""
        if stream not in self._manifests:
            self._found = self._manifests[stream] = []
            with suppress(_FoundError):
                self._check(stream)
        return self._manifests[stream]

    def _check(self, stream: str) -> None:
        digest = self._try("ref-resolve-failed", lambda: digest_of_stream(stream))
        held = self._try("manifest-read-failed", lambda: open_manifest(self._core, digest))
        raw = self._document("manifest", held.id, digest)
        manifest = self._try("manifest-parse-failed", lambda: parse_manifest(raw, OCI_MANIFEST))
        if held.config != manifest.config.digest:
            self._fail("config-ref-missing", f"its stream names the config {held.config}, not {manifest.config.digest}")
        config = self._try("config-read-failed", lambda: open_config(self._core, held.config, held.config_id))
        document = self._document("config", config.id, config.digest)
        if manifest.is_image:
            parsed = self._try("config-parse-failed", lambda: parse_config(document))
            self._check_layers("layer", parsed.diff_ids, held)
            self._check_images(config, parsed.diff_ids, parsed.labels.get(SEAL))
        else:
            self._check_layers("artifact-layer", [layer.digest for layer in manifest.layers], held)

    def _document(self, what: str, stream: str, digest: str) -> bytes:
        data = self._try(f"{what}-read-failed", lambda: read_bytes(self._core, stream, digest))
        if (now := digest_of(data, digest)) != digest:
            self._fail(f"{what}-digest-mismatch", f"{digest} has the digest {now}")
        return data

    def _check_layers(self, kind: str, digests: Sequence[str], held: HeldManifest) -> None:
        todo: dict[str, Stream] = {}
        for digest in dict.fromkeys(digests):
            if digest not in held.layers:
                self._found.append(_Problem(f"{kind}-ref-missing", f"the manifest's stream does not name {digest}"))
            elif digest not in self._layers:
                try:
                    get = self._core.stream_get(id=held.layers[digest], inline=True, chunks=True, object_refs=True)
                    todo[digest] = get.result()
                except MissingObjectError as error:
                    self._layers[digest] = _Problem("layer-object-missing", f"{digest}: {error.message}")
                except ExtError as error:
                    self._layers[digest] = _Problem("layer-check-failed", f"{digest}: {error.message}")
        progress = self._core.progress("layers", total=sum(stream.size for stream in todo.values()), unit="bytes")
        for (digest, stream), problem in in_threads(self._core, self._check_layer, todo.items()):
            progress.advance(stream.size)
            self._layers[digest] = problem
        progress.finish()
        for digest in dict.fromkeys(digests):
            if (problem := self._layers.get(digest)) is not None:
                self._found.append(problem)

    def _check_layer(self, row: tuple[str, Stream]) -> _Problem | None:
        """Put a layer together and compare its digest; runs in a thread."""
        digest, stream = row
        assert stream.inline is not None
        whole = new_hash(digest)
        inline = self._core.staging.path_of(stream.inline)
        try:
            with open(inline, "rb", buffering=0) as file:
                for chunk in stream.chunks:
                    if chunk < 0:
                        _feed(whole.update, file.read, -chunk)
                    else:
                        fd = self._core.repo.open(stream.object_refs[chunk])
                        with open(fd, "rb", buffering=0) as content:
                            _feed(whole.update, content.read, stream.size)
        except OSError as error:
            return _Problem("layer-object-missing", f"{digest}: {os.strerror(error.errno or 0)}")
        except CorruptError as error:
            return _Problem("layer-object-missing", f"{digest}: {error.message}")
        finally:
            os.unlink(inline)
        now = digest_of_hash(whole)
        return None if now == digest else _Problem("layer-digest-mismatch", f"{digest} has the digest {now}")

    def _check_images(self, config: HeldConfig, diff_ids: Sequence[str], seal: str | None) -> None:
        if seal is not None and seal.rpartition(":")[2] not in config.images.values():
            self._found.append(_Problem("seal-image-missing", f"the image {seal} that its config demands is not here"))
        present = self._core.object_has(list(config.images.values())).result() if config.images else []
        known = keyed_variants()
        todo = []
        for (key, image), here in zip(config.images.items(), present, strict=True):
            if not here:
                self._found.append(_Problem("image-missing", f"{key}: {image} is not here"))
            elif key in known:
                todo.append((key, image, known[key]))
        if self._found or not todo:
            return
        for upstream, format_of_v1 in _READINGS:
            todo = self._differing(todo, diff_ids, format_of_v1, upstream=upstream)
            if not todo:
                return
        for key, image, _ in todo:
            self._found.append(_Problem("image-mismatch", f"{key}: {image} is not the image of its layers"))

    def _differing(
        self, rows: list[tuple[str, str, Variant]], diff_ids: Sequence[str], format_of_v1: int, *, upstream: bool
    ) -> list[tuple[str, str, Variant]]:
        """Return those of the images, each with its key and variant, that are not the layers' by a reading."""
        layers = open_layers(self._core, diff_ids)
        tree = self._try("image-check-failed", lambda: stage_layers(self._core, layers, upstream=upstream))
        read = [each._replace(erofs_format=format_of_v1) if each.erofs_format == 1 else each for _, _, each in rows]
        ids = self._try("image-check-failed", lambda: image_ids(self._core, tree, read))
        return [row for row, made in zip(rows, ids, strict=True) if made != row[1]]

    def _try(self, kind: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except ExtError as error:
            return self._fail(kind, error.message)

    def _fail(self, kind: str, text: str) -> NoReturn:
        self._found.append(_Problem(kind, text))
        raise _FoundError


def _feed(update: Callable[[bytes], object], read: Callable[[int], bytes], size: int) -> None:
    """Hash the rest of a file, but no more than so many bytes of it."""
    while size and (data := read(min(size, _PIECE))):
        update(data)
        size -= len(data)
