"""A read lease tells whether a file is being written, and copies are complete."""

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from composefs.linux import content
from composefs.linux.content import clone, copy, lease, lease_is_unbroken, read_pieces


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 300_000)
    return path


def test_a_lease_is_refused_while_a_writer_is_there(path: Path) -> None:
    with path.open("rb") as reader:
        with path.open("r+b"):
            assert not lease(reader.fileno())
        assert lease(reader.fileno())
        assert lease_is_unbroken(reader.fileno())


def test_a_lease_holds_off_a_writer_and_tells_of_it(path: Path) -> None:
    with path.open("rb") as reader:
        assert lease(reader.fileno())
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        assert not lease_is_unbroken(reader.fileno())


def test_a_broken_lease_does_not_end_the_process(path: Path) -> None:
    with path.open("rb") as reader:
        assert lease(reader.fileno())
        writer = threading.Thread(target=lambda: path.open("r+b").close())
        writer.start()
        while lease_is_unbroken(reader.fileno()):
            pass
        fcntl.fcntl(reader.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)
        writer.join()


def test_pieces_are_the_content_whatever_the_offset(path: Path) -> None:
    path.write_bytes(os.urandom(content.PIECE + 5))
    with path.open("rb") as reader:
        reader.seek(100)
        assert b"".join(bytes(piece) for piece in read_pieces(reader.fileno())) == path.read_bytes()


@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_copy_is_complete(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_kernel: bool) -> None:
    if not in_kernel:

        def refuse(*_arguments: int) -> int:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    path.write_bytes(os.urandom(content.PIECE * 2 + 5))
    with path.open("rb") as source, (tmp_path / "copy").open("wb", buffering=0) as target:
        source.seek(100)
        target.write(b"before")
        copy(source.fileno(), target.fileno())
    assert (tmp_path / "copy").read_bytes() == b"before" + path.read_bytes()


def test_a_copy_of_a_file_whose_size_the_kernel_does_not_know(tmp_path: Path) -> None:
    with Path("/proc/self/cmdline").open("rb") as source, (tmp_path / "copy").open("wb") as target:
        copy(source.fileno(), target.fileno())
    assert (tmp_path / "copy").read_bytes() == Path("/proc/self/cmdline").read_bytes()


def test_clone_shares_blocks_or_says_that_it_cannot(path: Path, tmp_path: Path) -> None:
    with path.open("rb") as source, (tmp_path / "copy").open("w+b") as target:
        if clone(source.fileno(), target.fileno()):
            assert target.read() == path.read_bytes()
        else:
            assert target.read() == b""


def test_a_failing_disk_is_not_taken_for_a_missing_feature(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(fcntl, "ioctl", fail)
    with path.open("rb") as source, pytest.raises(OSError, match="Input/output"):
        clone(source.fileno(), source.fileno())
