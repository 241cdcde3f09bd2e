"""Worker processes: what goes down comes up, failures are reported, and a worker that dies is noticed."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import time
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from composefs_ext.errors import CorruptError, ExtError, NoSpaceError, NotFoundError
from composefs_ext.packs import Packs
from composefs_ext.protocol import PACKS
from composefs_ext.staging import Staging
from composefs_ext.workers import available_cores
from composefs_ostree.fetching.directories import DirectoryTransport, LocalRepository
from composefs_ostree.fetching.files import FetchedFiles
from composefs_ostree.fetching.jobs import Jobs
from composefs_ostree.fetching.local import LocalFiles
from composefs_ostree.fetching.serving import _Lot
from composefs_ostree.fetching.stage import SmallContents
from composefs_ostree.fetching.traffic import traffic
from composefs_ostree.fetching.transport import Fetch
from composefs_ostree.fetching.worker import HANDOVER, Worker, Workers
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.config import Config
from composefs_ostree.remotes import http
from composefs_ostree.remotes.http import HttpTransport
from composefs_ostree.remotes.limits import Limits
from composefs_ostree.remotes.settings import settings_of
from support.descriptors import descriptors, left_open
from support.server import Fault, serve

if TYPE_CHECKING:
    from composefs_ostree.fetching.files import Files
    from composefs_ostree.fetching.stage import Row


def head_and_file(directory: Path, content: bytes) -> bytes:
    """Write a .filez into an archive repository and return its id."""
    numbers = [int.from_bytes(number.to_bytes(4, "big"), "little") for number in (0, 0, 0o100644, 0)]
    size = int.from_bytes(len(content).to_bytes(8, "big"), "little")
    z = gvariant.encode("(tuuuusa(ayay))", (size, *numbers, "", []))
    plain = gvariant.encode("(uuuusa(ayay))", (*numbers, "", []))
    file_id = sha256(struct.pack(">II", len(plain), 0) + plain + content).digest()
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    path = directory / "objects" / file_id.hex()[:2] / f"{file_id.hex()[2:]}.filez"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(">II", len(z), 0) + z + packer.compress(content) + packer.flush())
    return file_id


def archive(path: Path) -> Callable[[Packs], LocalFiles]:
    return lambda packs: LocalFiles([LocalRepository(str(path), Config("archive", None, {}))], SmallContents(64, packs))


def collect(worker: Worker) -> list[Row]:
    """Take what comes until the worker has nothing left to do; at least one message."""
    rows: list[Row] = []
    while True:
        ready, _, _ = select.select([worker], [], [], 60)
        assert ready, "the worker says nothing"
        rows += worker.rows()
        if not worker.outstanding:
            return rows


@pytest.mark.parametrize("features", [[], [PACKS]])
def test_files_come_back_staged_or_packed_or_inline(tmp_path: Path, features: list[str]) -> None:
    source, staging = tmp_path / "source", tmp_path / "staging"
    staging.mkdir()
    contents = {head_and_file(source, b"%d " % number * number): b"%d " % number * number for number in range(60)}
    large = bytes(100_000)
    contents[head_and_file(source, large)] = large
    worker = Worker(3, archive(source), str(staging), features)
    try:
        ids = list(contents)
        worker.deal(ids[:32])
        worker.deal(ids[32:])
        assert worker.outstanding == 61
        rows = collect(worker)
        assert worker.outstanding == 0
    finally:
        worker.end()
    assert {row[0] for row in rows} == set(contents)
    for file_id, data, size, staged in rows:
        content = contents[file_id]
        assert size == len(content)
        if size <= 64:
            assert staged is None
            assert data.endswith(content)
        elif features and size < len(large):
            assert isinstance(staged, tuple)
            pack, offset = staged
            assert (staging / pack).read_bytes()[offset : offset + size] == content
        else:
            assert isinstance(staged, str)
            assert staged.startswith("w3-")
            assert (staging / staged).read_bytes() == content
    places = [row[3] for row in rows if row[3] is not None]
    assert {path.name for path in staging.iterdir()} == {
        place if isinstance(place, str) else place[0] for place in places
    }


def test_a_failure_comes_with_the_name_of_the_object_and_with_what_did_not_fail(tmp_path: Path) -> None:
    other = head_and_file(tmp_path, b"other" * 100)
    good = head_and_file(tmp_path, b"content" * 100)
    path = tmp_path / "objects" / good.hex()[:2] / f"{good.hex()[2:]}.filez"
    path.write_bytes(path.read_bytes()[:-4])
    for file_id, error in ((good, CorruptError), (bytes(32), NotFoundError)):
        worker = Worker(0, archive(tmp_path), str(tmp_path), [])
        try:
            worker.deal([file_id, other, b"\xff" * 32])  # of two that fail, the first is told
            assert [row[0] for row in collect(worker)] == [other]
            assert isinstance(worker.failure, error)
            assert file_id.hex()[2:] in worker.failure.message
        finally:
            worker.end()
        (tmp_path / "w0-2").unlink()
    assert list(tmp_path.glob("w0-*")) == []


def test_rows_do_not_wait_long_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composefs_ostree.fetching.serving._ROWS_SECONDS", 0)
    ids = [head_and_file(tmp_path, b"%d" % number) for number in range(60)]
    worker = Worker(0, archive(tmp_path), str(tmp_path), [])
    try:
        worker.deal(ids)
        messages: list[list[Row]] = []
        while sum(map(len, messages)) < 60:
            messages += [rows for _, rows in worker.messages()]
    finally:
        worker.end()
    assert list(map(len, messages)) == [16, 16, 16, 12]


def test_when_rows_go_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """While many jobs are under way they wait for others, but not if they are large, and a failure does not."""
    monkeypatch.setattr("composefs_ostree.fetching.serving.monotonic", lambda: 100.0)
    for rows, left, is_due in (
        ([], 0, False),
        ([(bytes(32), b"head", 1, None)], 9, False),
        ([(bytes(32), b"head", 1, None)], 8, True),
        ([(bytes(32), b"head", 1, None)] * 64, 9, True),
        ([(bytes(32), bytes(1 << 20), 1, None)] * 4, 9, True),
        ([(bytes(32), {"message": "it failed"})], 9, True),
    ):
        lot = _Lot()
        for row in rows:
            lot.add(row)
        assert lot.is_due(left) is is_due


def test_a_pack_that_cannot_be_written_fails_the_files_in_it(tmp_path: Path) -> None:
    def make_files(packs: Packs) -> LocalFiles:
        def fail() -> None:
            raise OSError(errno.ENOSPC, "full")

        packs.flush = fail  # type: ignore[method-assign]
        return archive(tmp_path)(packs)

    ids = [head_and_file(tmp_path, content) for content in (b"content" * 100, b"inline", bytes(100_000))]
    worker = Worker(0, make_files, str(tmp_path), [PACKS])
    try:
        worker.deal(ids)
        assert sorted(row[0] for row in collect(worker)) == sorted(ids[1:])
        assert isinstance(worker.failure, NoSpaceError)
        assert str(worker.failure).startswith(f"{tmp_path}/objects/{ids[0].hex()[:2]}/"), "it names what had no room"
    finally:
        worker.end()


def test_a_worker_that_dies_is_noticed(tmp_path: Path) -> None:
    def die(_packs: Packs) -> LocalFiles:
        os._exit(7)

    worker = Worker(0, die, str(tmp_path), [])
    with pytest.raises(ExtError, match="exit status 7"):
        collect(worker)
    worker.end()


def test_a_worker_that_dies_with_something_unread_is_noticed(tmp_path: Path) -> None:
    """Of that the system tells by another error."""

    def die(_packs: Packs) -> LocalFiles:
        while not (tmp_path / "sent").exists():
            time.sleep(0.01)
        os._exit(7)

    worker = Worker(0, die, str(tmp_path), [])
    worker.deal([bytes(32)])
    (tmp_path / "sent").touch()
    with pytest.raises(ExtError, match="exit status 7"):
        collect(worker)
    worker.end()


def test_a_worker_ends_when_its_coordinator_does(tmp_path: Path) -> None:
    worker = Worker(0, archive(tmp_path), str(tmp_path), [])
    pid = worker._pid
    worker._channel.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    worker._pid = 0
    worker.end()


def test_a_worker_has_none_of_the_coordinators_descriptors(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    above = fcntl.fcntl(read_end, fcntl.F_DUPFD, 500)  # of all that the worker has itself

    def show(packs: Packs) -> LocalFiles:
        open_ones = sorted(map(int, os.listdir("/proc/self/fd")))
        (tmp_path / "descriptors").write_text(" ".join(map(str, open_ones)))
        return archive(tmp_path)(packs)

    worker = Worker(0, show, str(tmp_path), [])
    try:
        worker.deal([bytes(32)])
        assert collect(worker) == []
    finally:
        worker.end()
        os.close(read_end)
        os.close(write_end)
        os.close(above)
    open_ones = set(map(int, (tmp_path / "descriptors").read_text().split()))
    assert not {read_end, write_end, above} & open_ones
    assert len(open_ones - {0, 1, 2}) == 2  # its socket, and the listing of this directory


def test_of_a_wait_one_worker_speaks_for_all(tmp_path: Path) -> None:
    def make_files(packs: Packs) -> LocalFiles:
        traffic.tell("trying again in 300 s", 300.0)
        return archive(tmp_path)(packs)

    core: Any = SimpleNamespace(staging=SimpleNamespace(path=str(tmp_path)), features=[], log=Mock())
    workers = Workers(core, make_files)
    workers.most = 2
    try:
        for content in (b"one", b"two"):
            worker = workers.for_part()
            assert worker is not None
            worker.deal([head_and_file(tmp_path, content)])
        assert [len(collect(worker)) for worker in workers] == [1, 1]
    finally:
        workers.end()
    core.log.assert_called_once_with("warning", "trying again in 300 s")


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors, and workers that are no processes."""

    def start(self: Workers) -> Any:
        self._workers.append(SimpleNamespace(outstanding=0, is_on_part=False, failure=None))  # type: ignore[arg-type]
        return self._workers[-1]

    monkeypatch.setattr(Workers, "_start", start)
    monkeypatch.setattr("composefs_ostree.fetching.worker.available_cores", lambda: 2)
    monkeypatch.setattr("composefs_ostree.fetching.worker.end_all", lambda _: None)


@pytest.mark.usefixtures("idle")
def test_there_are_no_more_workers_than_processors_and_than_are_wanted() -> None:
    assert [Workers(Mock(), Mock(), most).most for most in (None, 1, 5)] == [2, 1, 2]


@pytest.mark.usefixtures("idle")
def test_another_worker_is_started_where_each_has_enough() -> None:
    workers: Any = Workers(Mock(), Mock())
    first = workers.for_files(8)
    first.outstanding = 7
    assert workers.for_files(8) is first
    first.outstanding = 8
    second = workers.for_files(8)
    assert second is not first
    first.outstanding, second.outstanding = HANDOVER + 1, HANDOVER
    assert workers.for_files(8) is second
    second.outstanding += 1
    assert workers.for_files(8) is None


@pytest.mark.usefixtures("idle")
def test_parts_that_failed_or_are_under_way_were_not_carried_out() -> None:
    workers: Any = Workers(Mock(), Mock())
    for is_on_part, outstanding, failure in ((1, 1, None), (1, 0, None), (1, 0, ExtError("bad")), (0, 5, None)):
        vars(workers._start()).update(is_on_part=bool(is_on_part), outstanding=outstanding, failure=failure)
    assert workers.end_parts() == 2
    assert [worker.outstanding for worker in workers] == [5]


def test_no_worker_speaks_for_one_that_waits_much_longer(tmp_path: Path) -> None:
    waits = [("1 s", 1.1), ("300 s", 300.0), ("other 300 s", 370.0), ("2 s", 2.0)]

    def make_files(packs: Packs) -> LocalFiles:
        for wait in waits:
            traffic.tell(*wait)
        return archive(tmp_path)(packs)

    core: Any = SimpleNamespace(staging=SimpleNamespace(path=str(tmp_path)), features=[], log=Mock())
    workers = Workers(core, make_files, 1)
    try:
        worker = workers.for_part()
        assert worker is not None
        worker.deal([head_and_file(tmp_path, b"content")])
        assert len(collect(worker)) == 1
    finally:
        workers.end()
    assert [call.args for call in core.log.call_args_list] == [("warning", "1 s"), ("warning", "300 s")]


def test_no_request_speaks_for_one_that_waits_much_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_LONG_WAIT", 0.1)
    monkeypatch.setenv("COMPOSEFS_OSTREE_RETRY_DELAY", "0.1")
    told: list[float] = []
    with serve(tmp_path) as server:
        for name in ("first", "second"):
            (tmp_path / name).touch()
            server.fault(f"/{name}", Fault(status=503), times=1)
        transport = HttpTransport(
            server.url,
            2,
            settings_of(None, Limits(None, None, None, None, None, None, None), []),
            lambda _line, seconds: told.append(seconds),
            connections=1,
            seconds=60,
        )
        first, second = Fetch("first"), Fetch("second")
        second.attempts = 3  # so that it waits eight times as long
        transport.start(first)
        while not told:
            transport.step()
        transport.start(second)
        ended: list[Fetch] = []
        while len(ended) < 2:
            ended += transport.step()
    assert [fetch.error for fetch in ended] == [None, None]
    assert len(told) == 2
    assert told[1] > 4 * told[0]


@pytest.mark.parametrize("way", ["a directory", "a transport"])
def test_nothing_that_was_read_stays_open(tmp_path: Path, way: str) -> None:
    """A repository has a million objects, and a process may have a thousand open."""
    contents = (b"small" * 20, b"large" * 20_000, os.urandom(300_000), os.urandom(300_001))
    ids = [head_and_file(tmp_path, content) for content in contents]
    damaged = tmp_path / "objects" / ids[3].hex()[:2] / f"{ids[3].hex()[2:]}.filez"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    packs = Packs(Staging(str(tmp_path)), [])
    files: Files = archive(tmp_path)(packs)
    if way == "a transport":
        files = FetchedFiles(DirectoryTransport(str(tmp_path)), SmallContents(64, packs))
    before = descriptors()
    for number, file_id in enumerate([*ids, bytes(32)]):
        files.start(file_id, str(tmp_path / f"staged-{number}"))
    assert [len(row) for row in files.step()] == [4, 4, 4, 2, 2]
    assert not left_open(before)
    assert sorted(path.name for path in tmp_path.glob("staged*")) == ["staged-0", "staged-1", "staged-2"]


@pytest.mark.parametrize(("row", "steps"), [((b"", 3 << 20, None), [2, 2, 1]), ((b"", 0, None), [5]), (({},), [5])])
def test_a_step_takes_no_longer_than_some_files(row: tuple[Any, ...], steps: list[int]) -> None:
    """For the worker to see whether it is still wanted."""

    class Done(Jobs):
        def _do(self, job: bytes, _staged: str) -> tuple[Any, ...]:
            return job, *row

    for times in (1, 10):
        jobs = Done()
        for _ in range(5 * times):
            jobs.start(bytes(32), "")
        done = []
        while jobs.timeout() is not None:
            done.append(len(jobs.step()))
        assert max(done) <= 16
        assert sum(done) == 5 * times
        assert times > 1 or done == steps


def test_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
