"""Making and opening repositories: what is asked for is there, or an error says why not."""

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from pathlib import Path

import pytest

from composefs.digest import SHA256, SHA512
from composefs.errors import (
    BusyError,
    ExistsError,
    FormatError,
    NotFoundError,
    ReadOnlyError,
    UnsupportedError,
)
from composefs.linux import files
from composefs.repository import Repository, Staging, staging
from composefs.repository.adoption import Adoption
from composefs.repository.lookup import find
from composefs.repository.publication import ImageName, Publication
from composefs.splitstream import Parts
from support.verity import kernel_verity


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    return tmp_path / "repo"


def rewrite(path: Path, **members: object) -> None:
    document = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(document | members))


def test_init_makes_everything_once(tmp_path: Path) -> None:
    path = tmp_path / "a/b/repo"
    arguments = {"algorithm": SHA512, "erofs_default": 1, "insecure": True}
    assert Repository.init(path, **arguments) == "initialized"
    assert sorted(os.listdir(path)) == ["images", "meta.json", "objects", "streams"]
    assert stat.S_IMODE((path / "meta.json").stat().st_mode) == 0o644
    before = (path / "meta.json").stat()
    assert Repository.init(path, **arguments) == "already"
    assert (path / "meta.json").stat().st_ino == before.st_ino
    with Repository.open(path) as repository:
        assert repository.algorithm == SHA512
        assert (repository.meta.erofs_default, repository.meta.erofs_extra) == (1, ())
        assert not repository.secure
        assert not repository.writable
        assert repository.path == path
    rewrite(path, erofs_formats={"default": 1, "extra": [2]})
    with Repository.open(path) as repository:
        assert (repository.meta.erofs_default, repository.meta.erofs_extra) == (1, (2,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": SHA512, "insecure": True}, "fsverity-sha256-12"),
        ({"algorithm": SHA256, "insecure": True, "erofs_default": 2}, "EROFS format 1"),
        ({"algorithm": SHA256}, "insecure"),
    ],
)
def test_init_refuses_to_change_a_repository(path: Path, arguments: dict, message: str) -> None:
    before = (path / "meta.json").read_bytes()
    with pytest.raises(ExistsError, match=message):
        Repository.init(path, **arguments)
    assert (path / "meta.json").read_bytes() == before


def test_a_secure_repository_has_verity_on_its_meta_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kernel_verity(monkeypatch) as kernel:
        assert Repository.init(tmp_path / "repo", algorithm=SHA256) == "initialized"
        assert Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True) == "already"
        status = (tmp_path / "repo/meta.json").stat()
        assert (status.st_dev, status.st_ino) in kernel.digests
        with Repository.open(tmp_path / "repo", require_verity=True) as repository:
            assert repository.secure


def test_init_of_a_secure_repository_without_fs_verity_leaves_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_arguments: object) -> int:
        raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr(fcntl, "ioctl", unknown)
    with pytest.raises(UnsupportedError, match="fs-verity") as caught:
        Repository.init(tmp_path / "repo", algorithm=SHA256)
    assert "--insecure" in str(caught.value.hint)
    with pytest.raises(NotFoundError):
        Repository.open(tmp_path / "repo")
    assert Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True) == "initialized"


@pytest.mark.parametrize("there", ["nothing", "an empty directory", "a file"])
def test_no_repository_says_how_to_make_one(tmp_path: Path, there: str) -> None:
    path = tmp_path / "the repo"
    if there == "an empty directory":
        path.mkdir()
    elif there == "a file":
        path.touch()
    with pytest.raises(NotFoundError, match="there is no repository at") as caught:
        Repository.open(path)
    assert caught.value.hint == f"make one with `cfsctl init '{path}'`"


def test_what_the_caller_insists_on(path: Path) -> None:
    with pytest.raises(FormatError, match="uses sha256, not sha512"):
        Repository.open(path, algorithm=SHA512)
    with pytest.raises(UnsupportedError, match="is insecure"):
        Repository.open(path, require_verity=True)
    Repository.open(path, algorithm=SHA256).close()


@pytest.mark.parametrize("kind", ["symlink", "directory", "too large", "fifo"])
def test_a_meta_json_that_is_no_plain_file(path: Path, kind: str) -> None:
    (path / "meta.json").rename(path / "real")
    if kind == "symlink":
        (path / "meta.json").symlink_to("real")
    elif kind == "directory":
        (path / "meta.json").mkdir()
    elif kind == "fifo":
        os.mkfifo(path / "meta.json")
    else:
        (path / "meta.json").write_bytes(bytes(2 << 20))
    reason = "it is a symlink" if kind == "symlink" else "it is no file of a plausible size"
    with pytest.raises(FormatError, match=rf"{path}/meta\.json: {reason}") as caught:
        Repository.open(path)
    assert "put its meta.json back" in (caught.value.hint or "")


def test_everybody_shares_and_collection_excludes(path: Path) -> None:
    with Repository.open(path), Repository.open(path, writable=True):
        collector = os.open(path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(collector, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(collector, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(BusyError, match="is in use by another process") as caught:
        Repository.open(path, wait=0.1)
    assert "--wait" in str(caught.value.hint)
    os.close(collector)
    Repository.open(path).close()


def test_failing_to_open_closes_everything(path: Path) -> None:
    rewrite(path, features={"incompatible": ["later"]})
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with contextlib.suppress(UnsupportedError):
            Repository.open(path)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_closing_closes_everything(path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with Repository.open(path, writable=True) as repository:
        stored = repository.images.put([b"x"])
        repository.publish(Publication(images=[ImageName(stored.id, "a/b")]))
        repository.images.list_refs(odd=pytest.fail)
        with Staging.create(repository.store):
            pass
    repository.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_an_unknown_feature_may_forbid_writing_only(path: Path) -> None:
    rewrite(path, features={"read-only-compatible": ["v1_erofs", "later"]})
    Repository.open(path).close()
    with pytest.raises(ReadOnlyError, match="later"):
        Repository.open(path, writable=True)


@pytest.mark.parametrize("name", ["", "objects", "streams", "images"])
def test_no_permission_to_write_is_found_before_anything_is_done(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Root may write everywhere, so what the kernel would answer others is put in its place."""
    real = os.access

    def access(what: str, mode: int, **keywords: object) -> bool:
        return os.path.normpath(what) != (name or ".") and real(what, mode, **keywords)

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(ReadOnlyError, match="no permission to write to") as caught:
        Repository.open(path, writable=True)
    assert str(path / name) in str(caught.value)
    assert not (path / "staging").exists()


def test_a_repository_opened_for_reading_refuses_every_write_first(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    with Repository.open(path) as repository:
        for write in (
            lambda: repository.objects.store_parts([b"x"]),
            lambda: repository.objects.store_fd(fd),
            lambda: Adoption(repository, fd, fd).take("meta.json"),
            lambda: repository.images.put([b"x"]),
            lambda: repository.streams.put(Parts(1)),
            lambda: repository.publish(Publication()),
        ):
            with pytest.raises(ReadOnlyError, match="open for reading only"):
                write()
    os.close(fd)
    assert sorted(os.listdir(path)) == ["images", "meta.json", "objects", "streams"]
    assert os.listdir(path / "objects") == []


def test_reading_a_repository_that_lacks_directories(path: Path) -> None:
    (path / "streams").rmdir()
    (path / "images").rmdir()
    with Repository.open(path) as repository:
        assert repository.streams.list() == []
        assert repository.refs.list(odd=pytest.fail) == []
        assert repository.images.list_refs(odd=pytest.fail) == []
        with pytest.raises(NotFoundError):
            repository.streams.resolve("a")
        with pytest.raises(NotFoundError):
            find(repository, "a", ("image", "stream"))
    with Repository.open(path, writable=True) as repository:
        stored = repository.images.put([b"x"])
        repository.publish(Publication(images=[ImageName(stored.id)]))
        assert repository.images.is_named(stored.id)


def test_staging_is_removed_at_the_end_and_swept_after_a_kill(path: Path) -> None:
    with Repository.open(path, writable=True) as repository:
        living = Staging.create(repository.store)
        Path(living.place, "file").write_bytes(b"x")
        # What a killed run leaves: a directory that nobody holds; and a temporary file of the fallback.
        (path / "staging/dead/work/deep").mkdir(parents=True)
        (path / "staging/dead/work/deep/file").touch()
        (path / "staging/file").touch()
        assert stat.S_IMODE(os.stat(living.place).st_mode) == 0o700
        with Repository.open(path, writable=True):
            assert os.listdir(path / "staging") == [Path(living.place).parent.name]
        assert Path(living.place, "file").exists()
        living.close()
        living.close()
        assert os.listdir(path / "staging") == []


def test_staging_in_tmpdir_is_swept_by_whom_it_belongs_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a name that nothing else has there; what somebody else owns, in a directory for all, stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "composefs-run-dead/work/deep").mkdir(parents=True)
    (tmp_path / "composefs-run-dead/work/deep/file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "composefs-run-symlink").symlink_to("mine")
    with Staging.create(None) as living:
        name = Path(living.place).parent.name
        assert sorted(os.listdir(tmp_path)) == sorted([name, "composefs-run-symlink", "mine"])
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        (tmp_path / "composefs-run-other").mkdir()
        Staging.create(None).close()
        assert sorted(os.listdir(tmp_path)) == sorted([name, "composefs-run-other", "composefs-run-symlink", "mine"])
    assert sorted(os.listdir(tmp_path)) == ["composefs-run-other", "composefs-run-symlink", "mine"]


def test_staging_that_is_swept_before_it_is_held_is_made_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept = []

    def open_later(name: str, at: int) -> int:
        if not swept:
            swept.append(name)
            staging.sweep(at)
        return files.open_directory(name, at)

    monkeypatch.setattr(staging, "open_directory", open_later)
    with Repository.open(path, writable=True) as repository, Staging.create(repository.store) as made:
        assert Path(made.place).parent.name not in swept
        assert os.listdir(path / "staging") == [Path(made.place).parent.name]


def test_what_cannot_be_swept_keeps_nobody_from_working(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path / "staging/dead").mkdir(parents=True)

    def refuse(*_arguments: object, **_keywords: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "rmdir", refuse)
    Repository.open(path, writable=True).close()
    assert os.listdir(path / "staging") == ["dead"]


def test_without_a_writable_repository_staging_is_in_tmpdir(
    path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)  # what an earlier test found
    with Repository.open(path) as repository:
        for store in (repository.store, None):
            with Staging.create(store) as staging:
                assert Path(staging.place).parent.parent == environment / "tmp"
                assert os.path.isdir(staging.place)
    assert os.listdir(environment / "tmp") == []
