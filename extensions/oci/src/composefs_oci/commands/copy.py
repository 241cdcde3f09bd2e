"""``copy``: an image of another repository on this machine, with everything that belongs to it."""

from __future__ import annotations

from composefs_ext.errors import ConflictError, NotFoundError
from composefs_oci.documents import config_refs, manifest_refs, put_document
from composefs_oci.held import find_manifest, find_tagged, open_config, open_manifest, read_document
from composefs_oci.names import CONFIG, MANIFEST, config_stream, layer_stream, manifest_stream, referrer_ref, tag_ref
from composefs_oci.referrers import forget_referrers, referrers_below, referrers_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request
    from composefs_ext.rows import RefUpdate, StreamName

__all__ = ["copy"]

_ATTEMPTS = 5


def copy(request: Request, core: Core) -> dict[str, Any]:
    """Copy the image that the request names, and name it here."""
    image, source = request.arguments["image"], request.arguments["from"]
    tagged = find_tagged(core, image, source)
    digest = tagged or find_manifest(core, image, source)
    name = request.get("name") or (image if tagged else None)
    refs: list[RefUpdate] = [{"name": tag_ref(name), "target": manifest_stream(digest)}] if name else []
    pairs = referrers_below(referrers_of(core, source=source), [digest]) if request.get("referrers") else []
    refs += [{"name": referrer_ref(*pair), "target": manifest_stream(pair[1])} for pair in pairs]
    digests = list(dict.fromkeys([digest, *(artifact for _, artifact in pairs)]))
    held = [open_manifest(core, each, source=source) for each in digests]
    copied = core.repo_copy(source, streams=[manifest_stream(each) for each in digests]).result()
    ids = dict(zip(digests, (each.id for each in held), strict=True))
    for attempt in range(1, _ATTEMPTS + 1):
        named = [_names(core, each, ids[each]) for each in digests]
        streams = {row["name"]: row for rows, _ in named for row in rows}
        images = {image for _, each in named for image in each}
        try:
            published = core.publish(
                streams=list(streams.values()),
                images=[{"id": each} for each in sorted(images)],
                refs=refs,
            ).result()
            break
        except ConflictError:  # somebody pulls the same
            if attempt == _ATTEMPTS:
                raise
    if name:
        forget_referrers(core, name, manifest_stream(digest), published)
    now = open_manifest(core, digest)
    lines = [f"Copied image {image}", f"manifest {digest}", f"config   {now.config}", f"verity   {now.id}"]
    lines += [f"tagged   {name}"] * (name is not None)
    lines.append(f"objects  {copied['objects']} new + {copied['present']} already present objects")
    core.output("\n".join(lines) + "\n")
    return {
        "manifest": digest,
        "config": now.config,
        "verity": now.id,
        "name": name,
        "referrers": digests[1:],
        "objects": {key: copied[key] for key in ("objects", "size", "present")},
    }


def _names(core: Core, digest: str, stream: str) -> tuple[list[StreamName], set[str]]:
    """Return how to name a copied manifest, given by its digest and stream, its config and layers; and its images' ids.

    Where the config was here before, and has images that were not copied, both documents are stored once more, so that
    the config names all images.
    """
    copied = open_manifest(core, digest, stream_id=stream)
    config = open_config(core, copied.config, copied.config_id)
    rows: list[StreamName] = [
        {"name": layer_stream(each), "id": layer, "if_exists": "keep"} for each, layer in copied.layers.items()
    ]
    try:
        here = open_config(core, copied.config)
    except NotFoundError:
        here = None
    config_id = config.id
    if here is not None and config.images and here.images.items() - config.images.items():
        document = read_document(core, config.id, config.digest)
        named = config_refs(config.layers, here.images | config.images)
        config_id, _ = put_document(core, CONFIG, document, named)
        raw = read_document(core, copied.id, digest)
        stream, _ = put_document(core, MANIFEST, raw, manifest_refs(copied.config, config_id, copied.layers))
    row: StreamName = {"name": config_stream(copied.config), "id": config_id, "if_exists": "replace"}
    if here is not None:
        row["expect"] = here.id
    rows.append(row)
    rows.append({"name": manifest_stream(digest), "id": stream, "if_exists": "replace"})
    return rows, set(config.images.values())
