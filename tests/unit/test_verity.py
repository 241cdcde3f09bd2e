"""The ioctls of fs-verity: requests are laid out as the kernel wants them, and every refusal has its error."""

import errno
import fcntl
import os
import struct
from pathlib import Path

import pytest

from composefs.digest import SHA256, SHA512, Algorithm
from composefs.errors import BusyError, UnsupportedError
from composefs.linux import verity


@pytest.fixture
def fd(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_file_without_verity_measures_as_none(fd: int) -> None:
    assert verity.measure(fd) is None


@pytest.mark.parametrize(
    "number", [errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL], ids=errno.errorcode.get
)
def test_every_way_to_say_that_there_is_none(fd: int, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert verity.measure(fd) is None


@pytest.mark.parametrize(("number", "algorithm", "size"), [(1, SHA256, 32), (2, SHA512, 64)], ids=["sha256", "sha512"])
def test_measure_reads_the_kernels_answer(
    fd: int, monkeypatch: pytest.MonkeyPatch, number: int, algorithm: Algorithm, size: int
) -> None:
    def answer(_fd: int, request: int, buffer: bytearray) -> int:
        assert request == 0xC0046686
        assert struct.unpack_from("=HH", buffer) == (0, 64)
        struct.pack_into(f"=HH{size}s", buffer, 0, number, size, b"d" * size)  # into the buffer: it does not grow
        return 0

    monkeypatch.setattr(fcntl, "ioctl", answer)
    assert verity.measure(fd) == (algorithm, b"d" * size)


def test_measure_of_an_unknown_algorithm(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_fd: int, _request: int, buffer: bytearray) -> int:
        buffer[:4] = struct.pack("=HH", 9, 32)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", answer)
    with pytest.raises(UnsupportedError, match="algorithm 9"):
        verity.measure(fd)


def test_enable_sends_struct_fsverity_enable_arg(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(fcntl, "ioctl", lambda _fd, request, buffer: seen.append((request, buffer)))
    assert verity.enable(fd, SHA512)
    request, buffer = seen[0]
    assert request == 0x40806685
    assert len(buffer) == (request >> 16) & 0x3FFF == 128
    assert struct.unpack_from("=III", buffer) == (1, 2, 4096)
    assert not any(buffer[12:])


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ETXTBSY, BusyError),
        (errno.EOPNOTSUPP, UnsupportedError),
        (errno.ENOTTY, UnsupportedError),
        (errno.EINVAL, UnsupportedError),
    ],
)
def test_refusals_of_enable(fd: int, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with pytest.raises(error, match="enabling fs-verity") as caught:
        verity.enable(fd, SHA256)
    assert getattr(caught.value, "retryable", None) == (error is BusyError)


def test_enabling_twice_is_no_error(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(errno.EEXIST, "exists")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert not verity.enable(fd, SHA256)


def test_what_no_file_system_should_answer_stays_an_error_of_the_system(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked can say of which file it is."""

    def fail(*_arguments: object) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "ioctl", fail)
    with pytest.raises(OSError, match="broken"):
        verity.measure(fd)
    with pytest.raises(OSError, match="broken"):
        verity.enable(fd, SHA256)
