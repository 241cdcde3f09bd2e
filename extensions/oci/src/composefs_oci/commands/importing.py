"""``import-layer``: single layers, into the repository."""

from __future__ import annotations

import os

from composefs_ext.errors import CorruptError, FormatError, TooLargeError, UnsupportedError, UsageError
from composefs_ext.puts import Puts
from composefs_ext.workers import wait_for_any
from composefs_oci.formats.digest import is_digest
from composefs_oci.layers.decompress import open_tar
from composefs_oci.layers.stream import most_inline, put_layer
from composefs_oci.layers.unpacking import unpack
from composefs_oci.names import layer_ref, layer_stream
from composefs_oci.sources.source import PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request
    from composefs_ext.rows import RefUpdate

__all__ = ["import_layer"]

STANDARD_INPUT = 3
"""Where the user's standard input is (P-37)."""
_STAGED_BYTES = 64 << 20


class _Archive:
    """Standard input, compressed or not."""

    where = "the archive on standard input"

    def __init__(self, core: Core) -> None:
        self._core = core

    def fileno(self) -> int:
        """The descriptor that is readable when something has come."""
        return STANDARD_INPUT

    def read(self, size: int = PIECE) -> bytes:
        """Return the next bytes, at most ``size`` of them; none at the end.  Whoever sends them may keep us waiting."""
        while not wait_for_any(self._core, [self]):
            pass
        return os.read(STANDARD_INPUT, size)


def import_layer(request: Request, core: Core) -> dict[str, Any]:
    """Store the archive on standard input as a layer, and name it."""
    diff_id = request.arguments["digest"].removeprefix("@")
    if not is_digest(diff_id):
        raise UsageError(f"{diff_id!r} is not a digest", hint="give the sha256: of the archive, before compression")
    name = request.get("name")
    refs: list[RefUpdate] = [{"name": layer_ref(name), "target": layer_stream(diff_id)}] if name else []
    puts = Puts(core)
    ids: list[str] = []
    progress = core.progress(diff_id, unit="bytes")

    def take(staged: str, size: int, _offset: int | None) -> None:
        puts.add(None, staged, size)
        progress.advance(size)
        puts.send()
        ids.extend(stored["id"] for _, stored in puts.rest(_STAGED_BYTES))

    try:
        unpacked = unpack(open_tar(_Archive(core)), core.staging, take, diff_id=diff_id, max_inline=most_inline(core))
    except CorruptError as error:
        hint = "the digest is that of the archive, as it is before compression, on standard input"
        raise CorruptError(error.message, hint=hint, subject=diff_id) from None
    except (FormatError, TooLargeError, UnsupportedError) as error:
        if error.subject == _Archive.where:  # no image has to be made anew
            raise type(error)(
                error.message, hint="give it whole, as it is before compression", subject=diff_id
            ) from None
        raise
    ids.extend(stored["id"] for _, stored in puts.rest())
    stream = put_layer(core, unpacked, ids).result()["id"]
    core.publish(
        streams=[{"name": layer_stream(diff_id), "id": stream, "if_exists": "replace"}],
        refs=refs,
    ).result()
    progress.finish()
    core.output(f"{core.repo.algorithm}:{stream}\n")
    return {"diff_id": diff_id, "verity": stream, "name": name, "size": unpacked.size}
