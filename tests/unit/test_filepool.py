"""Open files worked on in other processes: results, errors, and processes that die."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from composefs import scan
from composefs.digest import SHA256
from composefs.errors import ComposefsError, ConflictError, InputOutputError, NoSpaceError
from composefs.fsverity import digest_bytes
from composefs.linux.filepool import IN_FLIGHT, FilePool
from composefs.scan import scan_directory
from composefs.tree import walk
from support.commands import CFSCTL, MKCOMPOSEFS, TIMEOUT, cfsctl, run
from support.strace import CHANGING, read, recorder


def _read(fd: int) -> bytes:
    return os.pread(fd, 100, 0) + b" by %d" % os.getpid()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    fds = []
    for number in range(3 * IN_FLIGHT):
        path = tmp_path / str(number)
        path.write_bytes(b"%d" % number)
        fds.append(os.open(path, os.O_RDONLY))
    yield fds
    for fd in fds:
        os.close(fd)


def test_every_file_is_answered_once_by_another_process(files: list[int]) -> None:
    found: dict[int, bytes | Exception] = {}
    with FilePool(_read) as pool:
        pool.start(2)
        for fd in files:
            found.update(pool.answers(IN_FLIGHT - 1))
            found[pool.submit(fd)] = b"unanswered"
        found.update(pool.answers(0))
        assert pool.unanswered == 0
    assert len(found) == len(files)
    for number, answer in found.items():
        assert isinstance(answer, bytes)
        content, _, pid = answer.partition(b" by ")
        assert content == b"%d" % (number - 1)
        assert int(pid) != os.getpid()


def test_a_process_closes_what_it_has_worked_on(files: list[int]) -> None:
    with FilePool(lambda _fd: b"%d" % len(os.listdir("/proc/self/fd"))) as pool:
        pool.start(1)
        for fd in files[:3]:
            pool.submit(fd)
        assert len({answer for _, answer in pool.answers(0)}) == 1


@pytest.mark.root
def test_a_user_who_may_have_few_files_open(tmp_path: Path) -> None:
    """So many may be on their way to other processes: the rest is read where it is."""
    for number in range(200):
        (tmp_path / str(number)).write_bytes(b"%d" % number * 50_000)
    tmp_path.chmod(0o755)
    command = (MKCOMPOSEFS, "--threads=2", "--use-epoch", "--print-digest-only", ".")
    few = ("prlimit", "--nofile=32", "setpriv", "--reuid=65534", "--clear-groups")
    assert run(*few, *command, cwd=tmp_path).stdout == run(*command, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), NoSpaceError("storing an object: full", hint="make room", subject="it")],
)
def test_an_error_comes_back_with_its_kind(files: list[int], error: Exception) -> None:
    def fail(_fd: int) -> bytes:
        raise error

    with FilePool(fail) as pool:
        pool.start(1)
        pool.submit(files[0])
        [(_, answer)] = pool.answers(0)
    assert type(answer) is type(error)
    if isinstance(error, OSError):
        assert isinstance(answer, OSError)
        assert answer.errno == error.errno
    else:
        assert isinstance(answer, ComposefsError)
        assert (answer.message, answer.hint, answer.subject) == ("storing an object: full", "make room", "it")


def test_long_texts_of_an_error_come_back_cut(files: list[int]) -> None:
    def fail(_fd: int) -> bytes:
        raise NoSpaceError("\U0001f4be" * 20_000, hint='"' * 20_000, subject="\udc80" * 20_000)

    with FilePool(fail) as pool:
        pool.start(1)
        pool.submit(files[0])
        [(_, answer)] = pool.answers(0)
    assert isinstance(answer, NoSpaceError)
    assert (answer.message, answer.hint, answer.subject) == ("\U0001f4be" * 1024, '"' * 1024, "\udc80" * 1024)


@pytest.mark.parametrize("others", [0, 1])
def test_a_process_that_is_killed_is_an_error_and_no_hang(files: list[int], others: int) -> None:
    def die(fd: int) -> bytes:
        if os.pread(fd, 1, 0) == b"0":
            os.kill(os.getpid(), signal.SIGKILL)
        return b""

    with FilePool(die) as pool:
        pool.start(1 + others)
        pool.submit(files[0])
        for fd in files[1 : 1 + others]:
            pool.submit(fd)
        with pytest.raises(InputOutputError, match="ended early"):
            list(pool.answers(0))


def test_a_process_that_is_killed_is_missed_while_others_answer(files: list[int]) -> None:
    """Else the error would come when these have done all that was handed over meanwhile."""

    def die(fd: int) -> bytes:
        if os.pread(fd, 1, 0) == b"0":
            os.kill(os.getpid(), signal.SIGKILL)
        return b""

    with FilePool(die) as pool:
        pool.start(2)
        pool.submit(files[0])
        while not pool._forks.any_ended():
            os.sched_yield()
        for fd in files[1:IN_FLIGHT]:
            pool.submit(fd)
        with pytest.raises(InputOutputError, match="ended early"):
            list(pool.answers(IN_FLIGHT - 1))


def test_the_installed_command_ends_if_one_of_its_processes_is_killed(tmp_path: Path) -> None:
    for number in range(64):
        with (tmp_path / str(number)).open("wb") as file:
            file.truncate(900 << 20)  # a hole that is read, for a second and more
    words = [MKCOMPOSEFS, "--threads=2", "--print-digest-only", str(tmp_path)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        busy: list[int] = []
        while not busy:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            busy = [pid for pid in map(int, children) if _ticks(pid) > 5]
        os.kill(busy[0], signal.SIGKILL)
        _, told = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert "a process that reads files ended early (see whether the system ran out of memory" in told


def _ticks(pid: int) -> int:
    """Return the processor time that a process has used, in ticks of the clock (proc_pid_stat(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def _tree(path: Path) -> None:
    for number in range(300):
        directory = path / f"d{number % 7}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{number}").write_bytes(b"%d" % number * (number * 40))
    os.link(path / "d0" / "f294", path / "linked")


def test_many_processes_make_the_tree_that_one_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tree(tmp_path)
    alone = scan_directory(tmp_path, SHA256, processes=1)
    monkeypatch.setattr(scan, "_ALONE_BYTES", 1000)
    counts: list[int] = []
    together = scan_directory(tmp_path, SHA256, processes=3, report=counts.append)
    assert [(path, node.digest, node.payload, node.size, node.nlink) for path, _, _, node in walk(together.root)] == [
        (path, node.digest, node.payload, node.size, node.nlink) for path, _, _, node in walk(alone.root)
    ]
    assert counts == list(range(len(counts)))
    assert len(counts) > 200


def test_a_file_that_changes_while_another_process_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tree(tmp_path)

    def store(fd: int) -> str:
        data = os.pread(fd, 1 << 20, 0)
        if data.startswith(b"250"):
            with (tmp_path / "d5" / "f250").open("ab") as other:
                other.write(b"more")
        return digest_bytes(data, SHA256).hex()

    monkeypatch.setattr(scan, "_ALONE_BYTES", 1000)
    with pytest.raises(ConflictError, match=r"/d5/f250 changed while it was read"):
        scan_directory(tmp_path, SHA256, store=store, processes=2)


def test_an_error_in_another_process_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tree(tmp_path)

    def store(fd: int) -> str:
        if os.pread(fd, 3, 0) == b"251":
            raise NoSpaceError("storing an object: no space left", hint="make room")
        return "00" * 32

    monkeypatch.setattr(scan, "_ALONE_BYTES", 1000)
    with pytest.raises(NoSpaceError, match=r"/d6/f251: storing an object: no space left") as caught:
        scan_directory(tmp_path, SHA256, store=store, processes=2)
    assert caught.value.hint == "make room"


def test_the_installed_command_stores_a_large_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(40):
        (tree / f"f{number}").write_bytes(bytes([number]) * (1 << 20))
    repo = str(tmp_path / "repo")
    cfsctl("init", "--insecure", repo)
    created = cfsctl("--repo", repo, "create-image", "--no-propagate-usr-to-root", str(tree), "large").stdout
    computed = cfsctl("--repo", repo, "compute-id", "--no-propagate-usr-to-root", str(tree)).stdout
    assert created.strip().rpartition(":")[2] == computed.strip()
    assert len(list((tmp_path / "repo" / "objects").glob("*/*"))) == 41
    cfsctl("--repo", repo, "fsck")


def test_what_other_processes_put_back_is_waited_for(tmp_path: Path) -> None:
    """Also where the image has its name already, so that nothing is published."""
    (tmp_path / "tree" / "usr").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "tree" / "usr" / str(number)).write_bytes(bytes([number]) * (6 << 20))
    repo, log = tmp_path / "repo", tmp_path / "log"
    cfsctl("init", "--insecure", repo)
    create = ("--repo", repo, "create-image", tmp_path / "tree", "os")
    cfsctl(*create)
    told = cfsctl("--repo", repo, "dump-files", "--backing-path-only", "refs/os", "/usr/3").stdout
    lost = repo / "objects" / told.split()[1]
    lost.unlink()
    # On one processor nobody would be started: it is told that it has two.
    two = ("-e", f"trace={CHANGING},sched_getaffinity", "-e", "inject=sched_getaffinity:poke_exit=@arg3=03")
    run(*recorder(log, children=True), *two, CFSCTL, *create)
    assert lost.is_file()
    names = [call.name for call in read(log)]
    assert names.index("sched_getaffinity") < names.index("linkat")
    assert "syncfs" in names[len(names) - names[::-1].index("linkat") :], "after the last"


def test_ctrl_c_while_they_start_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fork = os.fork
    pids = []

    def fork_and_interrupt() -> int:
        pids.append(fork())
        if pids[-1]:
            signal.raise_signal(signal.SIGINT)
        return pids[-1]

    monkeypatch.setattr(os, "fork", fork_and_interrupt)
    with pytest.raises(KeyboardInterrupt), FilePool(_read) as pool:
        pool.start(1)
    with pytest.raises(ChildProcessError):
        os.waitpid(pids[0], os.WNOHANG)
