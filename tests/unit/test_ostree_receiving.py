"""The commits that may hold some of a wanted one, and the one that a delta starts from."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from composefs_ext import Core, Request
from composefs_ext.errors import CancelledError, ExtError, NoSpaceError, NotFoundError, ReadOnlyError
from composefs_ext.testing import MemoryCore
from composefs_ostree.formats.commit_stream import Entry, partial_name, stream_name
from composefs_ostree.formats.fileheader import make_head
from composefs_ostree.formats.objects import Commit, make_commit
from composefs_ostree.held.storing import put_commit
from composefs_ostree.pulling.receiving import Receiver
from composefs_ostree.sources.source import DirectorySource
from support.ostree_repo import make_repo


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    """A pull is a process of its own, and turns collection off for the rest of it."""
    yield
    gc.enable()


def hold(core: Core, subject: str) -> bytes:
    """Have the object of a commit in the repository, and return its id."""
    data = make_commit(Commit({}, None, subject, "", 0, bytes(32), bytes(32)))
    commit = sha256(data).digest()
    stream = put_commit(core, commit, {commit: Entry(data, None)})
    core.publish(streams=[{"name": stream_name(commit), "id": stream}]).result()
    return commit


def test_the_commit_that_a_delta_starts_from_has_to_be_there(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        source = DirectorySource(str(repo))
        receiver = Receiver(core, source, source.open(core), {}, keep_nul=False, uses_cache=False)
        here = [hold(core, subject) for subject in ("base", "other")]
        names, missing = [stream_name(each) for each in here], stream_name(bytes(32))
        for origin in (None, names[0]):
            assert [each.commit_id for each in receiver._open_bases([missing, *names], origin)] == here
        with pytest.raises(NotFoundError):
            receiver._open_bases([*names, missing], missing)
        return {}

    MemoryCore(tmp_path / "core").run(handler, ["pull"])


@pytest.mark.parametrize("error", [CancelledError, NoSpaceError, ReadOnlyError])
def test_what_is_no_fault_of_a_base_ends_the_pull(tmp_path: Path, error: type[ExtError]) -> None:
    repo = make_repo(tmp_path / "repo")
    memory = MemoryCore(tmp_path / "core")

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        source = DirectorySource(str(repo))
        receiver = Receiver(core, source, source.open(core), {}, keep_nul=False, uses_cache=False)
        name = stream_name(hold(core, "base"))
        memory.refuse["stream.get"] = error("no more")
        with pytest.raises(error, match="no more"):
            receiver._open_bases([name], None)
        return {}

    memory.run(handler, ["pull"])
    assert memory.events == []


@pytest.mark.parametrize("count", [2, 3], ids=["as many objects", "more objects"])
def test_a_base_that_gets_another_stream_between_the_two_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Another pull has completed a commit in part meanwhile: what is told of its stream is not taken for the base's."""
    repo = make_repo(tmp_path / "repo")

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        source = DirectorySource(str(repo))
        receiver = Receiver(core, source, source.open(core), {}, keep_nul=False, uses_cache=False)
        contents = [b"x" * size for size in (300, 301, 302, 303, 304)]
        stored = core.object_put([{"name": core.staging.write(content)} for content in contents]).result()
        ids = [row["id"] for row in stored]
        data = make_commit(Commit({}, None, "", "", 0, bytes(32), bytes(32)))
        commit = sha256(data).digest()
        name = partial_name(commit)

        def put(numbers: Iterable[int], subpath: str) -> None:
            files = {
                bytes([number]) * 32: Entry(make_head(0, 0, 0, 0o100644, b"", b""), ids[number]) for number in numbers
            }
            stream = put_commit(core, commit, {commit: Entry(data, None), **files}, subpaths=[subpath])
            core.publish(streams=[{"name": name, "id": stream, "if_exists": "replace"}]).result()

        put((0, 1), "/a")
        ask = core.stream_get

        def stream_get(**wanted: Any) -> Any:
            if wanted.get("sizes"):
                put(range(2, 2 + count), "/b")
            return ask(**wanted)

        monkeypatch.setattr(core, "stream_get", stream_get)
        base = receiver._open(name, None)
        assert base.subpaths == ["/a"]
        assert receiver._sizes.taken() == {}
        return {}

    MemoryCore(tmp_path / "core").run(handler, ["pull"])
