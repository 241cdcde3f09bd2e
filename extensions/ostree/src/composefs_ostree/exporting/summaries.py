"""The summary of a repository that is written to: all its refs, and what else clients over HTTP must know.

It has what ``ostree summary --update`` puts there.  A static delta is listed with the checksum of the superblock that
is there now, and one that is not there any more is not.  Source: ostree-repo.c of libostree, docs/formats/ostree.md.
"""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from time import time
from typing import Any

from composefs_ext.errors import CorruptError, FormatError
from composefs_ostree.deltas.listing import delta_name
from composefs_ostree.exporting.target import Target
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import (
    MAX_METADATA,
    MAX_REF_FILE,
    ObjectType,
    is_collection,
    is_ref,
    object_path,
    parse_checksum_line,
)
from composefs_ostree.formats.objects import parse_commit
from composefs_ostree.formats.summary import COLLECTION, COLLECTION_MAP, MAP_TYPE, SUMMARY_TYPE

__all__ = ["make_summary"]

_MAX_DEPTH = 64
_MAX_ALIASES = 8


def make_summary(target: Target) -> bytes:
    """Return the summary of what the repository has now; raise CorruptError for a ref without its commit."""
    refs = _rows(target, "refs/heads")
    core = target.settings.get("core", {})
    metadata: dict[str, Variant] = {}
    if core.get("no-deltas-in-summary", "").strip() not in ("true", "1") and (deltas := _deltas(target)):
        metadata["ostree.static-deltas"] = Variant("a{sv}", deltas)
    metadata["ostree.summary.mode"] = Variant("s", "archive-z2" if target.mode == "archive" else target.mode)
    metadata["ostree.summary.last-modified"] = Variant("t", _big_endian(int(time()) % (1 << 64)))
    tombstones = core.get("tombstone-commits", "").strip() in ("true", "1")
    metadata["ostree.summary.tombstone-commits"] = Variant("b", tombstones)
    metadata["ostree.summary.indexed-deltas"] = Variant("b", True)
    if collection := core.get("collection-id", "").strip():
        metadata[COLLECTION] = Variant("s", collection)
    mirrors = {name: _rows(target, f"refs/mirrors/{name}") for name in _collections(target)}
    if mirrors := {name: rows for name, rows in mirrors.items() if rows}:
        metadata[COLLECTION_MAP] = Variant(MAP_TYPE, mirrors)
    return gvariant.encode(SUMMARY_TYPE, (refs, metadata))


def _big_endian(number: int) -> int:
    return int.from_bytes(number.to_bytes(8, "big"), "little")


def _rows(target: Target, top: str) -> list[Any]:
    """Return the rows of all refs below a directory, sorted by name."""
    rows = []
    for name in sorted(_refs(target, top, "", 0), key=str.encode):
        file = _file_of(target, top, f"{top}/{name}")
        if file is None:
            continue
        commit_id = parse_checksum_line(target.read(file, MAX_REF_FILE), f"{target.path}/{file}")
        try:
            data = target.read(object_path(ObjectType.COMMIT, commit_id), MAX_METADATA)
            commit = parse_commit(data)
        except (FileNotFoundError, FormatError):
            raise CorruptError(
                f"{target.path}: the ref {name} names the commit {commit_id.hex()}, which is missing or damaged",
                hint="delete the ref, or add --no-summary",
                subject=name,
            ) from None
        facts = {"ostree.commit.timestamp": Variant("t", _big_endian(commit.timestamp))}
        version = commit.metadata.get("version")
        if version is not None and version.signature == "s":
            facts["ostree.commit.version"] = version
        rows.append((name, (len(data), commit_id, facts)))
    return rows


def _collections(target: Target) -> list[str]:
    """Return whose refs are mirrored; as ostree does, pass over what is no directory of a collection."""
    return [
        name
        for name in sorted(_list(target, "refs/mirrors"))
        if is_collection(name)
        and stat.S_ISDIR(os.stat(name, dir_fd=target.directories.open("refs/mirrors"), follow_symlinks=False).st_mode)
    ]


def _list(target: Target, path: str) -> list[str]:
    try:
        return os.listdir(target.directories.open(path))
    except FileNotFoundError:
        return []


def _refs(target: Target, top: str, name: str, depth: int) -> list[str]:
    """Return the names of all refs below a directory; what is no ref's file is passed over."""
    found: list[str] = []
    path = f"{top}/{name}".rstrip("/")
    for each in _list(target, path):
        full = f"{name}/{each}" if name else each
        if not is_ref(full):
            continue
        mode = os.stat(each, dir_fd=target.directories.open(path), follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode) and depth < _MAX_DEPTH:
            found += _refs(target, top, full, depth + 1)
        elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            found.append(full)
    return found


def _file_of(target: Target, top: str, path: str) -> str | None:
    """Return the path of a ref's file, which is another's if it is an alias, a symlink; None if it leads to none."""
    for _ in range(_MAX_ALIASES):
        above, _, last = path.rpartition("/")
        try:
            directory = target.directories.open(above)
            mode = os.stat(last, dir_fd=directory, follow_symlinks=False).st_mode
        except (FileNotFoundError, CorruptError):
            return None
        if not stat.S_ISLNK(mode):
            return path if stat.S_ISREG(mode) else None
        # No directory on the way is a symlink, so that the text alone tells where this one leads.
        path = os.path.normpath(os.path.join(above, os.readlink(last, dir_fd=directory)))
        if not path.startswith(f"{top}/"):
            return None
    return None


def _deltas(target: Target) -> dict[str, Variant]:
    """Return the checksums of the superblocks of all static deltas, by name."""
    deltas: dict[str, Variant] = {}
    for folder in sorted(_list(target, "deltas")):
        if len(folder) != 2:
            continue
        for rest in sorted(_list(target, f"deltas/{folder}")):
            name = delta_name(folder + rest)
            if name is None:
                continue
            try:
                data = target.read(f"deltas/{folder}/{rest}/superblock", MAX_METADATA)
            except FileNotFoundError:
                continue
            deltas[name] = Variant("ay", sha256(data).digest())
    return deltas
