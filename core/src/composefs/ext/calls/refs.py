"""ref.get and ref.list: what the extension's own names stand for."""

from __future__ import annotations

from collections.abc import Iterator

from composefs.errors import CorruptError, NotFoundError
from composefs.ext.context import Context
from composefs.protocol.params import string
from composefs.protocol.wire import JSONValue, Message

__all__ = ["get", "list_refs"]


def get(context: Context, params: Message) -> Message:
    """Resolve one ref, DIR/NAME, to the stream it names and that stream's id."""
    name = string(params, "name")
    encoding = context.own_ref(name)
    repository = context.source(params)
    target = repository.refs.read(name, encoding)
    if target is None:
        raise NotFoundError(f"there is no ref {name!r}", subject=name, hint="`cfsctl ref list` lists them")
    return {"name": name, "target": target, "id": repository.streams.resolve(target)}


def list_refs(context: Context, params: Message) -> Message:
    """List the refs in the extension's directories that begin with ``prefix``; warn the user of what is no ref."""
    prefix = string(params, "prefix", "")
    repository = context.source(params)

    def odd(message: str) -> None:
        context.observer.log("warning", f"left out: {message}")

    def rows() -> Iterator[JSONValue]:
        for directory in context.manifest.refs:
            inside = f"{directory.dir}/"
            if not (inside.startswith(prefix) or prefix.startswith(inside)):
                continue
            for name, target in repository.refs.list(max(inside, prefix, key=len), directory.encoding, odd=odd):
                try:
                    yield {"name": name, "target": target, "id": repository.streams.resolve(target)}
                except (NotFoundError, CorruptError) as error:
                    odd(f"the ref {name}: {error.message}")

    return context.lists.give(params, "refs", rows())
