"""The conformance kit, run on samples or on an extension of a test's own."""

from __future__ import annotations

import re
from textwrap import dedent, indent
from typing import TYPE_CHECKING

from composefs.cli.extension import parse
from composefs.ext import discovery
from composefs.ext.check.kit import Invocation, check
from composefs.ext.check.silence import PATIENCE
from composefs.ext.options import Timeouts

if TYPE_CHECKING:
    from pathlib import Path

    from composefs.ext.check.report import Report

ON_TIME = {"p25silent": Timeouts(2, 1, 1), "p29deaf": Timeouts(300, 1, 1)}
"""What these break is a time; the others get so much of it that a busy machine breaks nothing."""
WAITING = {"p17stuffs", "p1unended", "p30waits"}
IMPATIENCE = 0.6
"""Seconds of sleep; a busy machine breaks nothing here either, as whoever is not let run does not sleep."""


def rule_of(sample: str) -> int:
    return int(re.match(r"p(\d+)", sample)[1])  # type: ignore[index]


def kit(directory: Path, name: str) -> Report:
    extension = discovery.find(name, [str(directory)])
    timeouts = ON_TIME.get(name, Timeouts(300, 300, 300))
    patience = IMPATIENCE if name in WAITING else PATIENCE
    invocation = Invocation("store", lambda _: parse(extension, ["store"]))
    return check(extension, [invocation], timeouts=timeouts, patience=patience, rules={rule_of(name)})


def made(directory: Path, methods: str, *rules: int) -> Report:
    """Check the right extension with some methods otherwise, for P-32 or other rules."""
    head = "#!/usr/bin/env python3\nimport json, os, subprocess, time\nfrom talk import Extension, Refused\n"
    (directory / "made").write_text(f"{head}class Made(Extension):\n{indent(dedent(methods), '    ')}\nMade().main()\n")
    (directory / "made").chmod(0o755)
    (directory / "made.json").write_text((directory / "good.json").read_text().replace("good", "made"))
    extension = discovery.find("made", [str(directory)])
    invocation = Invocation("store", lambda _: parse(extension, ["store"]))
    # Who is told that it waits for ever (P-30) is not given so long once more to end.
    timeouts = Timeouts(300, 1, 1) if rules == (30,) else Timeouts(300, 300, 300)
    return check(extension, [invocation], timeouts=timeouts, patience=IMPATIENCE, rules=rules or {32})
