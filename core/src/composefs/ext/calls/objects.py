"""object.put, object.has, object.get: single files of content."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import chain, islice

from composefs.errors import ComposefsError, TooLargeError, UsageError
from composefs.ext.context import Context
from composefs.linux.closing import Descriptor
from composefs.linux.content import clone, copy
from composefs.protocol import PACKS
from composefs.protocol.errors import row_error
from composefs.protocol.lists import check_objects
from composefs.protocol.params import check_id, one_of, staged_name, string
from composefs.protocol.wire import JSONValue, Message
from composefs.repository.adoption import Adoption
from composefs.repository.packs import Range, store_ranges
from composefs.systemerrors import Doing, from_os_error

__all__ = ["get", "has", "put"]


_check_rows = check_objects("files", "name", "size", "expect", "offset")


def _check_sizes(block: list[JSONValue]) -> None:
    if not all(size is None or (type(size) is int and size >= 0) for size in block):
        raise UsageError("sizes holds something that is neither a size nor null")


def put(context: Context, params: Message) -> Message:
    """Take staged files into the repository; each row answers for itself."""
    one_of(params, "files", "files_file")
    files = context.lists.take_blocks(params, "files", _check_rows)
    context.lists.check_room(params, "objects", files.length)
    context.repo.store.require_space(0, "storing objects")
    return context.lists.give(params, "objects", chain.from_iterable(_adopted(context, each) for each in files.read()))


def _adopted(context: Context, files: list[JSONValue]) -> list[Message]:
    """Take in some files, and return what is answered for each."""
    # The hot path of every pull, 16,000 times for a runtime: locals, one try a row, and nothing built twice.
    take = Adoption(context.repo, context.staged.fd, context.private_fd).take
    hex_size = context.algorithm.hex_size
    rows: list[Message] = []
    packed: dict[str, list[tuple[int, Message]]] = {}
    sizes: dict[str, int] = {}
    for file in files:
        try:
            name = staged_name(file.get("name"), "name")
            if file.get("offset") is not None:
                packed.setdefault(name, []).append((len(rows), file))
                rows.append({})
                continue
            size = file.get("size")
            if size is not None and type(size) is not int:
                raise UsageError(f"{name}: size is not an integer")
            expect = file.get("expect")
            if expect is not None:
                check_id(expect, hex_size, "expect")
            stored = take(name, size=size, expect=expect)
        except ComposefsError as error:
            rows.append({"error": row_error(error)})
        except OSError as error:
            rows.append({"error": row_error(from_os_error(error, f"taking in staged file {file.get('name')}"))})
        else:
            sizes[stored.id] = stored.size
            rows.append({"id": stored.id, "size": stored.size, "stored": stored.stored})
    for name, ranges in packed.items():
        _unpack(context, name, ranges, rows, sizes)
    context.seen.add(sizes)
    return rows


def _unpack(
    context: Context,
    name: str,
    files: Iterable[tuple[int, Message]],
    rows: list[Message],
    sizes: dict[str, int],
) -> None:
    """Store ranges of the staged file ``name``, and put what is answered for each in its place in ``rows``."""
    wanted: dict[int, Range] = {}
    end = 0
    for number, file in files:
        try:
            wanted[number] = found = _range(context, file, end)
        except ComposefsError as error:
            rows[number] = {"error": row_error(error)}
        else:
            end = found.offset + found.size
    try:
        fd = context.staged.open(name, context.limits.staging_bytes)
    except ComposefsError as error:
        for number in wanted:
            rows[number] = {"error": row_error(error)}
        return
    with Descriptor(fd):
        all_stored = store_ranges(context.repo, fd, name, list(wanted.values()))
        for number, stored in zip(wanted, all_stored, strict=True):
            if isinstance(stored, ComposefsError):
                rows[number] = {"error": row_error(stored)}
            else:
                sizes[stored.id] = stored.size
                rows[number] = {"id": stored.id, "size": stored.size, "stored": stored.stored}


def _range(context: Context, file: Message, end: int) -> Range:
    """Return the range that a row asks for, which must not begin before ``end``."""
    offset, size, expect = file["offset"], file.get("size"), file.get("expect")
    if PACKS not in context.features:
        raise UsageError("offset needs the feature packs, which was not picked")
    if type(offset) is not int or offset < end:
        raise UsageError(f"the offset {str(offset)[:40]} is not an integer from {end}, where the range before it ends")
    if type(size) is not int or size < 0:
        raise UsageError("a range has no size, or that is not an integer from 0")
    if size > context.limits.range_bytes:
        raise TooLargeError(f"a range of {size} bytes is larger than {context.limits.range_bytes}")
    if expect is not None:
        check_id(expect, context.algorithm.hex_size, "expect")
    return Range(offset, size, expect)


def has(context: Context, params: Message) -> Message:
    """Say which objects the repository holds, in the order asked; with ``sizes``, in these sizes.

    A power cut may have left an object short: whoever knows its size learns here that it must be fetched again.
    """
    one_of(params, "ids", "ids_file")
    ids = context.lists.take_blocks(params, "ids", context.ids_check("ids"))
    sizes = context.lists.take_blocks(params, "sizes", _check_sizes)
    if sizes.length and sizes.length != ids.length:
        raise UsageError(f"there are {sizes.length} sizes for {ids.length} ids")
    wanted = chain.from_iterable(sizes.read())
    rows = chain.from_iterable(
        _present(context, block, list(islice(wanted, len(block))) if sizes.length else None) for block in ids.read()
    )
    return context.lists.give(params, "present", rows)


def _present(context: Context, ids: list[JSONValue], sizes: list[JSONValue] | None) -> list[bool]:
    """Say which of some objects are there."""
    stored, known = context.repo.objects.sizes, context.seen.sizes
    if sizes is None:
        found = [known[each] if each in known else stored([each])[0] for each in ids]
        present = [size is not None for size in found]
    else:
        found = stored(ids)
        present = [size is not None and wanted in (None, size) for size, wanted in zip(found, sizes, strict=False)]
    # An incremental pull asks for all that it holds, and then makes an image and a stream of it.
    rows = zip(ids, found, present, strict=False)
    context.seen.add({each: size for each, size, there in rows if there and size is not None})
    return present


def get(context: Context, params: Message) -> Message:
    """Copy an object into a new staged file."""
    object_id = check_id(params.get("id"), context.algorithm.hex_size, "id")
    into = staged_name(string(params, "into"), "into")
    with (
        Doing(f"copying object {object_id} to staged file {into}"),
        Descriptor(context.repo.objects.open(object_id)) as source,
        context.staged.create(into) as target,
    ):
        target.expect(os.fstat(source).st_size)
        if not clone(source, target.fd):
            copy(source, target.fd)
        return {"size": os.fstat(target.fd).st_size}
