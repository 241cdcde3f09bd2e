"""``sign``: adding signatures to a commit that is here, verifying and removing them."""

from __future__ import annotations

from composefs_ext.errors import ConflictError, NotFoundError, UsageError
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.held.refs import find_stream
from composefs_ostree.held.streams import DETACHED_REF, open_commit, read_detached
from composefs_ostree.held.tree import commit_bytes
from composefs_ostree.remotes.record import policy_for
from composefs_ostree.signatures.checking import verify
from composefs_ostree.signatures.detached import KEYS, describe, signatures_in
from composefs_ostree.signatures.policy import Policy, options_of
from composefs_ostree.signatures.record import facts_of, lines_of
from composefs_ostree.signatures.signing import make_signatures, sign_options_of, with_signatures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from composefs_ext import Core, Request, Stream
    from composefs_ext.rows import StreamName

__all__ = ["sign_held"]

_SHORTEST_KEY_ID = 8
"""Digits that a key must be given by; fewer fit too many."""

_ATTEMPTS = 16
"""Times that a change is made to what is here: each but the last failed because another one's was done meanwhile."""


def sign_held(request: Request, core: Core) -> dict[str, Any]:
    """Sign the commit that the request names, or verify or remove its signatures; print and return what it has then."""
    signing, removed, is_check = sign_options_of(request), request.get("delete", ()), bool(request.get("verify"))
    if bool(signing.is_on) + bool(removed) + is_check != 1:
        raise UsageError(
            "say what to do: sign, verify, or delete signatures",
            hint="--gpg-sign KEY-ID or --sign-from-file FILE, --verify, or --delete KEY-ID",
        )
    name = find_stream(core, request.arguments["ref"])
    held, stream = open_commit(core, name, partial=True)
    what = f"commit {held.commit_id.hex()}"
    data = commit_bytes(held)
    if is_check:
        found = verify(data, read_detached(core, stream, held.commit_id), _policy(request, core), what)
    elif signing.is_on:
        made = make_signatures(core, data, signing)  # once: it may ask for a passphrase
        found = describe(_change(core, name, held.commit_id, lambda metadata: with_signatures(metadata, made)))
    else:
        found = describe(_change(core, name, held.commit_id, lambda metadata: _without(metadata, removed, what)))
    core.output(f"commit  {held.commit_id.hex()}\n" + lines_of(found))
    return {"commit": held.commit_id.hex(), "signatures": facts_of(found)}


def _policy(request: Request, core: Core) -> Policy:
    """Return whose signatures count: by the keys given, or those of the remote that the ref is of."""
    options = options_of(request)
    remote_name, colon, _ = request.arguments["ref"].partition(":")
    if options.gpg_keys or options.sign_keys:
        policy = policy_for(None, options)
    elif colon:
        from composefs_ostree.remotes.store import find_remote

        policy = policy_for(find_remote(core, remote_name))
    else:
        raise UsageError("whose signature is wanted?", hint="give --gpg-key or --sign-key, or a ref REMOTE:REF")
    if not policy.is_on:
        raise UsageError(f"the remote {remote_name!r} wants no signatures", hint="give --gpg-key or --sign-key")
    return policy


def _without(metadata: Mapping[str, Variant], keys: Sequence[str], what: str) -> dict[str, Variant]:
    """Return the metadata without GPG signatures by these keys; raise NotFoundError for a key that made none."""
    from composefs_ostree.signatures.openpgp import claims
    from composefs_ostree.signatures.packets import split

    left = [packet.data for blob in signatures_in(metadata, "gpg") for packet in split(blob)]
    for key in keys:
        wanted = key.upper().removeprefix("0X")
        others = [blob for blob in left if not (claims([blob])[0].key or "").endswith(wanted)]
        if len(wanted) < _SHORTEST_KEY_ID or others == left:
            raise NotFoundError(
                f"{what} has no GPG signature by {key!r}", hint="cfsctl ostree inspect shows the keys", subject=key
            )
        left = others
    changed = {name: value for name, value in metadata.items() if name != KEYS["gpg"]}
    return changed | {KEYS["gpg"]: Variant("aay", left)} if left else changed


def _change(
    core: Core, name: str, commit_id: bytes, change: Callable[[Mapping[str, Variant]], dict[str, Variant]]
) -> dict[str, Variant]:
    """Change the detached metadata of a commit, and return what it has then.

    Others may sign the same commit: then theirs is there first, and the change is made to what they have left.
    """
    what = f"commit {commit_id.hex()}"
    for _ in range(_ATTEMPTS):
        stream = core.stream_get(name=name).result()
        changed = change(read_detached(core, stream, commit_id))
        try:
            _keep(core, name, commit_id, stream, changed)
        except ConflictError:
            continue
        return changed
    raise ConflictError(
        f"{what} was changed by others {_ATTEMPTS} times while its signatures were to be written",
        hint="run the command again",
        subject=commit_id.hex(),
    )


def _keep(core: Core, name: str, commit_id: bytes, stream: Stream, metadata: Mapping[str, Variant]) -> None:
    """Store detached metadata and the commit's stream, which names it; publish both.

    Where nothing is left of it that is stored too, so that exports and pulls take away what the other side has.
    """
    from composefs_ostree.held.storing import put_again, put_detached

    kept = put_detached(core, commit_id, gvariant.encode("a{sv}", metadata))
    others = [(each, target) for each, target in stream.named_refs if each != DETACHED_REF]
    again: StreamName = {
        "name": name,
        "id": put_again(core, stream.id, [*others, (DETACHED_REF, kept["id"])]),
        "if_exists": "replace",
        "expect": stream.id,
    }
    core.publish(streams=[kept, again]).result()
