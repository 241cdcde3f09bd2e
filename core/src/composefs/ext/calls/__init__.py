"""The calls an extension may make: one table of functions, with what each needs.

A call takes the session's Context and its parameters and returns its result; it raises ComposefsError to answer with an
error.  The modules of this package hold one group of calls each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from composefs.errors import CancelledError, PermissionDeniedError, UnsupportedError
from composefs.ext.calls import events, images, objects, publish, refs, repo, streams
from composefs.ext.context import Context
from composefs.protocol import DRAFTS
from composefs.protocol.wire import Message

__all__ = ["CALLS", "Call", "check_allowed"]


class Call(NamedTuple):
    """One method.

    ``repository`` is the least that the command's manifest must have asked for (``source``: any, if the call has a
    ``from``); ``stores`` calls are refused after a cancel; only a ``notification`` may come without id.  Without its
    ``feature``, if it has one, a call is unknown.
    """

    function: Callable[[Context, Message], Message]
    repository: Literal["none", "source", "read", "write"] = "none"
    stores: bool = False
    permission: str | None = None
    notification: bool = False
    feature: str | None = None

    def needs_more(self, mode: str) -> bool:
        """Tell whether a command with this ``repository`` in the manifest may not make the call."""
        return (self.repository == "read" and mode == "none") or (self.repository == "write" and mode != "write")


CALLS: dict[str, Call] = {
    "object.put": Call(objects.put, "write", stores=True),
    "object.has": Call(objects.has, "read"),
    "object.get": Call(objects.get, "read"),
    "stream.put": Call(streams.put, "write", stores=True),
    "stream.get": Call(streams.get, "source"),
    "stream.cat": Call(streams.cat, "source"),
    "stream.list": Call(streams.list_streams, "source"),
    "image.draft": Call(images.draft, feature=DRAFTS),
    "image.put": Call(images.put, "write", stores=True),
    "image.digest": Call(images.digest),
    "image.dump": Call(images.dump),
    "image.objects": Call(images.objects, "read"),
    "image.mount": Call(images.mount, "read", permission="mount"),
    "publish": Call(publish.publish, "write", stores=True),
    "ref.get": Call(refs.get, "source"),
    "ref.list": Call(refs.list_refs, "source"),
    "repo.fsck": Call(repo.fsck, "read"),
    "repo.copy": Call(repo.copy, "write", stores=True),
    "progress": Call(events.progress, notification=True),
    "log": Call(events.log, notification=True),
    "output": Call(events.output, notification=True),
}


def check_allowed(name: str, call: Call, context: Context) -> None:
    """Refuse a call that the manifest, the repository or a cancel does not allow, or that no feature brought."""
    if call.feature is not None and call.feature not in context.features:
        raise UnsupportedError(f"{name} is there with the feature {call.feature}, which initialize did not agree on")
    if call.stores and context.cancelled:
        raise CancelledError(f"{name}: the command was cancelled")
    if call.permission is not None and call.permission not in context.command.permissions:
        raise PermissionDeniedError(
            f"{name} needs the permission {call.permission}, which the manifest does not ask for"
        )
    mode = context.command.repository
    if call.needs_more(mode):
        raise PermissionDeniedError(
            f"{name} needs a command with repository {call.repository}; {' '.join(context.command.name)} has {mode}"
        )
