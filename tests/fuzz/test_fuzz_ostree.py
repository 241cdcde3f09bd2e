"""What reads ostree's formats takes a case or refuses it properly, whatever somebody has made of it.

The corpora have every kind of case that grow.py has found; each is taken or refused as it was then.  COMPOSEFS_FUZZ is
the number of further cases, made from these by damage, for each subject; `make fuzz` sets it, else it is a sample.
COMPOSEFS_FUZZ_SEED chooses others.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fuzz.grow import corpus
from support.fuzzing import Subject, accepts, damaged
from support.ostree_fuzz import SUBJECTS

COUNT = int(os.environ.get("COMPOSEFS_FUZZ", "5000"))
SEED = int(os.environ.get("COMPOSEFS_FUZZ_SEED", "7"))


@pytest.fixture(autouse=True)
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files are staged."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_corpora(subject: Subject) -> None:
    kept = list(corpus(subject))
    assert kept
    for accepted, case in kept:
        assert accepts(subject, case) == accepted, case
    assert any(accepts(subject, case) for case in subject.seeds())


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_damaged(subject: Subject, staging: Path) -> None:
    seeds = [*subject.seeds(), *(case for _, case in corpus(subject))]
    accepted = sum(accepts(subject, case) for case in damaged(seeds, COUNT, SEED))
    # Nothing but refusals, or nothing but harmless damage, would prove little.
    assert COUNT // 100 < accepted < COUNT - COUNT // 100, accepted
    assert list(staging.iterdir()) == []
