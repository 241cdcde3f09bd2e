"""What a broken or hostile extension can do to the core: nothing but fail with one clear line."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from composefs.errors import CancelledError, ComposefsError, ExtensionError, NotFoundError, ProtocolError, TooLargeError
from composefs.ext import calls, patience
from composefs.ext.options import RunOptions, Stdio, Timeouts
from composefs.protocol.limits import Limits
from support.calls import HELLO, HELLO_WORLD, KIND, call
from support.commands import CFSCTL, TIMEOUT, cfsctl
from support.hosting import PATIENT, QUICK, Host

FATAL = [
    ("P-30", "killed", ExtensionError, "extension bad was killed by SIGKILL without a result"),
    ("P-30", "exits", ExtensionError, "extension bad exited with status 0 without a result"),
    ("P-30", "fails", ExtensionError, "extension bad exited with status 3 without a result"),
    ("P-30", "half-a-message", ExtensionError, "exited with status 0 without a result"),
    ("P-30", "closes-stdout", ExtensionError, "closed its standard output .* until it was killed by SIGTERM"),
    ("P-5", "rubbish", ProtocolError, "not a JSON message .*Downloading"),
    ("P-1", "not-an-object", ProtocolError, "not a JSON object"),
    ("P-1", "batch", ProtocolError, "not a JSON object"),
    ("P-3", "no-version", ProtocolError, "jsonrpc"),
    ("P-1", "not-utf8", ProtocolError, "not UTF-8 at byte 68"),
    ("P-4", "deep", ProtocolError, "nested too deep|nested more than 32 deep"),
    ("P-4", "rather-deep", ProtocolError, "nested more than 32 deep"),
    ("P-4", "huge-integer", ProtocolError, "9007199254740992 is beyond"),
    ("P-4", "nan", ProtocolError, "NaN is not JSON"),
    ("P-4", "infinite", ProtocolError, "1e999 is beyond"),
    ("P-2", "long-line", ProtocolError, "longer than 1048576 bytes"),
    ("P-2", "endless-line", ProtocolError, "longer than 1048576 bytes"),
    ("P-8", "too-many-calls", ProtocolError, "more than 64 calls are unanswered"),
    ("P-11", "publish-without-id", ProtocolError, "publish was sent without an id"),
    ("P-6", "wrong-answer", ProtocolError, "an id that was not asked for: 99"),
    ("P-6", "text-id", ProtocolError, "is not an integer"),
    ("P-6", "null-id", ProtocolError, "is not an integer"),
    ("P-3", "no-params", ProtocolError, "'stream.list' was sent without params"),
    ("P-3", "result-is-a-list", ProtocolError, "neither an error nor an object"),
    ("P-3", "result-and-error", ProtocolError, "an answer has both a result and an error"),
    ("P-3", "method-is-a-number", ProtocolError, "method is not a string"),
    ("P-26", "status-seven", ProtocolError, "a status that is neither 0 nor 1"),
    ("P-26", "status-true", ProtocolError, "a status that is neither 0 nor 1"),
]


@pytest.mark.parametrize(("rule", "how", "error", "message"), FATAL, ids=[f"{row[0]}-{row[1]}" for row in FATAL])
def test_fatal_breach_ends_the_run_and_leaves_nothing(
    host: Host, rule: str, how: str, error: type[ComposefsError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        host.misbehave(how, timeouts=PATIENT._replace(terminate=0.2) if how == "closes-stdout" else PATIENT)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 10
    host.assert_clean()


@pytest.mark.parametrize(
    ("before", "error", "message"),
    [
        ("silent", ExtensionError, "did not answer initialize in 0.3 seconds"),
        ("early-call", ProtocolError, "before initialize was answered"),
        ("other-version", ProtocolError, r"picked protocol version 2, and on offer are \[1\]"),
        ("version-as-text", ProtocolError, r"picked protocol version '1', and on offer are \[1\]"),
        ("unknown-feature", ProtocolError, "a feature that was not offered"),
        ("features-as-a-number", ProtocolError, "a feature that was not offered"),
    ],
)
def test_initialize_must_be_answered_well(
    host: Host, monkeypatch: pytest.MonkeyPatch, before: str, error: type[ComposefsError], message: str
) -> None:
    """P-25, P-6, P-10."""
    monkeypatch.setenv("BAD_BEFORE", before)
    timeouts = QUICK._replace(initialize=0.3) if before == "silent" else QUICK
    with pytest.raises(error, match=message):
        host.misbehave("exits", timeouts=timeouts)
    host.assert_clean()


def test_time_in_which_everything_is_stopped_does_not_count(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-25: the machine slept, or somebody looked at the core with a debugger."""
    monkeypatch.setenv("BAD_BEFORE", "waits")
    core = os.fork()
    if core == 0:
        with suppress(BaseException):
            host.do(["welcome"], timeouts=Timeouts(8, 8, 8))
            os._exit(0)
        os._exit(1)
    while not (waiting := list((host.path / "staging").glob("*/work/waiting"))):
        time.sleep(0.01)
    [extension] = map(int, Path(f"/proc/{core}/task/{core}/children").read_text().split())
    for pid in (core, extension):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(8.5)
    waiting[0].with_name("go on").touch()
    for pid in (core, extension):
        os.kill(pid, signal.SIGCONT)
    assert os.waitpid(core, 0)[1] == 0
    host.assert_nothing_left()


@pytest.mark.parametrize(
    ("mode", "reason", "hint"),
    [
        (None, "No such file or directory", "a program that is installed"),
        (0o644, "Permission denied", "may the user that it runs as execute it"),
    ],
    ids=["there is none", "nobody may execute it"],
)
def test_executable_whose_interpreter_cannot_run(
    host: Host, tmp_path: Path, mode: int | None, reason: str, hint: str
) -> None:
    interpreter = tmp_path / "interpreter"
    if mode is not None:
        interpreter.touch(mode)
    Path(host.extension.executable).write_text(f"#!{interpreter}\n")
    with pytest.raises(ExtensionError, match=f"could not be executed: {reason}$") as caught:
        host.misbehave("exits")
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    host.assert_clean()


@pytest.mark.parametrize(
    ("mode", "status", "hint"),
    [
        (None, 127, "is what it starts installed, and the program that the first line of that, #!, names?"),
        (0o644, 126, "may the user that it runs as execute what it starts, and the program that the first line of"),
    ],
    ids=["there is none", "nobody may execute it"],
)
def test_launcher_whose_program_cannot_run(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int | None, status: int, hint: str
) -> None:
    if mode is not None:
        (tmp_path / "program").touch(mode)
    Path(host.extension.executable).write_text(f"#!/bin/sh\nexec {tmp_path}/program\n")
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(host.search))
    told = cfsctl("--repo", host.path, "bad", "write", "--steps", "[]", status=10).stderr
    assert f"cfsctl: extension bad exited with status {status} without a result ({hint}" in told


def test_repository_out_of_reach_is_no_matter_of_the_first_line(host: Host, tmp_path: Path) -> None:
    assert os.geteuid() == 0, "only root can run extensions as another user"
    tmp_path.chmod(0o700)
    options = RunOptions(account="nobody")
    with pytest.raises(ExtensionError, match=r"/work is out of reach for nobody$") as caught:
        host.misbehave("exits", options=options)
    assert caught.value.hint is None
    host.assert_clean()


def test_error_of_the_extension_is_taken_over_and_harmless_to_a_terminal(host: Host) -> None:
    """P-35."""
    with pytest.raises(NotFoundError, match="no such thing \ufffd") as caught:
        host.misbehave("answers-an-error")
    assert (caught.value.hint, caught.value.subject, caught.value.causes) == ("look elsewhere", "thing", ("404",))
    host.assert_clean()


def test_interrupt_reaches_an_extension_that_ignores_everything(host: Host) -> None:
    """P-29."""
    with pytest.raises(CancelledError, match="interrupted") as caught:
        host.misbehave("deaf", timeouts=QUICK)
    assert caught.value.exit_status == 130
    host.assert_clean()


def test_second_interrupt_kills_at_once(host: Host) -> None:
    with pytest.raises(CancelledError):
        host.misbehave("interrupts-twice", timeouts=PATIENT)
    host.assert_clean()


def test_long_calls_after_an_interrupt_give_no_more_time(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-29: what the core does for the extension takes the extension's time."""
    served = 0

    def slow(_context: object, _params: object) -> dict[str, Any]:
        nonlocal served
        served += 1
        time.sleep(0.1)
        return {"present": []}

    monkeypatch.setitem(calls.CALLS, "object.has", calls.Call(slow, "read"))
    monkeypatch.setattr(patience, "STEP", 0.01)
    with pytest.raises(CancelledError):
        host.misbehave("calls-after-cancel", timeouts=Timeouts(initialize=300, terminate=0.5, kill=0.5))
    assert 0 < served < 20
    host.assert_clean()


def test_calls_of_the_dead_keep_nobody_from_an_interrupt(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    served = 0

    def has(_context: object, _params: object) -> dict[str, Any]:
        nonlocal served
        served += 1
        os.waitid(os.P_PID, int(host.pids.read_text()), os.WEXITED | os.WNOWAIT)
        if served == 1:  # a second one would end the process
            signal.raise_signal(signal.SIGINT)
        return {"present": []}

    monkeypatch.setitem(calls.CALLS, "object.has", calls.Call(has, "read"))
    with pytest.raises(CancelledError):
        host.misbehave("calls-and-dies")
    assert served == 1
    host.assert_clean()


def test_signal_handlers_are_restored(host: Host) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    host.do()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_orphans_come_to_us_only_while_an_extension_runs(host: Host) -> None:
    host.do()
    get_child_subreaper, adopts = 37, ctypes.c_int(-1)
    assert ctypes.CDLL(None).prctl(get_child_subreaper, ctypes.byref(adopts), 0, 0, 0) == 0
    assert adopts.value == 0


def test_nothing_can_be_stored_after_an_interrupt(host: Host) -> None:
    """P-28."""
    with pytest.raises(CancelledError):
        host.do(
            ["write", "a", "a"],
            ["interrupt"],
            ["call", "object.put", {"files": [{"name": "a"}]}],
            ["call", "publish", {"streams": []}],
        )
    answers = [line for direction, line in host.recorder.traces if direction == "->" and '"error"' in line]
    assert len(answers) == 2
    assert all('"kind":"cancelled"' in line for line in answers)
    host.assert_clean()


def test_long_work_ends_with_an_interrupt(host: Host) -> None:
    """P-28: checking, printing, and writing into a pipe that nobody empties."""
    stream = host.do(*HELLO_WORLD, call("stream.put", content_type=KIND, object_refs=[HELLO], chunks=[0]))[-1]["id"]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while os.write(writing, bytes(4096)):
            pass
    with pytest.raises(CancelledError):
        host.do(
            ["write", "text", "hello"],
            ["interrupt"],
            call("repo.fsck"),
            call("output", file="text"),
            call("stream.cat", id=stream, stdout=True),
            stdio=Stdio(stdout=writing),
        )
    os.close(reading)
    os.close(writing)
    answers = [line for direction, line in host.recorder.traces if direction == "->" and '"error"' in line]
    assert [answer.count('"kind":"cancelled"') for answer in answers] == [1, 1, 1]
    assert host.recorder.outputs == []


def test_processes_that_cannot_be_ended_are_told_of(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composefs.ext.process._MAX_REAP_ROUNDS", 0)
    with pytest.raises(ExtensionError, match="keeps starting processes"):
        host.do(["welcome"])


@pytest.mark.parametrize("how", ["leaves-a-child", "leaves-a-daemon", "leaves-a-tracer"])
def test_what_is_left_behind_is_killed(host: Host, how: str) -> None:
    """P-29."""
    assert host.misbehave(how).status == 0
    assert host.pids.read_text()
    assert [
        level for level, message in host.recorder.logs if "left processes behind, which were killed (1)" in message
    ] == ["warning"]
    host.assert_clean()


def test_daemon_that_holds_the_pipe_does_not_keep_the_core_waiting(host: Host) -> None:
    with pytest.raises(ExtensionError, match="exited with status 0 without a result"):
        host.misbehave("dies-leaving-a-daemon", timeouts=PATIENT)
    host.assert_clean()


def test_result_waits_for_the_answers_of_earlier_calls(host: Host) -> None:
    """P-26."""
    assert host.misbehave("result-before-answers").status == 0
    assert host.pids.read_text().split() == [str(number) for number in range(10)]
    host.pids.unlink()
    host.assert_clean()


def test_death_with_answers_unread_is_noticed(host: Host) -> None:
    """P-30: megabytes of answers wait, and what it left behind holds both pipes open."""
    with pytest.raises(ExtensionError, match="exited with status 0 without a result"):
        host.misbehave("dies-with-answers-unread")
    host.assert_clean()


def test_failure_after_the_result_is_a_warning(host: Host) -> None:
    assert host.misbehave("fails-after-result").status == 0
    assert ("warning", "extension bad exited with status 3 after its result") in host.recorder.logs


def test_extension_that_stays_after_its_result_is_ended(host: Host) -> None:
    """P-29."""
    assert host.misbehave("stays-after-result", timeouts=QUICK).status == 0
    assert ("warning", "extension bad was killed by SIGKILL after its result") in host.recorder.logs
    host.assert_clean()


def test_log_is_capped(host: Host) -> None:
    """P-33."""
    host.misbehave("floods-log", limits=Limits(log_lines=100))
    assert host.recorder.logs[:100] == [("info", "m")] * 100
    assert host.recorder.logs[100:] == [("warning", "bad logs too much; further messages are dropped")]


def test_progress_is_coalesced(host: Host) -> None:
    """P-33."""
    host.misbehave("floods-progress", limits=Limits(progress_per_second=1))
    assert host.recorder.events[0].done == 0
    assert host.recorder.events[-1].kind == "done"
    assert len(host.recorder.events) < 1000


def test_staging_is_bounded(host: Host) -> None:
    """P-17."""
    with pytest.raises(TooLargeError, match="staged more than 100 files"):
        host.misbehave("stuffs-staging", limits=Limits(staging_files=100))
    host.assert_clean()


def test_progress_counts_in_whole_numbers(host: Host) -> None:
    answers = host.do(
        *(call("progress", id="a", kind="progress", done=each) for each in (-1, "1", True)),
        call("progress", id="a", kind="progress", done=0, total=0),
        strict=False,
    )
    assert [answer.get("code") for answer in answers] == [-32602] * 3 + [None]


def test_bytes_in_staging_are_bounded(host: Host) -> None:
    """P-17."""
    with pytest.raises(TooLargeError, match="staged more than 65536 bytes"):
        host.misbehave("fills-staging", limits=Limits(staging_bytes=1 << 16))
    host.assert_clean()


def test_staging_has_no_place_to_hide(host: Host) -> None:
    """P-17: below this path is too long for anybody to count what lies there."""
    with pytest.raises(TooLargeError, match="what the extension staged cannot be counted: File name too long"):
        host.misbehave("stuffs-out-of-sight")
    host.assert_clean()


def test_extension_that_reads_no_answers_is_not_waited_for(host: Host) -> None:
    """P-8: its pipe is full, and an interrupt still gets through to it as a signal."""
    core = os.getpid()

    def interrupt() -> None:
        """Press Ctrl-C when the extension has made all its calls, of which it reads no answer."""
        while not host.pids.exists():
            time.sleep(0.01)
        os.kill(core, signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(CancelledError):
        host.misbehave("reads-nothing", timeouts=QUICK)
    thread.join()
    host.pids.unlink()
    host.assert_clean()


def test_the_command_shows_a_long_line_where_it_was_cut_short(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The beginning of such a line is right: the next message stands where the rest of the first is missing."""
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(host.search))
    done = cfsctl("--repo", host.path, "bad", "misbehave", "cut-short", "--pids", host.pids, status=10)
    assert 'x{"jsonrpc": "2.0"' in done.stderr
    assert len(done.stderr) < 300


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        ("rubbish", 10, "cfsctl: extension bad broke the protocol: a line on standard output is not a JSON message"),
        ("long-line", 10, "cfsctl: extension bad broke the protocol: a message is longer than 1048576 bytes"),
        ("too-many-calls", 10, "cfsctl: extension bad broke the protocol: more than 64 calls are unanswered"),
        ("never-initializes", 10, "cfsctl: extension bad did not answer initialize in 10 seconds"),
        ("killed", 10, "cfsctl: extension bad was killed by SIGKILL without a result"),
        ("answers-an-error", 3, "cfsctl: no such thing"),
        ("answers-an-odd-error", 1, "cfsctl: odd"),
        ("answers-a-blank-error", 1, "cfsctl: the extension gave no reason"),
        ("leaves-a-daemon", 0, "warning: extension bad left processes behind, which were killed (1)"),
    ],
)
def test_installed_command_says_one_line_and_the_right_status(
    host: Host, monkeypatch: pytest.MonkeyPatch, how: str, status: int, line: str
) -> None:
    """What the user sees of each way to break a run; the silent one takes the ten seconds that it is given."""
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(host.search))
    if how == "never-initializes":
        monkeypatch.setenv("BAD_BEFORE", "silent")
    done = cfsctl("--repo", host.path, "bad", "misbehave", how, "--pids", host.pids, status=status)
    assert done.stdout == ""
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    host.assert_clean()


def test_output_that_nobody_gets_fails_the_run(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extension does not wait for the answer, goes on with output that is none, and says that all went well."""
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(host.search))
    steps = json.dumps([["notify", "output", {"text": "x"}], ["notify", "output", {}]])
    with open("/dev/full", "wb") as full:
        argv = [CFSCTL, "--repo", str(host.path), "bad", "read", "--steps", steps]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 8, done
    assert done.stderr.startswith("cfsctl: writing ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("how", ["patient", "deaf"])
def test_interrupt_of_the_installed_command(host: Host, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(host.search))
    argv = [CFSCTL, "--repo", str(host.path), "bad", "misbehave", how]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        objects = host.path / "objects"
        while not any(objects.iterdir()) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert errors == "cfsctl: extension bad was interrupted\n"
    host.assert_clean()


def test_the_two_signals_of_a_session_that_ends_leave_time_to_clean_up(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(host.search))
    argv = [CFSCTL, "--repo", str(host.path), "bad", "misbehave", "cleans-up"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        objects = host.path / "objects"
        while not any(objects.iterdir()) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode in {128 + signal.SIGTERM, 128 + signal.SIGHUP}
    assert errors == "cleaned up\ncfsctl: extension bad was terminated\n"
    host.assert_clean()


def test_killing_the_core_kills_the_extension(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """P-36: also one that does not read, and so does not see the end of its input."""
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(host.search))
    argv = [CFSCTL, "--repo", str(host.path), "bad", "misbehave", "patient"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        while not any((host.path / "staging").glob("*/work/waiting")) and process.poll() is None:
            time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        pidfd = os.pidfd_open(int(children[0]))
        process.kill()
        process.wait()
    assert select.select([pidfd], [], [], TIMEOUT)[0]
    os.close(pidfd)
