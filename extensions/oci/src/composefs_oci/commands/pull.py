"""``pull``: from a reference to a tag in the repository."""

from __future__ import annotations

from contextlib import suppress

from composefs_ext.aside import Aside
from composefs_ext.errors import ExtError, TooLargeError, UsageError
from composefs_ext.text import human_bytes
from composefs_ext.tuples import NamedTuple
from composefs_oci.formats.convert import as_oci
from composefs_oci.formats.descriptors import parse_config, parse_manifest
from composefs_oci.formats.digest import digest_of
from composefs_oci.formats.mediatypes import is_manifest
from composefs_oci.formats.platform import parse_platform
from composefs_oci.held import open_config, open_manifest, read_document
from composefs_oci.names import config_stream, layer_stream, manifest_stream, referrer_ref, tag_ref
from composefs_oci.receiving import Receiver, Terms
from composefs_oci.referrers import forget_referrers
from composefs_oci.sources.opening import opener_of
from composefs_oci.variants import Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from composefs_ext import Core, Request
    from composefs_ext.rows import RefUpdate
    from composefs_oci.formats.descriptors import Descriptor, Manifest
    from composefs_oci.formats.platform import Platform
    from composefs_oci.receiving import Received
    from composefs_oci.sources.source import Document, Opener, Source

__all__ = ["pull"]

_DIGITS = {"sha256": 64, "sha512": 128}
_MAX_REFERRERS = 1000
_REGISTRY = "docker://"


def pull(request: Request, core: Core) -> dict[str, Any]:
    """Pull the image that the request names; print and return what came of it."""
    text = request.arguments["image"]
    name = request.get("name", text)
    ref = tag_ref(name)
    if name != text and text.startswith(_REGISTRY) and name.startswith(_REGISTRY):  # podman would pull both
        core.log("warning", f"{text} alone is pulled, and called {name} here")
    terms = _terms(request, core)
    platform = parse_platform(request.arguments["platform"]) if request.get("platform") else None
    open_source = opener_of(request)
    aside = Aside(core)
    with open_source(aside.tell) as source:
        puller = _Puller(core, aside, source, open_source, repair=request.get("repair"))
        document = aside.run(source.manifest, platform)
        manifest = puller.parse(document)
        refs = puller.referrers(document.digest, manifest) if request.get("referrers") else []
        received = puller.receive(manifest, terms, [*refs, {"name": ref, "target": manifest_stream(manifest.digest)}])
    forget_referrers(core, name, manifest_stream(manifest.digest), received.published)
    if platform is not None and manifest.manifest.is_image:
        _compare(core, manifest.manifest, platform)
    origin = None if document.digest == manifest.digest else document.digest
    facts = _facts(core, received, terms, name, origin, len(refs))
    core.output(_text(facts))
    return facts


def _compare(core: Core, manifest: Manifest, wanted: Platform) -> None:
    """Warn of an image for another platform than was asked for: without an index there is nothing to choose from."""
    digest = manifest.config.digest
    config = parse_config(read_document(core, open_config(core, digest).id, digest))
    if config.platform.normal[:2] != wanted[:2]:
        core.log("warning", f"the image's config says that it is for {config.platform}, not for {wanted}")


class _Found(NamedTuple):
    """A manifest as it is kept here: one of OCI."""

    digest: str
    manifest: Manifest


class _Puller:
    """What is pulled from one source in one run."""

    def __init__(self, core: Core, aside: Aside, source: Source, open_source: Opener, *, repair: bool) -> None:
        self._core = core
        self._aside = aside
        self._source = source
        self._open_source = open_source
        self._repair = repair

    def parse(self, document: Document) -> _Found:
        """Read a manifest; have one of Docker converted."""
        manifest = as_oci(parse_manifest(document.raw, document.media_type, f"the manifest {document.digest}"))
        return _Found(digest_of(manifest.raw, document.digest), manifest)

    def receive(self, found: _Found, terms: Terms, refs: Sequence[RefUpdate] = ()) -> Received:
        """Have a manifest stored with all that it needs, and then set the refs."""
        if self._repair:
            terms = terms._replace(damaged=self._damaged(found))
        return Receiver(self._core, self._read_blob, self._open_source, *found, terms).receive(refs)

    def referrers(self, at_source: str, subject: _Found) -> list[RefUpdate]:
        """Have all artifacts stored that refer to a manifest, and to these; return the refs that say so."""
        refs: dict[str, RefUpdate] = {}
        pending = [(at_source, subject.digest)]
        for digest, here in pending:
            for descriptor in self._aside.run(self._source.referrers, digest):
                if not is_manifest(descriptor.media_type):
                    self._core.log(
                        "warning", f"left out the referrer {descriptor.digest}: it is {descriptor.media_type}"
                    )
                    continue
                found = self.parse(self._aside.run(self._source.document, descriptor))
                ref = referrer_ref(here, found.digest)
                if ref in refs:
                    continue
                if len(refs) >= _MAX_REFERRERS:
                    raise TooLargeError(f"{at_source} has more than {_MAX_REFERRERS} referrers", subject=at_source)
                self.receive(found, Terms())
                refs[ref] = {"name": ref, "target": manifest_stream(found.digest)}
                pending.append((descriptor.digest, found.digest))
        return list(refs.values())

    def _read_blob(self, descriptor: Descriptor) -> bytes:
        """Return a small blob."""

        def read() -> bytes:
            with self._source.open_blob(descriptor) as blob:
                return blob.read_all()

        return self._aside.run(read)

    def _damaged(self, found: _Found) -> frozenset[str]:
        """Read everything that is here of an image; return what is bad."""
        from composefs_ext.damage import damaged_objects

        names = [manifest_stream(found.digest), config_stream(found.manifest.config.digest)]
        layers: set[str] = set()
        with suppress(ExtError):
            layers |= set(open_manifest(self._core, found.digest).layers)
        with suppress(ExtError):
            layers |= set(open_config(self._core, found.manifest.config.digest).layers)
        return frozenset(damaged_objects(self._core, [*names, *map(layer_stream, sorted(layers))]))


def _terms(request: Request, core: Core) -> Terms:
    """Return how to pull; raise UsageError for options that do not go together."""
    expected = request.get("expected_digest")
    if expected is None:
        return Terms(bool(request.get("bootable")))
    if not request.get("bootable"):
        raise UsageError("--expected-digest is about the bootable image", hint="give --bootable too")
    expected = expected.rpartition(":")[2]
    if len(expected) != (digits := _DIGITS[core.repo.algorithm]):
        raise UsageError(
            f"{expected!r} is not the id of an image here",
            hint=f"an id has {digits} digits ({core.repo.algorithm})",
        )
    return Terms(bootable=True, expected=expected)


def _facts(
    core: Core, received: Received, terms: Terms, name: str, origin: str | None, referrers: int
) -> dict[str, Any]:
    """Return what --json shows; ``origin`` is the digest at the source where it is another one than here.

    The image is that of the repository's own format, which an artifact has not; the bootable one is told if wanted.
    """
    plain = Variant(core.repo.erofs_default)
    expected, images = received.expected, received.images
    bootable = expected or plain._replace(bootable=True)
    return {
        "manifest": received.digest,
        "origin": origin,
        "config": received.config,
        "verity": received.manifest_id,
        "name": name,
        "referrers": referrers,
        "objects": received.counts._asdict(),
        "image": images.get(plain.key),
        "images": images,
        "boot_image": images[bootable.key] if terms.bootable else None,
        "xattr_mode": expected and expected.xattrs,
        "format_version": expected and expected.erofs_format,
    }


def _text(facts: dict[str, Any]) -> str:
    """Return what is printed for people: what composefs-rs prints, and the image as ostree's pull does."""
    lines = [f"manifest {facts['manifest']}"]
    if facts["origin"] is not None:
        lines.append(f"origin   {facts['origin']}")
    lines += [f"config   {facts['config']}", f"verity   {facts['verity']}"]
    if facts["image"] is not None:
        lines.append(f"image    {facts['image']}")
    lines.append(f"tagged   {facts['name']}")
    counts = facts["objects"]
    sizes = f"{human_bytes(counts['stored'])} stored, {human_bytes(counts['inlined'])} inlined"
    lines.append(f"objects  {counts['new']} new + {counts['present']} already present objects; {sizes}")
    if facts["referrers"]:
        lines.append(f"referrers {facts['referrers']}")
    if facts["boot_image"] is not None:
        mode, version = facts["xattr_mode"], facts["format_version"]
        how = f" (xattr-mode={mode}, format-version=V{version})" if mode else ""
        lines.append(f"Boot image: {facts['boot_image']}{how}")
    return "\n".join(lines) + "\n"
