"""``layer``: single layers, out of the repository."""

from __future__ import annotations

from composefs_ext.errors import NotFoundError, UnsupportedError
from composefs_oci.dump import entry_lines
from composefs_oci.formats.digest import is_digest
from composefs_oci.held import whole_digest
from composefs_oci.layers.stored import entries, open_layer
from composefs_oci.names import BLOB, digest_of_stream, layer_ref, layer_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request

__all__ = ["layer"]


def layer(request: Request, core: Core) -> dict[str, Any]:
    """Print a layer's archive, or the lines of a dump, or tell what there is of it."""
    digest = _find(core, request.arguments["layer"])
    if request.json or request.get("dumpfile"):
        _require_files(core, digest)
    if request.json:
        return _facts(core, digest)
    if request.get("dumpfile"):
        name = core.staging.new_name("lines")
        with core.staging.create(name) as file:
            file.writelines(entry_lines(entries(open_layer(core, digest))))
        core.output_file(name)
    else:
        core.stream_cat(name=layer_stream(digest)).result()
    return {}


def _find(core: Core, name: str) -> str:
    """Return the digest of a layer that is here, given by it, by how only this one begins, or by a name."""
    digest = name.removeprefix("@")
    try:
        if is_digest(digest):
            core.stream_get(name=layer_stream(digest)).result()
            return digest
        if digest == name:
            return digest_of_stream(core.ref_get(layer_ref(name)).result()["target"])
    except NotFoundError:
        pass
    found = whole_digest(core, digest, [layer_stream])
    if found is None:
        hint = "cfsctl oci inspect --config IMAGE shows the diff ids of an image's layers"
        raise NotFoundError(f"no layer here is called {name!r}", hint=hint, subject=name)
    return found


def _require_files(core: Core, digest: str) -> None:
    """Raise UnsupportedError for a blob of an artifact, of whose entries nothing can be told."""
    if core.stream_get(name=layer_stream(digest)).result().content_type == BLOB:
        hint = "without --json and --dumpfile it is printed as it is"
        raise UnsupportedError(f"{digest} is a blob of an artifact, no layer of files", hint=hint, subject=digest)


def _facts(core: Core, digest: str) -> dict[str, Any]:
    stream = core.stream_get(name=layer_stream(digest)).result()
    held = open_layer(core, digest)
    count = external = 0
    for entry, _ in entries(held):
        count += 1
        external += entry.size if entry.external else 0
    return {
        "diffId": digest,
        "verity": stream.id,
        "size": held.size,
        "entryCount": count,
        "splitstream": {
            "externalObjects": len({chunk for chunk in held.chunks if chunk >= 0}),
            "externalSize": external,
            "inlineSize": held.size - external,
        },
    }
