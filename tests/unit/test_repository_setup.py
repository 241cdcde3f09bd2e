"""Repositories from before meta.json, metadata made anew, and insecure repositories made secure."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from composefs.digest import SHA256, SHA512
from composefs.errors import (
    BusyError,
    CorruptError,
    ExistsError,
    FormatError,
    NotFoundError,
    ReadOnlyError,
    UnsupportedError,
)
from composefs.fsck import check
from composefs.gc import collect
from composefs.linux import locks
from composefs.repository import Repository, metafile
from composefs.repository.setup import reset
from composefs.securing import enable_verity
from support.populated import Populated, populate
from support.verity import kernel_verity


@pytest.fixture
def made(tmp_path: Path) -> Populated:
    return populate(tmp_path / "repo")


@pytest.fixture
def legacy(made: Populated) -> Populated:
    (made.path / "meta.json").unlink()
    return made


@pytest.mark.parametrize("algorithm", [SHA256, SHA512], ids=str)
def test_one_without_meta_json_is_read(tmp_path: Path, algorithm) -> None:
    made = populate(tmp_path / "repo", algorithm)
    (made.path / "meta.json").unlink()
    with Repository.open(made.path) as repository:
        assert repository.algorithm == algorithm
        assert repository.meta.erofs_default == 2
        assert not repository.secure
        assert check(repository).ok
    with pytest.raises(FormatError, match="uses"):
        Repository.open(made.path, algorithm=SHA512 if algorithm == SHA256 else SHA256)


def test_one_without_meta_json_is_not_written_to(legacy: Populated) -> None:
    with pytest.raises(ReadOnlyError, match=r"no meta\.json") as caught:
        Repository.open(legacy.path, writable=True)
    assert "init --ensure" in (caught.value.hint or "")
    with pytest.raises(ExistsError, match=r"without meta\.json"):
        Repository.init(legacy.path, algorithm=SHA256, insecure=True)
    assert not (legacy.path / "meta.json").exists()


def test_one_that_is_made_meanwhile_is_not_from_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has objects when these are looked at, and had no meta.json a moment ago."""
    read_legacy = metafile.read_legacy

    def make_first(root: int, path: str) -> metafile.State | None:
        with monkeypatch.context() as context:
            context.setattr(metafile, "read_legacy", read_legacy)
            populate(Path(path))
        return read_legacy(root, path)

    monkeypatch.setattr(metafile, "read_legacy", make_first)
    assert Repository.init(tmp_path / "made", algorithm=SHA256, insecure=True) == "already"
    (tmp_path / "opened").mkdir()
    with Repository.open(tmp_path / "opened", writable=True) as repository:
        assert repository.meta.erofs_default == 1


def test_init_waits_for_garbage_collection(made: Populated, monkeypatch: pytest.MonkeyPatch) -> None:
    collecting = Repository.open(made.path, exclusive=True)
    with pytest.raises(BusyError) as caught:
        Repository.init(made.path, algorithm=SHA256, insecure=True)
    assert "--wait" in (caught.value.hint or "")
    monkeypatch.setattr(locks.time, "sleep", lambda _seconds: collecting.close())
    assert Repository.init(made.path, algorithm=SHA256, insecure=True, wait=60.0) == "already"


@pytest.mark.parametrize("use", ["lock", "file"])
def test_an_init_that_fails_leaves_what_somebody_else_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    path = tmp_path / "new/repo"
    others = []

    def fail(*_: object, **__: object) -> bool:
        if use == "file":
            (path.parent / "file").touch()
        else:
            others.append(os.open(path, os.O_RDONLY))
            fcntl.flock(others[0], fcntl.LOCK_SH)
        raise UnsupportedError("no fs-verity here")

    monkeypatch.setattr(metafile, "write", fail)
    with pytest.raises(UnsupportedError):
        Repository.init(path, algorithm=SHA256)
    assert os.listdir(path.parent) == (["file"] if use == "file" else ["repo"])
    for each in others:
        os.close(each)


@pytest.mark.parametrize("step", ["open_root", "lock_root"])
def test_an_init_makes_again_what_another_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The other has made the directories, and has no fs-verity for them."""
    path = tmp_path / "new/repo"
    path.mkdir(parents=True)
    real = getattr(metafile, step)

    def late(*arguments: object, **options: object) -> object:
        if removals:
            removals.pop()
            path.rmdir()
            path.parent.rmdir()
        return real(*arguments, **options)

    removals = [1, 2, 3]
    monkeypatch.setattr(metafile, step, late)
    assert Repository.init(path, algorithm=SHA256, insecure=True) == "initialized"
    assert removals == []
    Repository.open(path, writable=True).close()


def test_upgrade(legacy: Populated) -> None:
    with pytest.raises(ExistsError, match="sha256"):
        Repository.init(legacy.path, algorithm=SHA512, insecure=True, upgrade=True)
    with pytest.raises(ExistsError, match="insecure"):
        Repository.init(legacy.path, algorithm=SHA256, upgrade=True)
    assert Repository.init(legacy.path, algorithm=SHA256, insecure=True, upgrade=True) == "upgraded"
    assert Repository.init(legacy.path, algorithm=SHA256, insecure=True, upgrade=True) == "already"
    with Repository.open(legacy.path, writable=True) as repository:
        assert repository.meta.erofs_default == 2


def test_upgrade_to_a_format(legacy: Populated) -> None:
    Repository.init(legacy.path, algorithm=SHA256, erofs_default=1, insecure=True, upgrade=True)
    with Repository.open(legacy.path) as repository:
        assert repository.meta.erofs_default == 1


def test_what_a_killed_init_left_is_no_repository_yet(tmp_path: Path) -> None:
    for name in ("objects", "streams", "images"):
        (tmp_path / name).mkdir()
    with pytest.raises(NotFoundError):
        Repository.open(tmp_path)
    assert Repository.init(tmp_path, algorithm=SHA256, insecure=True) == "initialized"


def test_reset_keeps_objects_and_nothing_else(made: Populated) -> None:
    ids = made.ids()
    reset(made.path, algorithm=SHA256, erofs_default=2, insecure=True)
    assert made.ids() == ids
    assert os.listdir(made.path / "streams") == os.listdir(made.path / "images") == []
    with Repository.open(made.path, writable=True, exclusive=True) as repository:
        assert repository.meta.erofs_default == 2
        assert collect(repository).objects == len(ids)


def test_reset_without_objects_takes_any_algorithm(tmp_path: Path) -> None:
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    reset(tmp_path / "repo", algorithm=SHA512, erofs_default=2, insecure=True)
    with Repository.open(tmp_path / "repo") as repository:
        assert (repository.algorithm, repository.meta.erofs_default) == (SHA512, 2)


def test_reset_with_damaged_metadata(made: Populated) -> None:
    (made.path / "meta.json").write_text("{")
    with pytest.raises(FormatError):
        Repository.open(made.path)
    reset(made.path, algorithm=SHA256, erofs_default=1, insecure=True)
    Repository.open(made.path).close()


def test_reset_refuses(made: Populated, tmp_path: Path) -> None:
    with pytest.raises(ExistsError, match="sha256 objects"):
        reset(made.path, algorithm=SHA512, erofs_default=1, insecure=True)
    with Repository.open(made.path), pytest.raises(BusyError):
        reset(made.path, algorithm=SHA256, erofs_default=1, insecure=True)
    (tmp_path / "other/streams").mkdir(parents=True)
    with pytest.raises(NotFoundError):
        reset(tmp_path / "other", algorithm=SHA256, erofs_default=1, insecure=True)
    assert (tmp_path / "other/streams").exists()
    assert (made.path / "streams/top").is_symlink()


def secure(made: Populated) -> int:
    with Repository.open(made.path, writable=True, exclusive=True) as repository:
        return enable_verity(repository)


@pytest.mark.parametrize("root", [True, False])
def test_a_repository_becomes_secure(made: Populated, monkeypatch: pytest.MonkeyPatch, root: bool) -> None:
    with kernel_verity(monkeypatch) as kernel:
        kernel.root = root
        assert secure(made) == len(made.ids())
        assert len(kernel.digests) == len(made.ids()) + 1
        with Repository.open(made.path, require_verity=True) as repository:
            assert repository.secure
            # The processes of fsck ask the same double.
            assert check(repository).ok
        assert secure(made) == len(made.ids()), "again"


def test_fsck_of_a_secure_repository(made: Populated, monkeypatch: pytest.MonkeyPatch) -> None:
    with kernel_verity(monkeypatch) as kernel:
        secure(made)
        for file, kind in (("one", "object-verity-missing"), ("two", "object-verity-failed")):
            status = made.object(made.files[file]).stat()
            digest = kernel.digests.pop((status.st_dev, status.st_ino))
            if file == "two":
                kernel.digests[status.st_dev, status.st_ino] = (digest[0], bytes(32))
            with Repository.open(made.path) as repository:
                assert kind in {problem.kind for problem in check(repository).problems}


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"x"), lambda path: path.symlink_to(path.name)])
def test_damage_keeps_it_insecure(
    made: Populated, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    path = made.object(made.files["one"])
    path.unlink()
    damage(path)
    with kernel_verity(monkeypatch):
        with pytest.raises(CorruptError, match=f"stays insecure: .*{made.files['one']}"):
            secure(made)
        with Repository.open(made.path) as repository:
            assert not repository.secure


def test_an_object_open_for_writing_keeps_it_insecure(made: Populated, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made.object(made.files["one"])
    path.chmod(0o644)
    with kernel_verity(monkeypatch), path.open("r+b"), pytest.raises(BusyError, match="open for writing"):
        secure(made)


def test_a_file_system_that_cannot(made: Populated, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(_fd: int, request: int, *_: object) -> int:
        raise OSError(errno.EOPNOTSUPP if request == 0x40806685 else errno.ENOTTY, "no fs-verity")

    monkeypatch.setattr(fcntl, "ioctl", unable)
    with pytest.raises(UnsupportedError):
        secure(made)
    with Repository.open(made.path) as repository:
        assert not repository.secure
