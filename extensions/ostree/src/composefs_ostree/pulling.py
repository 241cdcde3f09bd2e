"""``pull`` and ``pull-local``: from a ref or commit id at a source to names in the composefs repository.

Nothing is visible before the one ``publish`` at the end.  What the repository holds already is not fetched: with the
commit's stream in place, only the ref is written.
"""

from __future__ import annotations

from composefs_ext.errors import ConflictError, CorruptError, FormatError, MissingObjectError, NotFoundError
from composefs_ostree.commit_stream import stream_name
from composefs_ostree.held import find_stream, image_of, open_commit, ref_name
from composefs_ostree.names import is_commit_id
from composefs_ostree.remote import check_bindings, fetch_commit, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request, Stream
    from composefs_ext.rows import ImageName, RefUpdate, StreamName
    from composefs_ostree.source import Source
    from composefs_ostree.summary import SummaryRef
    from composefs_ostree.transport import Transport

__all__ = ["pull", "wants_nul"]


def wants_nul(request: Request) -> bool:
    """Tell whether the images are to be those of composefs-rs 0.9.0."""
    return bool(request.get("compat") == "composefs-rs")


def pull(request: Request, core: Core, source: Source) -> dict[str, Any]:
    """Pull what the request names from a source; print and return what came of it."""
    name = request.arguments["ref"]
    transport = source.open(core)
    found = resolve(core, transport, name)
    ref = None if is_commit_id(name) else name
    current = _current_target(core, ref)
    target = stream_name(found.commit)
    outcome = {"commit": found.commit.hex(), "ref": ref, "metadata_fetched": 0, "files_fetched": 0}
    stream, is_damaged = _held_stream(core, target)
    if stream is None or not _has_wanted_image(request, core, target, stream):
        _pull_commit(request, core, source, transport, found, outcome, ref, current, stream, is_damaged=is_damaged)
    else:
        if ref is not None and current != target and _verifies_bindings(request):
            from composefs_ostree.tree import load_commit

            check_bindings(load_commit(open_commit(core, target)[0]), found.commit, ref)
        outcome |= {"verity": stream.id, "image": image_of(stream)}
        # Who pulled it may have been killed before its names were durable.
        _publish(core, {"name": target, "id": stream.id, "if_exists": "keep"}, outcome, ref, target, current)
    _report(core, outcome)
    return outcome


def _pull_commit(
    request: Request,
    core: Core,
    source: Source,
    transport: Transport,
    found: SummaryRef,
    outcome: dict[str, Any],
    ref: str | None,
    current: str | None,
    held: Stream | None,
    *,
    is_damaged: bool,
) -> None:
    """Pull and publish a commit.

    ``held`` is its stream if it is here, with another image than the wanted one; ``is_damaged`` tells that it is here
    and cannot be read.
    """
    from composefs_ostree.arrival import receive

    target = stream_name(found.commit)
    base_name = request.get("base_name")
    bases = [find_stream(core, base_name)] if base_name else []
    data, commit = fetch_commit(core, transport, found)
    if ref is not None and _verifies_bindings(request):
        check_bindings(commit, found.commit, ref)
    if current is not None and not (is_damaged and current == target):
        bases.append(current)
    if commit.parent is not None:
        bases.append(stream_name(commit.parent))
    if held is not None:
        bases.append(target)
    arrived = receive(core, source, transport, found.commit, data, commit, bases=bases, keep_nul=wants_nul(request))
    outcome |= {
        "verity": arrived.stream,
        "image": arrived.image,
        "metadata_fetched": arrived.metadata,
        "files_fetched": arrived.files,
    }
    row: StreamName = {"name": target, "id": arrived.stream, "if_exists": "replace" if is_damaged else "keep"}
    if held is not None:
        row |= {"if_exists": "replace", "expect": held.id}
    try:
        _publish(core, row, outcome, ref, target, current)
        if arrived.cache is not None:
            arrived.cache.clear()
    finally:
        if arrived.cache is not None:
            arrived.cache.close()


def _current_target(core: Core, ref: str | None) -> str | None:
    if ref is None:
        return None
    try:
        return core.ref_get(ref_name(ref)).result()["target"]
    except NotFoundError:
        return None


def _held_stream(core: Core, name: str) -> tuple[Stream | None, bool]:
    """Return the commit's stream if it is here and whole, and whether it is here and damaged."""
    try:
        return core.stream_get(name=name).result(), False
    except NotFoundError:
        return None, False
    except (CorruptError, FormatError, MissingObjectError) as error:
        core.log("warning", f"{name} is pulled again: {error.message}")
        return None, True


def _has_wanted_image(request: Request, core: Core, name: str, stream: Stream) -> bool:
    """Tell whether a held commit's image is there, and of the kind that the user may have asked for by --compat."""
    image = image_of(stream)
    if image is not None and core.object_has([image]).result() != [True]:
        return False
    if not request.get("compat"):
        return True
    from composefs_ostree.tree import load, stage_dump

    commit, _ = open_commit(core, name)
    dump = stage_dump(core, load(commit), keep_nul=wants_nul(request))
    return core.image_digest(dump).result()["id"] == image


def _verifies_bindings(request: Request) -> bool:
    return not request.get("disable_verify_bindings")


def _publish(
    core: Core, name: StreamName, outcome: dict[str, Any], ref: str | None, target: str, current: str | None
) -> None:
    """Make the names visible in one call; nothing is written that is there already."""
    images: list[ImageName] = [] if outcome["image"] is None else [{"id": outcome["image"]}]
    refs: list[RefUpdate] = [] if ref is None else [{"name": ref_name(ref), "target": target, "expect": current}]
    try:
        published = core.publish(streams=[name], images=images, refs=refs).result()
    except ConflictError as error:
        if not refs or (now := _current_target(core, ref)) == current:
            raise
        if now != target:
            raise ConflictError(
                f"ref {ref!r} was changed by somebody else during the pull",
                hint="run the command again to set it to what the source has now",
                subject=ref,
            ) from error
        published = core.publish(streams=[name], images=images).result()  # another pull did the same with the ref
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
