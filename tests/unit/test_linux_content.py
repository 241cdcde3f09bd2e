"""A read lease tells whether a file is being written, and copies are complete."""

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from composefs.linux import content
from composefs.linux.content import clone, copy, lease, lease_is_unbroken, read_pieces, write_piece


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


@pytest.mark.parametrize("in_kernel", ["all", "half"])
def test_a_copy_is_complete(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_kernel: str) -> None:
    real = os.copy_file_range

    def once(source: int, target: int, count: int, offset: int) -> int:
        if offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(source, target, min(count, content.PIECE), offset)

    if in_kernel == "half":
        monkeypatch.setattr(os, "copy_file_range", once)
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


def test_zeros_take_no_room_and_nothing_else_is_taken_for_them(tmp_path: Path) -> None:
    zeros, ends_otherwise = bytes(content.PIECE), bytes(content.PIECE - 1) + b"x"
    pieces = [zeros, ends_otherwise, b"x" + zeros[1:], zeros, zeros, bytes(5)]
    with (tmp_path / "copy").open("wb", buffering=0) as target:
        for piece in pieces:
            write_piece(target.fileno(), memoryview(piece))
    assert (tmp_path / "copy").read_bytes() == b"".join(pieces)
    assert (tmp_path / "copy").stat().st_blocks * 512 < 3 * content.PIECE


def test_clone_shares_blocks_or_says_that_it_cannot(path: Path, tmp_path: Path) -> None:
    with path.open("rb") as source, (tmp_path / "copy").open("w+b") as target:
        if clone(source.fileno(), target.fileno()):
            assert target.read() == path.read_bytes()
        else:
            assert target.read() == b""


def refuse(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: int) -> None:
    def fail(*_arguments: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(owner, name, fail)


@pytest.mark.parametrize(
    "number",
    [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ETXTBSY, errno.ENOSYS],
    ids=errno.errorcode.get,
)
def test_what_cannot_share_blocks_is_copied_nevertheless(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """File systems and kernels say so in many ways, here for both calls."""
    refuse(monkeypatch, fcntl, "ioctl", number)
    refuse(monkeypatch, os, "copy_file_range", number)
    with path.open("rb") as source, (tmp_path / "copy").open("wb") as target:
        assert not clone(source.fileno(), target.fileno())
        copy(source.fileno(), target.fileno())
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOLCK], ids=errno.errorcode.get
)
def test_a_lease_that_cannot_be_had(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    refuse(monkeypatch, fcntl, "fcntl", number)
    with path.open("rb") as reader:
        assert not lease(reader.fileno())


def test_a_failing_disk_is_not_taken_for_a_missing_feature(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, fcntl, "ioctl", errno.EIO)
    refuse(monkeypatch, fcntl, "fcntl", errno.EIO)
    with path.open("rb") as source:
        with pytest.raises(OSError, match="Input/output"):
            clone(source.fileno(), source.fileno())
        with pytest.raises(OSError, match="Input/output"):
            lease(source.fileno())
