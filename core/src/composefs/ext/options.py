"""How a command of an extension is to be run: what the user asked for and hands over, and how patient the host is."""

from __future__ import annotations

from composefs.tuples import NamedTuple

__all__ = ["RunOptions", "Stdio", "Timeouts"]


class Stdio(NamedTuple):
    """The descriptors of the user's standard files: for commands with ``stdio``, ``stream.cat``, and error text."""

    stdin: int = 0
    stdout: int = 1
    stderr: int = 2


class RunOptions(NamedTuple):
    """How the user called the command: ``verbosity`` counts -v.

    ``directory`` is the user's, for relative paths inside of other values; None if it has no name that can be sent.
    ``erofs_default`` overrides the repository's format of images for this run.  ``wait`` is how many seconds to wait
    for the lock of another repository that a call reads.

    ``account`` is the user to run the extension as, by name or number, if that is not ours; ``readable`` are absolute
    paths that it may read besides what it needs.  ``cache_dir`` is where the caches of all extensions are kept, by
    default the user's cache directory.
    """

    verbosity: int = 0
    json: bool = False
    color: bool = False
    directory: str | None = None
    erofs_default: int | None = None
    wait: float = 0.0
    account: str | None = None
    readable: tuple[str, ...] = ()
    cache_dir: str | None = None
    stdio: Stdio = Stdio()


class Timeouts(NamedTuple):
    """Seconds: to answer ``initialize``; from cancel or end of input to SIGTERM; from there to SIGKILL."""

    initialize: float = 10.0
    terminate: float = 5.0
    kill: float = 2.0
