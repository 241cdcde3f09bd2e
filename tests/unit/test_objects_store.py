"""Objects are stored under their digests, once; damaged ones are noticed, and replaced by good ones."""

import errno
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from composefs import fsverity
from composefs.digest import SHA256
from composefs.errors import (
    BusyError,
    CorruptError,
    FormatError,
    MissingObjectError,
    NoSpaceError,
    UnsupportedError,
)
from composefs.linux import content, verity
from composefs.repository import Repository
from composefs.repository import objects as objects_module
from support.verity import KernelVerity, kernel_verity

CONTENT = b"content of an object, longer than an id"
ID = fsverity.digest_bytes(CONTENT, SHA256).hex()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch):
    """A kernel that has fs-verity."""
    with kernel_verity(monkeypatch) as kernel:
        yield kernel


@pytest.fixture(params=["insecure", "secure"])
def repository(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "secure":
        request.getfixturevalue("kernel")
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=request.param == "insecure")
    with Repository.open(tmp_path / "repo", writable=True) as repository:
        yield repository


@pytest.fixture
def secure(kernel: KernelVerity, tmp_path: Path):
    Repository.init(tmp_path / "repo", algorithm=SHA256)
    with Repository.open(tmp_path / "repo", writable=True) as repository:
        yield repository


@pytest.fixture
def insecure(tmp_path: Path):
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    with Repository.open(tmp_path / "repo", writable=True) as repository:
        yield repository


def test_an_object_does_not_follow_a_symlink_that_comes_between(insecure: Repository, tmp_path: Path) -> None:
    """Whose repository it is may put one in the place of a directory while root stores objects there."""
    contents = (b"content %d" % number for number in range(10_000))
    wanted = [each for each in contents if fsverity.digest_bytes(each, SHA256).hex().startswith(ID[:2])][:2]
    insecure.objects.store_parts([CONTENT])
    directory = insecure.path / "objects" / ID[:2]
    directory.rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    directory.symlink_to(tmp_path / "elsewhere")
    for each in wanted:
        insecure.objects.store_parts([each])
    assert not os.listdir(tmp_path / "elsewhere")
    assert len(os.listdir(tmp_path / "moved")) == 3


def test_directories_of_objects_leave_descriptors_for_others(insecure: Repository) -> None:
    most = os.sysconf("SC_OPEN_MAX")
    before = len(os.listdir("/proc/self/fd"))
    limit = 2 * before + 64  # other tests of this process may have left some open
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        for number in range(200):
            insecure.objects.store_parts([b"content %d" % number])
        assert len(os.listdir("/proc/self/fd")) <= before + limit // 4 + 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    insecure.close()
    assert len(os.listdir("/proc/self/fd")) < before


def spoil(path: Path, data: bytes) -> None:
    """Put other bytes in an object's place, as a bad disk or another program may."""
    path.unlink()
    path.write_bytes(data)


def test_stored_under_the_digest_and_present_the_second_time(repository: Repository) -> None:
    stored = repository.objects.store_parts([CONTENT])
    assert (stored.id, stored.size, stored.stored) == (ID, len(CONTENT), "copied")
    path = repository.objects.path(ID)
    assert path == repository.path / "objects" / ID[:2] / ID[2:]
    assert path.read_bytes() == CONTENT
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o444
    assert repository.objects.store_parts([CONTENT[:7], CONTENT[7:]]).stored == "present"
    assert path.stat().st_ino == status.st_ino
    assert os.listdir(repository.path / "staging") == []


@pytest.mark.parametrize("root", [True, False])
def test_a_secure_object_has_verity(secure: Repository, kernel: KernelVerity, root: bool) -> None:
    kernel.root = root
    secure.objects.store_parts([CONTENT])
    status = secure.objects.path(ID).stat()
    assert kernel.digests[status.st_dev, status.st_ino] == (1, bytes.fromhex(ID))
    assert stat.S_IMODE(status.st_mode) == 0o444


@pytest.mark.parametrize("size", [0, 1, 100, content.PIECE, content.PIECE + 1])
def test_a_copy_of_an_open_file(repository: Repository, tmp_path: Path, size: int) -> None:
    (tmp_path / "file").write_bytes(os.urandom(size))
    expected = fsverity.digest_bytes((tmp_path / "file").read_bytes(), SHA256).hex()
    with (tmp_path / "file").open("rb") as file:
        file.seek(size // 2)
        stored = repository.objects.store_fd(file.fileno())
        assert (stored.id, stored.size) == (expected, size)
        assert stored.stored in ("copied", "reflinked")
        assert repository.objects.store_fd(file.fileno()).stored == "present"
    assert repository.objects.path(expected).read_bytes() == (tmp_path / "file").read_bytes()
    assert (tmp_path / "file").stat().st_nlink == 1
    assert repository.objects.has(expected)


def test_a_shared_copy_is_hashed_itself(insecure: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system with FICLONE: the source changes, what counts is what was shared."""

    def cloned(_source: int, target: int) -> bool:
        os.write(target, CONTENT)
        return True

    monkeypatch.setattr(objects_module, "clone", cloned)
    (tmp_path / "file").write_bytes(b"something else")
    with (tmp_path / "file").open("rb") as file:
        stored = insecure.objects.store_fd(file.fileno())
    assert (stored.id, stored.size, stored.stored) == (ID, len(CONTENT), "reflinked")


@pytest.mark.parametrize(
    "damage",
    [b"", b"short", bytes(len(CONTENT)), CONTENT + b"more"],
    ids=["empty", "short", "zeroed", "long"],
)
def test_a_damaged_object_is_replaced(repository: Repository, damage: bytes) -> None:
    repository.objects.store_parts([CONTENT])
    path = repository.objects.path(ID)
    spoil(path, damage)
    assert repository.objects.store_parts([CONTENT]).stored == "copied"
    assert path.read_bytes() == CONTENT
    assert repository.objects.store_parts([CONTENT]).stored == "present"


def test_an_object_without_verity_is_replaced_in_a_secure_repository(secure: Repository) -> None:
    secure.objects.store_parts([CONTENT])
    spoil(secure.objects.path(ID), CONTENT)
    assert secure.objects.store_parts([CONTENT]).stored == "copied"


def test_an_object_with_a_page_that_cannot_be_read_is_replaced(
    secure: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fs-verity tells the same digest of it as before, and refuses the page when it is read."""
    stored = secure.objects.store_parts([CONTENT])
    keep = os.open(secure.objects.path(stored.id), os.O_RDONLY)  # nor has a new file its number
    damaged = os.fstat(keep).st_ino

    def read(fd: int) -> Iterator[memoryview]:
        if os.fstat(fd).st_ino == damaged:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return content.read_pieces(fd)

    monkeypatch.setattr(objects_module, "read_pieces", read)
    assert secure.objects.store_parts([CONTENT]).stored == "copied"
    assert secure.objects.store_parts([CONTENT]).stored == "present"
    os.close(keep)


def test_a_symlink_in_an_objects_place_is_not_followed(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(CONTENT)
    repository.objects.store_parts([CONTENT])
    path = repository.objects.path(ID)
    path.unlink()
    path.symlink_to(tmp_path / "outside")
    assert not repository.objects.has(ID)
    with pytest.raises(CorruptError, match="is damaged: it is a symlink"):
        repository.objects.open(ID)
    assert repository.objects.store_parts([CONTENT]).stored == "copied"
    assert not path.is_symlink()
    assert (tmp_path / "outside").read_bytes() == CONTENT


def test_a_symlink_in_the_place_of_a_directory_of_objects(insecure: Repository, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (insecure.path / "objects" / ID[:2]).symlink_to(tmp_path / "outside")
    with pytest.raises(CorruptError, match=f"objects/{ID[:2]} is not a directory"):
        insecure.objects.store_parts([CONTENT])
    assert os.listdir(tmp_path / "outside") == []


def test_has_size_and_missing(repository: Repository) -> None:
    empty = repository.objects.store_parts([b""]).id
    repository.objects.store_parts([CONTENT])
    assert repository.objects.size(ID) == len(CONTENT)
    assert repository.objects.size(empty) == 0
    with pytest.raises(MissingObjectError, match=f"it: the repository lacks 2 objects {'00' * 32}, {'11' * 32}$"):
        repository.objects.require(["11" * 32, ID, empty, "00" * 32], "it")
    assert repository.objects.require(["11" * 32, ID, empty], "it", {"11" * 32: 7}) == {ID: len(CONTENT), empty: 0}
    spoil(repository.objects.path(ID), b"")
    assert not repository.objects.has(ID), "a file of no bytes that should have some is as good as none"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", ID.upper(), ID[:-1], "g" * 64])
def test_only_ids_are_looked_for(insecure: Repository, name: str) -> None:
    for look in (insecure.objects.has, insecure.objects.path, insecure.objects.open):
        with pytest.raises(FormatError, match="is not a sha256 id"):
            look(name)


def test_missing_objects_are_named_but_not_all(insecure: Repository) -> None:
    ids = [f"{number:064x}" for number in range(30)]
    with pytest.raises(MissingObjectError, match="lacks 30 objects") as caught:
        insecure.objects.require(ids, "doing something")
    assert ids[19] in str(caught.value)
    assert ids[20] not in str(caught.value)
    assert "and 10 more" in str(caught.value)
    with pytest.raises(MissingObjectError, match=ids[0]):
        insecure.objects.open(ids[0])


def test_reading_notices_damage(repository: Repository) -> None:
    repository.objects.store_parts([CONTENT])
    os.close(repository.objects.open(ID, verify=True))
    before = os.listdir("/proc/self/fd")
    spoil(repository.objects.path(ID), CONTENT[:-1] + b"X")
    with pytest.raises(CorruptError, match=ID):
        repository.objects.open(ID, verify=True)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_verity_of_other_bytes_is_damage_even_in_an_insecure_repository(
    insecure: Repository, kernel: KernelVerity
) -> None:
    insecure.objects.store_parts([CONTENT])
    status = insecure.objects.path(ID).stat()
    kernel.digests[status.st_dev, status.st_ino] = (1, bytes(32))
    with pytest.raises(CorruptError, match="its fs-verity digest is 0000"):
        insecure.objects.open(ID, verify=True)
    kernel.digests[status.st_dev, status.st_ino] = (1, bytes.fromhex(ID))
    os.close(insecure.objects.open(ID, verify=True))


def test_somebody_keeps_the_new_file_open_for_a_while(secure: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [BusyError("busy"), BusyError("busy")]
    real = verity.enable

    def enable(fd: int, algorithm: fsverity.Algorithm) -> bool:
        if answers:
            raise answers.pop()
        return real(fd, algorithm)

    monkeypatch.setattr(verity, "enable", enable)
    assert secure.objects.store_parts([CONTENT]).id == ID


def test_somebody_keeps_the_new_file_open_for_ever(secure: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    def enable(_fd: int, _algorithm: fsverity.Algorithm) -> bool:
        raise BusyError("busy")

    monkeypatch.setattr(verity, "enable", enable)
    monkeypatch.setattr("composefs.repository.sealing.time.sleep", lambda _seconds: None)
    with pytest.raises(BusyError, match=ID):
        secure.objects.store_parts([CONTENT])
    assert not secure.objects.has(ID)


def test_a_file_system_that_lost_verity(secure: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    def enable(_fd: int, _algorithm: fsverity.Algorithm) -> bool:
        raise UnsupportedError("enabling fs-verity: Operation not supported")

    monkeypatch.setattr(verity, "enable", enable)
    with pytest.raises(UnsupportedError):
        secure.objects.store_parts([CONTENT])
    assert not secure.objects.has(ID)


def test_a_full_disk_names_the_object(insecure: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_keywords: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(NoSpaceError, match=f"storing object {ID} in {insecure.path}: No space left on device"):
        insecure.objects.store_parts([CONTENT])
    monkeypatch.undo()
    assert not insecure.objects.has(ID)
    assert os.listdir(insecure.path / "staging") == []
