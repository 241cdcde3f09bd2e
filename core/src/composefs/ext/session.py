"""One run of an extension from the first to the last: its directories, its process, the conversation, and the end.

Whatever happens, the staging directory is removed and no process is left.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from composefs import __version__
from composefs.digest import BLOCK_SIZE
from composefs.errors import (
    CancelledError,
    ComposefsError,
    ExtensionError,
    PermissionDeniedError,
    ProtocolError,
    UsageError,
)
from composefs.ext.account import CACHE, Account, account_of
from composefs.ext.discovery import Extension
from composefs.ext.environment import clean_environment
from composefs.ext.errortext import STDERR, ErrorText
from composefs.ext.interrupts import Interrupts
from composefs.ext.manifest import Command, typed_values
from composefs.ext.options import RunOptions, Timeouts
from composefs.ext.patience import STEP, Patience
from composefs.ext.process import USER_STDIN, USER_STDOUT, Confinement, Ended, Process, spawn
from composefs.ext.reach import reach_of
from composefs.ext.trust import distrust
from composefs.observe import Observers
from composefs.protocol import FEATURES, VERSIONS
from composefs.protocol.limits import Limits
from composefs.protocol.wire import JSONValue, Message
from composefs.repository.staging import Staging

if TYPE_CHECKING:
    from composefs.ext.channel import Channel
    from composefs.ext.context import Context
    from composefs.ext.probe import Probe
    from composefs.repository import Repository

__all__ = ["RunOptions", "RunResult", "Timeouts", "run_extension"]


class RunResult(NamedTuple):
    """What the extension answered: its ``status``, 0 or 1, which is the exit status unless --json, and the object."""

    status: int
    result: Message


def run_extension(
    extension: Extension,
    command: Sequence[str],
    arguments: Mapping[str, JSONValue],
    *,
    repository: Repository | None = None,
    observer: Observers | None = None,
    options: RunOptions | None = None,
    cache_dir: Path | None = None,
    stdin_fd: int = 0,
    stdout_fd: int = 1,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    probe: Probe | None = None,
) -> RunResult:
    """Run a command of an extension and return its result.

    ``arguments`` are checked values by the names in the manifest, paths absolute.  ``repository`` is open as the
    command's manifest asks.  ``cache_dir`` is where caches of all extensions are kept, by default the user's cache
    directory.  The two descriptors are the user's, for commands with ``stdio`` and for ``stream.cat``.  A
    ``probe``, the conformance kit's, watches from inside.

    Raises what the extension answered as an error of its kind; ProtocolError if it broke a rule, ExtensionError if it
    died or could not be started, CancelledError if the user interrupted it.
    """
    described = extension.manifest.command(command)
    if described.repository == "none":
        repository = None
    elif repository is None:
        raise UsageError(f"{extension.name} {' '.join(command)} needs a repository")
    observer = observer or Observers()
    options = options or RunOptions()
    timeouts = timeouts or Timeouts()
    limits = limits or Limits()
    descriptors = _user_descriptors(described, stdin_fd, stdout_fd)
    with Interrupts() as interrupts, Staging.create(repository) as staging:
        work = str(staging.work)
        account = None if options.account is None else account_of(options.account)
        if account is not None:
            os.fchown(staging.work_fd, account.uid, account.gid)
        cache = _cache(extension, repository, cache_dir, account)
        environment = clean_environment(os.environ, extension.manifest.environment) | {"TMPDIR": work}
        if account is not None:
            environment = account.environment(environment)
        confinement = Confinement(account=account, file_size=limits.staging_bytes)
        if options.confine:
            own = (work,) if cache is None else (work, cache)
            confinement, environment = _confined(
                confinement, extension, described, arguments, own, repository, environment, options
            )
        # The extension starts before anything slow is done: its interpreter and ours load in parallel, for which what
        # the conversation needs is imported only then.
        with confinement:
            process = spawn(
                extension.executable,
                directory=work,
                environment=environment,
                descriptors=descriptors,
                confinement=confinement,
            )
        interrupts.kill = process.kill_group
        errors = ErrorText(process.stderr, extension.name, STDERR if probe is None else probe.stderr)
        outcome: Message | ComposefsError | None = None
        ended: Ended | None = None
        try:
            from composefs.ext.channel import Channel
            from composefs.ext.context import Context
            from composefs.ext.conversation import Conversation, Gone
            from composefs.protocol.staged import StagedFiles

            context = Context(
                manifest=extension.manifest,
                command=described,
                arguments=dict(arguments),
                repository=repository,
                staged=StagedFiles(staging.work_fd, None if account is None else (account.uid, account.gid)),
                private_fd=staging.private,
                observer=observer,
                options=options,
                limits=limits,
                stdout_fd=stdout_fd,
                interrupted=lambda: interrupts.count > 0,
            )
            if repository is not None:
                repository.objects.interrupted = context.interrupted
            make_channel = Channel if probe is None else probe.channel
            channel = make_channel(process.stdout, process.stdin, limits, observer, strict=options.strict)
            conversation = Conversation(process, channel, context, interrupts, timeouts, errors)
            with context.resources, suppress(Gone):
                outcome = conversation.serve(_welcome(context, work, cache))
            ended = _end(process, channel, interrupts, timeouts, errors)
        except ProtocolError as error:
            error.message = f"extension {extension.name} broke the protocol: {error.message}"
            raise
        finally:
            if ended is None:  # a broken rule, or an error of ours: nothing to be polite about
                process.kill_group()
                ended = process.reap()
            errors.close()
            if probe is not None:
                probe.ended(ended)
    if context.cancelled:
        done = "interrupted" if interrupts.first is signal.SIGINT else "terminated"
        raise CancelledError.by_signal(interrupts.first, f"extension {extension.name} was {done}")
    return _judge(extension, context, outcome, ended)


def _user_descriptors(command: Command, stdin_fd: int, stdout_fd: int) -> dict[int, int]:
    descriptors: dict[int, int] = {}
    for word, to, fd, stream in (("in", USER_STDIN, stdin_fd, "input"), ("out", USER_STDOUT, stdout_fd, "output")):
        if word in command.stdio:
            if os.isatty(fd):
                raise PermissionDeniedError(
                    f"standard {stream} is a terminal", hint=f"redirect standard {stream} from or to a file or a pipe"
                )
            descriptors[to] = fd
    return descriptors


def _cache(
    extension: Extension, repository: Repository | None, base: Path | None, account: Account | None
) -> str | None:
    """Make the directory private to extension, repository and account; None where there is no place for one."""
    if base is None and account is not None:
        base = Path(CACHE, str(account.uid))
    elif base is None:
        home = os.environ.get("XDG_CACHE_HOME", "")
        if not home.startswith("/"):  # to be ignored, says the XDG Base Directory Specification
            home = os.path.join(os.environ.get("HOME", "/nonexistent"), ".cache")
        base = Path(home, "composefs")
    key = "none" if repository is None else hashlib.sha256(os.fsencode(repository.path.resolve())).hexdigest()[:32]
    directory = base / "ext" / extension.name / key
    # The directory itself is the account's, if there is one.
    if os.geteuid() == 0 and not _is_out_of_reach(directory if account is None else directory.parent):
        return None
    try:
        _make_parents(directory.parent, 0o700 if account is None else 0o755)
        directory.mkdir(mode=0o700, exist_ok=True)
        if account is not None:
            os.chown(directory, account.uid, account.gid, follow_symlinks=False)
    except OSError:
        return None
    return str(directory) if os.access(directory, os.W_OK) else None


def _make_parents(directory: Path, mode: int) -> None:
    """Make what is missing, with this mode whatever the umask is: an account gets through, nobody else may write."""
    if directory.is_dir():
        return
    _make_parents(directory.parent, mode)
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(mode)


def _is_out_of_reach(directory: Path) -> bool:
    """Whether nobody but root can decide, by a symlink on the way, where root makes directories and files."""
    try:
        return distrust(os.path.abspath(directory)) is None
    except FileNotFoundError:
        return True  # the way to what is missing is trusted, and the rest will be ours
    except OSError:
        return False


def _confined(
    confinement: Confinement,
    extension: Extension,
    command: Command,
    arguments: Mapping[str, JSONValue],
    own: tuple[str, ...],
    repository: Repository | None,
    environment: dict[str, str],
    options: RunOptions,
) -> tuple[Confinement, dict[str, str]]:
    """Add to ``confinement`` what Landlock is to enforce, and put what is out of reach then last in PATH."""
    reach = reach_of(
        extension,
        command,
        arguments,
        own=own,
        objects=None if repository is None else str(repository.path / "objects"),
        environment=environment,
        directory=options.directory,
        extra=options.readable,
    )
    ruleset = reach.ruleset()
    if not ruleset.empty:
        environment = environment | {"PATH": reach.search_path(environment["PATH"])}
    # Files of the user's own, with all their attributes, are read and written only where one was typed.
    attributes = bool(typed_values(command, arguments, "path-read", "path-write"))
    return confinement._replace(ruleset=ruleset, attributes=attributes), environment


def _welcome(context: Context, staging: str, cache: str | None) -> Message:
    """The parameters of ``initialize``."""
    repository = context.repository
    described: Message | None = None
    if repository is not None:
        described = {
            "algorithm": context.algorithm.name,
            "block_size": BLOCK_SIZE,
            "erofs_formats": {"default": context.erofs_default, "extra": list(context.erofs_extra)},
            "secure": repository.secure,
            "writable": repository.writable and context.command.repository == "write",
            "path": str(repository.path),
            "objects": str(repository.path / "objects"),
        }
    return {
        "versions": list(VERSIONS),
        "features": list(FEATURES),
        "core": {"name": "composefs-python", "version": __version__},
        "extension": context.manifest.name,
        "repository": described,
        "staging": staging,
        "cache": cache,
        "limits": context.limits.as_message(),
        "strict": context.options.strict,
    }


def _end(process: Process, channel: Channel, interrupts: Interrupts, timeouts: Timeouts, errors: ErrorText) -> Ended:
    """End a process that has nothing more to say: end of input, then SIGTERM, then SIGKILL."""
    for seconds, number in ((timeouts.terminate, signal.SIGTERM), (timeouts.kill, signal.SIGKILL)):
        if _wait_for_exit(process, channel, interrupts, seconds, errors):
            break
        process.signal_group(number)
    return process.reap()


def _wait_for_exit(
    process: Process, channel: Channel, interrupts: Interrupts, seconds: float, errors: ErrorText
) -> bool:
    """Write out what is left, close the extension's input, and discard what it still says until it ends."""
    patience = Patience()
    while (left := seconds - patience.now()) > 0:
        poll = select.poll()
        poll.register(process.pidfd, select.POLLIN)
        poll.register(interrupts.fd, select.POLLIN)
        if not channel.ended:
            poll.register(process.stdout, select.POLLIN)
        if not errors.ended:
            poll.register(errors.fd, select.POLLIN)
        channel.write()
        if channel.wants_write:
            poll.register(process.stdin, select.POLLOUT)
        else:
            process.close_stdin()
        ready = {fd for fd, _ in poll.poll(int(min(left, STEP) * 1000) + 1)}
        if process.pidfd in ready:
            return True
        if interrupts.fd in ready:
            interrupts.drain()
        if process.stdout in ready:
            channel.discard()
        if errors.fd in ready:
            errors.pass_on()
    return False


def _judge(extension: Extension, context: Context, outcome: Message | ComposefsError | None, ended: Ended) -> RunResult:
    """Turn what was answered, and how the process ended, into a result or an exception."""
    name = f"extension {extension.name}"
    if isinstance(outcome, ComposefsError):
        raise outcome
    if outcome is None and ended.exec_failure:
        hint = "does its first line, #!, name a program that is installed?"
        raise ExtensionError(f"{name} {ended}", subject=extension.executable, hint=hint)
    if outcome is None:
        raise ExtensionError(f"{name} {ended} without a result", subject=extension.executable)
    status = outcome.get("status", 0)
    if type(status) is not int or status not in (0, 1):
        raise ProtocolError(f"{name} gave a result with a status that is neither 0 nor 1")
    complaints = []
    if ended.status or ended.exec_failure:
        complaints.append(f"{name} {ended} after its result")
    if ended.left:
        complaints.append(f"{name} left processes behind, which were killed ({ended.left})")
    for complaint in complaints:
        if context.options.strict:
            raise ProtocolError(complaint)
        context.observer.log("warning", complaint)
    return RunResult(status, outcome)
