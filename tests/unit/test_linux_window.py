"""What a window shows are the file's bytes, and what it cannot show is told, not met as SIGBUS."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from composefs import fsverity
from composefs.digest import SHA512
from composefs.linux.window import Window
from support.commands import TIMEOUT

SIZE = 16 * 4096
SIZE_SERVED = 8 << 20
CONTENT = b"".join(number.to_bytes(8, "little") * 512 for number in range(40))  # two windows and a half

DIGEST = """
import sys
from composefs import fsverity
from composefs.digest import SHA512
with open(sys.argv[1], "rb") as file:
    fsverity.digest_fd(file.fileno(), SHA512, size=int(sys.argv[2]), is_still=lambda: True)
"""

SERVE = """
import errno, os, sys
import mfusepy

file_size = int(sys.argv[2])

class Failing(mfusepy.Operations):
    use_ns = True

    def getattr(self, path, _fh=None):
        return {"st_mode": 0o40755, "st_nlink": 2} if path == "/" else {"st_mode": 0o100644, "st_size": file_size}

    def read(self, _path, size, offset, _fh):
        if offset + size > file_size // 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return bytes(size)

mfusepy.FUSE(Failing(), sys.argv[1], foreground=True, nothreads=True, **dict.fromkeys(sys.argv[3:], True))
"""
"""Run in a process of its own, as libfuse leaves the signals of its process otherwise, SIGPIPE among them."""

SHOW = """
import sys
from composefs.linux.window import Window
window = Window(1 << 16)
with open(sys.argv[1], "rb") as file:
    shown = window.show(file.fileno(), 0)
    print(shown, window.memory[:] == bytes(1 << 16))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def test_one_piece_after_the_other(path: Path) -> None:
    window = Window(SIZE)
    with path.open("rb") as file:
        for offset in (0, SIZE, 4096):
            assert window.show(file.fileno(), offset)
            assert window.memory[:] == CONTENT[offset : offset + SIZE]
    assert str(path) in Path("/proc/self/maps").read_text()
    window.clear()
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert window.memory[:] == bytes(SIZE)


def test_what_is_behind_the_end_cannot_be_shown(path: Path) -> None:
    window = Window(SIZE)
    with path.open("rb") as file:
        assert not window.show(file.fileno(), 2 * SIZE)
        os.truncate(path, SIZE)
        assert window.show(file.fileno(), 0)
        assert not window.show(file.fileno(), SIZE)
    window.clear()


def test_what_cannot_be_mapped_cannot_be_shown() -> None:
    reader, writer = os.pipe()
    try:
        assert not Window(SIZE).show(reader, 0)
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def served(mounted: Path, *options: str) -> Iterator[Path]:
    """A mounted file system of one file, of which the disk gives the first half: the file."""
    mounted.mkdir()
    server = subprocess.Popen([sys.executable, "-c", SERVE, mounted, str(SIZE_SERVED), *options])
    try:
        while not mounted.is_mount():
            assert server.poll() is None
        yield mounted / "file"
    finally:
        subprocess.run(["fusermount3", "-u", mounted], check=False)
        server.wait(TIMEOUT)


@pytest.mark.root
def test_a_disk_that_fails_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    with served(tmp_path / "mounted") as path:
        command = [sys.executable, "-c", DIGEST, str(path), str(SIZE_SERVED)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done
    assert "OSError: [Errno 5] Input/output error" in done.stderr


@pytest.mark.root
def test_a_file_system_that_lets_nothing_be_mapped_leaves_no_hole(tmp_path: Path) -> None:
    """Where the window was, something else would find room, and be overwritten by what is shown next."""
    with served(tmp_path / "mounted", "direct_io") as path:
        done = subprocess.run(
            [sys.executable, "-c", SHOW, str(path)], capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stdout) == (0, "False True\n"), done


def test_a_file_that_may_change_from_some_time_on_is_read_from_there_on(tmp_path: Path) -> None:
    data = os.urandom(5 * (256 << 10) + 5)
    path = tmp_path / "file"
    path.write_bytes(data)
    shown: list[int] = []
    real = Window.show

    def show(window: Window, fd: int, offset: int) -> bool:
        shown.append(offset)
        return real(window, fd, offset)

    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(Window, "show", show)
        answers = iter([True, True, False])
        digest = fsverity.digest_fd(file.fileno(), SHA512, size=len(data), is_still=lambda: next(answers))
        assert digest == fsverity.digest_bytes(data, SHA512)
        assert shown == [0, 256 << 10]
        assert next(answers, None) is None
        assert str(path) not in Path("/proc/self/maps").read_text()
        os.truncate(path, 3 << 18)
        cut = fsverity.digest_fd(file.fileno(), SHA512, size=len(data), is_still=lambda: True)
        assert cut == fsverity.digest_bytes(data[: 3 << 18], SHA512)


def test_a_file_with_holes_keeps_them() -> None:
    size = 4 << 20
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:  # tmpfs
        file.truncate(size)
        digest = fsverity.digest_fd(file.fileno(), SHA512, size=size, is_still=lambda: True)
        assert digest == fsverity.digest_bytes(bytes(size), SHA512)
        assert os.fstat(file.fileno()).st_blocks == 0
