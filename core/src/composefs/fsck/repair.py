"""Putting good objects back: found elsewhere by their digest, and stored as any object is."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from composefs import fsverity
from composefs.digest import Algorithm
from composefs.errors import ComposefsError, CorruptError, FormatError, NotFoundError, UnsupportedError
from composefs.fsck.checking import check, silent
from composefs.fsck.report import Report
from composefs.linux.closing import Descriptor
from composefs.linux.files import open_file
from composefs.repository import Repository

__all__ = ["check_and_repair"]


def check_and_repair(
    repository: Repository,
    source: str | os.PathLike[str],
    *,
    wait: float = 0.0,
    report: Callable[[int, int], object] = silent,
) -> Report:
    """Check a repository opened for writing, put back what ``source`` has of the bad objects, and check again.

    ``source`` is a repository or any directory of files; for a repository in which garbage is collected this waits
    ``wait`` seconds.  What comes back may name more that is missing, so this goes on until nothing more is found, here
    or by somebody else who repairs.  Raises NotFoundError when there is no such directory, BusyError, and once all else
    is put back CorruptError for what stands in the place of an object and cannot be replaced.
    """
    repository.store.require_writable("repairing")
    source = Path(source)
    try:
        is_directory = stat.S_ISDIR(source.stat().st_mode)  # since 3.14 is_dir() hides a refusal
    except (FileNotFoundError, NotADirectoryError):
        is_directory = False
    if not is_directory:
        raise NotFoundError(
            f"there is no directory {source} to repair from", subject=str(source), hint="check the path after --from"
        )
    repaired: list[str] = []
    tried: set[str] = set()
    stuck: list[CorruptError] = []
    while True:
        found = check(repository, report=report)
        wanted = found.bad - tried
        back = _put_back(repository, source, wanted, wait, stuck) if wanted else {}
        if not back:
            if stuck:
                raise stuck[0]
            found.repaired = repaired
            return found
        repository.objects.barrier()
        repaired += sorted(object_id for object_id, is_ours in back.items() if is_ours)
        tried |= wanted


def _put_back(
    repository: Repository, source: Path, wanted: set[str], wait: float, stuck: list[CorruptError]
) -> dict[str, bool]:
    """Store those of the wanted objects that are found; return their ids, and whether it was we who put them back.

    What is in the way of others goes to ``stuck``.
    """
    back: dict[str, bool] = {}
    for fd in _candidates(source, repository.algorithm, wanted, wait):
        # The id is that of the bytes stored, so a file that changes meanwhile does no harm.
        # On a full disk too: gc, which would make room, may need them.
        try:
            stored = repository.objects.store_fd(fd, from_reserve=True)
        except CorruptError as error:
            stuck.append(error)
            continue
        if stored.id in wanted:
            back[stored.id] = stored.stored != "present"
    return back


def _candidates(source: Path, algorithm: Algorithm, wanted: set[str], wait: float) -> Iterator[int]:
    """Yield open files that have had one of the wanted digests a moment ago; each is closed after its turn."""
    try:
        other = Repository.open(source, algorithm=algorithm, wait=wait)
    except (NotFoundError, FormatError, UnsupportedError):
        # No repository, or one with other digests: its objects are files like others.
        yield from _search(source, algorithm, wanted)
        return
    with other:
        for object_id in sorted(wanted):
            with (
                contextlib.suppress(ComposefsError, OSError),
                Descriptor(other.objects.open(object_id, verify=True)) as fd,
            ):
                fsverity.digest_fd(fd, algorithm)  # fs-verity has vouched for the digest, not for the pages
                yield fd


def _search(top: Path, algorithm: Algorithm, wanted: set[str]) -> Iterator[int]:
    """Read all files below a directory, however deep; what cannot be read is none of those wanted."""
    left = set(wanted)
    pending = [os.fspath(top)]
    while pending:
        entries: list[os.DirEntry[str]] = []
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as found:
            entries += found
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                with Descriptor(open_file(entry.path)) as fd:
                    if not stat.S_ISREG(os.fstat(fd).st_mode):
                        continue
                    digest = fsverity.digest_fd(fd, algorithm).hex()
                    if digest in left:
                        left.discard(digest)
                        yield fd
            if not left:
                return
