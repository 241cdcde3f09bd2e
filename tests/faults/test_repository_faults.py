"""Repositories on full and read-only file systems, used by others, by many at once, and by who is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.errors import NoSpaceError, PermissionDeniedError, ReadOnlyError
from composefs.repository import Repository, Staging
from composefs.repository.adoption import Adoption
from composefs.repository.publication import Publication, StreamName
from composefs.splitstream import Parts
from support.commands import TIMEOUT
from support.mounts import mounted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    return tmp_path / "repo"


@pytest.mark.root
@pytest.mark.parametrize("size", [3_000_000, 200_000], ids=["large", "small"])
def test_a_disk_that_fills_up(tmp_path: Path, size: int) -> None:
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
        with Repository.open(tmp_path / "repo", writable=True) as repository:
            stored: list[str] = []

            def fill() -> None:
                while True:
                    content = bytes([len(stored)]) * size
                    stored.append(repository.objects.store_parts([content]).id)

            with pytest.raises(NoSpaceError, match="storing"):
                fill()
            for object_id in stored:
                os.close(repository.objects.open(object_id, verify=True))
            assert len(list((tmp_path / "repo/objects").glob("*/*"))) == len(stored)
            assert os.listdir(tmp_path / "repo/staging") == []


@pytest.mark.root
def test_a_read_only_file_system(path: Path, tmp_path: Path) -> None:
    with Repository.open(path, writable=True) as repository:
        stream = repository.streams.put(Parts(1, b"abc", [-3]))
        repository.publish(Publication(streams=[StreamName("a", stream.id)]))
    (tmp_path / "view").mkdir()
    with mounted(tmp_path / "view", "--bind", "-o", "ro", str(path)):
        with pytest.raises(ReadOnlyError, match="read-only file system"):
            Repository.open(tmp_path / "view", writable=True)
        seen: list[bytes] = []
        with (
            Repository.open(tmp_path / "view") as repository,
            repository.streams.open(repository.streams.resolve("a")) as reader,
        ):
            assert repository.streams.cat(reader, lambda piece: seen.append(bytes(piece))) == 3
        assert seen == [b"abc"]


@pytest.fixture
def as_nobody():
    """Be an unprivileged user within the test."""

    @contextlib.contextmanager
    def nobody() -> Iterator[None]:
        os.setegid(65534)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)

    return nobody


@pytest.mark.root
def test_somebody_else_may_read_but_not_write(as_nobody) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path = Path(directory, "repo")
        os.chmod(directory, 0o755)
        Repository.init(path, algorithm=SHA256, insecure=True)
        with Repository.open(path, writable=True) as repository:
            stream = repository.streams.put(Parts(1, b"abc", [-3]))
            repository.publish(Publication(streams=[StreamName("a", stream.id)]))
        with as_nobody():
            with pytest.raises(ReadOnlyError, match="no permission to write to"):
                Repository.open(path, writable=True)
            with (
                Repository.open(path) as repository,
                repository.streams.open(repository.streams.resolve("a")) as reader,
            ):
                assert reader.size == 3
        path.chmod(0o700)
        with as_nobody(), pytest.raises(PermissionDeniedError):
            Repository.open(path)


@pytest.mark.root
def test_an_unprivileged_user_has_a_repository_of_their_own(as_nobody) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, as_nobody_owns(directory), as_nobody():
        path = Path(directory, "repo")
        Repository.init(path, algorithm=SHA256, insecure=True)
        with Repository.open(path, writable=True) as repository, Staging.create(repository.store) as staging:
            Path(staging.place, "file").write_bytes(b"content")
            Path(staging.place, "file").chmod(0)
            Path(staging.place, "file").chmod(0o400)
            stored = Adoption(repository, staging.work_fd, staging.private).take("file")
            assert stored.stored == "moved"
            assert repository.objects.path(stored.id).stat().st_uid == 65534
            Path(staging.place, "closed").mkdir()
            Path(staging.place, "closed/file").touch()
            Path(staging.place, "closed").chmod(0)
        assert os.listdir(path / "staging") == []


@contextlib.contextmanager
def as_nobody_owns(directory: str) -> Iterator[None]:
    os.chown(directory, 65534, 65534)
    yield
    os.chown(directory, 0, 0)


KILLED = """
import os, signal, sys
from pathlib import Path
from composefs.repository import Repository, Staging
from composefs.repository.adoption import Adoption
repository = Repository.open(sys.argv[1], writable=True)
staging = Staging.create(repository.store)
Path(staging.place, "file").write_bytes(b"content")
Adoption(repository, staging.work_fd, staging.private).take("file")
Path(staging.place, "file").write_bytes(b"more")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_who_is_killed_leaves_nothing_that_stays(path: Path) -> None:
    assert (
        subprocess.run([sys.executable, "-c", KILLED, path], check=False, timeout=TIMEOUT).returncode == -signal.SIGKILL
    )
    assert len(os.listdir(path / "staging")) == 1
    with Repository.open(path, writable=True) as repository:
        assert os.listdir(path / "staging") == []
        assert repository.streams.list() == []
        assert repository.objects.store_parts([b"content"]).stored == "present"


# Stores the same objects as the others, and tries to be the one whose ref it is; prints how each object came in.
CONTENDER = """
import sys
from pathlib import Path
from composefs.errors import ConflictError
from composefs.repository import Repository, Staging
from composefs.repository.adoption import Adoption
from composefs.repository.publication import Publication, RefUpdate, StreamName
from composefs.splitstream import Parts
path, number = sys.argv[1:]
with Repository.open(path, writable=True) as repository, Staging.create(repository.store) as staging:
    sys.stdin.read()  # ends for all at once
    for content in range(150):
        Path(staging.place, "file").write_bytes(b"%d" % content * 100)
        print(Adoption(repository, staging.work_fd, staging.private).take("file").stored)
    stream = repository.streams.put(Parts(1, number.encode(), [-1]))
    try:
        repository.publish(Publication(
            streams=[StreamName("s-" + number, stream.id)],
            refs=[RefUpdate("x/one", "s-" + number, "flat", expect=None)],
        ))
        print("won")
    except ConflictError:
        print("lost")
"""


def test_many_at_once(path: Path) -> None:
    start, hold = os.pipe()
    commands = [[sys.executable, "-c", CONTENDER, str(path), str(number)] for number in range(4)]
    running = [subprocess.Popen(command, stdin=start, stdout=subprocess.PIPE, text=True) for command in commands]
    os.close(start)
    os.close(hold)
    printed = [process.communicate(timeout=TIMEOUT)[0].split() for process in running]
    assert [process.returncode for process in running] == [0] * 4
    stored = [how for words in printed for how in words[:-1]]
    assert stored.count("moved") == 150, "each object came in once"
    assert stored.count("present") == 450
    results = [words[-1] for words in printed]
    assert sorted(results) == ["lost", "lost", "lost", "won"]
    winner = f"s-{results.index('won')}"
    with Repository.open(path) as repository:
        assert repository.refs.list(odd=pytest.fail) == [("x/one", winner)]
        assert [name for name, _ in repository.streams.list()] == [winner], "a broken expectation shows nothing"
        for object_path in path.glob("objects/*/*"):
            os.close(repository.objects.open(object_path.parent.name + object_path.name, verify=True))
    assert os.listdir(path / "staging") == []
