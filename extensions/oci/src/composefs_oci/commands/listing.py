"""``images``, ``inspect`` and ``referrers``: what the repository says of the images that it holds."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from composefs_ext import Core, Request
from composefs_ext.errors import ExtError, UsageError
from composefs_ext.text import table
from composefs_oci.formats.descriptors import Manifest, parse_config, parse_manifest
from composefs_oci.formats.digest import shorten
from composefs_oci.formats.mediatypes import OCI_MANIFEST
from composefs_oci.formats.platform import parse_platform
from composefs_oci.held import HeldManifest, find_manifest, held_tags, open_config, open_manifest, read_document
from composefs_oci.names import digest_of_stream
from composefs_oci.referrers import referrers_of
from composefs_oci.variants import Variant

__all__ = ["images", "inspect", "list_referrers", "referrers"]


class _Documents(NamedTuple):
    """A manifest and its config as they are in the repository."""

    held: HeldManifest
    manifest: Manifest
    config: bytes


def _documents(core: Core, digest: str) -> _Documents:
    held = open_manifest(core, digest)
    manifest = parse_manifest(read_document(core, held.id, digest), OCI_MANIFEST, f"the manifest {digest}")
    return _Documents(held, manifest, read_document(core, held.config_id, held.config))


def images(_request: Request, core: Core) -> dict[str, Any]:
    """List the tags, and what each names."""
    referring = referrers_of(core)
    known: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for name, stream in held_tags(core):
        if stream not in known:
            try:
                known[stream] = _facts(_documents(core, digest_of_stream(stream)))
            except ExtError as error:
                core.log("warning", f"left out {name}: {error.message} (cfsctl oci fsck tells all that is wrong)")
                continue
        facts = known[stream]
        rows.append({"name": name, **facts, "referrer_count": len(referring.get(facts["manifest_digest"], ()))})
    cells = [
        (
            row["name"],
            shorten(row["manifest_digest"]),
            row["architecture"] or "artifact",
            row["layer_count"],
            row["referrer_count"],
        )
        for row in rows
    ]
    core.output(table(("NAME", "DIGEST", "ARCH", "LAYERS", "REFS"), cells) if rows else "No images found\n")
    return {"images": rows}


def _facts(documents: _Documents) -> dict[str, Any]:
    manifest = documents.manifest
    config = parse_config(documents.config) if manifest.is_image else None
    return {
        "manifest_digest": documents.held.digest,
        "is_container": config is not None,
        "architecture": config.platform.architecture if config else "",
        "os": config.platform.os if config else "",
        "created": config.created if config else None,
        "layer_count": len(manifest.layers),
    }


def inspect(request: Request, core: Core) -> dict[str, Any]:
    """Show an image's documents, referrers and images."""
    if request.get("manifest") and request.get("config"):
        raise UsageError("--manifest and --config exclude each other", hint="without them inspect shows both")
    digest = find_manifest(core, request.arguments["image"])
    documents = _documents(core, digest)
    for option, data in (("manifest", documents.manifest.raw), ("config", documents.config)):
        if request.get(option):
            core.output_file(core.staging.write(data + b"\n", option))
            return {option: data.decode(errors="replace")}
    held = open_config(core, documents.held.config, documents.held.config_id).images
    erofs_format = core.repo.erofs_default
    facts = {
        "manifest": documents.manifest.raw.decode(),
        "config": documents.config.decode(errors="replace"),  # an artifact's may be anything
        "referrers": referrers_of(core, digest).get(digest, []),
        "composefs_erofs": held.get(Variant(erofs_format).key),
        "composefs_boot_erofs": held.get(Variant(erofs_format, bootable=True).key),
    }
    core.output(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return facts


def referrers(request: Request, core: Core) -> dict[str, Any]:
    """List the artifacts here that refer to an image here."""
    digest = find_manifest(core, request.arguments["image"])
    open_manifest(core, digest)
    rows = []
    for each in referrers_of(core, digest).get(digest, []):
        try:
            manifest = _documents(core, each).manifest
        except ExtError as error:
            core.log("warning", f"left out {each}: {error.message} (cfsctl oci fsck tells all that is wrong)")
            continue
        kind = manifest.artifact_type or manifest.config.media_type
        rows.append(_referrer(each, kind, len(manifest.raw), dict(manifest.annotations)))
    return _show_referrers(core, digest, rows)


def list_referrers(request: Request, core: Core) -> dict[str, Any]:
    """List the artifacts at a source that refer to an image there."""
    from composefs_ext.aside import Aside
    from composefs_oci.sources.opening import opener_of

    platform = parse_platform(request.arguments["platform"]) if request.get("platform") else None
    aside = Aside(core)
    with opener_of(request)(aside.tell) as source:
        digest = aside.run(source.manifest, platform).digest
        rows = [
            _referrer(each.digest, each.artifact_type or "", each.size, dict(each.annotations))
            for each in aside.run(source.referrers, digest)
        ]
    return _show_referrers(core, digest, rows)


def _referrer(digest: str, kind: str, size: int, annotations: dict[str, str]) -> dict[str, Any]:
    return {"digest": digest, "artifact_type": kind, "size": size, "annotations": annotations}


def _show_referrers(core: Core, digest: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    cells = [(row["digest"], row["artifact_type"], row["size"]) for row in rows]
    core.output(table(("DIGEST", "TYPE", "SIZE"), cells) if rows else "No referrers found\n")
    return {"subject": digest, "referrers": rows}
