"""Look for cases that reach what no case of the corpora reaches, and keep them: `python tests/fuzz/grow.py`.

A case is kept if with it some line of the package follows another one for the first time.  The corpora are replayed by
test_fuzz_ostree.py; a line of one is ``+`` (taken) or ``-`` (refused) and the case in base64.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.fuzzing import Subject, accepts, damaged
from support.ostree_fuzz import SUBJECTS

CORPORA = Path(__file__).with_name("corpora")
ROUND = 2000
LONGEST = 6000

Step = tuple[CodeType, int, int]


def corpus(subject: Subject) -> Iterator[tuple[bool, bytes]]:
    """Yield what is kept, and whether it is accepted."""
    path = CORPORA / f"ostree-{subject.name}.txt"
    for line in path.read_text().splitlines() if path.exists() else []:
        yield line[0] == "+", b64decode(line[1:])


def steps(subject: Subject, case: bytes) -> tuple[bool, set[Step]]:
    """Tell whether a case is accepted, and which lines of the package follow which on the way."""
    seen: set[Step] = set()

    def called(frame: FrameType, _event: str, _argument: object) -> Any:
        if "composefs_ostree" not in frame.f_code.co_filename:
            return None
        before = 0

        def line(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal before
            if event == "line":
                seen.add((frame.f_code, before, frame.f_lineno))
                before = frame.f_lineno
            return line

        return line

    sys.settrace(called)
    try:
        return accepts(subject, case), seen
    finally:
        sys.settrace(None)


def grow(subject: Subject, count: int, seed: int) -> None:
    """Write a corpus anew, out of the one that is there and of damage to it."""
    known: set[Step] = set()
    kept: list[tuple[bool, bytes]] = []

    def consider(case: bytes) -> None:
        accepted, seen = steps(subject, case)
        if not seen <= known:
            known.update(seen)
            kept.append((accepted, case))

    for case in subject.seeds():  # which need not be kept
        known.update(steps(subject, case)[1])
    for case in sorted({case for _, case in corpus(subject)}, key=len):
        consider(case)
    for number in range(-(-count // ROUND)):
        seeds = [*subject.seeds(), *(case for _, case in kept)]
        for case in damaged(seeds, ROUND, seed + number):
            if len(case) <= LONGEST:
                consider(case)
    lines = [f"{'+' if accepted else '-'}{b64encode(case).decode()}\n" for accepted, case in kept]
    (CORPORA / f"ostree-{subject.name}.txt").write_text("".join(lines))
    print(f"{subject.name}: {len(kept)} cases, {len(known)} steps, {sum(map(len, lines))} bytes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="how many to try for each subject")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("subjects", nargs="*", help="none: all")
    arguments = parser.parse_args()
    CORPORA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        for subject in SUBJECTS:
            if not arguments.subjects or subject.name in arguments.subjects:
                grow(subject, arguments.cases, arguments.seed)


if __name__ == "__main__":
    main()
