"""Reading every object and comparing its digest, in one process for each processor.

The processes take directories ``objects/XX`` from a pipe, a byte each, until it is empty, and write lines into another
one, each shorter than PIPE_BUF and so in one piece (pipe(7)):

    KIND TAB ID TAB MESSAGE    a problem with an object
    TAB MESSAGE TAB HINT       a ShortageError, which ends the process
    COUNT                      a directory is done, which has so many objects
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable, Iterator

from composefs import fsverity
from composefs.errors import ComposefsError, InputOutputError, ShortageError
from composefs.graph import Problem, Stock
from composefs.linux import verity
from composefs.linux.closing import Closing
from composefs.linux.content import read_pieces
from composefs.linux.files import open_file
from composefs.linux.forks import Forks
from composefs.repository import Repository
from composefs.repository.names import object_name
from composefs.repository.store import not_regular
from composefs.systemerrors import LOST_PROCESS, from_os_error, not_started

__all__ = ["check_object", "check_objects"]

_MAX_MESSAGE = 900  # characters, of at most 4 bytes
_SEPARATOR = "\t"


def check_object(repository: Repository, object_id: str) -> Problem | None:
    """Read one object and tell what is wrong with it.

    Where the kernel vouches for the digest the content is read all the same: fs-verity finds damage as it is read.
    Raises ShortageError.
    """
    where = f"objects/{object_name(object_id)}"
    try:
        fd = open_file(object_name(object_id), repository.store.objects)
    except OSError as error:
        # composefs-rs says of a symlink that it cannot be opened.
        if error.errno != errno.ELOOP and not_regular(object_name(object_id), repository.store.objects):
            return Problem("unexpected-file-type", where, "it is not a regular file", object_id)
        return Problem("object-open-failed", where, _reason(error, where), object_id)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return Problem("unexpected-file-type", where, "it is not a regular file", object_id)
        measured = verity.measure(fd)
        if measured is not None:
            if measured != (repository.algorithm, bytes.fromhex(object_id)):
                message = f"its fs-verity digest is {measured[0]}:{measured[1].hex()}"
                return Problem("object-verity-failed", where, message, object_id)
            for _ in read_pieces(fd):
                pass
            return None
        found = fsverity.digest_fd(fd, repository.algorithm).hex()
    except (OSError, ComposefsError) as error:
        reason = _reason(error, where) if isinstance(error, OSError) else error.message
        return Problem("object-check-failed", where, f"reading it: {reason}", object_id)
    finally:
        os.close(fd)
    if found != object_id:
        return Problem("object-digest-mismatch", where, f"its content has the digest {found}", object_id)
    if repository.secure:
        return Problem("object-verity-missing", where, "it has no fs-verity, which this repository demands", object_id)
    return None


def _reason(error: OSError, where: str) -> str:
    """Return why the system cannot read an object; raise a ShortageError, which is no fault of the object."""
    failure = from_os_error(error, f"checking {where}")
    if isinstance(failure, ShortageError):
        raise failure from error
    return os.strerror(error.errno or 0)


def check_objects(repository: Repository, stock: Stock, report: Callable[[int, int], object]) -> list[Problem]:
    """Check all objects in ``stock``; return the problems, sorted by path.

    ``report`` is called with the number of objects done and that of all.  As many processes are started as there are
    processors to run on.  Raises InputOutputError when one of them ended early, and ShortageError.
    """
    total = len(stock)
    directories = list(filter(None, stock.ids.values()))
    problems: list[Problem] = []
    done = 0
    if not directories:
        return problems
    with _Workers(repository, directories) as workers:
        workers.start(min(len(os.sched_getaffinity(0)), len(directories)))
        report(done, total)  # not before: what shows it may start a thread, and forks should not have any
        for line in workers.lines():
            if _SEPARATOR in line:
                kind, object_id, message = line.split(_SEPARATOR)
                if not kind:
                    raise ShortageError(object_id, hint=message)
                where = f"objects/{object_name(object_id)}"
                problems.append(Problem(kind, where, message, object_id))  # type: ignore[arg-type] # what we wrote
            else:
                done += int(line)
                report(done, total)
    if done != total:
        raise InputOutputError(
            f"checking objects: a process ended after {done} of {total} objects",
            hint=LOST_PROCESS,
        )
    return sorted(problems, key=lambda problem: problem.where)


class _Workers(Closing):
    """Processes that check directories of objects; leaving the context ends them."""

    def __init__(self, repository: Repository, directories: list[list[bytes]]) -> None:
        self._repository = repository
        self._directories = directories
        self._forks = Forks()
        self._results = -1

    def start(self, count: int) -> None:
        """Start ``count`` of them; once, and within the context, so that a signal leaves none."""
        self._repository.store.directory("objects")  # opened here, for all
        try:
            tasks, fill = os.pipe()
            # At most 256 bytes, far less than a pipe takes without a reader.
            os.write(fill, bytes(range(len(self._directories))))
            os.close(fill)
            self._results, results = os.pipe()
            try:
                self._forks.start(count, lambda: self._work(tasks, results))
            finally:
                os.close(tasks)
                os.close(results)
        except OSError as error:
            raise not_started(error, "starting a process to check objects") from error

    def _work(self, tasks: int, results: int) -> None:
        """Be a worker."""

        def tell(*words: str) -> None:
            os.write(results, _SEPARATOR.join(words).encode() + b"\n")

        try:
            while task := os.read(tasks, 1):
                ids = self._directories[task[0]]
                for object_id in map(bytes.hex, ids):
                    problem = check_object(self._repository, object_id)
                    if problem is not None:
                        tell(problem.kind, object_id, problem.message[:_MAX_MESSAGE])
                tell(str(len(ids)))
        except ShortageError as error:
            tell("", error.message, error.hint or "")

    def lines(self) -> Iterator[str]:
        """Yield the lines that the workers write, until all have ended."""
        buffer = b""
        while data := os.read(self._results, select.PIPE_BUF):
            *lines, buffer = (buffer + data).split(b"\n")
            yield from (line.decode() for line in lines)

    def close(self) -> None:
        """End the processes."""
        self._forks.close()
        if self._results >= 0:
            os.close(self._results)
