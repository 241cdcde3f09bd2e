"""``apply-delta``: a static delta in files of its own, as ``ostree static-delta generate --filename`` writes it.

The delta plays the repository to pull from (:mod:`composefs_ostree.deltas.alone`).  Everything else is as in a pull:
the same checks, the same names.
"""

from __future__ import annotations

from typing import Any

from composefs_ext import Core, Request
from composefs_ext.errors import UNREADABLE, NotFoundError
from composefs_ostree.deltas.alone import DeltaSource
from composefs_ostree.formats.commit_stream import partial_name, stream_name
from composefs_ostree.signatures.policy import Policy, options_of

__all__ = ["apply_delta"]


def apply_delta(request: Request, core: Core) -> dict[str, Any]:
    """Bring in the commit of a delta; print and return what came of it."""
    from composefs_ostree.commands.compat import wants_nul
    from composefs_ostree.pulling.commits import Commits
    from composefs_ostree.pulling.known import Terms
    from composefs_ostree.pulling.publishing import publish

    source = DeltaSource(request.arguments["file"])
    delta = source.delta
    policy = _checked_signature(request, source)
    terms = Terms(policy, keep_nul=wants_nul(request), use_deltas=True)
    with Commits(core, source, source.open(core), terms) as commits:
        current = None if delta.origin is None else stream_name(delta.origin)
        if current is not None:
            _require_origin(core, source, current)
        here = commits.bring(delta.to, current=current).here
        streams = publish(core, list(commits.rows.values()), commits.images, {})
    outcome = {
        "commit": delta.to.hex(),
        "verity": streams[here.name],
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
    try:
        if _is_here(core, stream_name(source.delta.to)):
            return
    except UNREADABLE:
        pass  # the delta may bring it again
    if _is_here(core, current):
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
    return core.stream_get(name=name).found() is not None


def _checked_signature(request: Request, source: DeltaSource) -> Policy:
    """Check the signature of a signed superblock, if one is wanted; return what the commit must still be signed by."""
    from composefs_ostree.remotes.record import policy_for
    from composefs_ostree.signatures.checking import verify

    policy = policy_for(None, options_of(request))
    signed = source.delta.signed
    if signed is None or policy.sign is None:
        return policy
    verify(signed.payload, signed.signatures, policy._replace(gpg=None), f"delta {source.file}")
    return policy._replace(sign=None)  # the commit is a part of what is signed
