"""Turning an insecure repository into a secure one, in place: fs-verity on every object, and last on meta.json.

Until the last step the repository stays what it was, and doing it again goes on where it stopped.  Enabling is the
check as well: the kernel computes the digest, which must be the object's id.
"""

from __future__ import annotations

from collections.abc import Callable

from composefs.errors import BusyError, CorruptError, UnsupportedError
from composefs.graph import read_stock
from composefs.linux import verity
from composefs.linux.closing import Descriptor
from composefs.linux.files import open_file, sync_fully
from composefs.repository import Repository
from composefs.repository.metafile import META
from composefs.repository.objects import listed
from composefs.repository.sealing import seal
from composefs.systemerrors import Doing

__all__ = ["enable_verity"]


def enable_verity(repository: Repository, report: Callable[[int, int], object] = lambda _done, _total: None) -> int:
    """Make a repository secure that was opened ``exclusive`` and writable; return how many objects have fs-verity now.

    Raises UnsupportedError where the file system cannot do it, and CorruptError, after all objects were tried, when
    some are damaged: then the repository stays insecure.
    """
    repository.store.require_writable("enabling fs-verity")
    stock = read_stock(repository)
    total = len(stock)
    done = 0
    damaged: list[str] = []
    for ids in stock.ids.values():
        report(done, total)
        damaged += [object_id for object_id in map(bytes.hex, ids) if not _enable(repository, object_id)]
        done += len(ids)
    report(done, total)
    if damaged:
        raise CorruptError(
            f"the repository stays insecure: damaged are the objects {listed(damaged)}",
            subject=damaged[0],
            hint="bring good ones back with `cfsctl fsck --repair --from REPO`",
        )
    repository.objects.barrier()
    _secure_meta(repository)
    return total


def _enable(repository: Repository, object_id: str) -> bool:
    """Enable fs-verity on one object; False if it is no file, or has another digest than its name says."""
    try:
        fd = repository.objects.open(object_id)
    except CorruptError:
        return False
    with repository.store.doing(f"enabling fs-verity on object {object_id}"), Descriptor(fd):
        try:
            measured = verity.measure(fd)
            if measured is None:
                seal(fd, repository.store)
                measured = verity.measure(fd)
        except UnsupportedError as error:
            error.message = f"{repository.path} stays insecure: {error.message}"
            error.hint = "its file system needs fs-verity: ext4 with 4 KiB blocks gets it by `tune2fs -O verity DEVICE`"
            raise
        if measured is None:
            raise BusyError(f"object {object_id}: another process has it open for writing", subject=object_id)
        return measured == (repository.algorithm, bytes.fromhex(object_id))


def _secure_meta(repository: Repository) -> None:
    what = f"enabling fs-verity on {repository.path / META}"
    with Doing(what), Descriptor(open_file(META, repository.store.root)) as fd:
        verity.enable(fd, repository.algorithm)
        sync_fully(fd)
    repository.store.secure = True
