"""Listing the refs of a repository to pull from: those that ``pull`` would find there."""

from __future__ import annotations

import os
from operator import itemgetter

from composefs_ext.errors import ExtError, UsageError
from composefs_ostree.fetching.blame import blamed
from composefs_ostree.fetching.transport import read
from composefs_ostree.formats.names import MAX_REF_FILE, is_ref, parse_checksum_line
from composefs_ostree.formats.summary import collections, list_refs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from composefs_ext import Core, Request
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.sources.source import Source

__all__ = ["listed_refs", "refs_in_files"]

_HEADS = "refs/heads"


def listed_refs(request: Request, core: Core, source: Source) -> list[dict[str, str]]:
    """Return the name and commit of each ref, sorted, as the request wants them.

    They are those of the summary, of the remote's selection and collection if it has them, or with ``--subset`` of one
    part of the summary index, or with ``--collections`` of all collections; without a summary those of the files in
    ``refs/heads``.  Raises NotFoundError if a web server has no summary, FormatError for refs that name no commit.
    """
    transport = source.open(core)
    subset = request.get("subset")
    if subset is not None and request.get("collections"):
        raise UsageError("give one of --subset and --collections")
    summaries = source.summaries.to_list(subset)
    if not summaries:
        return _rows(refs_in_files(core, source, transport))
    try:
        if not request.get("collections"):
            own = source.remote.collection_id if source.remote is not None else None
            listed = [list_refs(summary, own, source.heading()) for summary in summaries]
            return _rows({name: commit for refs in listed for name, commit in refs.items()})
        by_collection = sorted((pair for each in summaries for pair in collections(each).items()), key=itemgetter(0))
        return [row | {"collection": name} for name, refs in by_collection for row in _rows(refs)]
    except ExtError as error:
        raise blamed(transport.where("summary"), error) from None


def _rows(refs: Mapping[str, bytes]) -> list[dict[str, str]]:
    return [{"name": name, "commit": commit.hex()} for name, commit in sorted(refs.items())]


def refs_in_files(core: Core, source: Source, transport: Transport) -> dict[str, bytes]:
    """Return the commits of the refs that a directory and its parents have, by name, whatever the summary says.

    Raises NotFoundError if the source is no directory, FormatError for a file that names no commit.
    """
    refs: dict[str, bytes] = {}
    for directory in source.directories():
        for name in _names(f"{directory}/{_HEADS}"):
            path = f"{_HEADS}/{name}"
            if name not in refs and (data := read(core, transport, path, MAX_REF_FILE)) is not None:
                refs[name] = parse_checksum_line(data, transport.where(path))
    return refs


def _names(heads: str) -> Iterator[str]:
    """Yield the refs that have a file; what cannot be the name of a ref is left alone, as ostree leaves it."""
    for directory, _, files in os.walk(heads):
        prefix = os.path.relpath(directory, heads)
        for file in files:
            name = file if prefix == "." else f"{prefix}/{file}"
            if is_ref(name):
                yield name
