"""Files at paths where anything may be."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from composefs_ext import files
from composefs_ext.errors import CorruptError
from composefs_ext.files import Naming, open_regular, read_regular, read_up_to


def test_what_is_no_regular_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        at = os.open(tmp_path, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{at}/socket")  # whose path may be longer than a socket's address
        for name in ("directory", "fifo", "socket"):
            with pytest.raises(CorruptError, match=r"^it is not a regular file$"):
                open_regular(str(tmp_path / name))
        os.close(at)


def test_a_path_may_be_relative_to_a_directory_and_a_symlink_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    at = os.open(tmp_path, os.O_RDONLY)
    fd = open_regular("link", dir_fd=at)
    assert os.read(fd, 10) == b"content"
    os.close(fd)
    with pytest.raises(CorruptError, match=r"^it is a symlink$"):
        open_regular("link", follow=False, dir_fd=at)
    os.close(at)


def test_a_file_may_be_as_long_as_is_said_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert read_regular(str(path), 7) == b"content"
    with pytest.raises(CorruptError, match=r"^it is longer than 6 bytes$"):
        read_regular(str(path), 6)


def test_a_file_whose_size_the_system_does_not_tell_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PIECE", 5)
    path = "/proc/version"
    content = Path(path).read_bytes()
    assert os.stat(path).st_size == 0
    assert read_regular(path, len(content)) == content
    with pytest.raises(CorruptError, match=r"^it is longer than 7 bytes$"):
        read_regular(path, 7)
    with open(path, "rb") as file:
        assert read_up_to(file, 7) == content[:7]
        assert file.tell() == 7


def test_errors_by_descriptors_are_named(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(FileNotFoundError) as relative, Naming("/place"):
        os.open("file/below", os.O_RDONLY, dir_fd=at)
    os.close(at)
    with pytest.raises(OSError, match="Bad file descriptor") as none, Naming("/place"):
        os.fsync(at)
    with pytest.raises(FileNotFoundError) as absolute, Naming("/place"):
        os.open(tmp_path / "missing", os.O_RDONLY)
    names = [caught.value.filename for caught in (relative, none, absolute)]
    assert names == ["/place", "/place", str(tmp_path / "missing")]
