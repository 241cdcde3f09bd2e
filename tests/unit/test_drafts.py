"""Drafts that were refused: their error is remembered, and nothing of what they were made of."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from typing import Any

import pytest

from composefs.digest import SHA512
from composefs.dumpfile import Parser
from composefs.errors import ComposefsError, FormatError, InputOutputError, UsageError
from composefs.ext.drafts import Drafts
from composefs.protocol.limits import Limits
from composefs.protocol.staged import StagedFiles


class _Params(dict[str, str]):
    """The parameters of a call, which may have a megabyte."""


def filled_parsers() -> list[Parser]:
    return [each for each in gc.get_objects() if type(each) is Parser and each._line_number]


def test_a_refused_draft_holds_neither_what_was_read_nor_the_calls_that_were_answered(tmp_path: Path) -> None:
    """An extension could have any number of parts refused, and name a draft as often as it likes."""
    (tmp_path / "part").write_text("/ 0 40755 2 0 0 0 0.0 - - -\n/a 0 100644 1 0 0 0 0.0 - - -\nwrong\n")
    fd = os.open(tmp_path, os.O_RDONLY)
    drafts = Drafts(StagedFiles(fd), Limits(), SHA512)
    messages = []
    before = filled_parsers()

    def refused() -> weakref.ref[_Params]:
        params = _Params(draft="tree")
        with pytest.raises(FormatError) as caught:
            drafts.add(params["draft"], "part")
        messages.append((caught.value.message, caught.value.subject, caught.value.offset))
        del caught
        return weakref.ref(params)

    calls = [refused() for _ in range(3)]
    os.close(fd)
    gc.collect()
    assert messages == [(messages[0][0], "part", 3)] * 3
    assert [call() for call in calls] == [None] * 3
    assert [each for each in filled_parsers() if each not in before] == []


@pytest.mark.parametrize(
    ("part", "kind"), [("bad-disk", InputOutputError), ("../part", UsageError), (None, UsageError), (7, UsageError)]
)
def test_no_image_is_made_without_a_part_that_could_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Any, kind: type[ComposefsError]
) -> None:
    """Whoever does not wait for the answer to image.draft hears of it from the call that uses the draft."""
    (tmp_path / "root").write_text("/ 0 40755 2 0 0 0 0.0 - - -\n")
    (tmp_path / "empty").touch()
    real = StagedFiles.open

    def bad(self: StagedFiles, name: str, limit: int) -> int:
        if name == "bad-disk":
            return os.open("/proc/self/mem", os.O_RDONLY)  # which has nothing at its beginning: EIO
        return real(self, name, limit)

    monkeypatch.setattr(StagedFiles, "open", bad)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        drafts = Drafts(StagedFiles(fd), Limits(), SHA512)
        drafts.add("tree", "root")
        with pytest.raises(kind) as refused:
            drafts.add("tree", part)
        with pytest.raises(kind) as used:
            drafts.finish("tree", "empty")
    finally:
        os.close(fd)
    assert used.value.message == refused.value.message
