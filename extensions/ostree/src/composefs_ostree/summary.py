"""The summary of a repository: a list of its refs, in one file.

``(a(s(taya{sv}))a{sv})``: refs with the size of the commit object (in the byte order of the host that wrote it), the
commit's id and metadata; metadata of the repository.  Summaries of large repositories have tens of thousands of refs
and one is wanted, so the list is searched without decoding it.

Source: libostree, ostree-repo.c, OSTREE_SUMMARY_GVARIANT_STRING.
"""

from __future__ import annotations

from typing import NamedTuple

from composefs_ext.errors import FormatError
from composefs_ostree.names import ID_SIZE, is_ref
from composefs_ostree.transport import MAX_METADATA

__all__ = ["SummaryRef", "find_ref", "list_refs"]

_REF_TYPE = "(s(taya{sv}))"


class SummaryRef(NamedTuple):
    """A ref in the summary; ``size`` is how many bytes the commit object has, and bounds its fetch."""

    commit: bytes
    size: int


def find_ref(summary: bytes, name: str) -> SummaryRef | None:
    """Look up a ref, None if the summary does not have it; raise FormatError for a malformed summary."""
    from composefs_ostree import gvariant

    refs = _refs(summary)
    needle = name.encode() + b"\0"
    found = [data for data in gvariant.array_elements(refs, 8) if data[: len(needle)] == needle]
    if len(found) > 1:
        raise FormatError(f"malformed summary: the ref {name} occurs twice")
    if not found:
        return None
    return _parse_ref(found[0])[1]


def list_refs(summary: bytes) -> dict[str, bytes]:
    """Return the commits of all refs, by name; raise FormatError for a malformed summary."""
    from composefs_ostree import gvariant

    refs: dict[str, bytes] = {}
    for data in gvariant.array_elements(_refs(summary), 8):
        name, ref = _parse_ref(data)
        if name in refs or not is_ref(name):
            raise FormatError(f"malformed summary: {name[:80]!a} occurs twice or is not a ref")
        refs[name] = ref.commit
    return refs


def _parse_ref(data: memoryview) -> tuple[str, SummaryRef]:
    from composefs_ostree import gvariant

    name, (size, commit, _) = gvariant.decode(_REF_TYPE, data)
    if len(commit) != ID_SIZE:
        raise FormatError(f"malformed summary: the commit of {name[:80]!a} has an id of {len(commit)} bytes")
    # The size is in the byte order of the server, which nothing tells; the smaller reading is the possible one.
    swapped = int.from_bytes(size.to_bytes(8, "little"), "big")
    return name, SummaryRef(commit, min(size, swapped, MAX_METADATA))


def _refs(summary: bytes) -> memoryview:
    """Return the list of refs: the first of the two members, whose end stands at the end of the summary."""
    from composefs_ostree import gvariant

    view = memoryview(summary)
    width = gvariant.offset_size(len(view))
    end = int.from_bytes(view[len(view) - width :], "little")
    if not width or end > len(view) - width:
        raise FormatError("malformed summary: its list of refs lies outside of it")
    return view[:end]
