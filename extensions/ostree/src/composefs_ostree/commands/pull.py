"""``pull`` and ``pull-local``: from refs or commit ids at a source to names in the composefs repository.

Nothing is visible before the one ``publish`` at the end, which sets all refs or none.  What the repository holds
already is not fetched: with the commit's stream in place, only the ref is written.
"""

from __future__ import annotations

from time import monotonic

from composefs_ext.errors import NotFoundError, UsageError
from composefs_ostree.commands.compat import wants_nul
from composefs_ostree.commands.wanted import parse_wanted
from composefs_ostree.fetching.traffic import traffic
from composefs_ostree.formats.commit_stream import commit_of_stream
from composefs_ostree.held.refs import find_stream, ref_name, target_of
from composefs_ostree.held.streams import open_commit, partly
from composefs_ostree.pulling.commits import Commits
from composefs_ostree.pulling.known import Terms
from composefs_ostree.pulling.publishing import publish
from composefs_ostree.sources.finding import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from typing import Any

    from composefs_ext import Core, Request, Stream
    from composefs_ext.connection import Pending
    from composefs_ext.rows import RefUpdate
    from composefs_ostree.commands.wanted import Wanted
    from composefs_ostree.formats.objects import Commit
    from composefs_ostree.pulling.known import Brought
    from composefs_ostree.remotes.record import Remote
    from composefs_ostree.sources.source import Source

__all__ = ["pull", "pull_local"]


def pull(request: Request, core: Core) -> dict[str, Any]:
    """Pull from a URL, a path or a remote."""
    from composefs_ostree.remotes.limits import limits_of
    from composefs_ostree.signatures.policy import options_of
    from composefs_ostree.sources.source import open_source

    where: str = request.arguments["source"]
    names: list[str] = list(request.get("refs", []))
    limits, options = limits_of(request), options_of(request)
    name, colon, ref = where.partition(":")
    if "/" in name or ref.startswith("/"):  # as in a URL, and in one that lacks a slash; no ref begins so
        return _pull(request, core, None, lambda: open_source(where, None, limits, options), names)
    from composefs_ostree.remotes.store import find_remote

    remote = find_remote(core, name)
    if colon:
        names.insert(0, ref)
    names = names or list(remote.branches)
    return _pull(request, core, remote, lambda: open_source(request.get("url"), remote, limits, options), names)


def pull_local(request: Request, core: Core) -> dict[str, Any]:
    """Pull from a repository on this machine; without names, everything that it has."""
    from composefs_ostree.signatures.policy import options_of
    from composefs_ostree.sources.source import DirectorySource

    remote = None
    if request.get("remote"):
        from composefs_ostree.remotes.store import find_remote

        remote = find_remote(core, request.arguments["remote"])
    source = DirectorySource(request.arguments["path"], remote, options_of(request))
    names = request.get("refs", [])
    if not names:
        from composefs_ostree.sources.refs import refs_in_files

        # As ostree: one that the summary lacks is not left out, but told when it is looked up there.
        names = sorted(refs_in_files(core, source, source.open(core)))
        if not names:
            from shlex import quote

            path: str = request.arguments["path"]
            raise NotFoundError(
                f"{path} has no refs of its own",
                hint=f"cfsctl ostree list-refs --path {quote(path)} --collections lists those that it mirrors: "
                "name them, and with --remote a remote of their collection",
                subject=path,
            )
    return _pull(request, core, remote, lambda: source, names)


def _pull(
    request: Request, core: Core, remote: Remote | None, make_source: Callable[[], Source], names: Sequence[str]
) -> dict[str, Any]:
    """Pull what the names mean at a source, that of ``remote`` if there is one; print and return what came of it."""
    start = monotonic()
    every = [parse_wanted(name, None if remote is None else remote.name) for name in dict.fromkeys(names)]
    if not every:
        lists = "list-refs lists them" if remote is None else f"remote refs {remote.name} lists them"
        raise UsageError("there is nothing to pull", hint=f"name a ref or a commit; cfsctl ostree {lists}")
    # Before the source is opened: loading what talks to a server takes as long as the core takes to read and check a
    # large commit's stream, and most pulls find nothing new.
    streams_here = _ask_for_streams(core, [wanted.local for wanted in every])
    source = make_source()
    terms = _terms(request, core, source)
    with core.progress("refs"):  # a summary may have megabytes
        transport = source.open(core)
        found = [resolve(core, source, transport, wanted.name) for wanted in every]
    pulled: list[tuple[str | None, Brought]] = []
    refs: dict[str, RefUpdate] = {}
    with Commits(core, source, transport, terms) as commits:
        for wanted, at_source, (current, asked) in zip(every, found, streams_here, strict=True):
            ref = wanted.local
            checks = _checks(request, core, wanted, at_source.commit_id, current)
            brought = commits.bring(
                at_source.commit_id, size=at_source.size, current=current, checks=checks, asked=asked, ref=ref
            )
            pulled.append((ref, brought))
            if ref is not None:
                refs[ref] = {"name": ref_name(ref), "target": brought.here.name, "expect": current}
        streams = publish(core, list(commits.rows.values()), commits.images, refs)
    rows = [_row(ref, brought, streams) for ref, brought in pulled]
    core.output("\n".join(map(_text, rows)))
    if not source.is_near:
        each_once = {row["commit"]: row for row in rows}  # a row for each ref, but what came has come once
        core.log("info", _transferred(each_once.values(), traffic.received, monotonic() - start))
    result = rows[0] if len(rows) == 1 else {"pulled": rows}
    return {**result, "bytes_transferred": traffic.received}


def _ask_for_streams(core: Core, refs: Iterable[str | None]) -> list[tuple[str | None, Pending[Stream] | None]]:
    """Ask for the streams that refs name here; return for each ref the stream's name and the answer to come.

    Both are None for a ref that names nothing, or where there is no ref.
    """
    answers = [None if ref is None else core.ref_get(ref_name(ref)) for ref in refs]
    names = [None if answer is None else target_of(answer) for answer in answers]
    return [(name, None if name is None else core.stream_get(name=name).optional()) for name in names]


def _terms(request: Request, core: Core, source: Source) -> Terms:
    from composefs_ostree.remotes.record import policy_for
    from composefs_ostree.signatures.policy import options_of

    subpaths: list[str] | None = None
    if request.get("subpath"):
        from composefs_ostree.held.excerpt import parse_subpaths

        subpaths = parse_subpaths(request.arguments["subpath"])
    if request.get("commit_metadata_only"):
        if request.get("subpath"):
            raise UsageError("--commit-metadata-only leaves nothing for --subpath to name", hint="give one of the two")
        subpaths = []
    depth = request.get("depth", 0)
    if depth < -1:
        raise UsageError(f"--depth takes how many parents, or -1 for all, not {depth}")
    collection = None if source.remote is None else source.remote.collection_id
    return Terms(
        policy=policy_for(source.remote, options_of(request)),
        subpaths=subpaths,
        depth=depth,
        base=find_stream(core, request.arguments["base_name"]) if request.get("base_name") else None,
        collection=None if request.get("disable_verify_bindings") else collection,
        keep_nul=wants_nul(request),
        use_deltas=not (source.is_near or request.get("no_delta")),
        is_repair=bool(request.get("repair")),
    )


def _checks(
    request: Request, core: Core, wanted: Wanted, commit_id: bytes, current: str | None
) -> list[Callable[[Commit, bytes], None]]:
    """Return what a commit must pass before it may have the ref: nothing that needs its object without need."""
    checks: list[Callable[[Commit, bytes], None]] = []
    if wanted.ref is not None and not request.get("disable_verify_bindings") and not _is_commit(current, commit_id):
        checks.append(_bound_to(wanted.ref))
    since = request.get("timestamp_check_from_rev")
    names = [find_stream(core, since)] if since else []
    if request.get("timestamp_check") and current is not None:
        names.append(current)
    return checks + [_not_older_than(core, name) for name in names if not _is_commit(name, commit_id)]


def _is_commit(stream: str | None, commit_id: bytes) -> bool:
    return stream is not None and commit_of_stream(stream) == commit_id


def _bound_to(ref: str) -> Callable[[Commit, bytes], None]:
    from composefs_ostree.pulling.checks import check_ref

    return lambda commit, commit_id: check_ref(commit, commit_id, ref)


def _not_older_than(core: Core, stream: str) -> Callable[[Commit, bytes], None]:
    from composefs_ostree.held.tree import load_commit
    from composefs_ostree.pulling.checks import check_not_older

    held, _ = open_commit(core, stream, partial=True)
    return lambda commit, commit_id: check_not_older(commit, commit_id, load_commit(held), held.commit_id)


def _row(ref: str | None, brought: Brought, streams: dict[str, str]) -> dict[str, Any]:
    """Return what --json shows of a commit that was asked for, by its ref here if it has one."""
    commit_id, here, parents, signatures = brought
    stored = [here, *parents.values()]
    return {
        "commit": commit_id.hex(),
        "ref": ref,
        "verity": streams[here.name],
        "image": here.image,
        "subpaths": None if here.subpaths is None else list(here.subpaths),
        "parents": [parent.hex() for parent in parents],
        "metadata_fetched": sum(each.metadata for each in stored),
        "files_fetched": sum(each.files for each in stored),
        "delta_parts": sum(each.parts for each in stored),
        "signatures": signatures,
    }


def _text(row: dict[str, Any]) -> str:
    lines = [f"commit  {row['commit']}", f"verity  {row['verity']}"]
    if row["image"] is not None:
        lines.append(f"image   {row['image']}")
    if row["subpaths"] is not None:
        lines.append(f"partial {partly(row['subpaths'])}")
    if row["ref"] is not None:
        lines.append(f"tagged  {row['ref']}")
    if row["parents"]:
        lines.append(f"parents {len(row['parents'])}")
    via = f" via {row['delta_parts']} delta parts" if row["delta_parts"] else ""
    lines.append(f"objects {row['metadata_fetched']} metadata + {row['files_fetched']} files fetched{via}")
    return "\n".join(lines) + "\n"


def _transferred(rows: Collection[dict[str, Any]], received: int, seconds: float) -> str:
    """Say what came over the network, in ostree's words."""
    metadata, files, parts = (
        sum(row[name] for row in rows) for name in ("metadata_fetched", "files_fetched", "delta_parts")
    )
    via = f"{parts} delta parts, " if parts else ""
    size = f"{received} B" if received < 1024 else f"{received // 1024} KiB"
    return f"{via}{metadata} metadata, {files} content objects fetched; {size} transferred in {seconds:.0f} seconds"
