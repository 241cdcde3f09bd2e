"""publish: the one call that makes anything visible.

What the extension may name, and that an id is what it is to be named as, is checked here; the repository checks the
rest, and writes the names behind one durability barrier.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from composefs.errors import PermissionDeniedError, UsageError
from composefs.ext.calls.streams import check_stream
from composefs.ext.context import Context
from composefs.protocol.lists import check_objects, json_lines
from composefs.protocol.params import check_id, staged_name, string
from composefs.protocol.wire import JSONValue, Message
from composefs.repository.publication import ANY, ImageName, Publication, RefRemoval, RefUpdate, StreamName

__all__ = ["publish"]

_LISTS = ("streams", "images", "refs", "remove_refs")
_FIELDS = ("name", "id", "if_exists", "expect", "ref", "target")
"""Those of all lists."""


def publish(context: Context, params: Message) -> Message:
    """Make streams, images and refs visible, and answer what was there before.

    How much room that takes in a message is known when all is done, so it is for the extension to name files.
    """
    take = partial(_take, context, params)
    publication = Publication(
        streams=[_stream(context, row) for row in take("streams")],
        images=[_image(context, row) for row in take("images")],
        refs=[_ref(context, row) for row in take("refs")],
        remove_refs=[_removal(context, row) for row in take("remove_refs")],
    )
    with ExitStack() as stack:
        # Made before anything is visible: a call that fails because a name is taken has published nothing.
        files = {key: stack.enter_context(context.staged.create(name)) for key, name in _into(params)}
        done = context.repo.publish(publication)
        answer: dict[str, list[JSONValue]] = {
            "streams": [{"name": name, "id": now, "previous": before} for name, now, before in done.streams],
            "images": [{"id": each} for each in done.images],
            "refs": [{"name": name, "previous": before} for name, before in done.refs],
            "remove_refs": [{"name": name, "previous": before} for name, before in done.removed_refs],
        }
        for key, file in files.items():
            file.fill(json_lines(answer.pop(key)))
    return answer


def _into(params: Message) -> list[tuple[str, str]]:
    """Return the lists that are to go into staged files, with the names of these."""
    named = [(key, f"{key}_into") for key in _LISTS if params.get(f"{key}_into") is not None]
    return [(key, staged_name(params[into], into)) for key, into in named]


def _take(context: Context, params: Message, key: str) -> list[Message]:
    check = check_objects(key, *_FIELDS, strings=key == "remove_refs")
    return [{"name": row} if type(row) is str else row for row in context.lists.take(params, key, check)]


def _stream(context: Context, row: Message) -> StreamName:
    name = context.own_stream(string(row, "name"))
    stream_id = check_id(row.get("id"), context.algorithm.hex_size, "id")
    expect = row.get("expect", ANY)
    if expect is not ANY and expect is not None:
        check_id(expect, context.algorithm.hex_size, "expect")
    # Any object may be a stream that the extension wrote itself; one with this name already is as it was.
    if stream_id not in context.seen.whole_streams and context.repo.streams.lookup(name) != stream_id:
        check_stream(context, stream_id)
    match string(row, "if_exists", "fail"):
        case ("keep" | "replace" | "fail") as if_exists:
            return StreamName(name, stream_id, if_exists, expect)
        case _:
            raise UsageError(f"stream {name}: if_exists is not one of keep, replace, fail")


def _image(context: Context, row: Message) -> ImageName:
    image_id = check_id(row.get("id"), context.algorithm.hex_size, "id")
    # Whoever mounts it lets the kernel read it, so it is read here first; with a name already, it is as visible as it
    # can be, and a pull that finds nothing new would spend most of its time on it.
    if image_id not in context.seen.whole_images and not context.repo.images.is_named(image_id):
        context.seen.check_image(image_id)
    if row.get("ref") is None:
        return ImageName(image_id)
    ref = string(row, "ref")
    directories = {each.dir for each in context.manifest.refs}
    directory, _, rest = ref.partition("/")
    if not (directory in directories and rest) and ref not in context.line.typed("image", "ref"):
        raise PermissionDeniedError(
            f"image ref {ref} does not belong to extension {context.manifest.name}",
            subject=ref,
            hint=f"its own are in {' or '.join(sorted(directories))}; others only if the user typed them",
        )
    return ImageName(image_id, ref)


def _ref(context: Context, row: Message) -> RefUpdate:
    name = string(row, "name")
    return RefUpdate(name, context.own_stream(string(row, "target")), context.own_ref(name), _expected(row))


def _removal(context: Context, row: Message) -> RefRemoval:
    name = string(row, "name")
    return RefRemoval(name, context.own_ref(name), _expected(row))


def _expected(row: Message) -> JSONValue:
    """The target a ref must have: a name, None for none, ANY if the field is missing."""
    expect = row.get("expect", ANY)
    if expect is not ANY and expect is not None and type(expect) is not str:
        raise UsageError("expect is neither a string nor null")
    return expect
