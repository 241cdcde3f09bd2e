"""``inspect``: what a commit says of itself, as fields, as key=value lines of its metadata, or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from composefs_ext import Core, Request
from composefs_ostree.dates import date
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.objects import Commit
from composefs_ostree.held.refs import find_stream
from composefs_ostree.held.streams import image_of, open_commit, partly, read_detached
from composefs_ostree.held.tree import load_commit
from composefs_ostree.signatures.detached import describe
from composefs_ostree.signatures.record import Signature, facts_of, lines_of

__all__ = ["commit_facts", "commit_text", "inspect", "metadata_text", "plain"]


def inspect(request: Request, core: Core) -> dict[str, Any]:
    """Show what a commit says of itself, and what is here of it."""
    held, stream = open_commit(core, find_stream(core, request.arguments["ref"]), partial=True)
    commit = load_commit(held)
    signatures = describe(read_detached(core, stream, held.commit_id))
    if request.get("metadata"):
        core.output(metadata_text(commit))
    else:
        core.output(commit_text(held.commit_id, commit, signatures, held.subpaths))
    if not request.json:
        return {}  # what only --json shows may be too long for a message: a commit's metadata has any size
    return commit_facts(held.commit_id, commit) | {
        "verity": stream.id,
        "image": image_of(stream),
        "subpaths": held.subpaths,
        "signatures": facts_of(signatures),
    }


def commit_text(
    commit_id: bytes, commit: Commit, signatures: Sequence[Signature] = (), subpaths: list[str] | None = None
) -> str:
    """Return the fields, then subject and body as ostree log does, each behind an empty line.

    For a whole commit without signatures that is byte for byte what composefs-rs prints; what else is known, such as
    the image, is in :func:`commit_facts` and ``--json``.
    ``subpaths`` is what is here of a commit in part.
    """
    lines = [f"commit  {commit_id.hex()}"]
    if commit.parent is not None:
        lines.append(f"parent  {commit.parent.hex()}")
    lines += [
        f"date    {date(commit.timestamp)}",
        f"tree    {commit.root_tree.hex()}",
        f"dirmeta {commit.root_meta.hex()}",
    ]
    if subpaths is not None:
        lines.append(f"partial {partly(subpaths)}")
    lines += [f"signed  {line}" for line in lines_of(signatures).splitlines()]
    for text in (commit.subject, commit.body):
        if text:
            lines += ["", text.rstrip("\n")]
    return "\n".join(lines) + "\n"


def metadata_text(commit: Commit) -> str:
    """Return a line for each key of the commit's metadata."""
    return "".join(f"{key}={_text(variant.value)}\n" for key, variant in sorted(commit.metadata.items()))


def commit_facts(commit_id: bytes, commit: Commit) -> dict[str, Any]:
    """Return everything as a JSON object."""
    return {
        "commit": commit_id.hex(),
        "parent": commit.parent.hex() if commit.parent is not None else None,
        "timestamp": plain(commit.timestamp),
        "date": date(commit.timestamp),
        "tree": commit.root_tree.hex(),
        "dirmeta": commit.root_meta.hex(),
        "subject": commit.subject,
        "body": commit.body,
        "metadata": {key: plain(variant) for key, variant in commit.metadata.items()},
    }


def plain(value: Any) -> Any:
    """Turn a GVariant's value into one that JSON has: bytes become hexadecimal digits, big integers strings."""
    match value:
        case Variant(value=inner):
            return plain(inner)
        case bytes():
            return value.hex()
        case bool() | str() | None:
            return value
        case int():
            return value if abs(value) < 1 << 53 else str(value)
        case float():
            return value if value - value == 0 else str(value)  # JSON has neither infinities nor NaN
        case dict():
            return {str(plain(key)): plain(item) for key, item in value.items()}
        case _:
            return [plain(item) for item in value]


def _text(value: Any) -> str:
    match value:
        case Variant(value=inner):
            return _text(inner)
        case bytes():
            return value.hex()
        case bool():
            return str(value).lower()
        case None:
            return "nothing"
        case dict():
            return "{" + ", ".join(f"{_text(key)}: {_text(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_text, value)) + "]"
        case tuple():
            return "(" + ", ".join(map(_text, value)) + ")"
        case _:
            return str(value)
