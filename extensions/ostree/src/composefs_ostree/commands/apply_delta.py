"""``apply-delta``: a static delta in files of its own, as ``ostree static-delta generate --filename`` writes it.

The delta plays the repository to pull from: one whose summary lists this delta alone, and which has no object but those
that the delta brings.  Everything else is as in a pull: the same checks, the same names.
"""

from __future__ import annotations

import os
from hashlib import sha256

from composefs_ext.errors import (
    CorruptError,
    ExtError,
    FormatError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedError,
)
from composefs_ext.files import read_up_to
from composefs_ostree.deltas.superblock import Delta, parse_superblock
from composefs_ostree.fetching.transport import DirectoryTransport, Fetch, bad_object, open_regular
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.commit_stream import partial_name, stream_name
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import MAX_METADATA, ObjectType, object_path
from composefs_ostree.formats.summary import SUMMARY_TYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request
    from composefs_ext.packs import Packs
    from composefs_ostree.fetching.files import Files
    from composefs_ostree.signatures.policy import Policy

__all__ = ["apply_delta"]

_SUPERBLOCK = "superblock"


def apply_delta(request: Request, core: Core) -> dict[str, Any]:
    """Bring in the commit of a delta; print and return what came of it."""
    from composefs_ostree.commands.pulling import wants_nul
    from composefs_ostree.pulling.commits import Commits
    from composefs_ostree.pulling.known import Terms

    source = DeltaSource(request.arguments["file"])
    delta = source.delta
    policy = _checked_signature(request, source)
    terms = Terms(policy, keep_nul=wants_nul(request), use_deltas=True)
    with Commits(core, source, source.open(core), terms) as commits:
        current = None if delta.origin is None else stream_name(delta.origin)
        if current is not None:
            _require_origin(core, source, current)
        here = commits.bring(delta.to, current=current).here
        images = [{"id": image} for image in sorted(commits.images)]
        rows = core.publish(streams=list(commits.rows.values()), images=images).result()["streams"]  # type: ignore[arg-type]
    outcome = {
        "commit": delta.to.hex(),
        "verity": {row["name"]: row["id"] for row in rows}[here.name],
        "image": here.image,
        "metadata": here.metadata,
        "files": here.files,
        "delta_parts": here.parts,
    }
    core.output(
        f"commit  {outcome['commit']}\n"
        f"verity  {outcome['verity']}\n"
        f"image   {outcome['image']}\n"
        f"objects {here.metadata} metadata + {here.files} files applied via {here.parts} delta parts\n"
    )
    return outcome


def _require_origin(core: Core, source: DeltaSource, current: str) -> None:
    if any(_is_here(core, name) for name in (current, stream_name(source.delta.to))):
        return
    assert source.delta.origin is not None
    origin = source.delta.origin.hex()
    where, hint = "not here", "pull that commit first, or take a delta from scratch"
    if _is_here(core, partial_name(source.delta.origin)):
        where, hint = "here in part only", "pull that commit again without --subpath and --commit-metadata-only"
    raise NotFoundError(
        f"{source.file}: the delta is from commit {origin}, which is {where}", hint=hint, subject=origin
    )


def _is_here(core: Core, name: str) -> bool:
    try:
        core.stream_get(name=name).result()
    except NotFoundError:
        return False
    return True


def _checked_signature(request: Request, source: DeltaSource) -> Policy:
    """Check the signature of a signed superblock, if one is wanted; return what the commit must still be signed by."""
    from composefs_ostree.remotes.record import policy_for
    from composefs_ostree.signatures.checking import verify
    from composefs_ostree.signatures.policy import options_of

    policy = policy_for(None, options_of(request))
    signed = source.delta.signed
    if signed is None or policy.sign is None:
        return policy
    verify(signed.payload, signed.signatures, policy._replace(gpg=None), f"delta {source.file}")
    return policy._replace(sign=None)  # the commit is a part of what is signed


class DeltaSource:
    """The repository that a delta in a file stands for, which has no refs: the one commit is known."""

    has_objects = False
    max_workers = None

    def __init__(self, path: str) -> None:
        """``path`` is a superblock, or the directory that one is in, the parts beside it.

        Raises NotFoundError, FormatError, CorruptError or UnsupportedError.
        """
        self._is_typed = not os.path.isdir(path)
        self.file = path if self._is_typed else os.path.join(path, _SUPERBLOCK)
        try:
            with open(open_regular(self.file), "rb") as file:
                data = read_up_to(file, MAX_METADATA + 1)
            if len(data) > MAX_METADATA:
                raise CorruptError(f"it is longer than {MAX_METADATA} bytes")
            self.delta: Delta = parse_superblock(data)
        except FileNotFoundError:
            raise NotFoundError(f"{self.file}: not found", hint="give the file of a static delta") from None
        except FormatError as error:
            raise FormatError(
                f"{self.file} is no static delta, or a damaged one: {error.message}",
                hint="ostree static-delta generate --inline --filename=FILE writes one",
                subject=self.file,
            ) from None
        except ExtError as error:
            raise bad_object(self.file, error) from None
        self._digest = sha256(data).digest()

    def open(self, core: Core) -> DeltaTransport:
        """Return what reads the delta's files; refuse a delta that lacks some of what it is to make."""
        if self.delta.fallbacks and not self._has_fallbacks(core):
            from composefs_ext.text import counted

            left = counted(len(self.delta.fallbacks), "large file")
            raise UnsupportedError(
                f"{self.file}: the delta leaves {left} to be fetched one by one",
                hint="pull from the repository, or have the delta made with --min-fallback-size=0",
            )
        return self.content_transport()

    def _has_fallbacks(self, core: Core) -> bool:
        from composefs_ostree.held import open_commit

        for commit in (self.delta.to, self.delta.origin):
            if commit is None or not _is_here(core, stream_name(commit)):
                continue
            held, _ = open_commit(core, stream_name(commit))
            if all(held.get(file_id) is not None for file_id in self.delta.fallbacks):
                return True
        return False

    def heading(self) -> bytes:
        """Return a summary that lists this delta."""
        names = [commit.hex() for commit in (self.delta.origin, self.delta.to) if commit is not None]
        listed = {"-".join(names): Variant("ay", self._digest)}
        return gvariant.encode(SUMMARY_TYPE, ([], {"ostree.static-deltas": Variant("a{sv}", listed)}))

    def content_transport(self) -> DeltaTransport:
        """Return what reads the delta's files."""
        return DeltaTransport(self.file, self.delta, is_typed=self._is_typed)

    def files(self, inline_limit: int, packs: Packs) -> Files:
        """Return what would bring files that the delta does not, if there were any."""
        from composefs_ostree.fetching.files import FetchedFiles

        return FetchedFiles(self.content_transport(), inline_limit, packs)


class DeltaTransport(DirectoryTransport):
    """The files of the repository that a delta stands for: superblock, parts, detached metadata."""

    def __init__(self, file: str, delta: Delta, *, is_typed: bool) -> None:
        """``file`` is the superblock; ``is_typed``: the user gave it, and not the directory that it is in."""
        super().__init__(os.path.dirname(file) or ".")
        self._file = file
        self._is_typed = is_typed
        self._prefix = f"{delta.path}/"
        self._detached_path = object_path(ObjectType.COMMITMETA, delta.to)
        self._detached = delta.detached
        self._inline = {part.path for part in delta.parts if part.inline is not None}

    def _read(self, fetch: Fetch) -> None:
        if fetch.path == self._detached_path and self._detached is not None:
            fetch.take(self._detached)
            return
        if not fetch.path.startswith(self._prefix):
            raise FileNotFoundError
        try:
            super()._read(fetch)
        except PermissionError:
            if not self._is_typed:
                raise
            # Confinement lets an extension read what the user typed, and nothing beside it.
            raise PermissionDeniedError(
                "it cannot be read, as only its superblock was given",
                hint=f"give the directory of both: cfsctl ostree apply-delta {os.path.dirname(self._file) or '.'}",
            ) from None

    def where(self, path: str) -> str:
        """Return the path of the superblock or of a part; what else is wanted, the delta should have brought."""
        if path == f"{self._prefix}{_SUPERBLOCK}":
            return self._file
        if path in self._inline:
            return f"{self._file}: part {path.removeprefix(self._prefix)}"
        if path.startswith(self._prefix):
            return f"{os.path.dirname(self._file) or '.'}/{path.removeprefix(self._prefix)}"
        return f"{self._file}: {path}"
