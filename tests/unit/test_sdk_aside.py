"""What runs in a thread beside the conversation with the core: what comes of it, what it says, and its end."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from composefs_ext.aside import Aside, open_aside
from composefs_ext.core import Core
from composefs_ext.errors import CancelledError, NetworkError
from support.descriptors import descriptors, left_open


class Ends:
    """A core whose other end is this."""

    def __init__(self) -> None:
        read_fd, to_core = os.pipe()
        from_core, write_fd = os.pipe()
        self.core = Core(read_fd, write_fd)
        self.calls: BinaryIO = os.fdopen(from_core, "rb")
        self.out: BinaryIO = os.fdopen(to_core, "wb", buffering=0)
        self._fds = read_fd, write_fd

    def cancel(self) -> None:
        self.out.write(b'{"jsonrpc": "2.0", "method": "cancel", "params": {}}\n')

    def close(self) -> None:
        self.calls.close()
        self.out.close()
        for each in self._fds:
            os.close(each)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def test_it_returns_and_raises_what_the_function_does(ends: Ends) -> None:
    aside = Aside(ends.core)
    assert aside.run(divmod, 7, 2) == (3, 1)
    assert aside.run(sorted, [1, 2], reverse=True) == [2, 1]
    error = NetworkError("no route")

    def fail() -> None:
        raise error

    with pytest.raises(NetworkError) as caught:
        aside.run(fail)
    assert caught.value is error
    assert aside.run(threading.current_thread) is not threading.current_thread()


def test_what_it_tells_is_logged_in_order_while_it_runs(ends: Ends) -> None:
    aside = Aside(ends.core)

    def told() -> list[str]:
        aside.tell("first")
        first = json.loads(ends.calls.readline())["params"]["message"]  # written by the other thread meanwhile
        aside.tell("second")
        aside.tell("third")
        return [first]

    lines = aside.run(told)
    lines += [json.loads(ends.calls.readline())["params"]["message"] for _ in range(2)]
    assert lines == ["first", "second", "third"]
    assert aside.run(int) == 0


def test_a_cancelled_run_does_not_wait_for_it(ends: Ends) -> None:
    aside = Aside(ends.core)
    goes_on = threading.Event()

    def block() -> None:
        ends.cancel()
        goes_on.wait()

    with pytest.raises(CancelledError):
        aside.run(block)
    goes_on.set()


def test_no_run_leaves_descriptors_open(ends: Ends) -> None:
    """A run that was cancelled has one until its thread ends."""
    aside = Aside(ends.core)
    before = descriptors()
    goes_on = threading.Event()
    threads = []

    def block() -> None:
        threads.append(threading.current_thread())
        ends.cancel()
        goes_on.wait()
        aside.tell("nobody hears this")

    assert aside.run(int) == 0
    with pytest.raises(ValueError, match="invalid literal"):
        aside.run(int, "x")
    assert not left_open(before)
    with pytest.raises(CancelledError):
        aside.run(block)
    aside.tell("nor this")
    goes_on.set()
    threads[0].join()
    assert not left_open(before)


def test_a_named_pipe_is_read_to_its_end_however_slowly_it_comes(ends: Ends, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with fifo.open("wb", buffering=0) as file:
            for piece in (b"ab", b"cd"):
                time.sleep(0.1)
                file.write(piece)

    for read in (lambda file: file.read(), lambda file: file.raw.readall(), b"".join):
        writer = threading.Thread(target=write)
        with open_aside(ends.core, str(fifo)) as file:
            writer.start()
            assert read(file) == b"abcd"
        writer.join()


def test_a_file_on_which_somebody_has_a_lease_is_waited_for(ends: Ends, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    leased = os.open(path, os.O_RDWR)
    broken = signal.signal(signal.SIGIO, lambda *_: fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_UNLCK))
    try:
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with open_aside(ends.core, str(path)) as file:
            assert file.read() == b"content"
    finally:
        signal.signal(signal.SIGIO, broken)
        os.close(leased)
