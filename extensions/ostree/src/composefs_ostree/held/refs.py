"""Which commit is meant: from a ref, a commit id or its first digits to the name of a stream."""

from __future__ import annotations

from composefs_ext.errors import NotFoundError, UsageError
from composefs_ostree.formats.commit_stream import PARTIAL_PREFIX, STREAM_PREFIX
from composefs_ostree.formats.names import ID_SIZE, is_commit_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext import Core
    from composefs_ext.connection import Pending
    from composefs_ext.rows import RefRow

__all__ = [
    "all_refs",
    "commit_streams",
    "current_target",
    "find_stream",
    "hint_for",
    "ref_name",
    "similar_target",
    "target_of",
]

_DIRECTORY = "ostree"
_SHORTEST_PREFIX = 4
_LONGEST_FILE_NAME = 255


def ref_name(name: str) -> str:
    """Return an ostree ref as the core names it; raise UsageError for an empty one.

    Those that ostree would not take are found too, as composefs-rs makes them.
    """
    if not name:
        raise UsageError("a ref's name cannot be empty")
    return f"{_DIRECTORY}/{name}"


def all_refs(core: Core) -> dict[str, str]:
    """Return the streams that the refs name, by the names of these as users know them."""
    rows = core.ref_list(f"{_DIRECTORY}/").result()
    return {row["name"].removeprefix(f"{_DIRECTORY}/"): row["target"] for row in rows}


def current_target(core: Core, ref: str | None) -> str | None:
    """Return the name of the stream that a ref names now, None if there is no such ref, or none is asked for."""
    return None if ref is None else target_of(core.ref_get(ref_name(ref)))


def target_of(answer: Pending[RefRow]) -> str | None:
    """Return the name in the answer to ``ref.get``, None if there is no such ref."""
    row = answer.found()
    return None if row is None else row["target"]


def find_stream(core: Core, name: str) -> str:
    """Return the name of the stream of a held commit, given by ref, commit id or the first digits of one.

    Each ``^`` behind it means the parent, as in ostree.  Raises NotFoundError if there is none, UsageError if the
    digits fit several.
    """
    if _may_be_ref(name) and not is_commit_id(name):
        target = current_target(core, name)
        if target is not None:
            return target
    if name.endswith("^"):
        return _parent_of(core, name[:-1])
    found = _beginning_with(core, name)
    if len(found) > 1:
        raise UsageError(f"{len(found)} commits begin with {name}", hint="give more digits", subject=name)
    if not found:
        raise NotFoundError(
            f"{name!r} is not a known ostree ref or valid commit ID", hint=hint_for(core, name), subject=name
        )
    return found[0]


def _beginning_with(core: Core, digits: str) -> list[str]:
    """Return the streams of the commits whose ids begin so, one of each; none if this is no beginning, or too short."""
    if len(digits) < _SHORTEST_PREFIX or not is_commit_id(digits.ljust(2 * ID_SIZE, "0")):
        return []
    return list(commit_streams(core, digits).values())


def commit_streams(core: Core, digits: str = "") -> dict[str, str]:
    """Return the streams of the commits that are here and whose ids begin so, by these ids, one of each."""
    found: dict[str, str] = {}
    for prefix in (STREAM_PREFIX, PARTIAL_PREFIX):
        for row in core.stream_list(prefix + digits).result():
            found.setdefault(row["name"].removeprefix(prefix), row["name"])  # the whole commit, where it is here
    return found


def hint_for(core: Core, name: str) -> str:
    """Tell who names no ref what to do.

    A remote's is called REMOTE:REF, which ostree finds by REF too; `cfsctl ref list` shows each with its directory.
    """
    meant = [ref for ref in all_refs(core) if name in (ref.partition(":")[2], ref_name(ref))]
    return f"did you mean {' or '.join(meant)}?" if meant else "cfsctl ostree images lists the refs"


def similar_target(core: Core, ref: str) -> str | None:
    """Return what the ref with the most similar name names here, by the words in common; None if none has any."""
    words = _words_of(ref)
    near: dict[str, int] = {}
    for name, target in all_refs(core).items():
        if common := len(words & _words_of(name)):
            near[target] = max(common, near.get(target, 0))
    return max(near, key=near.__getitem__, default=None)


def _words_of(ref: str) -> set[str]:
    return set(ref.replace(":", "/").split("/"))


def _parent_of(core: Core, child: str) -> str:
    from composefs_ostree.held.streams import open_commit
    from composefs_ostree.held.tree import load_commit

    held, _ = open_commit(core, find_stream(core, child), partial=True)
    parent = load_commit(held).parent
    if parent is None:
        raise NotFoundError(f"the commit {child!r} has no parent", subject=child)
    try:
        return find_stream(core, parent.hex())
    except NotFoundError as error:
        raise NotFoundError(
            f"the parent of {child!r}, commit {parent.hex()}, is not here",
            hint=f"it was not pulled (pull {child} again with --depth=1), or cfsctl gc has removed it",
            subject=parent.hex(),
        ) from error


def _may_be_ref(name: str) -> bool:
    """Tell whether the core could have a ref of this name; it refuses to look for impossible ones."""
    file_name = name.replace("%", "%25").replace("/", "%2F")
    return not {"", ".", ".."}.intersection(name.split("/")) and len(file_name.encode()) <= _LONGEST_FILE_NAME
