"""``export``: a commit of the composefs repository into an ostree repository on this machine."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from composefs_ext import Core, Request
from composefs_ext.errors import CorruptError, UsageError
from composefs_ext.files import Naming
from composefs_ext.progress import Progress
from composefs_ostree.exporting.fitting import require_fit
from composefs_ostree.exporting.layout import lay_out
from composefs_ostree.exporting.summaries import make_summary
from composefs_ostree.exporting.target import UMASK, Target
from composefs_ostree.exporting.writers import ObjectWriter, object_name
from composefs_ostree.fetching.worker import HANDOVER, Workers
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.commit_stream import CommitStream, Entry
from composefs_ostree.formats.fileheader import content_size, head_size, parse_head
from composefs_ostree.formats.names import MAX_METADATA, ObjectType, check_ref, is_commit_id, is_ref, object_path
from composefs_ostree.held.refs import current_target, find_stream
from composefs_ostree.held.streams import detached_metadata, open_commit
from composefs_ostree.held.tree import Tree, commit_bytes, load
from composefs_ostree.signatures.signing import SignOptions, sign, sign_options_of

__all__ = ["export"]

_LEVELS = range(1, 10)


def export(request: Request, core: Core) -> dict[str, Any]:
    """Export the commit that the request names; print and return what came of it."""
    source, path = request.arguments["ref"], request.arguments["path"]
    level, mode = request.get("zlib_level"), request.get("mode")
    if level is not None and level not in _LEVELS:
        raise UsageError(f"--zlib-level {level} is not between {_LEVELS[0]} and {_LEVELS[-1]}")
    signing = sign_options_of(request)
    with_summary = not request.get("no_summary")
    if signing.is_on and not with_summary:
        raise UsageError("what is signed is the summary, and --no-summary leaves it alone")
    progress = core.progress("files", unit="bytes")  # which of them are there already takes a while to tell, too
    held, stream = open_commit(core, find_stream(core, source))
    ref = _ref(request, core, held)
    detached = detached_metadata(core, stream.named_refs)
    tree = load(held)
    _warn_of_bindings(core, tree, ref)

    if mode is not None:
        require_fit(tree, mode)
    os.umask(UMASK)
    made = lay_out(path, mode or "archive", level)
    with Naming(path), closing(Target(path, made, core.pump)) as target:
        if mode not in (None, target.mode):
            raise UsageError(
                f"{path} is a repository of the mode {target.mode}, not {mode}",
                hint="leave out --mode, or give a new directory",
                subject=path,
            )
        if mode is None:
            require_fit(tree, target.mode)
        level = target.zlib_level if level is None else level
        metadata, files = _write_objects(core, target, held, tree, level, progress)
        _publish_commit(target, held, detached)
        target.lock.take_alone()
        if ref is not None:
            target.put(f"refs/heads/{ref}", f"{held.commit_id.hex()}\n".encode())
        if with_summary:
            _put_summary(core, target, signing)
    progress.finish()
    core.output(f"commit  {held.commit_id.hex()}\n" + (f"tagged  {ref}\n" if ref is not None else ""))
    return {
        "commit": held.commit_id.hex(),
        "ref": ref,
        "path": path,
        "mode": target.mode,
        "metadata_written": metadata,
        "files_written": files,
    }


def _ref(request: Request, core: Core, held: CommitStream) -> str | None:
    """Return the ref to write: the one asked for, else the one by which the commit was given."""
    reference = request.get("reference")
    if reference is not None:
        return check_ref(reference)
    source: str = request.arguments["ref"]
    name = source.rpartition(":")[2]  # the ref of a remote
    if is_commit_id(name) or (held.commit_id.hex().startswith(name) and current_target(core, source) is None):
        return None
    if not is_ref(name):
        raise UsageError(f"{name[:200]!r} is no name that ostree knows", hint="give a name with --reference")
    return name


def _put_summary(core: Core, target: Target, signing: SignOptions) -> None:
    """Write the summary anew, signed if that is wanted; warn of what it makes stale."""
    path, summary = target.path, make_summary(target)
    if signing.is_on:
        signature = gvariant.encode("a{sv}", sign(core, summary, {}, signing))
        target.put_together({"summary": summary, "summary.sig": signature})
    else:
        # Without one that fits, clients that want a signature wait for the next; a wrong one would alarm them.
        if target.remove("summary.sig"):
            core.log("warning", f"{path}: the summary has changed, and its signature is removed; sign it again")
        target.put("summary", summary)
    if os.path.lexists(f"{path}/summary.idx"):
        core.log(
            "warning",
            f"{path}: clients of Flatpak read summary.idx, where the export is not; flatpak build-update-repo {path} "
            "writes it anew",
        )


def _warn_of_bindings(core: Core, tree: Tree, ref: str | None) -> None:
    bound = tree.commit.metadata.get("ostree.ref-binding")
    if ref is not None and bound is not None and bound.signature == "as" and ref not in bound.value:
        names = ", ".join(bound.value) or "no ref"
        remedy = f" (--reference {bound.value[0]} sets a ref that it is for)" if bound.value else ""
        core.log("warning", f"the commit says that it is for {names}: a pull of {ref} will refuse it{remedy}")


def _write_objects(
    core: Core, target: Target, held: CommitStream, tree: Tree, level: int, progress: Progress
) -> tuple[int, int]:
    """Write all objects that the repository lacks but the commit, and name them; return how many, the commit too."""
    names = []
    for kind, object_ids in ((ObjectType.DIRMETA, tree.metas), (ObjectType.DIRTREE, tree.trees)):
        for object_id in object_ids:
            entry = held.get(object_id)
            assert entry is not None
            name = f"{object_id.hex()}.{kind.extension}"
            if not _has_metadata(target, object_path(kind, object_id), entry.data):
                target.stage(name, entry.data)
                names.append(name)
    metadata = len(names)
    wanted = [file_id for file_id, entry in tree.files.items() if not _has_file(target, file_id, entry)]
    sizes = [content_size(tree.files[file_id].data) for file_id in wanted]
    progress.total = sum(sizes)
    if wanted:  # how much less they take compressed nobody knows, but one of them may be too much alone
        target.require_space(max(sizes) if target.mode == "archive" else progress.total)
    for file_id, size in _write_files(core, target, tree, wanted, level):
        names.append(object_name(file_id, target.mode))
        progress.advance(size)
    target.publish(names, lambda: core.pump(0))
    return metadata + 1, len(wanted)


def _has_metadata(target: Target, path: str, data: bytes) -> bool:
    try:
        return target.read(path, MAX_METADATA) == data
    except (FileNotFoundError, CorruptError):
        return False  # what is damaged is replaced


def _has_file(target: Target, file_id: bytes, entry: Entry) -> bool:
    """Tell whether the repository has a file object, as far as a look at it tells."""
    name = object_name(file_id, target.mode)
    head = entry.data[: head_size(entry.data)]
    try:
        above = target.directories.open(f"objects/{name[:2]}")
        status = os.stat(name[2:], dir_fd=above, follow_symlinks=False)
        parsed = parse_head(head)
        if parsed.is_symlink and target.mode in ("bare", "bare-user-only"):
            return stat.S_ISLNK(status.st_mode) and status.st_size == len(parsed.target)
        if not stat.S_ISREG(status.st_mode):
            return False
        if target.mode != "archive":
            # A symlink's object of bare-user has the target as its content, with a NUL.
            return status.st_size == (len(parsed.target) + 1 if parsed.is_symlink else parsed.size)
        fd = os.open(name[2:], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
        try:
            return os.pread(fd, len(head), 0) == head
        finally:
            os.close(fd)
    except OSError:
        return False  # it is not there, or replaced by what is no file


def _write_files(
    core: Core, target: Target, tree: Tree, wanted: list[bytes], level: int
) -> Iterator[tuple[bytes, int]]:
    """Have workers write file objects; yield each with the size of its content."""
    staging, mode, repository = target.staging, target.mode, core.repo
    todo = deque(wanted)
    left = len(wanted)
    workers = Workers(
        core, lambda _: ObjectWriter(staging.path, mode, level, tree.files, repository), directory=staging.fd
    )
    try:
        while left:
            while todo and (worker := workers.for_files(HANDOVER)) is not None:
                worker.deal([todo.popleft() for _ in range(min(HANDOVER, len(todo)))])
            for file_id, _, size, _ in workers.rows():
                left -= 1
                yield file_id, size
            target.require_space()
    finally:
        workers.end()


def _publish_commit(target: Target, held: CommitStream, detached: bytes | None) -> None:
    """Write the commit, behind everything that it needs and before everything that names it."""
    data = commit_bytes(held)
    if detached is not None:
        target.put(object_path(ObjectType.COMMITMETA, held.commit_id), detached)
    target.put(object_path(ObjectType.COMMIT, held.commit_id), data)
    target.remove(object_path(ObjectType.TOMBSTONE, held.commit_id))
    target.remove(f"state/{held.commit_id.hex()}.commitpartial")
