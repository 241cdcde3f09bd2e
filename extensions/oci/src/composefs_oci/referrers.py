"""What refers to images, such as signatures: found by the refs that keep it, and let go of with an image's last tag."""

from __future__ import annotations

from composefs_ext.errors import NotFoundError
from composefs_oci.held import held_tags
from composefs_oci.names import REFERRER_REFS, manifest_stream, referrer_ref, tag_ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from composefs_ext import Core
    from composefs_ext.rows import Published, RefRemoval, RefUpdate

__all__ = ["forget_referrers", "let_go", "referrers_below", "referrers_of"]

_ATTEMPTS = 5


def referrers_of(core: Core, subject: str | None = None, source: str | None = None) -> dict[str, list[str]]:
    """Return, by the digest of what they refer to, the digests of the artifacts that refer to something."""
    found: dict[str, list[str]] = {}
    for row in core.ref_list(referrer_ref(subject, "") if subject else f"{REFERRER_REFS}/", source).result():
        about, _, artifact = row["name"].removeprefix(f"{REFERRER_REFS}/").partition("/")
        if row["target"] == manifest_stream(artifact):  # any other ref says nothing of the sort
            found.setdefault(about, []).append(artifact)
    return {digest: sorted(each) for digest, each in found.items()}


def referrers_below(referring: Mapping[str, Sequence[str]], digests: Iterable[str]) -> list[tuple[str, str]]:
    """Return what refers to these manifests, and to that, and so on: (subject, artifact), the nearest first.

    ``referring`` is what :func:`referrers_of` returns.
    """
    found = []
    pending = list(digests)
    seen = set(pending)
    for subject in pending:
        for artifact in referring.get(subject, ()):
            found.append((subject, artifact))
            if artifact not in seen:
                seen.add(artifact)
                pending.append(artifact)
    return found


def forget_referrers(core: Core, name: str, now: str, published: Published) -> None:
    """Remove the refs that keep what refers to the image that had a tag before, if that was its last one.

    ``now`` is the manifest's stream that the tag names since the call that answered ``published``.
    """
    [before] = (row["previous"] for row in published["refs"] if row["name"] == tag_ref(name))
    if before not in (None, now):
        let_go(core, before)


def let_go(core: Core, stream: str, name: str | None = None) -> None:
    """Remove an image's tag, if one is given, and with its last one the refs that keep what refers to it.

    With them go those below images that are not here any more: whoever took the last tag of one may have been
    interrupted before their turn, or have been ``cfsctl ref remove``.  Other images without a tag keep theirs, as with
    composefs-rs.
    """
    tags: list[str | RefRemoval] = [{"name": tag_ref(name), "expect": stream}] if name else []
    for attempt in range(1, _ATTEMPTS + 1):
        left = _left(core, stream, without=name)
        try:
            if tags or left:
                core.publish(remove_refs=[*tags, *(referrer_ref(*pair) for pair in left)]).result()
            break
        except NotFoundError:  # others remove them too, and were first
            if attempt == _ATTEMPTS:
                raise
    if left:
        _set_again(core, left)


def _set_again(core: Core, removed: list[tuple[str, str]]) -> None:
    """Set those removed refs again that a tag needs: who has pulled meanwhile has set them for it."""
    named = {target for _, target in held_tags(core)}
    referring = referrers_of(core)
    for subject, artifact in removed:
        referring.setdefault(subject, []).append(artifact)
    needed = set(_below(referring, named))
    for subject, artifact in removed:
        if (subject, artifact) in needed:
            ref: RefUpdate = {"name": referrer_ref(subject, artifact), "target": manifest_stream(artifact)}
            core.publish(refs=[ref]).found()  # None if a gc has taken the artifact


def _left(core: Core, stream: str, without: str | None = None) -> list[tuple[str, str]]:
    """Return what is below this image and those that are not here, but for what a tag but ``without`` needs."""
    referring = referrers_of(core)  # before tags and streams: what is set with one meanwhile is not among them
    if not referring:
        return []
    named = {target for name, target in held_tags(core) if name != without}
    kept = set(_below(referring, named))
    here = {row["name"] for row in core.stream_list(manifest_stream("")).result()}
    gone = {manifest_stream(subject) for subject in referring} - here
    return [pair for pair in _below(referring, {stream, *gone}) if pair not in kept]


def _below(referring: dict[str, list[str]], streams: set[str]) -> list[tuple[str, str]]:
    """Return what refers to the manifests of these streams, as :func:`referrers_below` does."""
    return referrers_below(referring, [digest for digest in referring if manifest_stream(digest) in streams])
