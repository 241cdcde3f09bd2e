"""``commit``: from trees to a commit in the composefs repository, as a pull of the same commit would leave it."""

from __future__ import annotations

import gc

from composefs_ext.errors import ConflictError, UsageError
from composefs_ostree.committing.intake import Intake
from composefs_ostree.committing.metadata import commit_body, commit_metadata, given_strings
from composefs_ostree.committing.previous import given_parent, read_previous
from composefs_ostree.committing.times import commit_time
from composefs_ostree.committing.treeobjects import TreeObjects, finish
from composefs_ostree.committing.trees import given_changes, read_trees
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.commit_stream import stream_name
from composefs_ostree.formats.names import check_ref
from composefs_ostree.formats.objects import Commit
from composefs_ostree.held.dumptext import draft_dump
from composefs_ostree.held.refs import current_target, ref_name
from composefs_ostree.held.storing import put_commit, put_detached
from composefs_ostree.held.streams import DETACHED_REF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from composefs_ext import Core, Request
    from composefs_ext.rows import RefUpdate, StreamName
    from composefs_ostree.committing.treeobjects import MadeCommit
    from composefs_ostree.formats.gvariant import Variant

__all__ = ["commit"]


def commit(request: Request, core: Core) -> dict[str, Any]:
    """Make the commit that the request describes, and publish it; print and return what came of it."""
    from composefs_ostree.signatures.signing import sign, sign_options_of

    branch = _branch(request)
    current = current_target(core, branch)
    parent = given_parent(request, current)
    # Whatever is wrong with the options shows before the work.
    previous = read_previous(request, core, parent)
    metadata = commit_metadata(request, branch, previous)
    body = commit_body(request, core)
    detached = given_strings(request, "add_detached_metadata_string")
    signing = sign_options_of(request)
    timestamp = commit_time(request)
    changes = given_changes(request, core)

    gc.disable()  # a commit makes no cycles, but enough objects for a tenth of its time to go into looking for some
    layers = read_trees(request, core, changes)
    if request.get("bootable"):
        from composefs_ostree.committing.bootable import bootable_metadata

        metadata = bootable_metadata(metadata, layers.root)
    intake = Intake(core, layers)
    intake.run()
    with core.progress("tree"):
        objects = TreeObjects(layers.root, intake.ids, intake.files)
    counts = {"metadata_objects": len(objects.entries) + 1, "files": len(objects.files)}
    if previous is not None and request.get("skip_if_unchanged") and previous.has_tree_of(objects):
        tagged = branch if current == stream_name(previous.commit_id) else None
        core.output(f"commit  {previous.commit_id.hex()}\nverity  {previous.verity}\nunchanged\n")
        facts = _facts(previous.commit_id, previous.commit, previous.verity, previous.image, tagged)
        return {**facts, **counts, "unchanged": True}
    described = Commit(metadata, parent, request.get("subject", ""), body, timestamp, objects.root, objects.root_meta)
    made = finish(objects, described)
    names, image = _store(core, made, sign(core, made.data, detached, signing))
    target = stream_name(made.commit_id)
    verity = _publish(core, names, image, branch, current, target)
    core.output(f"commit  {made.commit_id.hex()}\nverity  {verity}\n" + (f"tagged  {branch}\n" if branch else ""))
    return {**_facts(made.commit_id, described, verity, image, branch), **counts, "unchanged": False}


def _store(core: Core, made: MadeCommit, detached: Mapping[str, Variant]) -> tuple[list[StreamName], str]:
    """Have a commit stored with its image and detached metadata; return how to name the streams, and the image's id."""
    names: list[StreamName] = []
    named_refs: list[tuple[str, str]] = []
    if detached:
        kept = put_detached(core, made.commit_id, gvariant.encode("a{sv}", detached))
        names.append(kept)
        named_refs.append((DETACHED_REF, kept["id"]))
    with core.progress("image"):
        image_put = core.image_put(*draft_dump(core, made.tree, keep_nul=False))
        stream = put_commit(core, made.commit_id, made.entries, image_put, named_refs=named_refs)
        image = image_put.result()["id"]
    names.append({"name": stream_name(made.commit_id), "id": stream, "if_exists": "replace" if detached else "keep"})
    return names, image


def _facts(commit_id: bytes, commit: Commit, verity: str, image: str | None, branch: str | None) -> dict[str, Any]:
    """Return what --json shows of a commit that is here now, by a branch's name if it has one."""
    return {
        "commit": commit_id.hex(),
        "parent": None if commit.parent is None else commit.parent.hex(),
        "ref": branch,
        "verity": verity,
        "image": image,
    }


def _branch(request: Request) -> str | None:
    branch, reference = request.get("branch"), request.get("reference")
    if branch is not None and reference is not None and branch != reference:
        raise UsageError("--branch and --reference are the same option; give one of them")
    name = branch if branch is not None else reference
    if name is not None and request.get("orphan"):
        raise UsageError("--orphan is for a commit without a branch", hint="give --orphan or --branch")
    return None if name is None else check_ref(name)


def _publish(
    core: Core, names: list[StreamName], image: str, branch: str | None, current: str | None, target: str
) -> str:
    """Make the commit visible in one call; return the id of its stream."""
    refs: list[RefUpdate] = [] if branch is None else [{"name": ref_name(branch), "target": target, "expect": current}]
    try:
        published = core.publish(streams=names, images=[{"id": image}], refs=refs).result()
    except ConflictError as error:
        if current_target(core, branch) == current:
            raise
        raise ConflictError(
            f"ref {branch!r} was changed by somebody else meanwhile",
            hint="run the command again, for the parent to be what the ref names now",
            subject=branch,
        ) from error
    return next(str(row["id"]) for row in published["streams"] if row["name"] == target)
