"""``cfsctl ext check`` as its user sees it: the report, the manifest's mistakes, and Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from composefs.ext.check.rules import RULES
from support.commands import CFSCTL, TIMEOUT, cfsctl


def test_what_is_right_passes_strictly(installed: Path) -> None:
    done = cfsctl("ext", "check", installed / "good", "--strict")
    lines = done.stdout.splitlines()
    assert lines[0] == "$ cfsctl good store"
    assert len(lines) == len(RULES) + 2
    assert re.fullmatch(r"good passes: \d+ rules kept, \d+ that do not concern it; 20 runs", lines[-1])
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
    assert "is a manifest (name the executable" in cfsctl("ext", "check", manifest, status=2).stderr
    assert "cfsctl good store --help" in cfsctl("ext", "check", installed / "good", "--", "store", "x", status=2).stderr


def test_the_one_in_this_directory_has_a_path(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(installed)
    assert "(the one in this directory is ./good)" in cfsctl("ext", "check", "good", status=3).stderr


def test_the_path_leads_where_the_kernel_goes(installed: Path, tmp_path: Path) -> None:
    (installed / "below").mkdir()
    (tmp_path / "link").symlink_to(installed / "below")
    assert "good passes: " in cfsctl("ext", "check", f"{tmp_path}/link/../good").stdout


@pytest.mark.parametrize(
    ("example", "why"),
    [
        ("store none", "Got unexpected extra argument (none)"),
        ("keep", "good has no command 'keep'"),
    ],
    ids=["store", "keep"],
)
def test_an_example_that_cannot_be_run_is_named(installed: Path, example: str, why: str) -> None:
    manifest = json.loads((installed / "good.json").read_text())
    manifest["commands"][0]["examples"][0]["command"] = f"cfsctl good {example}"
    (installed / "good.json").write_text(json.dumps(manifest))
    told = cfsctl("ext", "check", installed / "good", status=2).stderr
    assert f"cfsctl: the manifest's example {example!r} cannot be run: {why}" in told


def test_an_example_of_another_extension(installed: Path) -> None:
    manifest = json.loads((installed / "good.json").read_text())
    manifest["commands"][0]["examples"][0]["command"] = "cfsctl better store"
    (installed / "good.json").write_text(json.dumps(manifest))
    told = cfsctl("ext", "check", installed / "good", status=2).stderr
    assert told == "cfsctl: the example 'cfsctl better store' does not run good\n"


def test_what_a_manifest_asks_for_in_vain(installed: Path) -> None:
    manifest = json.loads((installed / "good.json").read_text())
    manifest |= {"reads": ["/etc/good", "~/.good", "$GOOD", "etc/good"], "environment": ["GOOD", "LD_PRELOAD", "PATH"]}
    (installed / "good.json").write_text(json.dumps(manifest))
    done = cfsctl("ext", "check", installed / "good", "--strict", status=1)
    assert [line.strip() for line in done.stdout.splitlines() if "warning: " in line] == [
        "warning: manifest: reads: 'etc/good' allows nothing: it begins with none of / ~/ $",
        "warning: manifest: environment: LD_PRELOAD is never passed on",
    ]


def test_an_operand_that_could_never_be_left_out(installed: Path) -> None:
    manifest = json.loads((installed / "good.json").read_text())
    operands = [{"name": name, "kind": "string", "positional": True, "required": name == "to"} for name in ("by", "to")]
    manifest["commands"][0]["arguments"] = operands
    (installed / "good.json").write_text(json.dumps(manifest))
    done = cfsctl("ext", "check", installed / "good", "--strict", "--", "store", "x", "y", status=1)
    assert "warning: manifest: store: by, which may be left out, comes before to, which may not\n" in done.stdout


def test_a_first_line_that_names_no_program(installed: Path) -> None:
    (installed / "good").write_text("#!/usr/bin/env\r\n")
    told = cfsctl("ext", "check", installed / "good", status=1).stdout
    assert "executed: No such file or directory (does its first line, #!, name a program that is installed, " in told


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
    ("sample", "seen", "number"),
    [
        ("p30waits", '"method": "output"', signal.SIGINT),
        ("p29deaf", '"method":"cancel"', signal.SIGINT),
        ("p29deaf", '"method":"cancel"', signal.SIGTERM),
    ],
    ids=["while it waits for ever", "while a run is cancelled anyway", "by SIGTERM"],
)
def test_ctrl_c_at_a_run_that_does_not_end(
    installed: Path, environment: Path, sample: str, seen: str, number: signal.Signals
) -> None:
    argv = [CFSCTL, "--progress", "none", "--trace", "ext", "check", str(installed / sample)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(seen in line for line in process.stderr)
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + number
    done = "interrupted" if number == signal.SIGINT else "terminated"
    assert errors.endswith(f"cfsctl: extension {sample} was {done}\n")
    assert list((environment / "tmp").iterdir()) == []
    assert not [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(installed / sample).encode() in _content(path).split(b"\0")
    ]


def test_a_signal_when_nothing_is_left_to_cancel(installed: Path, environment: Path) -> None:
    late = """
import time

class Late(Extension):
    def end(self):
        super().end()
        self.stage("late", "")
        time.sleep(3600)

Late().main()
"""
    (installed / "good").write_text((installed / "good").read_text().replace("Extension().main()", late))
    argv = [CFSCTL, "--progress", "none", "ext", "check", str(installed / "good")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not any("late" in names for _, _, names in os.walk(environment / "tmp")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.endswith("cfsctl: the check of good was terminated\n")


def test_runs_are_cancelled_where_ctrl_c_is_ignored(installed: Path) -> None:
    """As a shell's & has it in scripts."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    done = cfsctl("--trace", "ext", "check", installed / "good", preexec_fn=ignore)
    assert '"method":"cancel"' in done.stderr


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""


@contextmanager
def cancelled_check(installed: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Yield the check of an extension that does not mind being cancelled, just then; a warning was found before."""
    manifest = json.loads((installed / "p29deaf.json").read_text())
    (installed / "p29deaf.json").write_text(json.dumps({**manifest, "colour": "red"}))
    argv = [CFSCTL, "--progress", "none", "--trace", "ext", "check", str(installed / "p29deaf"), *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any('"method":"cancel"' in line for line in process.stderr)
        yield process


def test_ctrl_c_shows_what_was_found_so_far(installed: Path) -> None:
    with cancelled_check(installed) as process:
        process.send_signal(signal.SIGINT)
        report, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "cfsctl: extension p29deaf was interrupted")
    assert "      warning: manifest: Additional properties are not allowed ('colour' was unexpected)\n" in report
    assert "p29deaf was not checked to the end: " in report


def test_ctrl_c_shows_nothing_to_who_wants_json(installed: Path) -> None:
    """Nor does --trace, of what the extension has put out."""
    with cancelled_check(installed, "--json") as process:
        process.send_signal(signal.SIGINT)
        report, _ = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, report) == (130, "")


def test_ctrl_c_is_told_where_nobody_reads_the_report(installed: Path) -> None:
    """A pipe's other programs have been interrupted too."""
    with cancelled_check(installed) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        status = process.wait(TIMEOUT)
    assert (status, errors.splitlines()[-1]) == (130, "cfsctl: extension p29deaf was interrupted")


def test_what_comes_after_a_failure_is_not_run(installed: Path) -> None:
    """What it needs may be missing then, and that would be told too, perhaps before the cause."""
    manifest = json.loads((installed / "p5prints.json").read_text())
    words = ["store", "list", "fetch"]
    [store] = manifest["commands"]
    manifest["commands"] = [
        {**store, "name": [word], "examples": [{**store["examples"][0], "command": f"cfsctl p5prints {word}"}]}
        for word in words
    ]
    (installed / "p5prints.json").write_text(json.dumps(manifest))
    told = cfsctl("ext", "check", installed / "p5prints", status=1).stdout
    assert [line for line in told.splitlines() if line.startswith("$")] == ["$ cfsctl p5prints store"]
    assert told.endswith("\nnot run, as they may need what the one before publishes: 'list', 'fetch'\n")
    manifest["commands"][0]["repository"] = "read"
    (installed / "p5prints.json").write_text(json.dumps(manifest))
    told = cfsctl("ext", "check", installed / "p5prints", status=1).stdout
    assert "$ cfsctl p5prints list\n" in told
    assert told.endswith(": 'fetch'\n")


def test_what_comes_after_a_breach_that_does_no_harm_is_run(installed: Path) -> None:
    """It has published in both repositories by then, and each command has mistakes of its own."""
    manifest = json.loads((installed / "p40back.json").read_text())
    [store] = manifest["commands"]
    manifest["commands"] += [
        {**store, "name": [word], "examples": [{**store["examples"][0], "command": f"cfsctl p40back {word}"}]}
        for word in ("list", "fetch")
    ]
    (installed / "p40back.json").write_text(json.dumps(manifest))
    report = json.loads(cfsctl("ext", "check", installed / "p40back", "--json").stdout)
    words = ["store", "list", "fetch"]
    assert (report["commands"], report["unfinished"], report["skipped"], report["runs"]) == (words, words, [], 6)
    assert [rule["rule"] for rule in report["rules"] if rule["findings"]] == ["P-40"]


def test_times_of_files_of_examples_are_the_same_in_each_run(installed: Path) -> None:
    manifest = json.loads((installed / "good.json").read_text())
    [store] = manifest["commands"]
    store["arguments"] = [{"name": "tree", "kind": "path-read", "positional": True, "required": True}]
    store["examples"] = [{"command": "cfsctl good store .", "offline": True, "files": {"a/b.txt": "hello\n"}}]
    (installed / "good.json").write_text(json.dumps(manifest))
    (installed / "good").write_text(
        """#!/usr/bin/env python3
import os
from talk import Extension

class Tree(Extension):
    def publish(self, stream):
        with open("dump", "w") as dump:
            for name in "/", "/a", "/a/b.txt":
                info = os.stat(self.request["params"]["arguments"]["tree"] + name)
                mode = "100644" if "." in name else "40755"
                dump.write(f"{name} 0 {mode} 1 0 0 0 0.{info.st_mtime_ns % 10**9} - - -\\n")
        image = self.call("image.put", dump="dump")["id"]
        self.call("publish", images=[{"id": image, "ref": "good/image"}])
        super().publish(stream)

Tree().main()
"""
    )
    assert "good passes: " in cfsctl("ext", "check", installed / "good", "--strict").stdout


def test_what_an_ordinary_run_writes_to_standard_error_is_shown(installed: Path) -> None:
    good = installed / "good"
    good.write_text(good.read_text() + "import sys\nprint('at line 8,\\nuninitialized value', file=sys.stderr)\n")
    done = cfsctl("ext", "check", good, "--strict")
    told = "'store' goes well, and writes to standard error; is it meant? uninitialized value"
    assert done.stdout.splitlines()[-1] == told


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


def doubling(levels: int) -> dict[str, object]:
    """A schema of a few lines that is asked 2^levels times."""
    twice = [{"$ref": f"#/$defs/{level + 1}"} for level in range(levels) for _ in range(2)]
    steps = {str(level): {"allOf": twice[2 * level : 2 * level + 2]} for level in range(levels)}
    return {"$ref": "#/$defs/0", "$defs": {**steps, str(levels): {"type": "object"}}}


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"additionalProperties": {"pattern": "^([a-z0-9-]+)+!$"}}, id="a pattern that fits in many ways"),
        pytest.param(doubling(40), id="references that double"),
    ],
)
def test_a_result_schema_that_is_compared_without_end(installed: Path, schema: dict[str, object]) -> None:
    manifest = json.loads((installed / "good.json").read_text())
    manifest["commands"][0]["result_schema"] = schema
    (installed / "good.json").write_text(json.dumps(manifest))
    done = cfsctl("ext", "check", installed / "good", status=1)
    assert "the result: to compare it with its schema takes more than 5 seconds" in done.stdout


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
