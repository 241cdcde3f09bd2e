"""How a command of an extension is to be run: what the user asked for, and how long the host is patient."""

from __future__ import annotations

from composefs.tuples import NamedTuple

__all__ = ["RunOptions", "Timeouts"]


class RunOptions(NamedTuple):
    """How the user called the command: ``verbosity`` counts -v, ``strict`` validates messages and adds stray fields.

    ``erofs_default`` and ``erofs_extra`` override the repository's image formats for this run.  ``confine`` keeps the
    extension to the files it needs, where the kernel can (Landlock); ``readable`` are paths that it may read besides.
    ``account`` is the user to run it as, if that is not ours.
    ``wait`` is for how many seconds to wait for the lock of another repository that a call reads.
    ``directory`` is the user's, for relative paths inside of other values; None if it has no name that can be sent.
    """

    verbosity: int = 0
    json: bool = False
    color: bool = False
    strict: bool = False
    erofs_default: int | None = None
    erofs_extra: tuple[int, ...] | None = None
    confine: bool = True
    directory: str | None = None
    readable: tuple[str, ...] = ()
    account: str | None = None
    wait: float = 0.0


class Timeouts(NamedTuple):
    """Seconds: to answer ``initialize``; from cancel or end of input to SIGTERM; from there to SIGKILL."""

    initialize: float = 10.0
    terminate: float = 5.0
    kill: float = 2.0
