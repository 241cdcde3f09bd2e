"""Which held files are taken without a question, which are asked for, and when there is something to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from composefs_ext import Core, Request, Stream
from composefs_ext.errors import ExtError, NoSpaceError, NotFoundError
from composefs_ext.fsverity import fsverity_digest
from composefs_ext.protocol import SIZES
from composefs_ext.testing import MemoryCore
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.fileheader import make_head
from composefs_ostree.pulling.confirming import BaseSizes, Confirming

Taken = tuple[set[str], set[str]]


class Answer:
    """An answer that is there once it is ``done``; nobody shall wait for it."""

    def __init__(self, value: Callable[[], Any]) -> None:
        self.done = False
        self._value = value

    def result(self) -> Any:
        assert self.done
        return self._value()


class SlowCore:
    """Holds contents of known sizes, and answers in order, when it is told to."""

    def __init__(self, *, features: Sequence[str] = (SIZES,), **sizes: int | None) -> None:
        self.features = features
        self.sizes = sizes
        self.bases: dict[str, list[str]] = {}
        self.calls: list[Any] = []
        self.error: ExtError | None = None
        self._answers: list[Answer] = []

    def base(self, name: str, *contents: str) -> Stream:
        self.bases[name] = list(contents)
        base = Stream({"id": name, "content_type": "", "size": 0, "named_refs": []})
        base.object_refs = list(contents)
        return base

    def stream_get(self, *, id: str, sizes: bool) -> Answer:  # noqa: A002  as the SDK calls it
        assert sizes
        told = SimpleNamespace(id=id, sizes=[self.sizes.get(each) for each in self.bases[id]])
        return self._answer(f"sizes of {id}", told)

    def object_has(self, ids: Sequence[str], sizes: Sequence[int]) -> Answer:
        return self._answer(
            dict(zip(ids, sizes, strict=True)), [self.sizes.get(i) == size for i, size in zip(ids, sizes, strict=True)]
        )

    def _answer(self, call: Any, value: Any) -> Answer:
        self.calls.append(call)

        def result() -> Any:
            if self.error is not None:
                raise self.error
            return value

        self._answers.append(Answer(result))
        return self._answers[-1]

    def come(self, count: int = 1) -> None:
        for answer in [each for each in self._answers if not each.done][:count]:
            answer.done = True


def entry(content: str, size: int) -> Entry:
    return Entry(make_head(size, 0, 0, 0o100644, b"", b""), content)


def ask(core: SlowCore | Core, sizes: BaseSizes, base: Stream) -> None:
    if SIZES in core.features and not sizes.knows(base.id):
        answer = cast("Core", core).stream_get(id=base.id, sizes=True)
        sizes.expect(base.id, base, answer)


def confirming(core: SlowCore, *bases: Stream) -> Confirming:
    sizes = BaseSizes()
    for base in bases:
        ask(core, sizes, base)
    return Confirming(cast("Core", core), sizes)


def wait_for(files: Confirming, **sizes: int) -> None:
    for content, size in sizes.items():
        files.waiting[content.encode()] = entry(content, size)


def take(files: Confirming) -> Taken:
    here: set[str] = set()
    gone: set[str] = set()
    for found, lost in files.taken():
        here.update(file_id.decode() for file_id in found)
        gone.update(file_id.decode() for file_id in lost)
    assert not files.answered, "this would be a loop without rest"
    return here, gone


def test_files_wait_for_what_is_about_to_be_told() -> None:
    core = SlowCore(a=1, b=2, c=3)
    files = confirming(core, core.base("one", "a", "b", "c"))
    wait_for(files, a=1, b=2)
    files.send()
    files.send_if_many()
    assert files
    assert not files.answered
    assert take(files) == (set(), set())
    core.come()
    assert files.answered
    assert take(files) == ({"a", "b"}, set())
    assert not files
    wait_for(files, c=3)
    assert not files.answered  # not enough of them
    files.send()
    assert files.answered
    assert take(files) == ({"c"}, set())
    assert core.calls == ["sizes of one"]


def test_told_before_any_file_waits() -> None:
    core = SlowCore(a=1)
    files = confirming(core, core.base("one", "a"))
    core.come()
    assert not files
    assert not files.answered
    assert take(files) == (set(), set())
    wait_for(files, a=1)
    assert files.answered
    assert take(files) == ({"a"}, set())
    assert not files


def test_what_is_not_as_the_base_has_it_is_asked_for() -> None:
    core = SlowCore(here=1, short=1, elsewhere=4, changed=9)
    files = confirming(core, core.base("one", "here", "short", "gone"))
    wait_for(files, here=1, short=2, gone=3, elsewhere=4, changed=5)
    core.come()
    assert take(files) == ({"here"}, set())
    assert files
    assert core.calls[1:] == [{"short": 2, "gone": 3, "elsewhere": 4, "changed": 5}]
    core.come()
    assert files.answered
    assert take(files) == ({"elsewhere"}, {"short", "gone", "changed"})
    assert not files


@pytest.mark.parametrize("contents", [(), ("other",)], ids=["nothing", "others"])
def test_a_base_without_the_files(contents: tuple[str, ...]) -> None:
    core = SlowCore(a=1)
    files = confirming(core, core.base("one", *contents))
    wait_for(files, a=1)
    core.come()
    assert take(files) == (set(), set())
    core.come()
    assert take(files) == ({"a"}, set())
    assert core.calls == ["sizes of one", {"a": 1}]


def test_a_core_that_cannot_tell_is_asked_at_once() -> None:
    core = SlowCore(features=(), a=1)
    files = confirming(core, core.base("one", "a"))
    wait_for(files, a=1, b=2)
    files.send_if_many()
    assert core.calls == []
    files.send()
    assert not files.answered
    core.come()
    assert files.answered
    assert take(files) == ({"a"}, {"b"})
    assert core.calls == [{"a": 1, "b": 2}]


def test_many_files_are_asked_for_before_the_walk_ends() -> None:
    contents = {f"f{number}": number for number in range(900)}
    core = SlowCore(features=(), **contents)
    files = confirming(core)
    wait_for(files, **contents)
    files.send_if_many()
    assert core.calls == [contents]


def test_several_bases_are_waited_for_and_each_is_asked_for_once() -> None:
    core = SlowCore(a=1, b=2, c=3)
    one, two, three = core.base("one", "a"), core.base("two", "a", "b"), core.base("three", "c", "lost")
    sizes = BaseSizes()
    for base in (one, two, one):
        ask(core, sizes, base)
    first = Confirming(cast("Core", core), sizes)
    wait_for(first, a=1, b=2)
    core.come(1)
    assert not first.answered
    assert take(first) == (set(), set())
    core.come(1)
    assert take(first) == ({"a", "b"}, set())
    for base in (three, two, one):
        ask(core, sizes, base)
    second = Confirming(cast("Core", core), sizes)
    wait_for(second, a=1, c=3, lost=4)
    core.sizes["lost"] = 4  # stored since
    core.come()
    assert take(second) == ({"a", "c"}, set())
    core.come()
    assert take(second) == ({"lost"}, set())
    assert core.calls == ["sizes of one", "sizes of two", "sizes of three", {"lost": 4}]


def test_answers_that_nobody_needed_serve_the_next_commit() -> None:
    core = SlowCore(a=1)
    sizes = BaseSizes()
    ask(core, sizes, core.base("one", "a"))
    core.come()
    assert take(Confirming(cast("Core", core), sizes)) == (set(), set())
    files = Confirming(cast("Core", core), sizes)
    wait_for(files, a=1)
    assert take(files) == ({"a"}, set())


def test_an_error_is_raised_where_the_answer_is_taken() -> None:
    core = SlowCore(a=1)
    files = confirming(core, core.base("one", "a"))
    wait_for(files, a=1)
    core.error = NoSpaceError("no room for the list")
    core.come()
    with pytest.raises(NoSpaceError, match="no room"):
        take(files)


def test_of_a_base_that_has_lost_its_name_nothing_is_told() -> None:
    core = SlowCore(a=1)
    files = confirming(core, core.base("one", "a"))
    wait_for(files, a=1)
    core.error = NotFoundError("there is no stream")
    core.come()
    files.send()
    core.error = None
    core.come()
    assert take(files) == ({"a"}, set())
    assert core.calls == ["sizes of one", {"a": 1}]


@pytest.mark.parametrize("features", [[SIZES], []], ids=["with sizes", "without"])
def test_with_a_core(tmp_path: Path, features: list[str]) -> None:
    memory = MemoryCore(tmp_path)
    memory.offers = features
    contents = [b"x" * size for size in range(300, 330)]
    ids = [fsverity_digest(content, memory.algorithm) for content in contents]

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        names = [core.staging.write(content) for content in contents]
        core.object_put([{"name": name} for name in names]).result()
        stored = core.stream_put("00000000000000aa", chunks=[], object_refs=ids).result()
        base = core.stream_get(id=stored["id"], object_refs=True).result()
        del memory.objects[ids[3]]
        memory.objects[ids[4]] = b"short"
        sizes = BaseSizes()
        ask(core, sizes, base)
        files = Confirming(core, sizes)
        files.waiting.update((bytes([at]), entry(each, 300 + at)) for at, each in enumerate(ids))
        here: set[int] = set()
        gone: set[int] = set()
        while files:
            files.send()
            if not files.answered:
                core.pump(None)
            for found, lost in files.taken():
                here.update(file_id[0] for file_id in found)
                gone.update(file_id[0] for file_id in lost)
        assert not list(Path(core.staging.path).iterdir())
        return {"here": sorted(here), "gone": sorted(gone)}

    taken = memory.run(handler, ["x"])
    assert taken == {"here": [at for at in range(30) if at not in (3, 4)], "gone": [3, 4]}
    asked = [len(params["ids"]) for method, params in memory.calls if method == "object.has"]
    assert asked == ([2] if features else [30])
