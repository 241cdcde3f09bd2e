"""The summary of a repository: a list of its refs, in one file.

``(a(s(taya{sv}))a{sv})``: refs with the size of the commit object (in the byte order of the host that wrote it), the
commit's id and metadata; metadata of the repository.  Summaries of large repositories have tens of thousands of refs
and one is wanted, so the list is searched without decoding it, and so is the metadata.

The refs in the list belong to the collection that ``ostree.summary.collection-id`` names, if any; those of other
collections are in ``ostree.summary.collection-map``, ``a{sa(s(taya{sv}))}``.

Source: libostree, ostree-repo.c, OSTREE_SUMMARY_GVARIANT_STRING and OSTREE_SUMMARY_COLLECTION_MAP.
"""

from __future__ import annotations

from composefs_ext.errors import FormatError
from composefs_ext.tuples import NamedTuple
from composefs_ostree.formats.names import ID_SIZE, MAX_METADATA, is_ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeGuard

    from composefs_ostree.formats.gvariant import Variant

__all__ = [
    "COLLECTION",
    "COLLECTION_MAP",
    "MAP_TYPE",
    "SUMMARY_TYPE",
    "SummaryRef",
    "collections",
    "find_ref",
    "list_refs",
    "metadata_value",
    "split_summary",
]

COLLECTION = "ostree.summary.collection-id"
COLLECTION_MAP = "ostree.summary.collection-map"
_REF_TYPE = "(s(taya{sv}))"
SUMMARY_TYPE = f"(a{_REF_TYPE}a{{sv}})"
MAP_TYPE = f"a{{sa{_REF_TYPE}}}"


class SummaryRef(NamedTuple):
    """A ref in the summary; ``size`` is how many bytes the commit object has, and bounds its fetch."""

    commit_id: bytes
    size: int


def find_ref(
    summary: bytes, name: str, collection: str | None = None, heading: bytes | None = None
) -> SummaryRef | None:
    """Look up a ref, None if the summary does not have it; raise FormatError for a malformed summary.

    ``collection`` is the one that the ref must belong to, None if it does not matter.  ``heading`` is another summary
    of the repository, which tells its collection where this one, being a part, does not.
    """
    from composefs_ostree.formats import gvariant

    if _is_other(collection, summary, heading):
        found = [ref for ref in _mapped(summary).get(collection, ()) if ref[0] == name]
        refs = [_summary_ref(*ref) for ref in found]
    else:
        needle = name.encode() + b"\0"
        rows = [data for data in gvariant.array_elements(split_summary(summary)[0], 8) if data[: len(needle)] == needle]
        refs = [_summary_ref(*gvariant.decode(_REF_TYPE, data)) for data in rows]
    if len(refs) > 1:
        raise FormatError(f"malformed summary: the ref {name} occurs twice")
    return refs[0] if refs else None


def list_refs(summary: bytes, collection: str | None = None, heading: bytes | None = None) -> dict[str, bytes]:
    """Return the commits of the refs that `find_ref` finds, by name; raise FormatError for a malformed summary."""
    from composefs_ostree.formats import gvariant

    if _is_other(collection, summary, heading):
        return _by_name(_mapped(summary).get(collection, ()))
    return _by_name(gvariant.decode(_REF_TYPE, data) for data in gvariant.array_elements(split_summary(summary)[0], 8))


def collections(summary: bytes) -> dict[str, dict[str, bytes]]:
    """Return the commits of all refs by collection and name; the repository's own come first, "" if they have none."""
    return {_own_collection(summary) or "": list_refs(summary)} | {
        collection: _by_name(refs) for collection, refs in _mapped(summary).items()
    }


def metadata_value(summary: bytes, key: str) -> Variant | None:
    """Return a value of the metadata, None if there is none; raise FormatError for a malformed summary."""
    from composefs_ostree.formats import gvariant

    needle = key.encode() + b"\0"
    found = [data for data in gvariant.array_elements(split_summary(summary)[1], 8) if data[: len(needle)] == needle]
    if len(found) > 1:
        raise FormatError(f"malformed summary: its metadata have the key {key} twice")
    values: list[Variant] = [gvariant.decode("{sv}", data)[1] for data in found]
    return values[0] if values else None


def _is_other(collection: str | None, summary: bytes, heading: bytes | None) -> TypeGuard[str]:
    """Tell whether a collection is asked for that is not the repository's own."""
    return collection is not None and collection != (_own_collection(summary) or _own_collection(heading))


def _own_collection(summary: bytes | None) -> str | None:
    value = metadata_value(summary, COLLECTION) if summary is not None else None
    return value.value or None if value is not None and value.signature == "s" else None


def _mapped(summary: bytes) -> dict[str, list[Any]]:
    """Return the refs of other collections."""
    value = metadata_value(summary, COLLECTION_MAP)
    if value is None:
        return {}
    if value.signature != MAP_TYPE:
        raise FormatError(f"malformed summary: its {COLLECTION_MAP} is of type {value.signature}")
    mapped: dict[str, list[Any]] = value.value
    return mapped


def _by_name(rows: Iterable[Any]) -> dict[str, bytes]:
    refs: dict[str, bytes] = {}
    for name, row in rows:
        if name in refs or not is_ref(name):
            raise FormatError(f"malformed summary: {name[:80]!a} occurs twice or is not a ref")
        refs[name] = _summary_ref(name, row).commit_id
    return refs


def _summary_ref(name: str, row: tuple[int, bytes, object]) -> SummaryRef:
    size, commit, _ = row
    if len(commit) != ID_SIZE:
        raise FormatError(f"malformed summary: the commit of {name[:80]!a} has an id of {len(commit)} bytes")
    # The size is in the byte order of the server, which nothing tells; the smaller reading is the possible one.
    swapped = int.from_bytes(size.to_bytes(8, "little"), "big")
    return SummaryRef(commit, min(size, swapped, MAX_METADATA))


def split_summary(summary: bytes) -> tuple[memoryview, memoryview]:
    """Return the list of refs and the metadata; the end of the first stands at the end of the summary."""
    from composefs_ostree.formats import gvariant

    view = memoryview(summary)
    width = gvariant.offset_size(len(view))
    body_end = len(view) - width
    end = int.from_bytes(view[body_end:], "little")
    start = end + -end % 8
    if not width or start > body_end or any(view[end:start]):
        raise FormatError("malformed summary: its list of refs lies outside of it")
    return view[:end], view[start:body_end]
