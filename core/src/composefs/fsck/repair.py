"""Putting good objects back: found elsewhere by their digest, and stored as any object is."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from composefs import fsverity
from composefs.digest import Algorithm
from composefs.errors import ComposefsError, CorruptError, FormatError, NoSpaceError, NotFoundError, UnsupportedError
from composefs.fsck.checking import check, silent
from composefs.fsck.report import Report
from composefs.linux.closing import Descriptor
from composefs.linux.files import open_file
from composefs.repository import Repository

__all__ = ["check_and_repair"]

_GC_READS = frozenset({"broken-symlink", "missing-named-ref", "stream-open-failed", "image-open-failed"})
"""Kinds of problems with objects without which garbage collection does not begin."""


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
    or by somebody else who repairs.  What kept single objects from being put back is in ``stuck`` of the report:
    a directory in their place, or want of space.  Raises NotFoundError when ``source`` is no directory, and BusyError.
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
    stuck: list[ComposefsError] = []
    while True:
        found = check(repository, report=report)
        wanted = found.bad - tried
        # Without these gc cannot make room, so that they may fill the disk, which nothing else may.
        urgent = {problem.object for problem in found.problems if problem.kind in _GC_READS}
        back = _put_back(repository, source, wanted, urgent, wait, stuck) if wanted else {}
        if not back:
            found.repaired = repaired
            found.stuck = stuck
            return found
        repository.objects.barrier()
        repaired += sorted(object_id for object_id, is_ours in back.items() if is_ours)
        tried |= wanted


def _put_back(
    repository: Repository,
    source: Path,
    wanted: set[str],
    urgent: set[str | None],
    wait: float,
    stuck: list[ComposefsError],
) -> dict[str, bool]:
    """Store those of the wanted objects that are found; return their ids, and whether it was we who put them back.

    The ``urgent`` ones may fill the disk.  What keeps others from being stored goes to ``stuck``.
    """
    back: dict[str, bool] = {}
    for object_id, fd in _candidates(source, repository.algorithm, wanted, wait):
        # The id is that of the bytes stored, so a file that changes meanwhile does no harm.
        try:
            stored = repository.objects.store_fd(fd, from_reserve=object_id in urgent)
        except (CorruptError, NoSpaceError) as error:
            stuck.append(error)
            continue
        if stored.id in wanted:
            back[stored.id] = stored.stored != "present"
    return back


def _candidates(source: Path, algorithm: Algorithm, wanted: set[str], wait: float) -> Iterator[tuple[str, int]]:
    """Yield wanted digests with open files that have had them a moment ago; each is closed after its turn."""
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
                yield object_id, fd


def _search(top: Path, algorithm: Algorithm, wanted: set[str]) -> Iterator[tuple[str, int]]:
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
                        yield digest, fd
            if not left:
                return
