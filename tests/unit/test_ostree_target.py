"""Writing an ostree repository beside others who do the same."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from hashlib import sha256
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from composefs_ext.errors import BusyError, CorruptError, NoSpaceError, NotFoundError
from composefs_ostree.exporting import lock
from composefs_ostree.exporting.layout import lay_out
from composefs_ostree.exporting.lock import Lock
from composefs_ostree.exporting.summaries import make_summary
from composefs_ostree.exporting.target import Target
from composefs_ostree.exporting.writers import ObjectWriter
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.fileheader import checksum_header, make_head
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.summary import SUMMARY_TYPE

if TYPE_CHECKING:
    from pathlib import Path


def test_runs_that_start_at_once_leave_each_other_what_they_have_staged(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "out")
    lay_out(path, "archive", None)

    def run(number: int) -> None:
        for turn in range(200):
            target = Target(path)
            target.stage("object", b"content")
            target.put(f"refs/heads/{number}", str(turn).encode())
            target.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert [(tmp_path / "out" / "refs" / "heads" / str(number)).read_text() for number in range(4)] == ["199"] * 4
    assert os.listdir(tmp_path / "out" / "tmp") == ["cache"]


def test_a_directory_that_another_run_removes_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.fspath(tmp_path / "out")
    lay_out(path, "archive", None)
    lock_file = fcntl.flock

    def flock(fd: int, kind: int) -> None:
        monkeypatch.undo()
        os.rmdir(os.readlink(f"/proc/self/fd/{fd}"))
        lock_file(fd, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    target = Target(path)
    target.stage("object", b"content")
    target.close()


def test_nobody_else_reads_what_is_staged_or_has_it_written_elsewhere(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "out")
    lay_out(path, "archive", None)
    target = Target(path)
    assert stat.S_IMODE(os.fstat(target.staging.fd).st_mode) == 0o700
    (tmp_path / "elsewhere").write_bytes(b"content")
    os.symlink(tmp_path / "elsewhere", "object", dir_fd=target.staging.fd)
    with pytest.raises(FileExistsError):
        target.stage("object", b"another")
    assert (tmp_path / "elsewhere").read_bytes() == b"content"
    target.close()


def test_what_a_killed_run_has_staged_is_removed(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "out")
    lay_out(path, "archive", None)
    left = tmp_path / "out" / "tmp" / "cfsctl-export-0123456789abcdef"
    left.mkdir()
    (left / "object").write_bytes(b"content")
    target = Target(path)
    assert not left.exists()
    target.close()


def test_what_a_run_makes_may_belong_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's directories and files belong to nobody where a server of NFS squashes root."""
    path, owner = os.fspath(tmp_path / "out"), os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    lay_out(path, "archive", None)
    target = Target(path)
    assert os.listdir(target.staging.fd) == []
    target.close()


def test_a_new_repository_is_taken_away_again_unless_another_has_locked_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.fspath(tmp_path / "out")
    maker = Target(path, lay_out(path, "archive", None))

    def share(self: Lock) -> None:
        monkeypatch.undo()
        maker.close()
        self.share()

    monkeypatch.setattr(Lock, "share", share)
    with pytest.raises(NotFoundError, match="out is no ostree repository"):
        Target(path)
    assert os.listdir(tmp_path) == []

    maker = Target(path, lay_out(path, "archive", None))
    other = Target(path)
    maker.close()
    assert (tmp_path / "out/config").exists()
    other.close()


def test_a_repository_that_is_being_taken_away_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.fspath(tmp_path / "out")
    lay_out(path, "archive", None)
    (tmp_path / "out/.lock").touch()
    make_directories = os.makedirs

    def take_away(*arguments: Any, **options: Any) -> None:
        monkeypatch.undo()
        for name in ("config", ".lock"):
            (tmp_path / "out" / name).unlink()
        make_directories(*arguments, **options)

    monkeypatch.setattr(os, "makedirs", take_away)
    assert lay_out(path, "archive", None) == []
    assert (tmp_path / "out/config").exists()


def test_what_others_have_set_in_a_new_repository_stays(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "out")
    maker = Target(path, lay_out(path, "archive", None))
    with (tmp_path / "out/config").open("a") as file:
        file.write('[remote "origin"]\nurl=http://example.com/\n')
    maker.close()
    assert (tmp_path / "out/config").exists()
    assert (tmp_path / "out/objects").is_dir()


@pytest.mark.parametrize("missing", [(), ("extensions", "refs/mirrors")], ids=["all but its config", "less"])
def test_a_layout_that_was_not_finished_is_taken_up(tmp_path: Path, missing: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    lay_out(os.fspath(out), "archive", None)
    (out / ".lock").touch()  # as whoever meets a repository that is being taken away, or is ended meanwhile
    made = sorted(out.rglob("*"))
    (out / "config").unlink()  # which is written last
    for name in missing:
        (out / name).rmdir()
    lay_out(os.fspath(out), "archive", None)
    assert sorted(out.rglob("*")) == made


def test_a_layout_that_objects_may_be_in_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "objects/00").mkdir(parents=True)
    Target(os.fspath(out), lay_out(os.fspath(out), "archive", None)).close()
    assert (out / "config").exists()
    assert (out / "objects/00").exists()


@pytest.mark.parametrize("value", ["1", "true", "0", ""])
def test_the_config_says_what_a_summary_tells_of_deltas_and_tombstones(tmp_path: Path, value: str) -> None:
    path, is_on = os.fspath(tmp_path / "out"), value in ("1", "true")
    lay_out(path, "archive", None)
    with (tmp_path / "out/config").open("a") as config:
        config.write(f"no-deltas-in-summary={value}\ntombstone-commits={value}\n")
    (tmp_path / "out/deltas/AA" / ("A" * 41)).mkdir(parents=True)
    (tmp_path / "out/deltas/AA" / ("A" * 41) / "superblock").write_bytes(b"superblock")
    (tmp_path / "out/deltas/AA" / ("A" * 40 + "E")).mkdir()  # one that is made or deleted just now
    target = Target(path)
    _, metadata = gvariant.decode(SUMMARY_TYPE, make_summary(target))
    target.close()
    assert metadata["ostree.summary.tombstone-commits"].value == is_on
    deltas = {} if is_on else {"00" * 32: sha256(b"superblock").digest()}
    listed = metadata.get("ostree.static-deltas", Variant("a{sv}", {})).value
    assert {name: checksum.value for name, checksum in listed.items()} == deltas


@pytest.mark.parametrize(
    ("user", "blocks", "fits"), [(0, 9000, True), (5, 9000, False), (5, 0, True)], ids=["root", "user", "no limit"]
)
def test_what_is_reserved_for_root_is_free_for_root_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, blocks: int, fits: bool
) -> None:
    path = os.fspath(tmp_path / "out")
    lay_out(path, "archive", None)
    with (tmp_path / "out/config").open("a") as config:
        config.write("min-free-space-size=1MB\n")
    target = Target(path)
    status = SimpleNamespace(f_frsize=1024, f_blocks=blocks, f_bfree=min(blocks, 1024), f_bavail=min(blocks, 1023))
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: status)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with nullcontext() if fits else pytest.raises(NoSpaceError, match="MiB of its disk left free, and 1023"):
        target.require_space()
    with nullcontext() if not blocks else pytest.raises(NoSpaceError, match="with 1 B to come"):
        target.require_space(1)
    target.close()


def can_lock(path: str, kind: int) -> bool:
    """Try as libostree does."""
    fd = os.open(f"{path}/.lock", os.O_RDWR)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_nobody_prunes_meanwhile_and_one_at_a_time_writes_refs(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "out")
    lay_out(path, "archive", None)
    target = Target(path)
    assert can_lock(path, fcntl.F_RDLCK)
    assert not can_lock(path, fcntl.F_WRLCK)
    target.lock.take_alone()
    assert not can_lock(path, fcntl.F_RDLCK)
    target.close()
    assert can_lock(path, fcntl.F_WRLCK)


def test_two_that_write_refs_wait_for_each_other(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "out")
    lay_out(path, "archive", None)

    def write(target: Target) -> None:
        target.lock.take_alone()
        target.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, [Target(path), Target(path)]))


def test_who_waits_too_long_is_told_of_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.fspath(tmp_path / "out")
    lay_out(path, "archive", None)
    first = Target(path)
    first.lock.take_alone()
    monkeypatch.setattr(lock, "_SECONDS", -1)
    with pytest.raises(BusyError, match=f"{path} is locked by another program"):
        Target(path)
    first.close()


def test_where_there_are_no_locks_nobody_waits_for_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.fspath(tmp_path / "out")
    lay_out(path, "archive", None)

    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "_SECONDS", -1)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(OSError, match="No locks available"):
        Target(path)


@pytest.mark.parametrize("mode", ["archive", "bare-user-only"])
def test_a_size_that_the_checksum_does_not_hold_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.chdir(tmp_path)
    head = make_head(6, 0, 0, 0o100644, b"", b"")
    file_id = sha256(checksum_header(head) + b"hello").digest()
    repository: Any = SimpleNamespace()
    writer = ObjectWriter(os.fspath(tmp_path), mode, 6, {file_id: Entry(head + b"hello", None)}, repository)
    writer.start(file_id, "")
    [(_, error)] = writer.step()
    assert error["message"] == f"file object {file_id.hex()}: its content has 5 bytes, not 6"


@pytest.mark.parametrize("mode", ["archive", "bare-user", "bare-user-only"])
def test_a_symlink_that_the_checksum_does_not_hold_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file_id = sha256(checksum_header(make_head(0, 0, 0, 0o120777, b"target", b""))).digest()
    files = {file_id: Entry(make_head(0, 0, 0, 0o120777, b"another", b""), None)}
    repository: Any = SimpleNamespace()
    writer = ObjectWriter(os.fspath(tmp_path), mode, 6, files, repository)
    writer.start(file_id, "")
    [(_, error)] = writer.step()
    assert "does not have its checksum" in error["message"]
    assert os.listdir(tmp_path) == []


def test_a_symlink_whose_owner_is_not_kept_is_not_taken_for_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "chown", lambda *_arguments, **_options: None)
    head = make_head(0, os.getuid() + 1, os.getgid(), 0o120777, b"target", b"")
    file_id = sha256(checksum_header(head)).digest()
    repository: Any = SimpleNamespace()
    writer = ObjectWriter(os.fspath(tmp_path), "bare", 6, {file_id: Entry(head, None)}, repository)
    writer.start(file_id, "")
    [(_, error)] = writer.step()
    assert "its file system does not keep owners" in error["message"]


def test_an_object_that_is_no_file_any_more_is_to_blame_for_what_cannot_be_read(tmp_path: Path) -> None:
    file_id = bytes(32)
    answers = iter([OSError(errno.EIO, os.strerror(errno.EIO)), CorruptError("object ab is damaged", hint="remedy")])

    def refuse(*_arguments: object) -> int:
        raise next(answers)

    repository: Any = SimpleNamespace(open=refuse)
    files = {file_id: Entry(make_head(5, 0, 0, 0o100644, b"", b""), "ab")}
    writer = ObjectWriter(os.fspath(tmp_path), "archive", 6, files, repository)
    writer.start(file_id, "")
    [(_, error)] = writer.step()
    assert error["message"] == f"file object {file_id.hex()}: object ab is damaged"
    assert error["data"]["hint"] == "remedy"
