"""An extension's process: started in its own session, talked to over two pipes, and ended with all that it left behind.

The fork and exec are done by hand, as subprocess costs 4 ms to import and cannot say all of this: own session,
parent-death signal, no new privileges, fewer capabilities, another user, Landlock, limits, default signals, and no
descriptor beyond those promised (P-36, P-37).  The core is child subreaper, so that a grandchild which changed its
session is still found.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress

from composefs.errors import ExtensionError
from composefs.ext.account import Account
from composefs.linux.landlock import Ruleset
from composefs.linux.prctl import drop_capabilities, end_with_parent, set_child_subreaper, set_no_new_privileges
from composefs.linux.seccomp import give_up_hard_links
from composefs.systemerrors import LOST_PROCESS, not_started
from composefs.tuples import NamedTuple

__all__ = ["USER_STDIN", "USER_STDOUT", "Ended", "Process", "Program", "children", "spawn"]

USER_STDIN = 3
USER_STDOUT = 4
_FIRST_FREE = 5
_EXEC_FAILED = 127
_MAX_REAP_ROUNDS = 10_000
_REAP_PAUSE = 0.001

# Root's work on files.  What else root may do (trace, load modules, read the kernel's memory, set up the network) no
# fetcher needs.  CAP_SYS_ADMIN is what security.* and trusted.* attributes of files take.
_CHOWN, _DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER, _FSETID, _KILL, _SETFCAP, _SYS_ADMIN = 0, 1, 2, 3, 4, 5, 31, 21
_KEPT_CAPABILITIES = frozenset({_CHOWN, _DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER, _FSETID, _KILL, _SETFCAP})


# What to look at when a file could not be executed: Linux does not say which of two files it means.
_INTERPRETER = "does its first line, #!, name a program that is installed, with no carriage return behind it?"
_PERMISSION = "may the user that it runs as execute it, and the program that its first line, #!, names?"
_HINTS = {
    os.strerror(errno.ENOENT): _INTERPRETER,
    os.strerror(errno.ENOEXEC): _INTERPRETER,
    os.strerror(errno.EACCES): _PERMISSION,
    os.strerror(errno.EMFILE): "raise the limit of open files: ulimit -n",
}

# The same of what a launcher in sh could not execute, by the statuses that sh has for that.
_OF_LAUNCHERS = {
    126: "may the user that it runs as execute what it starts, and the program that the first line of that, #!, names?",
    127: "is what it starts installed, and the program that the first line of that, #!, names?",
}


class Ended(NamedTuple):
    """How a process ended: its wait status, how many live processes it left, why it could not be executed if so."""

    status: int
    left: int
    exec_failure: str | None

    @property
    def hint(self) -> str | None:
        """What to look at, where ``str`` does not say that.  SIGKILL is what the kernel sends for want of memory."""
        if self.exec_failure is not None:
            return _HINTS.get(self.exec_failure)
        status = os.waitstatus_to_exitcode(self.status)
        return LOST_PROCESS if status == -signal.SIGKILL else _OF_LAUNCHERS.get(status)

    def __str__(self) -> str:
        if self.exec_failure is not None:
            return f"could not be executed: {self.exec_failure}"
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
            return f"was killed by {name}"
        return f"exited with status {os.WEXITSTATUS(self.status)}"


class Program(NamedTuple):
    """What is to be executed, without arguments, in which ``directory``, and what it may do.

    ``descriptors`` are the caller's, by the numbers by which the program sees them, USER_STDIN and USER_STDOUT.
    ``account`` is who it runs as instead of root, ``file_size`` the bytes of the largest file that it may write.  With
    ``attributes``, a program that runs as root may set privileged extended attributes.
    """

    executable: str
    directory: str
    environment: Mapping[str, str]
    descriptors: Mapping[int, int]
    ruleset: Ruleset
    account: Account | None = None
    file_size: int = resource.RLIM_INFINITY
    attributes: bool = False


class Process:
    """A running extension.  Its standard streams here do not block; ``pidfd`` becomes readable when it has ended."""

    def __init__(self, pid: int, stdin: int, stdout: int, stderr: int, failure: int, strangers: frozenset[int]) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._failure = failure
        self._strangers = strangers
        self._reaped = False
        self._left = 0
        self._ended: tuple[int, str | None] | None = None
        self._is_over = False

    def close_stdin(self) -> None:
        """Give the extension the end of its input, which tells it to end."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def signal_group(self, number: int) -> None:
        """Send a signal to the whole process group, which exists until :meth:`reap`."""
        if self._reaped:
            return
        with suppress(PermissionError):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                # Just forked, it has no group of its own yet, nor anybody else in it.
                signal.pidfd_send_signal(self.pidfd, number)

    def kill_group(self) -> None:
        """Kill the whole process group."""
        self.signal_group(signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the process, which has ended or has been sent SIGKILL, without reaping it.

        Until it is reaped, the process group's number cannot belong to anybody else.
        """
        if self._ended is not None:
            return
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.poll()
        self.kill_group()
        while os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            # It has ended, but one that it started traces it (ptrace(2)), and keeps it from us for as long as it lives.
            self._left += _kill_children_except(self._strangers | {self.pid})

    def reap(self) -> None:
        """Take how the process ended, for which :meth:`wait` has waited, and close what is here of it.

        This is short, and must not be interrupted by an exception.
        """
        if self._ended is not None:
            return
        self._reaped = True  # Before it is: the second Ctrl-C, which kills the group, may come in between.
        _, status = os.waitpid(self.pid, 0)
        self.close_stdin()
        os.close(self.stdout)
        os.close(self.pidfd)
        # What it wrote at last is still in the pipe; the caller takes it from there.
        with open(self._failure, "rb") as file:
            failure = file.read().decode()
        self._ended = status, failure or None

    def kill_left(self) -> Ended:
        """Kill everything that is left of the process, which is reaped; return how it ended, again just that.

        Where an exception interrupted this, it is done again.
        """
        assert self._ended is not None
        status, failure = self._ended
        if not self._is_over:
            self._is_over = True  # also if some stay
            try:
                self._left += _kill_children_except(self._strangers)
            except KeyboardInterrupt:
                self._is_over = False
                raise
            set_child_subreaper(False)
        return Ended(status, self._left, failure)


def spawn(program: Program) -> Process:
    """Start an extension."""
    strangers = frozenset(children())
    set_child_subreaper(True)
    child_stdin, stdin = os.pipe2(os.O_CLOEXEC)
    stdout, child_stdout = os.pipe2(os.O_CLOEXEC)
    stderr, child_stderr = os.pipe2(os.O_CLOEXEC)
    failure, child_failure = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    try:
        with warnings.catch_warnings():
            # Python warns of forking beside threads; the child only makes system calls until it executes.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    except OSError as error:
        for fd in (child_stdin, stdin, stdout, child_stdout, stderr, child_stderr, failure, child_failure):
            os.close(fd)
        set_child_subreaper(False)
        raise not_started(error, f"starting {program.executable}") from error
    if pid == 0:
        wanted = {0: child_stdin, 1: child_stdout, 2: child_stderr, **program.descriptors}
        _become(program, wanted, child_failure, parent)
    for fd in (child_stdin, child_stdout, child_stderr, child_failure):
        os.close(fd)
    for fd in (stdin, stdout, stderr):
        os.set_blocking(fd, False)
    return Process(pid, stdin, stdout, stderr, failure, strangers)


def _become(program: Program, wanted: Mapping[int, int], failure: int, parent: int) -> None:
    """The child's part of :func:`spawn`; never returns.

    ``wanted`` are all descriptors by their numbers there; ``failure`` is where to write why nothing was executed.
    """
    try:
        os.setsid()
        set_no_new_privileges()
        _give_up(program)
        # Not before the account is changed, which takes it back.
        end_with_parent()
        if os.getppid() != parent:
            os._exit(_EXEC_FAILED)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and that would be inherited
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # First out of the way of the numbers they go to, then there.
        failure = fcntl.fcntl(failure, fcntl.F_DUPFD_CLOEXEC, 2 * _FIRST_FREE)
        high = {to: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 2 * _FIRST_FREE) for to, fd in wanted.items()}
        for to in range(_FIRST_FREE):
            if to in high:
                os.dup2(high[to], to, inheritable=True)
            else:
                with suppress(OSError):
                    os.close(to)
        os.closerange(_FIRST_FREE, failure)
        os.closerange(failure + 1, os.sysconf("SC_OPEN_MAX"))
        os.execve(program.executable, [program.executable], program.environment)  # noqa: S606  # no shell is wanted
    except BaseException as error:  # noqa: BLE001  # whatever it is, a child must not run the parent's code
        os.write(failure, str(getattr(error, "strerror", None) or error).encode())
    finally:
        os._exit(_EXEC_FAILED)


def _give_up(program: Program) -> None:
    """Give up, in the child, what an extension may not have, and go to the directory that it works in."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = program.file_size if hard == resource.RLIM_INFINITY else min(hard, program.file_size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        drop_capabilities(_KEPT_CAPABILITIES | ({_SYS_ADMIN} if program.attributes else set()))
    if program.account is not None:
        program.account.become()
    try:
        os.chdir(program.directory)
    except PermissionError:
        who = "" if program.account is None else f" for {program.account.name}"
        raise PermissionError(f"{program.directory} is out of reach{who}") from None
    give_up_hard_links()
    program.ruleset.restrict_self()


def children(pid: int | None = None) -> list[int]:
    """Return the process ids of the children of a process, or of this one, zombies included (proc_pid_children(5)).

    Raises OSError if there is no such process.
    """
    found: list[int] = []
    tasks = f"/proc/{pid or 'self'}/task"
    for thread in os.listdir(tasks):
        with suppress(OSError), open(f"{tasks}/{thread}/children", "rb") as file:
            found += map(int, file.read().split())
    return found


def _kill_children_except(strangers: frozenset[int]) -> int:
    """Kill and reap every child that is not in ``strangers``, and the children that they leave to us in turn."""
    killed = 0
    for _ in range(_MAX_REAP_ROUNDS):
        found = [pid for pid in children() if pid not in strangers]
        if not found:
            return killed
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        waiting = False
        for pid in found:
            with suppress(ChildProcessError):
                # Not waited for: another that traces it, and is not our child yet, may keep it from us.
                ended, status = os.waitpid(pid, os.WNOHANG)
                waiting |= not ended
                # One that had ended by itself and only lacked a parent to notice does not count.
                killed += bool(ended) and os.WIFSIGNALED(status)
        if waiting:
            time.sleep(_REAP_PAUSE)
    raise ExtensionError(f"the extension keeps starting processes; {killed} were killed")
