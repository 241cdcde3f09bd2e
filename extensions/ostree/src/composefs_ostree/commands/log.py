"""``log``: the commits that are here, from one through its parents, as ``ostree log`` prints them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from composefs_ext import Core, Request
from composefs_ext.errors import ExtError
from composefs_ext.text import printable
from composefs_ostree.commands.inspect import commit_facts
from composefs_ostree.dates import date
from composefs_ostree.formats.objects import Commit
from composefs_ostree.held.refs import all_refs, commit_streams, find_stream
from composefs_ostree.held.streams import open_commit, parent_of
from composefs_ostree.held.tree import load_commit

__all__ = ["log"]

_END = "<< History beyond this commit not fetched >>\n"


def log(request: Request, core: Core) -> dict[str, Any]:
    """Print a commit and those before it, as far as they are here; say which of them the next gc removes."""
    kept = _kept(core)
    streams = commit_streams(core)  # once: looking for each parent lists them again
    rows: list[dict[str, Any]] = []
    loose: list[str] = []
    name: str | None = find_stream(core, request.arguments["ref"])
    while name is not None:
        held, stream = open_commit(core, name, partial=True)
        commit = load_commit(held)
        core.output(_text(held.commit_id, commit))
        if stream.id not in kept:
            loose.append(held.commit_id.hex())
        if request.json:
            facts = {
                "content_checksum": _content_checksum(commit),
                "subpaths": held.subpaths,
                "kept": stream.id in kept,
            }
            rows.append(commit_facts(held.commit_id, commit) | facts)
        if commit.parent is None:
            break
        name = streams.get(commit.parent.hex())
        if name is None:
            _tell_of_the_end(core, commit.parent)
    if loose:
        core.log(
            "warning",
            f"no ref keeps {len(loose)} of these, the first {loose[0]}: cfsctl gc removes them "
            "(cfsctl ostree tag COMMIT NAME keeps one)",
        )
    return {"commits": rows}


def _tell_of_the_end(core: Core, parent: bytes) -> None:
    """Say that a parent is not here, as ostree does, and why that may be."""
    core.output(_END)
    core.log(
        "warning", f"commit {parent.hex()} is not here: it was not pulled (--depth=N), or cfsctl gc has removed it"
    )


def _kept(core: Core) -> set[str]:
    """Return the ids of the streams that the refs keep: those of their commits, and of parents pulled with these."""
    kept: set[str] = set()
    for target in all_refs(core).values():
        try:
            stream = core.stream_get(name=target).result()
            while stream.id not in kept:
                kept.add(stream.id)
                parent = parent_of(stream)
                if parent is not None:
                    stream = core.stream_get(id=parent).result()
        except ExtError:  # what is wrong with another ref than the one asked for is for fsck to tell
            continue
    return kept


def _text(commit_id: bytes, commit: Commit) -> str:
    lines = [f"commit {commit_id.hex()}"]
    if commit.parent is not None:
        lines.append(f"Parent:  {commit.parent.hex()}")
    lines += [
        f"ContentChecksum:  {_content_checksum(commit)}",
        f"Date:  {date(commit.timestamp).replace(' UTC', ' +0000')}",
    ]
    version = commit.metadata.get("version")
    if version is not None and version.signature == "s":
        lines.append(f"Version: {printable(version.value)}")
    if not commit.subject:
        lines.append("(no subject)")
    for text in (commit.subject, commit.body):
        if text:
            lines += ["", *(f"    {line}" for line in text.removesuffix("\n").split("\n"))]
    return "\n".join([*lines, "", ""])


def _content_checksum(commit: Commit) -> str:
    """Return the same for all commits of the same tree."""
    return sha256(commit.root_tree + commit.root_meta).hexdigest()
