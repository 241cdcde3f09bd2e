"""Listing the refs of a repository to pull from: those that ``pull`` would find there."""

from __future__ import annotations

import os

from composefs_ext.errors import ExtError
from composefs_ostree.names import is_ref, parse_checksum_line
from composefs_ostree.summary import list_refs
from composefs_ostree.transport import bad_object, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from composefs_ext import Core
    from composefs_ostree.source import Source

__all__ = ["refs_of"]

_HEADS = "refs/heads"
_MAX_REF_FILE = 4096


def refs_of(core: Core, source: Source) -> dict[str, bytes]:
    """Return the commit ids of all refs, sorted by name: of the summary, without one from the files in ``refs/heads``.

    Raises NotFoundError if a web server has no summary, FormatError for refs that name no commit.
    """
    transport = source.open(core)
    summary = read(core, transport, "summary")
    if summary is not None:
        try:
            refs = list_refs(summary)
        except ExtError as error:
            raise bad_object(transport.where("summary"), error) from None
        return dict(sorted(refs.items()))
    refs = {}
    for directory in source.directories():
        for name in _names(f"{directory}/{_HEADS}"):
            path = f"{_HEADS}/{name}"
            if name not in refs and (data := read(core, transport, path, _MAX_REF_FILE)) is not None:
                refs[name] = parse_checksum_line(data, transport.where(path))
    return dict(sorted(refs.items()))


def _names(heads: str) -> Iterator[str]:
    """Yield the refs that have a file; what cannot be the name of a ref is left alone, as ostree leaves it."""
    for directory, _, files in os.walk(heads):
        prefix = os.path.relpath(directory, heads)
        for file in files:
            name = file if prefix == "." else f"{prefix}/{file}"
            if is_ref(name):
                yield name
