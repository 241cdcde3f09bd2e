"""What a window shows are the file's bytes, and what it cannot show is told, not met as SIGBUS."""

import errno
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mfusepy
import pytest

from composefs import fsverity
from composefs.digest import SHA512
from composefs.linux.window import Window

SIZE = 16 * 4096
CONTENT = b"".join(number.to_bytes(8, "little") * 512 for number in range(40))  # two windows and a half

DIGEST = """
import sys
from composefs import fsverity
from composefs.digest import SHA512
with open(sys.argv[1], "rb") as file:
    fsverity.digest_fd(file.fileno(), SHA512, size=int(sys.argv[2]), is_still=lambda: True)
"""

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
def served(mounted: Path, operations: mfusepy.Operations, **options: bool) -> Iterator[Path]:
    """A mounted file system, and its one file."""
    mounted.mkdir()
    serving = threading.Thread(
        target=lambda: mfusepy.FUSE(operations, str(mounted), foreground=True, nothreads=True, **options), daemon=True
    )
    serving.start()
    try:
        while not mounted.is_mount():
            assert serving.is_alive()
        yield mounted / "file"
    finally:
        subprocess.run(["fusermount3", "-u", str(mounted)], check=False)
        serving.join(10)


class _Failing(mfusepy.Operations):
    """A file system of one file, of which the disk gives the first half."""

    use_ns = True

    def __init__(self, size: int) -> None:
        self.size = size

    def getattr(self, path: str, _fh: int | None = None) -> dict[str, int]:
        return {"st_mode": 0o40755, "st_nlink": 2} if path == "/" else {"st_mode": 0o100644, "st_size": self.size}

    def read(self, _path: str, size: int, offset: int, _fh: int) -> bytes:
        if offset + size > self.size // 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return bytes(size)


@pytest.mark.root
def test_a_disk_that_fails_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    size = 8 << 20
    with served(tmp_path / "mounted", _Failing(size)) as path:
        command = [sys.executable, "-c", DIGEST, str(path), str(size)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done
    assert "OSError: [Errno 5] Input/output error" in done.stderr


@pytest.mark.root
def test_a_file_system_that_lets_nothing_be_mapped_leaves_no_hole(tmp_path: Path) -> None:
    """Where the window was, something else would find room, and be overwritten by what is shown next."""
    with served(tmp_path / "mounted", _Failing(8 << 20), direct_io=True) as path:
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
