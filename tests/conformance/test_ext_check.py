"""The conformance kit: what is right passes, each broken sample fails its own rule, and no rule is without a check.

The last is proved against the numbers on docs/protocol.md: a rule that an extension can break is in the kit's table and
has a sample that breaks it; each is named by a test that holds the core to it, or by a sample.  The table is shown
in docs/conformance.md.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from composefs.ext.check.rules import RULES
from support.kit import kit, rule_of

ROOT = Path(__file__).parents[2]
BROKEN = ROOT / "samples/broken"
PAGE = (ROOT / "docs/protocol.md").read_text()
NUMBERED = sorted(int(number) for number in re.findall(r"\*\*P-(\d+)\*\*", PAGE))
SAMPLES = sorted(path.name for path in BROKEN.glob("p[0-9]*"))


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_broken_sample_fails_its_rule_and_no_other(installed: Path, sample: str) -> None:
    report = kit(installed, sample)
    states = {rule: report.state(rule) for rule in RULES}
    expected = "unseen" if rule_of(sample) == 27 else "fail"
    assert states[rule_of(sample)] == expected, report.findings
    assert [each for each in report.findings if each.rule != rule_of(sample)] == []
    assert not report.ok(strict=False)
    assert all(each.run and each.message for each in report.findings)


def test_samples_say_what_they_break_and_are_short() -> None:
    for sample in SAMPLES:
        text = (BROKEN / sample).read_text()
        assert f'"""P-{rule_of(sample)}: ' in text
        assert len(text.splitlines()) <= 30


def checks() -> dict[int, tuple[str, str]]:
    """By rule: the samples that break it, and the modules of tests that hold the core to it."""
    samples = defaultdict(list)
    for sample in SAMPLES:
        samples[rule_of(sample)].append(sample)
    hosts = defaultdict(list)
    for path in sorted((ROOT / "tests/conformance").glob("test_*.py")):
        if not path.stem.startswith(Path(__file__).stem):
            for number in {int(each) for each in re.findall(r"\bP-(\d+)\b", path.read_text())}:
                hosts[number].append(path.stem.removeprefix("test_"))
    return {
        number: (", ".join(samples[number]), ", ".join(hosts[number]))
        for number in {*samples, *hosts, *NUMBERED, *RULES}
    }


def test_every_rule_has_a_check_that_can_fail() -> None:
    """The proof that the table is complete: rule ↔ check ↔ sample, and host tests for what binds the core."""
    table = checks()
    assert sorted(table) == NUMBERED == list(range(1, len(NUMBERED) + 1))
    assert {rule for rule in RULES if not table[rule][0]} == set(), "in the kit, but no sample breaks them"
    assert {rule for rule, (samples, _) in table.items() if samples} <= set(RULES), "a sample, but no check"
    assert {rule for rule in NUMBERED if rule not in RULES and not table[rule][1]} == set(), "held by nothing"


def test_the_table_in_the_docs() -> None:
    rows = [
        f"| P-{rule} | {RULES.get(rule, '(the core alone)')} | {samples or '—'} | {'yes' if hosts else '—'} |"
        for rule, (samples, hosts) in sorted(checks().items())
    ]
    text = (ROOT / "docs/conformance.md").read_text()
    assert "\n".join(rows) in text, "docs/conformance.md should have:\n" + "\n".join(rows)
