"""What the conformance kit sees in conversations that no sample has: some are right although they look odd."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING, Any

import pytest

from composefs.cli.extension import parse
from composefs.errors import CancelledError
from composefs.ext import discovery, session
from composefs.ext.check.kit import Invocation, check
from composefs.ext.check.tap import Tap
from composefs.ext.options import Timeouts
from support.kit import kit, made

if TYPE_CHECKING:
    from pathlib import Path

    from composefs.ext.launch import Launched


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


def test_the_signal_that_comes_at_the_end_of_a_cancelled_run_is_told(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_over = Tap.left_over

    def terminated(tap: Tap) -> None:
        left_over(tap)
        if tap.interfered_at is not None:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Tap, "left_over", terminated)
    with pytest.raises(CancelledError, match="extension made was terminated") as caught:
        made(installed, "pass", 29)
    assert caught.value.exit_status == 128 + signal.SIGTERM


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


def test_progress_that_stands_still_passes(installed: Path) -> None:
    methods = """
        def put(self, name):
            self.notify("progress", kind="started", id="files", label="files", total=2)
            for done in (1, 1, 2, 2):
                self.notify("progress", kind="progress", id="files", done=done, total=2)
            return super().put(name)
    """
    report = made(installed, methods, 40)
    assert (report.state(40), report.findings) == ("pass", [])
