"""Taking a staged file in: a hostile one is refused and given back, a good one ends bare, ours and in place."""

import contextlib
import errno
import fcntl
import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from composefs import fsverity
from composefs.digest import SHA256
from composefs.errors import CancelledError, ComposefsError, CorruptError, NoSpaceError, NotFoundError, UsageError
from composefs.repository import Repository, Staging, adoption
from composefs.repository.adoption import Adoption
from composefs.repository.objects import Stored
from support.verity import KernelVerity, kernel_verity

CONTENT = b"content of a staged file, longer than an id"
ID = fsverity.digest_bytes(CONTENT, SHA256).hex()


class Desk:
    """A repository with a staging directory."""

    def __init__(self, repository: Repository, staging: Staging) -> None:
        self.repository = repository
        self.staging = staging

    def put(self, name: str = "file", data: bytes = CONTENT) -> Path:
        Path(self.staging.place, name).write_bytes(data)
        return Path(self.staging.place, name)

    def adopt(self, name: str = "file", *, size: int | None = None, expect: str | None = None) -> Stored:
        adopting = Adoption(self.repository, self.staging.work_fd, self.staging.private)
        return adopting.take(name, size=size, expect=expect)

    def left(self) -> tuple[list[str], list[str]]:
        """What is in the extension's and in the core's directory."""
        return sorted(os.listdir(self.staging.work_fd)), os.listdir(self.staging.private)

    @property
    def object(self) -> Path:
        return self.repository.objects.path(ID)


@pytest.fixture(params=["insecure", "secure"])
def desk(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "secure":
        request.getfixturevalue("kernel")
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=request.param == "insecure")
    with Repository.open(tmp_path / "repo", writable=True) as repository, Staging.create(repository.store) as staging:
        yield Desk(repository, staging)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch):
    with kernel_verity(monkeypatch) as kernel:
        yield kernel


@pytest.mark.parametrize("open_for_writing", [False, True], ids=["moved", "copied"])
def test_a_large_file_is_given_back_when_somebody_interrupts(tmp_path: Path, open_for_writing: bool) -> None:
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    with Repository.open(tmp_path / "repo", writable=True) as repository, Staging.create(repository.store) as staging:
        desk = Desk(repository, staging)
        path = desk.put(data=bytes(10 << 20))
        asked = 0

        def interrupted() -> bool:
            nonlocal asked
            asked += 1
            return asked == 3

        repository.store.interrupted = interrupted
        with path.open("r+b") if open_for_writing else contextlib.nullcontext(), pytest.raises(CancelledError):
            desk.adopt()
        assert asked == 3, "it went on"
        assert desk.left() == (["file"], [])
        assert path.stat().st_size == 10 << 20
        assert desk.adopt().size == 10 << 20


def test_a_good_file_moves(desk: Desk) -> None:
    inode = desk.put().stat().st_ino
    stored = desk.adopt(size=len(CONTENT), expect=ID)
    assert stored == Stored(ID, len(CONTENT), "moved")
    status = desk.object.stat()
    assert (status.st_ino, status.st_nlink, stat.S_IMODE(status.st_mode)) == (inode, 1, 0o444)
    assert desk.left() == ([], [])


def test_who_may_not_write_every_file_can_have_verity(tmp_path: Path, kernel: KernelVerity) -> None:
    Repository.init(tmp_path / "repo", algorithm=SHA256)
    kernel.root = False
    with Repository.open(tmp_path / "repo", writable=True) as repository, Staging.create(repository.store) as staging:
        desk = Desk(repository, staging)
        desk.put()
        assert desk.adopt().stored == "moved"
        status = desk.object.stat()
        assert (status.st_dev, status.st_ino) in kernel.digests
        assert stat.S_IMODE(status.st_mode) == 0o444


def test_the_second_of_equal_files_is_dropped(desk: Desk) -> None:
    desk.put("a")
    desk.put("b")
    assert desk.adopt("a").stored == "moved"
    inode = desk.object.stat().st_ino
    assert desk.adopt("b").stored == "present"
    assert desk.object.stat().st_ino == inode, "an object that may be durable is never replaced by one that is not"
    assert desk.left() == ([], [])


@pytest.mark.parametrize("damage", [b"", CONTENT[:5], bytes(len(CONTENT))], ids=["empty", "short", "zeroed"])
def test_a_damaged_object_is_repaired(desk: Desk, damage: bytes) -> None:
    desk.put()
    desk.adopt()
    desk.object.unlink()
    desk.object.write_bytes(damage)
    desk.put()
    assert desk.adopt() == Stored(ID, len(CONTENT), "moved")
    assert desk.object.read_bytes() == CONTENT
    assert desk.left() == ([], [])


@pytest.mark.root
def test_owner_mode_attributes_and_acls_go(desk: Desk) -> None:
    path = desk.put()
    os.chown(path, 1234, 4321)
    os.setxattr(path, "user.mine", b"x")
    os.setxattr(path, "security.capability", b"\x01\x00\x00\x02" + bytes(16))
    # user::rwx, user:1234:rwx, group::---, mask::rwx, other::---
    entries = [(1, 7, 0xFFFFFFFF), (2, 7, 1234), (4, 0, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
    packed = b"".join(
        a.to_bytes(2, "little") + b.to_bytes(2, "little") + c.to_bytes(4, "little") for a, b, c in entries
    )
    os.setxattr(path, "system.posix_acl_access", (2).to_bytes(4, "little") + packed)
    path.chmod(0o4777)
    assert desk.adopt().stored == "moved"
    status = desk.object.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), os.getegid(), 0o444)
    assert os.listxattr(desk.object) == []


@pytest.mark.root
def test_a_file_that_has_to_keep_its_owner_is_copied(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's files belong to nobody where a server of NFS squashes root."""

    def refuse(_fd: int, _user: int, _group: int) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "fchown", refuse)
    os.chown(desk.put(), 1234, 4321)
    assert desk.adopt().stored == "copied"
    assert (desk.object.stat().st_uid, desk.left()) == (os.geteuid(), ([], []))


@pytest.mark.root
def test_another_owner_cannot_keep_the_right_to_write(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    path = desk.put()
    path.chmod(0o444)
    os.chown(path, 1234, 4321)
    real = os.fchown

    def late(fd: int, uid: int, gid: int) -> None:
        os.fchmod(fd, 0o666)  # what the owner, who still has the file open, can do up to now
        real(fd, uid, gid)

    monkeypatch.setattr(os, "fchown", late)
    desk.adopt()
    assert stat.S_IMODE(desk.object.stat().st_mode) == 0o444


def symlink(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def socket_at(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def device_without_driver(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(10, 249))


def hard_link(path: Path) -> None:
    path.write_bytes(CONTENT)
    os.link(path, path.with_name("other"))


def link_out_of_staging(path: Path) -> None:
    os.link("/etc/hostname", path) if os.stat("/etc").st_dev == os.stat(path.parent).st_dev else hard_link(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (symlink, "is a symlink"),
        (Path.mkdir, "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (socket_at, "not a regular file$"),
        pytest.param(device_without_driver, "not a regular file$", marks=pytest.mark.root),
        (hard_link, "has 2 links"),
        (link_out_of_staging, "has 2 links"),
    ],
)
def test_what_is_no_plain_file_is_refused_and_given_back(desk: Desk, make, message: str) -> None:
    path = Path(desk.staging.place, "file")
    make(path)
    before = os.lstat(path)
    with pytest.raises(UsageError, match=message):
        desk.adopt()
    assert os.lstat(path).st_ino == before.st_ino
    assert os.lstat(path).st_mode == before.st_mode
    assert desk.left()[1] == []
    assert os.listdir(desk.repository.path / "objects") == []


def test_a_device_is_not_opened(desk: Desk) -> None:
    os.mknod(f"{desk.staging.place}/file", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: never ends
    with pytest.raises(UsageError, match="not a regular file"):
        desk.adopt()


@pytest.mark.parametrize("name", ["missing", "../work/file", "{work}/file"])
def test_a_name_that_is_not_staged(desk: Desk, name: str) -> None:
    """None is a file of the system: were the check not there, that one would be gone."""
    desk.put()
    name = name.format(work=desk.staging.place)
    with pytest.raises((NotFoundError, UsageError), match=name):
        desk.adopt(name)
    assert desk.left() == (["file"], [])


@pytest.mark.parametrize(
    ("expected", "message"),
    [({"size": 1}, "has 43 bytes, not 1"), ({"expect": "00" * 32}, f"has the id {ID}, not 00")],
)
def test_a_broken_expectation_gives_the_file_back(desk: Desk, expected: dict, message: str) -> None:
    path = desk.put()
    with pytest.raises(CorruptError, match=message):
        desk.adopt(**expected)
    assert path.read_bytes() == CONTENT
    assert desk.left() == (["file"], [])
    assert not desk.object.exists()


def test_a_file_that_is_still_open_for_writing_is_copied(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composefs.repository.sealing.time.sleep", lambda _seconds: None)
    path = desk.put()
    with path.open("r+b", buffering=0) as writer:
        stored = desk.adopt()
        assert stored.stored in ("copied", "reflinked")
        writer.write(b"too late")
    assert desk.object.read_bytes() == CONTENT
    assert desk.object.stat().st_nlink == 1
    assert desk.left() == ([], [])


@pytest.mark.parametrize("expected", [{"size": len(CONTENT) + 4}, {"expect": "00" * 32}])
def test_a_copy_is_checked_too(desk: Desk, monkeypatch: pytest.MonkeyPatch, expected: dict) -> None:
    monkeypatch.setattr("composefs.repository.sealing.time.sleep", lambda _seconds: None)
    path = desk.put(data=CONTENT + b"more" if "size" in expected else CONTENT)
    real = adoption.store_copy

    def shrunk(fd: int, *arguments):
        os.truncate(f"/proc/self/fd/{writer.fileno()}", len(CONTENT))
        return real(fd, *arguments)

    monkeypatch.setattr(adoption, "store_copy", shrunk)
    with path.open("r+b", buffering=0) as writer, pytest.raises(CorruptError):
        desk.adopt(**expected)
    assert desk.left() == (["file"], [])
    assert not desk.object.exists()


@pytest.mark.parametrize("size", [None, 5])
def test_a_file_that_grows_after_its_size_was_seen(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    path = desk.put(data=CONTENT[:5])
    real = Adoption._own

    def own(adopting: Adoption, fd: int, name: str) -> int:
        seen = real(adopting, fd, name)
        os.lseek(writer, 0, os.SEEK_END)
        os.write(writer, CONTENT[5:])
        os.close(writer)
        return seen

    writer = os.open(path, os.O_WRONLY)
    monkeypatch.setattr(Adoption, "_own", own)
    if size is not None:
        with pytest.raises(CorruptError, match="was changed while it was copied"):
            desk.adopt(size=size)
        assert desk.left() == (["file"], [])
        assert not desk.object.exists()
        return
    stored = desk.adopt()
    assert (stored.id, stored.size) == (ID, len(CONTENT))
    assert desk.object.read_bytes() == CONTENT
    assert desk.left() == ([], [])


def test_a_writer_that_comes_while_the_file_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease keeps the writer waiting, and the file is not trusted after that: it is copied."""
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    with Repository.open(tmp_path / "repo", writable=True) as repository, Staging.create(repository.store) as staging:
        desk = Desk(repository, staging)
        path = desk.put()
        keep = os.open(path, os.O_RDONLY)
        real = fsverity.digest_fd
        writers: list[threading.Thread] = []

        def write() -> None:
            fd = os.open(f"/proc/self/fd/{keep}", os.O_WRONLY)  # waits for the lease
            os.pwrite(fd, b"X", 0)
            os.close(fd)

        def digest(
            fd: int, algorithm: fsverity.Algorithm, _stop: object, *, size: int, is_still: Callable[[], bool]
        ) -> bytes:
            assert size == len(CONTENT)
            assert is_still()
            result = real(fd, algorithm, size=size)
            if not writers:
                writers.append(threading.Thread(target=write))
                writers[0].start()
                while is_still():
                    pass
            return result

        monkeypatch.setattr(fsverity, "digest_fd", digest)
        stored = desk.adopt()
        writers[0].join()
        os.close(keep)
        assert stored.stored in ("copied", "reflinked")
        assert desk.object.read_bytes() == CONTENT


def test_verity_that_the_extension_enabled_itself_is_not_taken(
    kernel: KernelVerity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have a salt, and then another digest than the content should have."""
    Repository.init(tmp_path / "repo", algorithm=SHA256)
    with Repository.open(tmp_path / "repo", writable=True) as repository, Staging.create(repository.store) as staging:
        desk = Desk(repository, staging)
        status = desk.put().stat()
        kernel.digests[status.st_dev, status.st_ino] = (1, bytes(32))
        assert desk.adopt().stored in ("copied", "reflinked")
        assert desk.object.stat().st_ino != status.st_ino


def test_the_staged_name_may_be_taken_again_before_a_file_comes_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.put()
    real = adoption.open_file

    def taken(name: str, at: int) -> int:
        Path(desk.staging.place, "file").mkdir()
        return real(name, at)

    monkeypatch.setattr(adoption, "open_file", taken)
    with pytest.raises(CorruptError):
        desk.adopt(expect="00" * 32)
    assert os.path.isdir(f"{desk.staging.place}/file")


def test_a_full_disk_names_the_object_and_gives_the_file_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_keywords: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    desk.put()
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(NoSpaceError, match=f"storing object {ID}"):
        desk.adopt()
    assert desk.left() == (["file"], [])


def test_a_file_that_another_keeps_a_lease_on_is_told_by_its_own_name(desk: Desk) -> None:
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with desk.put().open("r+b") as held:
            fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            with pytest.raises(ComposefsError, match="storing 'file'") as told:
                desk.adopt()
    finally:
        signal.signal(signal.SIGIO, before)
    assert told.value.subject == "file"
    assert desk.left() == (["file"], [])


def test_the_label_of_the_place_stays(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """SELinux lets nobody remove it; a file that has it is moved all the same."""
    removed: list[str] = []
    monkeypatch.setattr(adoption, "xattr_names", lambda _fd: ["security.selinux", "user.mine"])
    monkeypatch.setattr(os, "removexattr", lambda _fd, name: removed.append(name))
    desk.put()
    assert desk.adopt().stored == "moved"
    assert removed == ["user.mine"]


def test_no_descriptor_is_left_open(desk: Desk) -> None:
    for number in range(256):
        desk.repository.store.fanout(f"{number:02x}")  # those stay open
    desk.put("before")
    desk.adopt("before")
    pins = 1 if desk.repository.secure else 0  # the double of the kernel keeps one for each new object
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        desk.put("file", CONTENT + b"%d" % number)
        desk.adopt()
        desk.put("file")
        with pytest.raises(ComposefsError):
            desk.adopt(expect="00" * 32)
    assert len(os.listdir("/proc/self/fd")) <= before + 10 * pins
