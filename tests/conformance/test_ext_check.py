"""The conformance kit: what is right passes, each broken sample fails its own rule, and no rule is without a check.

The last is proved against the numbers on docs/protocol.md: a rule that an extension can break is in the kit's table and
has a sample that breaks it; each is named by a test that holds the core to it, or by a sample.  The table is shown
in docs/conformance.md.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from composefs.cli.extension import parse
from composefs.ext import discovery, session
from composefs.ext.check.kit import Invocation, check
from composefs.ext.check.report import Report
from composefs.ext.check.rules import RULES
from composefs.ext.check.silence import PATIENCE, Activity, Silence
from composefs.ext.launch import Launched
from composefs.ext.options import Timeouts
from support.commands import CFSCTL, TIMEOUT, cfsctl

ROOT = Path(__file__).parents[2]
BROKEN = ROOT / "samples/broken"
PAGE = (ROOT / "docs/protocol.md").read_text()
NUMBERED = sorted(int(number) for number in re.findall(r"\*\*P-(\d+)\*\*", PAGE))
SAMPLES = sorted(path.name for path in BROKEN.glob("p[0-9]*"))
ON_TIME = {"p25silent": Timeouts(2, 1, 1), "p29deaf": Timeouts(300, 1, 1)}
"""What these break is a time; the others get so much of it that a busy machine breaks nothing."""
WAITING = {"p1unended", "p30waits"}
IMPATIENCE = 0.6
"""Seconds of sleep; a busy machine breaks nothing here either, as whoever is not let run does not sleep."""


def rule_of(sample: str) -> int:
    return int(re.match(r"p(\d+)", sample)[1])  # type: ignore[index]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The samples as samples/broken/install puts them, for the interpreter of this test."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    subprocess.run([BROKEN / "install", tmp_path / "ext"], check=True)
    return tmp_path / "ext"


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


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_broken_sample_fails_its_rule_and_no_other(installed: Path, sample: str) -> None:
    report = kit(installed, sample)
    states = {rule: report.state(rule) for rule in RULES}
    expected = "unseen" if rule_of(sample) == 27 else "fail"
    assert states[rule_of(sample)] == expected, report.findings
    assert [each for each in report.findings if each.rule != rule_of(sample)] == []
    assert not report.ok(strict=False)
    assert all(each.run and each.message for each in report.findings)


def test_who_looks_at_more_rows_than_a_message_may_have_is_tried_and_passes(installed: Path) -> None:
    text = (installed / "p32many").read_text().replace("range(1500)", "range(3000)")
    right = text.replace(
        """            return [json.loads(line).get("id") for line in stored]""",
        """            rows = [json.loads(line) for line in stored]
        if any("error" in row for row in rows):
            raise Refused({"code": -32000, "message": "a file was refused", "data": {"kind": "too_large"}})
        return [row["id"] for row in rows]""",
    ).replace("import Extension", "import Extension, Refused")
    (installed / "many").write_text(right)
    (installed / "many").chmod(0o755)
    (installed / "many.json").write_text((installed / "p32many.json").read_text().replace("p32many", "many"))
    extension = discovery.find("many", [str(installed)])
    invocation = Invocation("store", lambda _: parse(extension, ["store"]))
    report = check(extension, [invocation], timeouts=Timeouts(300, 300, 300), rules={32})
    assert (report.state(32), report.findings) == ("pass", [])


def test_who_puts_a_refused_range_of_a_pack_again_passes(installed: Path) -> None:
    text = (installed / "p32pack").read_text()
    right = text.replace(
        """        return [row.get("id") for row in rows["objects"]]""",
        """        for row, (at, size) in zip(rows["objects"], ranges, strict=True):
            if "error" in row:
                again = self.call("object.put", files=[{"name": name, "offset": at, "size": size}])["objects"]
                row.update(again[0])
        return [row["id"] for row in rows["objects"]]""",
    )
    assert right != text
    (installed / "p32pack").write_text(right)
    report = kit(installed, "p32pack")
    assert (report.state(32), report.findings) == ("pass", [])


def test_who_puts_what_was_refused_again_under_another_name_passes(installed: Path) -> None:
    report = made(
        installed,
        """
        def put(self, name):
            rows = self.call("object.put", files=[{"name": name}])["objects"]
            if "error" in rows[0]:
                rows = self.call("object.put", files=[{"name": self.stage("other", "hello\\n")}])["objects"]
            return rows[0]["id"]
        """,
    )
    assert (report.state(32), report.findings) == ("pass", [])


@pytest.mark.parametrize("calls", [[["a", "b"]], [["a"], ["b"]]], ids=["in one call", "in calls made at once"])
def test_another_file_of_the_same_content_is_not_the_refused_one_put_again(
    installed: Path, calls: list[list[str]]
) -> None:
    report = made(
        installed,
        f"""
        def put(self, name):
            for number, names in enumerate({calls}, 901):
                files = [{{"name": self.stage(each, "same\\n")}} for each in names]
                self.write(self.line(id=number, method="object.put", params={{"files": files}}))
            return [self.receive()["result"]["objects"][-1].get("id") for _ in {calls}][-1]
        """,
    )
    assert report.state(32) == "fail"
    assert [each.rule for each in report.findings] == [32]


@pytest.mark.parametrize(
    ("method", "breaks"),
    [
        ("run(self): self.call('object.put', files_file='pipe')", [12]),
        ("run(self): self.call('image.put', dump='pipe')", [12]),
        ("answer(self, _): self.send(id=self.request['id'], result={'result_file': 'pipe'})", [12]),
    ],
    ids=["rows", "dump", "result"],
)
def test_nobody_waits_for_who_would_write_into_a_pipe(installed: Path, method: str, breaks: list[int]) -> None:
    report = made(
        installed,
        f"""
        def welcome(self, message):
            os.mkfifo("pipe")
            self.send(id=message["id"], result={{"version": 1, "features": ["result_file"]}})
        def {method}
        """,
    )
    assert [each.rule for each in report.findings] == breaks


MISTAKES = {
    "a read takes whole messages": (
        1,
        """
        def receive(self):
            while True:
                for message in map(json.loads, os.read(0, 1 << 20).splitlines()):
                    if "id" in message:
                        return message
        """,
        r"(initialize|run) is not answered: .*JSONDecodeError",
    ),
    "a notification is taken for an answer": (
        9,
        """
        def put(self, name):
            self.send(id=901, method="object.put", params={"files": [{"name": name}]})
            return json.loads(input()).get("result", {"objects": [{"id": ""}]})["objects"][0]["id"]
        """,
        r"an unknown notification after run: stream.put: params.object_refs\[0\]: '' is not an id .* \(P-18\)",
    ),
    "a row without an id has an empty one": (
        32,
        """
        def put(self, name):
            return self.call("object.put", files=[{"name": name}])["objects"][0].get("id", "")
        """,
        r"a file that the core refuses: stream.put: params.object_refs\[0\]: '' is not an id .* \(P-18\)",
    ),
    "an error has an empty result": (
        35,
        """
        def call(self, method, **params):
            try:
                return super().call(method, **params)
            except Refused:
                return {"objects": [{"id": ""}], "id": ""}
        """,
        r"object.put refused: no_space: stream.put: params.object_refs\[0\]: '' is not an id .* \(P-18\)",
    ),
    "a call that there is not": (
        42,
        """
        def run(self):
            try:
                self.call("object.add", files=["text"])
            except Refused:
                raise Refused({"code": 1, "message": "it does not work", "data": {"kind": "other"}})
        """,
        "an ordinary run: the command fails: it does not work; before that, object.add was answered: there is no call",
    ),
    "an object is published as a stream": (
        21,
        """
        def put_stream(self, object):
            return object
        """,
        "publish: invalid: stream [0-9a-f]{64}: too short for a splitstream",
    ),
    "a chunk is counted from 1": (
        43,
        """
        def put_stream(self, object):
            return self.call("stream.put", content_type="62726f6b656e2121", object_refs=[object], chunks=[1])["id"]
        """,
        "stream.put: invalid: a chunk names object reference 1 of 1",
    ),
    "a name of somebody else": (
        23,
        """
        def publish(self, stream):
            self.call("publish", streams=[{"name": "greeting", "id": stream}])
        """,
        r"publish: permission: stream greeting does not belong to extension made \(its streams begin with made-\)",
    ),
    "two of what excludes one another": (
        43,
        """
        def put(self, name):
            self.call("stream.get", name="a", ref="b")
        """,
        "stream.get: params: not exactly one of name, id, ref is given",
    ),
    "a line break in a text": (
        1,
        """
        def put(self, name):
            self.write(self.line(method="log", params={"level": "info", "message": "@"}).replace(b"@", b"two\\nlines"))
            return super().put(name)
        """,
        r"a line is not JSON in UTF-8: .* \(in a string, a newline is \\n\)",
    ),
    "no parameters": (
        3,
        """
        def put(self, name):
            self.send(id=7, method="stream.list")
            self.receive()
            return super().put(name)
        """,
        "the params of stream.list are no object: without any they are {}",
    ),
    "a number of bytes is no integer": (
        43,
        """
        def put(self, name):
            return self.call("object.put", files=[{"name": name, "size": 6.0}])["objects"][0]["id"]
        """,
        r"object.put: params.files\[0\].size: 6.0 is not of type 'integer'",
    ),
    "a line begins as files do elsewhere": (
        1,
        """
        def line(self, **members):
            return b"\\xef\\xbb\\xbf" + super().line(**members)
        """,
        "a line begins with a byte order mark",
    ),
    "an empty line": (
        1,
        """
        def line(self, **members):
            return super().line(**members) + b"\\n"
        """,
        "a line is empty",
    ),
    "a newline between messages only": (
        1,
        """
        def put(self, name):
            self.write(self.line(method="x-1", params={}).rstrip())
            return super().put(name)
        """,
        "a line has more than one message, or has more behind it: Extra data: ",
    ),
    "both a result and an error": (
        3,
        """
        def answer(self, result):
            error = {"code": 0, "message": "none", "data": {"kind": "other"}}
            self.send(id=self.request["id"], result=result, error=error)
        """,
        "an answer has both a result and an error",
    ),
    "an id that went through a float": (
        6,
        """
        def answer(self, result):
            self.send(id=float(self.request["id"]), result=result)
        """,
        "an answer has the id 2.0, which is no integer",
    ),
    "run is answered twice": (
        26,
        """
        def answer(self, result):
            self.write(2 * self.line(id=self.request["id"], result=result))
        """,
        "(run was answered twice|something was written after the answer to run)",
    ),
    "standard output is closed instead of run answered": (
        30,
        """
        def answer(self, result):
            os.close(1)
            time.sleep(3600)
        """,
        "run is not answered: extension made closed its standard output without a result, and did not end until it was "
        "killed by SIGTERM",
    ),
    "lines of a dump end as elsewhere": (
        19,
        """
        def put(self, name):
            with open("dump", "w") as dump:
                dump.write("/ 0 40755 2 0 0 0 0.0 - - -\\r\\n")
            self.call("image.put", dump="dump")
        """,
        "image.put: invalid: dump line 1: /: DIGEST is not 64 hexadecimal digits",
    ),
    "an answer is waited for that nobody gives": (
        30,
        """
        def put(self, name):
            self.notify("objects.put", files=[{"name": name}])
            return self.receive()["result"]["objects"][0]["id"]
        """,
        r"run is not answered: for 0.6 seconds nothing came, and all of it slept \(.*\); it has read all that it was "
        r"sent, up to run, and has no call to be answered, as its objects.put had no id \(does it flush ",
    ),
    "an answer is not read": (
        30,
        """
        def put(self, name):
            self.send(id=901, method="object.put", params={"files": [{"name": name}]})
            time.sleep(3600)
        """,
        r"run is not answered: for 0.6 seconds .*; it has not read what it was sent, \d+ bytes up to the answer to "
        r"object.put \(",
    ),
    "a refusal is waited out": (
        35,
        """
        def publish(self, stream):
            try:
                super().publish(stream)
            except Refused:
                super().receive()
        """,
        r"publish refused: corrupt: run is not answered: for 0.6 seconds .* up to the error for publish, and has no ",
    ),
    "something else is waited for": (
        30,
        """
        def put(self, name):
            subprocess.run(["sleep", "3600"])
        """,
        r"run is not answered: for 0.6 seconds nothing came, and all of it slept \(python3, sleep\); it has read all ",
    ),
    "a run that nobody cancelled is": (
        42,
        """
        def run(self):
            raise Refused({"code": 1, "message": "no more", "data": {"kind": "cancelled"}})
        """,
        "an ordinary run: the command fails: no more",
    ),
}
"""What authors do, the rule that it breaks, and what they are told."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_who_makes_a_mistake_is_told_the_rule_and_what_was_seen(installed: Path, mistake: str) -> None:
    rule, methods, told = MISTAKES[mistake]
    report = made(installed, methods, rule)
    assert {each.rule for each in report.findings} == {rule}, report.findings
    assert re.match(told, report.findings[0].message, re.DOTALL), report.findings[0].message


WORK = {
    "computes": "burn()",
    "has another compute": "subprocess.run(['sh', '-c', 'i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done'])",
    "shows progress": "slowly(lambda: self.notify('progress', id='a', kind='progress'))",
    "tells people": "slowly(lambda: os.write(2, b'still here\\n'))",
    "says more than the core can take in": "for _ in range(20_000): self.notify('log', level='debug', message='…' * 9)",
    "writes files": "slowly(lambda: open('download', 'ab').write(b'more'))",
}
"""What takes longer than the kit is patient."""


@pytest.mark.parametrize("work", WORK)
def test_who_works_for_long_is_waited_for(installed: Path, work: str) -> None:
    report = made(
        installed,
        f"""
        def put(self, name):
            def burn():
                while time.process_time() < {3 * IMPATIENCE}:
                    pass
            def slowly(act):
                for _ in range(8):
                    time.sleep({IMPATIENCE / 3})
                    act()
            {WORK[work]}
            return super().put(name)
        """,
        18,
    )
    assert (report.unfinished, report.findings) == ([], [])


def test_patience_is_used_up_by_sleep_alone() -> None:
    silence = Silence(10)
    asleep = Activity(asleep=True, used=1.0, written=100, names=("it",))
    seconds = [
        (asleep, 0.0),  # that it is asleep, not for how long
        (asleep, 4.0),
        (asleep._replace(asleep=False), 4.0),  # runs, or could
        (asleep._replace(used=1.09), 8.0),  # less than a hundredth of 10 seconds
        (asleep._replace(used=1.11), 0.0),
        (asleep._replace(used=1.11), 4.0),
        (asleep._replace(used=1.11, written=101), 0.0),
        (asleep._replace(used=1.11, written=101), 4.0),
    ]
    for number, (seen, left) in enumerate(seconds):
        assert not silence.count(seen, 4.0 * number)
        assert silence.seconds == left, number
    assert silence.count(seen, 50.0)
    silence.end()
    assert silence.seconds == 0


def test_who_says_nothing_is_asked_whether_it_flushes(installed: Path) -> None:
    [finding] = kit(installed, "p25silent").findings
    assert finding.message.endswith("(is it an extension, and does it flush what it writes?)")


def test_the_refusal_is_shown_however_much_was_said_after_it(installed: Path) -> None:
    report = made(
        installed,
        """
        def put(self, name):
            ids = [row["id"] for row in self.call("object.put", files=[{"name": name}])["objects"] if "id" in row]
            for number in range(20):
                self.notify("log", level="info", message=f"still here, {number}")
            return ids

        def put_stream(self, ids):
            return super().put_stream(*ids)
        """,
    )
    [finding] = report.findings
    assert finding.message.startswith("the row of the file text was answered with an error, the file not put again, ")
    assert [line[:1] for line in finding.lines[:3]] == ["<", ">", "…"]
    assert "object.put" in finding.lines[0]
    assert "the staged file 'text' has 6 bytes" in finding.lines[1]
    assert finding.lines[-1].startswith('< {"jsonrpc": "2.0", "id": 2, "result": ')


def test_what_comes_after_the_answer_is_seen_even_if_the_end_has_come_too(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = installed / "p26after"
    sample.write_text(sample.read_text().replace("        self.notify(", "        super().end()\n        self.notify("))
    original = session._let_end

    def late(launched: Launched, *others: Any) -> None:
        launched.process.close_stdin()
        select.select([launched.process.pidfd], [], [])
        original(launched, *others)

    monkeypatch.setattr(session, "_let_end", late)
    assert kit(installed, "p26after").state(26) == "fail"
    assert kit(installed, "p30status").state(26) == "pass"


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
        if path.stem != Path(__file__).stem:
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


def test_what_is_right_passes_strictly(installed: Path) -> None:
    done = cfsctl("ext", "check", installed / "good", "--strict")
    lines = done.stdout.splitlines()
    assert lines[0] == "$ cfsctl good store"
    assert len(lines) == len(RULES) + 2
    assert re.fullmatch(r"good passes: \d+ rules kept, \d+ that do not concern it; 19 runs", lines[-1])
    assert done.stderr == ""
    assert "goodlists passes: " in cfsctl("ext", "check", installed / "goodlists", "--strict").stdout
    report = json.loads(cfsctl("ext", "check", installed / "good", "--json", "--", "store").stdout)
    assert report["ok"] is True
    assert [rule["rule"] for rule in report["rules"]] == [f"P-{rule}" for rule in RULES]


def test_the_command_shows_the_breach_with_what_was_said(installed: Path) -> None:
    done = cfsctl("ext", "check", installed / "p5prints", status=1)
    assert "P-5   FAIL    standard output carries messages only\n" in done.stdout
    breach = "a line on standard output is not a message: text for people goes to standard error"
    assert f"      {breach}\n      in an ordinary run:\n        > {{" in done.stdout
    assert "        < Downloading...\n" in done.stdout
    assert "p5prints does not pass: " in done.stdout
    assert done.stdout.endswith(
        "\nthe ordinary run of 'store' does not go well: until it does, the others are not made\n"
    )
    report = json.loads(cfsctl("ext", "check", installed / "p5prints", "--json").stdout)
    [finding] = [each for rule in report["rules"] for each in rule["findings"]]
    assert (report["ok"], finding["conversation"][-1]) == (False, "< Downloading...")


def test_what_cannot_be_checked_is_said(installed: Path) -> None:
    assert "no publishing call was seen" in cfsctl("ext", "check", installed / "p27nothing", status=1).stdout
    manifest = installed / "good.json"
    manifest.write_text(manifest.read_text().replace('"offline": true', '"offline": false'))
    assert "no offline examples" in cfsctl("ext", "check", installed / "good", status=2).stderr
    assert "no command 'pull'" in cfsctl("ext", "check", installed / "good", "--", "pull", status=2).stderr
    assert "is a directory (name the executable" in cfsctl("ext", "check", installed, status=2).stderr
    assert "nonesuch" in cfsctl("ext", "check", "nonesuch", status=3).stderr


def test_ctrl_c_ends_the_check_and_leaves_nothing(installed: Path, environment: Path) -> None:
    argv = [CFSCTL, "--progress", "none", "ext", "check", str(installed / "p25silent")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while process.poll() is None and not children.read_text():
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (130, "cfsctl: extension p25silent was interrupted\n")
    assert list((environment / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("sample", "seen"),
    [("p30waits", '"method": "output"'), ("p29deaf", '"method":"cancel"')],
    ids=["while it waits for ever", "while a run is cancelled anyway"],
)
def test_ctrl_c_at_a_run_that_does_not_end(installed: Path, environment: Path, sample: str, seen: str) -> None:
    argv = [CFSCTL, "--progress", "none", "--trace", "ext", "check", str(installed / sample)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(seen in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert errors.endswith(f"cfsctl: extension {sample} was interrupted\n")
    assert list((environment / "tmp").iterdir()) == []
    assert not [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(installed / sample).encode() in _content(path).split(b"\0")
    ]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""


def test_what_readers_of_json_take_differently_is_a_warning(installed: Path) -> None:
    report = made(
        installed,
        """
        def answer(self, result):
            line = self.line(id=self.request["id"], result=result, error=None)
            self.write(line.replace(b'"result": {', b'"result": {"id": "1", '))
        """,
        18,
    )
    assert [(each.rule, each.warning, each.message) for each in report.findings] == [
        (1, True, "an object in a message has the field 'id' more than once"),
        (3, True, 'an answer has "error": null, which is to be left out'),
    ]


def test_a_message_of_many_fields_is_looked_at_in_time(installed: Path) -> None:
    report = made(
        installed,
        """
        def put(self, name):
            fields = b",".join(b'"f%d":0' % number for number in range(90_000))
            self.write(b'{"jsonrpc":"2.0","method":"x-1","params":{%b,"f89999":1}}\\n' % fields)
            return super().put(name)
        """,
        18,
    )
    [finding] = report.findings
    assert finding.message == "an object in a message has the field 'f89999' more than once"


def test_who_is_told_why_is_not_told_again(installed: Path) -> None:
    report = made(installed, "def put(self, name): self.call('object.add', files=[name])", 18)
    [finding] = report.findings
    assert finding.message == "an ordinary run: the command fails: there is no call 'object.add'"


def test_a_result_schema_that_is_none(installed: Path) -> None:
    manifest = json.loads((installed / "good.json").read_text())
    manifest["commands"][0]["result_schema"] = {"type": "objekt"}
    (installed / "good.json").write_text(json.dumps(manifest))
    told = "manifest: the result_schema of store is no JSON Schema: $.type: 'objekt' is not valid "
    assert told in cfsctl("ext", "check", installed / "good", status=1).stdout


def test_a_result_schema_that_refers_to_itself(installed: Path) -> None:
    manifest = json.loads((installed / "good.json").read_text())
    manifest["commands"][0]["result_schema"] = {"$ref": "#"}
    (installed / "good.json").write_text(json.dumps(manifest))
    done = cfsctl("ext", "check", installed / "good", status=1)
    assert "the result: its schema refers to itself without end\n" in done.stdout


def test_a_result_schema_that_is_elsewhere_is_not_fetched(installed: Path) -> None:
    manifest = json.loads((installed / "good.json").read_text())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        elsewhere = f"http://127.0.0.1:{server.getsockname()[1]}/result.json"
        manifest["commands"][0]["result_schema"] = {"$ref": elsewhere}
        (installed / "good.json").write_text(json.dumps(manifest))
        done = cfsctl("ext", "check", installed / "good", status=1)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert f"the result: its schema refers to {elsewhere}, which is not in it" in done.stdout


def test_an_unknown_field_of_the_manifest_is_a_warning(installed: Path) -> None:
    manifest = installed / "good.json"
    manifest.write_text(manifest.read_text().replace('"protocol"', '"colour": "red", "protocol"'))
    assert "WARN" in cfsctl("ext", "check", installed / "good").stdout
    assert "'colour' was unexpected" in cfsctl("ext", "check", installed / "good", "--strict", status=1).stdout
