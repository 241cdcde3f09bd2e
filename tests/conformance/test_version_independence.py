"""Versions of core and extension move independently: what was recorded when version 1 was frozen goes on like this.

recorded/version-1.jsonl is a conversation, step by step: what an extension did then, and what the core of that time
answered.  It is never recorded anew.  A later core may say more, and may put messages in other words; all that was
there must still be.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.hosting import Host

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "recorded/version-1.jsonl").read_text().splitlines()]
STRAY = {"x-later": {"any": ["thing", None, 2**53 - 1]}}


def holds(now: Any, then: Any, where: str) -> None:
    """Check that all of the recorded value is in the present one."""
    if isinstance(then, dict):
        for key, value in then.items():
            if key not in ("message", "hint"):
                assert key in now, f"{where}.{key} is gone"
                holds(now[key], value, f"{where}.{key}")
    elif isinstance(then, list):
        assert len(now) == len(then), where
        for number, (mine, theirs) in enumerate(zip(now, then, strict=True)):
            holds(mine, theirs, f"{where}[{number}]")
    else:
        assert now == then, where


def with_stray(step: list[Any]) -> list[Any]:
    """What a later extension would send: fields that this core has never heard of, in parameters and in their rows."""
    if step[0] != "call":
        return step
    params = {key: [_row(each) for each in value] if type(value) is list else value for key, value in step[2].items()}
    return [step[0], step[1], {**params, **STRAY}]


def _row(row: Any) -> Any:
    return {**row, **STRAY} if isinstance(row, dict) else row


@pytest.mark.parametrize("stray", [False, True], ids=["as-recorded", "stray-fields-both-ways"])
def test_a_conversation_of_version_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stray: bool) -> None:
    """P-9, P-43."""
    steps = [row["step"] for row in RECORDED]
    put = next(number for number, step in enumerate(steps) if step[:2] == ["call", "stream.put"])
    # A stream is stored compressed, so that its id is one of the compressor's version too.
    then = RECORDED[put]["answer"]["id"]
    now = Host(tmp_path / "first", monkeypatch).do(*steps[: put + 1], strict=False)[-1]["id"]
    recorded = json.loads(json.dumps(RECORDED).replace(then, now))
    recorded[put]["answer"].pop("size")
    steps = [with_stray(row["step"]) if stray else row["step"] for row in recorded]
    # With strict, the core's answers have stray fields too, and all is checked with the schemas: not what is wrong.
    host = Host(tmp_path / "second", monkeypatch)
    answers = host.run("write", {"steps": json.dumps(steps)}, strict=stray).result["answers"]
    expected = [row for row in recorded if "answer" in row]
    assert len(answers) == len(expected)
    for answer, row in zip(answers, expected, strict=True):
        holds(answer, row["answer"], " ".join(map(str, row["step"][:2])))
