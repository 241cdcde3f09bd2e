"""What the kit found: for each rule, how often it was put to the test, and every breach with the lines around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from composefs.ext.check.rules import RULES

__all__ = ["Finding", "Report", "State"]

State = Literal["pass", "warn", "fail", "unseen", "needless"]


class Finding(NamedTuple):
    """A breach of a rule or, as a ``warning``, what fails a strict check alone.

    ``run`` says in which run, ``lines`` are the last messages before it, ``> `` from the core and ``< `` to it.
    """

    rule: int
    message: str
    run: str
    warning: bool = False
    lines: tuple[str, ...] = ()


@dataclass
class Report:
    """All findings about one extension.

    ``tried`` counts the runs that put a rule to the test.  ``applicable`` are the rules that the extension, as far as
    it was seen, could have broken; one of these that was never tried makes a strict check fail.  ``unfinished`` are the
    commands of which an ordinary run did not go well, so that no others were made; ``skipped`` those after one that
    writes, and had no result.  ``wrote`` has, by command, the last line that an ordinary run which went well wrote to
    standard error: no breach, but mostly not meant.
    """

    extension: str
    executable: str
    findings: list[Finding] = field(default_factory=list)
    tried: Counter[int] = field(default_factory=Counter)
    applicable: set[int] = field(default_factory=set)
    commands: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    wrote: dict[str, str] = field(default_factory=dict)
    runs: int = 0

    def add(self, found: Iterable[Finding]) -> None:
        """Take in findings; the same breach in another run is not told again."""
        known = {(each.rule, each.message) for each in self.findings}
        for each in found:
            if (each.rule, each.message) not in known:
                known.add((each.rule, each.message))
                self.findings.append(each)

    def state(self, rule: int) -> State:
        """Say how the extension stands by a rule; ``needless``: nothing it did had to do with the rule."""
        found = [each for each in self.findings if each.rule == rule]
        if any(not each.warning for each in found):
            return "fail"
        if found:
            return "warn"
        if self.tried[rule]:
            return "pass"
        return "unseen" if rule in self.applicable else "needless"

    def ok(self, *, strict: bool) -> bool:
        """Whether it passes: no failures, and strictly no warnings and nothing unseen.  Publishing must be seen."""
        states = {rule: self.state(rule) for rule in RULES}
        wrong = {"fail", "warn", "unseen"} if strict else {"fail"}
        return not wrong & set(states.values()) and states[27] != "unseen"

    def as_json(self, *, strict: bool) -> dict[str, object]:
        """Return the report for a program."""
        return {
            "extension": self.extension,
            "executable": self.executable,
            "ok": self.ok(strict=strict),
            "commands": self.commands,
            "unfinished": self.unfinished,
            "skipped": self.skipped,
            "wrote": self.wrote,
            "runs": self.runs,
            "rules": [
                {
                    "rule": f"P-{rule}",
                    "text": text,
                    "state": self.state(rule),
                    "tried": self.tried[rule],
                    "findings": [
                        {
                            "message": each.message,
                            "run": each.run,
                            "warning": each.warning,
                            "conversation": list(each.lines),
                        }
                        for each in self.findings
                        if each.rule == rule
                    ],
                }
                for rule, text in RULES.items()
            ],
        }
