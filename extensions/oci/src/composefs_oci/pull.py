"""``pull``: from a reference to a tag in the repository."""

from __future__ import annotations

from typing import NamedTuple

from composefs_ext.errors import UsageError
from composefs_oci.access import access_of
from composefs_oci.convert import as_oci
from composefs_oci.descriptors import parse_manifest
from composefs_oci.digest import digest_of
from composefs_oci.image import Variant
from composefs_oci.names import manifest_stream, tag_ref
from composefs_oci.opening import open_source
from composefs_oci.platform import parse_platform
from composefs_oci.receiving import Receiver, Terms
from composefs_oci.reference import parse_reference
from composefs_oci.text import human_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request
    from composefs_oci.receiving import Received

__all__ = ["pull"]

_DIGITS = {"sha256": 64, "sha512": 128}


def pull(request: Request, core: Core) -> dict[str, Any]:
    """Pull the image that the request names; print and return what came of it."""
    text = request.arguments["image"]
    name = request.get("name", text)
    ref = tag_ref(name)
    terms = _terms(request, core)
    platform = parse_platform(request.arguments["platform"]) if request.get("platform") else None
    reference = parse_reference(text, request.directory)
    access = access_of(request)
    with open_source(reference, access, lambda line: core.log("info", line)) as source:
        document = source.manifest(platform)
        manifest = as_oci(parse_manifest(document.raw, document.media_type, str(reference)))
        digest = digest_of(manifest.raw, document.digest)
        receiver = Receiver(core, source, lambda tell: open_source(reference, access, tell), digest, manifest, terms)
        received = receiver.receive([{"name": ref, "target": manifest_stream(digest)}])
    pulled = Pulled(
        name, document.digest if document.digest != digest else None, received, _boot_image(core, received, terms)
    )
    core.output(pulled.text())
    return pulled.facts()


def _terms(request: Request, core: Core) -> Terms:
    """Return how to pull; raise UsageError for options that do not go together."""
    expected = request.get("expected_digest")
    if expected is None:
        return Terms(bool(request.get("bootable")))
    if not request.get("bootable"):
        raise UsageError("--expected-digest is about the bootable image", hint="give --bootable too")
    assert core.repository is not None
    expected = expected.rpartition(":")[2]
    if len(expected) != (digits := _DIGITS[core.repository.algorithm]):
        raise UsageError(
            f"{expected!r} is not the id of an image here",
            hint=f"an id has {digits} digits ({core.repository.algorithm})",
        )
    return Terms(bootable=True, expected=expected)


def _boot_image(core: Core, received: Received, terms: Terms) -> str | None:
    """Return the bootable image that was asked for."""
    assert core.repository is not None
    if not terms.bootable:
        return None
    variant = received.expected or Variant(core.repository.erofs_default, bootable=True)
    return received.images[str(variant.key)]


class Pulled(NamedTuple):
    """What came of it; ``origin`` is the digest at the source where it is another one than here."""

    name: str
    origin: str | None
    received: Received
    boot_image: str | None

    def facts(self) -> dict[str, Any]:
        """Return what --json shows."""
        received = self.received
        expected = received.expected
        return {
            "manifest": received.digest,
            "origin": self.origin,
            "config": received.config,
            "verity": received.verity,
            "name": self.name,
            "objects": received.counts._asdict(),
            "images": received.images,
            "boot_image": self.boot_image,
            "xattr_mode": expected and expected.xattrs,
            "format_version": expected and expected.erofs_format,
        }

    def text(self) -> str:
        """Return what is printed for people, as composefs-rs prints it."""
        received, counts = self.received, self.received.counts
        lines = [f"manifest {received.digest}"]
        if self.origin is not None:
            lines.append(f"origin   {self.origin}")
        lines += [f"config   {received.config}", f"verity   {received.verity}", f"tagged   {self.name}"]
        sizes = f"{human_bytes(counts.stored)} stored, {human_bytes(counts.inlined)} inlined"
        lines.append(f"objects  {counts.new} new + {counts.present} already present objects; {sizes}")
        if self.boot_image is not None:
            expected = received.expected
            how = f" (xattr-mode={expected.xattrs}, format-version=V{expected.erofs_format})" if expected else ""
            lines.append(f"Boot image: {self.boot_image}{how}")
        return "\n".join(lines) + "\n"
