"""A commit that the composefs repository does not hold (or not with the wanted image): from its object to its stream.

Everything that is only needed then is imported here, because most pulls find nothing new.
"""

from __future__ import annotations

import gc
from typing import NamedTuple

from composefs_ext.errors import ExtError, NotFoundError
from composefs_ostree.cache import Cache
from composefs_ostree.commit_stream import CONTENT_TYPE, IMAGE_REF, inline_limit, write
from composefs_ostree.held import open_commit
from composefs_ostree.pull import Pull
from composefs_ostree.tree import stage_dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from composefs_ext import Core
    from composefs_ostree.commit_stream import CommitStream
    from composefs_ostree.objects import Commit
    from composefs_ostree.source import Source
    from composefs_ostree.transport import Transport
    from composefs_ostree.tree import Tree

__all__ = ["Arrived", "receive"]

_DIGEST_SIZES = {"sha256": 32, "sha512": 64}


class Arrived(NamedTuple):
    """What is stored, though not named yet: ids of stream and image; and how much of it came from the source."""

    stream: str
    image: str
    metadata: int
    files: int
    cache: Cache | None
    """To be cleared when the commit has its name, to be closed in any case."""


def receive(
    core: Core,
    source: Source,
    transport: Transport,
    commit_id: bytes,
    data: bytes,
    commit: Commit,
    *,
    bases: Iterable[str],
    keep_nul: bool,
) -> Arrived:
    """Fetch what a commit needs, have its image and its stream stored.

    ``data`` is the commit object, ``bases`` the names of streams that may hold some of it, ``keep_nul`` as in
    :func:`composefs_ostree.tree.write_dump`.
    """
    assert core.repository is not None
    limit = inline_limit(_DIGEST_SIZES[core.repository.algorithm])
    gc.disable()  # a pull makes no cycles, but enough objects for a tenth of its time to go into looking for some
    cache = Cache.open(core.cache)
    try:
        pull = Pull(
            core,
            transport,
            lambda: source.files(limit),
            held=[*_open_bases(core, bases), *([] if cache is None else [cache])],
            store=None if cache is None else cache.add,
        )
        tree = pull.run(commit_id, data, commit)
        stream, image = _store(core, commit_id, pull, tree, keep_nul)
    except BaseException:
        if cache is not None:
            cache.close()
        raise
    return Arrived(stream, image, pull.fetched_metadata + 1, pull.fetched_files, cache)


def _open_bases(core: Core, names: Iterable[str]) -> list[CommitStream]:
    bases = []
    for name in dict.fromkeys(names):
        try:
            bases.append(open_commit(core, name)[0])
        except NotFoundError:
            continue  # never pulled, or removed since
        except ExtError as error:
            core.log("warning", f"{name} is not used as a base: {error.message}")
    return bases


def _store(core: Core, commit_id: bytes, pull: Pull, tree: Tree, keep_nul: bool) -> tuple[str, str]:
    """Have the image and the stream stored; return their ids, the stream's first."""
    with core.progress("image"):
        image = core.image_put(stage_dump(core, tree, keep_nul=keep_nul))
        # The core makes the image while we lay out the stream.
        inline = core.staging.new_name("commit")
        with core.staging.create(inline) as file:
            size, references = write(file, commit_id, pull.entries)
        image_id = image.result()["id"]
        stream = core.stream_put(
            CONTENT_TYPE,
            chunks=[-size],
            inline=inline,
            object_refs=references,
            named_refs=[(IMAGE_REF, image_id)],
        )
        return stream.result()["id"], image_id
