"""New files appear whole or not at all, and trees of any shape can be removed."""

import errno
import os
import resource
import stat
import subprocess
from pathlib import Path

import pytest

from composefs.errors import BusyError
from composefs.linux import files
from composefs.linux.files import NewFile, hold, open_directory, open_or_make_directory, remove_tree, write_all
from composefs.linux.locks import try_lock
from composefs.repository.staging import sweep


@pytest.fixture
def directory(tmp_path: Path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def refuse_tmpfile(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Answer as a file system that makes no file without a name."""
    real = os.open

    def no_tmpfile(path: str, flags: int, *arguments: int, **keywords: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", no_tmpfile)


@pytest.fixture(params=["O_TMPFILE", "named", "no /proc"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with every way in which a new file is made."""
    if request.param == "named":
        refuse_tmpfile(monkeypatch, errno.EOPNOTSUPP)
    elif request.param == "no /proc":
        monkeypatch.setattr(files, "_has_proc", lambda: False)
    return str(request.param)


def test_a_new_file_has_no_name_until_it_is_linked(tmp_path: Path, directory: int, how: str) -> None:
    (tmp_path / "target").mkdir()
    with NewFile(directory) as new:
        write_all(new.fd, b"content")
        assert len(os.listdir(tmp_path)) == (1 if how == "O_TMPFILE" else 2)
        new.link(directory, "target/name")
        assert (tmp_path / "target/name").read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["target"]
    status = (tmp_path / "target/name").stat()
    assert stat.S_IMODE(status.st_mode) == 0o444
    assert status.st_nlink == 1


def test_an_error_of_linking_names_no_file_of_another_file_system(directory: int) -> None:
    with NewFile(directory) as new, pytest.raises(FileNotFoundError) as caught:
        new.link(directory, "missing/name")
    assert caught.value.filename == "missing/name"


@pytest.mark.usefixtures("how")
def test_linking_never_replaces_and_replacing_does(tmp_path: Path, directory: int) -> None:
    (tmp_path / "name").write_bytes(b"old")
    with NewFile(directory) as new:
        write_all(new.fd, b"new")
        with pytest.raises(FileExistsError):
            new.link(directory, "name")
        assert (tmp_path / "name").read_bytes() == b"old"
        new.replace(directory, "name")
    assert (tmp_path / "name").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["name"]


@pytest.mark.usefixtures("how")
def test_an_error_leaves_nothing(tmp_path: Path, directory: int) -> None:
    def fail() -> None:
        with NewFile(directory) as new:
            write_all(new.fd, b"content")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("how")
def test_reopened_read_only_it_can_still_be_linked(tmp_path: Path, directory: int) -> None:
    with NewFile(directory) as new:
        write_all(new.fd, b"content")
        new.reopen_read_only()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(new.fd, b"more")
        new.link(directory, "name")
    assert (tmp_path / "name").read_bytes() == b"content"


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path, directory: int) -> None:
    old = os.umask(0o077)
    try:
        with NewFile(directory, 0o644) as new:
            new.link(directory, "name")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "name").stat().st_mode) == 0o644


@pytest.mark.parametrize("number", [errno.EISDIR, errno.EINVAL], ids=errno.errorcode.get)
def test_other_ways_to_say_that_every_file_has_a_name(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_tmpfile(monkeypatch, number)
    with NewFile(directory) as new:
        assert len(os.listdir(tmp_path)) == 1
        new.replace(directory, "name")
    assert os.listdir(tmp_path) == ["name"]


def test_a_full_disk_is_not_taken_for_a_missing_feature(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_keywords: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space"):
        NewFile(directory)


def test_nothing_is_left_where_modes_cannot_be_changed(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(files, "_has_proc", lambda: False)
    monkeypatch.setattr(os, "fchmod", refused)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="not implemented"):
        NewFile(directory)
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_file_in_use_can_be_told_from_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_has_proc", lambda: False)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with NewFile(fd) as new:
        for _ in range(2):
            other = os.open(tmp_path / os.listdir(tmp_path)[0], os.O_RDONLY)
            assert not try_lock(other, exclusive=True)
            os.close(other)
            new.reopen_read_only()
    os.close(fd)


def test_a_sweeper_does_not_get_in_the_way_of_the_end(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_has_proc", lambda: False)
    close = os.close

    def close_and_sweep(fd: int) -> None:
        close(fd)
        with monkeypatch.context() as context:
            context.setattr(os, "close", close)
            sweep(directory)

    with NewFile(directory):
        monkeypatch.setattr(os, "close", close_and_sweep)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("how")
def test_a_sweeper_leaves_what_is_about_to_replace_a_file(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def sweep_and_rename(old: str, new: str, **keywords: int) -> None:
        sweep(directory)
        rename(old, new, **keywords)

    with NewFile(directory) as new:
        monkeypatch.setattr(os, "rename", sweep_and_rename)
        new.replace(directory, "name")
    assert os.listdir(tmp_path) == ["name"]


def test_hold_notices_that_a_sweeper_was_faster(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    fd = os.open(tmp_path / "new", os.O_RDONLY | os.O_DIRECTORY)
    (tmp_path / "new").rmdir()
    assert not hold(fd)
    os.close(fd)


def test_hold_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_SWEEP_SECONDS", 0.0)
    (tmp_path / "new").touch()
    sweeper, fd = (os.open(tmp_path / "new", os.O_RDONLY) for _ in range(2))
    assert try_lock(sweeper, exclusive=True)
    with pytest.raises(BusyError):
        hold(fd)
    os.close(sweeper)
    os.close(fd)


def test_directories_are_not_followed_through_symlinks(tmp_path: Path, directory: int) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(NotADirectoryError):
        open_directory("link", directory)
    with pytest.raises(NotADirectoryError):
        open_or_make_directory("link", directory)
    os.close(open_or_make_directory("made", directory))
    assert (tmp_path / "made").is_dir()


def test_remove_tree_survives_depth_and_modes(tmp_path: Path, directory: int) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "file").write_bytes(b"x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (top / "link").symlink_to("../outside")
    fd = os.open(top, os.O_RDONLY)
    for _ in range(2100):  # deeper than PATH_MAX, the recursion limit and the number of descriptors allow
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(os.open("f", os.O_CREAT, dir_fd=fd))
        os.close(fd)
        fd = below
    os.mkdir("closed", 0, dir_fd=fd)
    os.close(fd)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
        remove_tree("top", directory)
        assert os.listdir(tmp_path) == ["outside"]
        assert os.listdir(tmp_path / "outside") == ["kept"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        subprocess.run(["rm", "-rf", top], check=True)  # pytest's own cleaning fails on such a depth


def test_remove_tree_removes_a_directory_of_ours_that_is_closed_to_us(tmp_path: Path, directory: int) -> None:
    nobody = 65534
    (tmp_path / "top/below").mkdir(parents=True)
    am_root = os.geteuid() == 0
    if am_root:  # whom no mode keeps out
        for path in (tmp_path, tmp_path / "top", tmp_path / "top/below"):
            os.chown(path, nobody, -1)
    (tmp_path / "top").chmod(0)
    if am_root:
        os.seteuid(nobody)
    try:
        remove_tree("top", directory)
    finally:
        if am_root:
            os.seteuid(0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("where", ["top", "top/below"])
def test_remove_tree_follows_no_link_that_takes_the_place_of_a_directory(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As who may write there can have it at any moment."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o750)
    (outside / "kept").touch()
    (tmp_path / "top/below").mkdir(parents=True)
    (tmp_path / where).chmod(0o500)
    real = os.open

    def exchange_and_open(path: str, flags: int, **keywords: int) -> int:
        if path == Path(where).name and not (tmp_path / where).is_symlink():
            (tmp_path / where).rename(tmp_path / "moved")
            (tmp_path / where).symlink_to(outside)
        return real(path, flags, **keywords)

    with monkeypatch.context() as context:
        context.setattr(os, "open", exchange_and_open)
        with pytest.raises(NotADirectoryError):
            remove_tree("top", directory)
    assert os.listdir(outside) == ["kept"]
    assert stat.S_IMODE(outside.stat().st_mode) == 0o750


def test_remove_tree_removes_a_file(tmp_path: Path, directory: int) -> None:
    (tmp_path / "file").touch()
    remove_tree("file", directory)
    assert os.listdir(tmp_path) == []
