"""``pull`` and ``pull-local``: from a ref or commit id at a source to names in the composefs repository.

Nothing is visible before the one ``publish`` at the end.  What the repository holds already is not fetched: with the
commit's stream in place, only the ref is written.
"""

from __future__ import annotations

import gc

from composefs_ext.errors import ConflictError, ExtError, NotFoundError
from composefs_ostree.cache import Cache
from composefs_ostree.commit_stream import CONTENT_TYPE, IMAGE_REF, inline_limit, stream_name, write
from composefs_ostree.held import Base, find_stream, image_of, open_commit, ref_name
from composefs_ostree.names import is_commit_id
from composefs_ostree.remote import check_bindings, check_mode, fetch_commit, resolve
from composefs_ostree.tree import load, load_commit, write_dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from composefs_ext import Core, Request, Stream
    from composefs_ext.rows import ImageName, RefUpdate, StreamName
    from composefs_ostree.objects import Commit
    from composefs_ostree.transport import Transport

__all__ = ["DIGEST_SIZES", "pull", "wants_nul"]

DIGEST_SIZES = {"sha256": 32, "sha512": 64}


def wants_nul(request: Request) -> bool:
    """Tell whether the images are to be those of composefs-rs 0.9.0."""
    return bool(request.get("compat") == "composefs-rs")


def pull(request: Request, core: Core, make_transport: Callable[[int], Transport]) -> dict[str, Any]:
    """Pull what the request names from a source; print and return what came of it."""
    from composefs_ostree.pull import METADATA_REQUESTS

    name = request.arguments["ref"]
    transport = make_transport(METADATA_REQUESTS)
    check_mode(transport)
    found = resolve(transport, name)
    ref = None if is_commit_id(name) else name
    current = _current_target(core, ref)
    target = stream_name(found.commit)
    outcome = {"commit": found.commit.hex(), "ref": ref, "metadata_fetched": 0, "files_fetched": 0}
    names: list[StreamName] = []
    stream = _held_stream(core, target)
    if stream is None or (request.get("compat") and not _has_wanted_image(request, core, target, stream)):
        # Collecting cycles costs a tenth of a pull, which makes none.
        gc.disable()
        new = _Arrival(request, core, transport, make_transport, current)
        data, commit = fetch_commit(transport, found)
        if ref is not None:
            _check_bindings(request, commit, found.commit, ref)
        outcome |= new.run(found.commit, data, commit)
        names.append({"name": target, "id": str(outcome["verity"]), "if_exists": "keep"})
        if stream is not None:
            names[0] |= {"if_exists": "replace", "expect": stream.id}
    else:
        if ref is not None and current != target:
            held, _ = open_commit(core, target)
            _check_bindings(request, load_commit(held), found.commit, ref)
        outcome |= {"verity": stream.id, "image": image_of(stream)}
        new = None
    _publish(core, names, outcome, ref, target, current)
    if new is not None:
        new.succeeded()
    _report(core, outcome)
    return outcome


class _Arrival:
    """A commit that the repository does not hold: everything between its id and the publishing."""

    def __init__(
        self,
        request: Request,
        core: Core,
        transport: Transport,
        make_transport: Callable[[int], Transport],
        current: str | None,
    ) -> None:
        assert core.repository is not None
        self._core = core
        self._transport = transport
        self._make_transport = make_transport
        self._keep_nul = wants_nul(request)
        self._bases = [current] if current is not None else []
        if base_name := request.get("base_name"):
            self._bases.insert(0, find_stream(core, base_name))
        self._inline_limit = inline_limit(DIGEST_SIZES[core.repository.algorithm])
        self._cache = Cache.open(core)

    def run(self, commit_id: bytes, data: bytes, commit: Commit) -> dict[str, Any]:
        """Fetch the commit, have its image and stream stored; return what to report of it."""
        from composefs_ostree.pull import Pull

        held: list[Any] = self._open_bases(commit_id, commit)
        if self._cache is not None:
            held.append(self._cache)
        pull = Pull(
            self._core,
            self._transport,
            self._make_transport,
            inline_limit=self._inline_limit,
            held=held,
            store=None if self._cache is None else self._cache.add,
        )
        try:
            tree = pull.run(commit_id, data, commit)
        except BaseException:
            self._end()
            raise
        staging = self._core.staging
        with self._core.progress("image") as progress:
            dump = staging.new_name("dump")
            with staging.create(dump) as file:
                write_dump(file, tree, keep_nul=self._keep_nul)
            image = self._core.image_put(dump)
            # The core makes the image while we lay out the stream.
            inline = staging.new_name("commit")
            with staging.create(inline) as file:
                size, references = write(file, commit_id, pull.entries)
            image_id = image.result()["id"]
            stream = self._core.stream_put(
                CONTENT_TYPE,
                chunks=[-size],
                inline=inline,
                object_refs=references,
                named_refs=[(IMAGE_REF, image_id)],
            ).result()
            progress.advance()
        return {
            "verity": stream["id"],
            "image": image_id,
            "metadata_fetched": pull.fetched_metadata + 1,
            "files_fetched": pull.fetched_files,
        }

    def succeeded(self) -> None:
        """Forget what was noted for a further attempt."""
        if self._cache is not None:
            self._cache.clear()
        self._end()

    def _end(self) -> None:
        if self._cache is not None:
            self._cache.close()

    def _open_bases(self, commit_id: bytes, commit: Commit) -> list[Base]:
        names = list(self._bases)
        if commit.parent is not None:
            names.append(stream_name(commit.parent))
        names.append(stream_name(commit_id))  # held with another image
        bases = []
        for name in dict.fromkeys(names):
            try:
                bases.append(Base(self._core, name))
            except NotFoundError:
                continue  # never pulled, or removed since
            except ExtError as error:
                self._core.log("warning", f"not used as a base: {error.message}")
        return bases


def _current_target(core: Core, ref: str | None) -> str | None:
    if ref is None:
        return None
    try:
        return core.ref_get(ref_name(ref)).result()["target"]
    except NotFoundError:
        return None


def _held_stream(core: Core, name: str) -> Stream | None:
    try:
        return core.stream_get(name=name).result()
    except NotFoundError:
        return None


def _has_wanted_image(request: Request, core: Core, name: str, stream: Stream) -> bool:
    """Tell whether a held commit's image is of the kind that the user has asked for by --compat."""
    commit, _ = open_commit(core, name)
    dump = core.staging.new_name("dump")
    with core.staging.create(dump) as file:
        write_dump(file, load(commit), keep_nul=wants_nul(request))
    return core.image_digest(dump).result()["id"] == image_of(stream)


def _check_bindings(request: Request, commit: Commit, commit_id: bytes, ref: str) -> None:
    if not request.get("disable_verify_bindings"):
        check_bindings(commit, commit_id, ref)


def _publish(
    core: Core, names: list[StreamName], outcome: dict[str, Any], ref: str | None, target: str, current: str | None
) -> None:
    """Make the new names visible in one call; nothing is written that is there already."""
    images: list[ImageName] = [{"id": outcome["image"]}] if names else []
    refs: list[RefUpdate] = (
        [] if ref is None or current == target else [{"name": ref_name(ref), "target": target, "expect": current}]
    )
    if not names and not refs:
        return
    try:
        published = core.publish(streams=names, images=images, refs=refs).result()
    except ConflictError as error:
        if refs and _current_target(core, ref) not in (current, target):
            raise ConflictError(
                f"ref {ref!r} was changed by somebody else during the pull",
                hint="run the command again to set it to what the source has now",
                subject=ref,
            ) from error
        raise
    for row in published["streams"]:
        outcome["verity"] = row["id"]  # a pull that was faster than this one keeps its name


def _report(core: Core, outcome: dict[str, Any]) -> None:
    lines = [
        f"commit  {outcome['commit']}",
        f"verity  {outcome['verity']}",
        f"image   {outcome['image']}",
    ]
    if outcome["ref"] is not None:
        lines.append(f"tagged  {outcome['ref']}")
    lines.append(f"objects {outcome['metadata_fetched']} metadata + {outcome['files_fetched']} files fetched")
    core.output("\n".join(lines) + "\n")
