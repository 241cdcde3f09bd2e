"""repo.fsck and repo.copy: checking streams with all that they need, and bringing them over from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from composefs.errors import CancelledError, UsageError
from composefs.ext.context import Context
from composefs.protocol.params import boolean
from composefs.protocol.wire import JSONValue, Message

if TYPE_CHECKING:
    from composefs.graph import Start
    from composefs.repository import Repository
    from composefs.repository.lookup import Kind

__all__ = ["copy", "fsck"]


def fsck(context: Context, params: Message) -> Message:
    """Check the repository, or some of its streams."""
    from composefs.fsck import check

    streams = None
    if "streams" in params or "streams_file" in params:
        streams = _names(context, params, "streams")
    metadata_only = boolean(params, "metadata_only")
    found = check(context.repo, metadata_only=metadata_only, streams=streams, report=_watch(context))
    answer = cast("Message", found.as_json())
    errors = answer.pop("errors")
    return answer | context.lists.give(params, "errors", errors)


def copy(context: Context, params: Message) -> Message:
    """Copy streams and images of another repository, with all that they name; nothing gets a name."""
    from composefs.transfer import copy as copy_all

    if params.get("from") is None:
        raise UsageError("from is missing")
    source = context.source(params)
    starts = [_start(source, name, "stream") for name in _names(context, params, "streams")]
    starts += [_start(source, name, "image") for name in _names(context, params, "images")]
    copied = copy_all(source, context.repo, starts, report=_watch(context))
    for each in copied.streams:  # with all that they name, as whole as they are there
        context.seen.add_whole_stream(each.id)
    streams: list[JSONValue] = [
        {"from_id": each.id, "id": each.id} | ({} if each.name is None else {"name": each.name})
        for each in copied.streams
    ]
    images: list[JSONValue] = [{"from_id": each, "id": each} for each in copied.images]
    return {
        "objects": copied.objects,
        "size": copied.size,
        "present": copied.present,
        **context.lists.give(params, "streams", streams),
        **context.lists.give(params, "images", images),
    }


def _start(source: Repository, name: str, kind: Kind) -> Start:
    from composefs.graph import Start
    from composefs.repository.lookup import find

    return Start(find(source, name, (kind,)).id, kind, name)


def _names(context: Context, params: Message, key: str) -> list[str]:
    def check(block: list[JSONValue]) -> None:
        for value in block:
            if type(value) is not str:
                raise UsageError(f"{key} has an element that is not a string")

    return cast("list[str]", context.lists.take(params, key, check))


def _watch(context: Context) -> Callable[[int, int], None]:
    """Return a callback that ends the work when the user interrupts it."""

    def watch(_done: int, _total: int) -> None:
        if context.interrupted():
            raise CancelledError("interrupted")

    return watch
