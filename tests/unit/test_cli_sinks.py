"""What the sinks of the command line write, and when."""

from __future__ import annotations

import io
import json
import threading

import pytest
from rich.console import Console

from composefs.cli import sinks
from composefs.cli.settings import Settings
from composefs.cli.sinks import MOST_THINGS, Bars, JsonLines, Lines, Messages, Output, Trace, sinks_for
from composefs.observe import Observers, Progress


def kinds(settings: Settings, *, json_result: bool = False) -> set[type]:
    found = sinks_for(settings.progress, settings.verbosity, trace=settings.trace, json=json_result)
    return {type(each) for each in found}


def test_a_pipe_gets_messages_and_output_only() -> None:
    assert kinds(Settings()) == {Messages, Output}


def test_lines_on_request_or_with_verbose() -> None:
    assert kinds(Settings(progress="plain")) == {Messages, Lines, Output}
    assert kinds(Settings(verbosity=1)) == {Messages, Lines, Output}


def test_json_progress_replaces_messages() -> None:
    assert kinds(Settings(progress="json")) == {JsonLines, Output}


def test_a_json_result_drops_output() -> None:
    assert Output not in kinds(Settings(), json_result=True)


def test_a_trace_does_without_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.isatty", lambda _: True)
    monkeypatch.setenv("TERM", "xterm")
    assert Bars in kinds(Settings())
    assert kinds(Settings(trace=True)) == {Messages, Trace, Output}
    assert kinds(Settings(trace=True, progress="bar")) == {Messages, Trace, Output}
    assert kinds(Settings(trace=True, progress="plain")) == {Messages, Lines, Trace, Output}
    assert kinds(Settings(trace=True, progress="json")) == {JsonLines, Trace, Output}
    assert Bars not in kinds(Settings(verbosity=-1))


def test_a_dumb_terminal_gets_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.isatty", lambda _: True)
    monkeypatch.setenv("TERM", "dumb")
    assert Bars not in kinds(Settings())


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [(-1, ["error: e"]), (0, ["warning: w", "error: e"]), (1, ["i", "warning: w", "error: e"])],
)
def test_messages_by_level(capfd: pytest.CaptureFixture[str], verbosity: int, shown: list[str]) -> None:
    observers = Observers(Messages(verbosity))
    observers.log("debug", "d")
    observers.log("info", "i")
    observers.log("warning", "w")
    observers.log("error", "e")
    assert capfd.readouterr().err.splitlines() == shown


def test_messages_are_harmless_lines(capfd: pytest.CaptureFixture[str]) -> None:
    Observers(Messages(0)).log("warning", "\x1b[2Jone\ntwo")
    assert capfd.readouterr().err == "warning: one two\n"


def test_lines_say_start_and_end_and_not_every_step(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composefs.cli.sinks.LINE_EVERY", 1e9)  # the machine may stand still here for a while
    observers = Observers(Lines())
    observers.progress(Progress("a", "started", total=2048, unit="bytes", label="fetching"))
    for done in range(1000):
        observers.progress(Progress("a", "progress", done, 2048, "bytes", "fetching"))
    observers.progress(Progress("a", "done", 2048, 2048, "bytes", "fetching"))
    observers.progress(Progress("b", "skipped"))
    assert capfd.readouterr().err.splitlines() == [
        "fetching: started 2.0 KiB",
        "fetching: done 2.0 KiB/2.0 KiB",
        "b: skipped",
    ]


def test_lines_tell_now_and_then_how_far_it_is(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composefs.cli.sinks.LINE_EVERY", 0.0)
    lines = Lines()
    for done in range(3):
        lines.progress(Progress("a", "progress", done, 3))
    assert capfd.readouterr().err == "a: 0/3\na: 1/3\na: 2/3\n"


def test_lines_forget_invented_ids() -> None:
    lines = Lines()
    observers = Observers(lines)
    for number in range(3 * MOST_THINGS):
        observers.progress(Progress(str(number), "done"))
    assert len(lines._said) <= MOST_THINGS


def test_json_lines(capfd: pytest.CaptureFixture[str]) -> None:
    observers = Observers(JsonLines(0))
    observers.progress(Progress("a", "progress", 1, None, "items", "x\ny"))
    observers.log("warning", "w\x1b")
    observers.log("info", "not asked for")
    assert [json.loads(line) for line in capfd.readouterr().err.splitlines()] == [
        {"event": "progress", "id": "a", "kind": "progress", "done": 1, "unit": "items", "label": "x\ny"},
        {"event": "log", "level": "warning", "message": "w\x1b"},
    ]


def test_output_to_a_pipe_is_byte_for_byte(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Observers(Output()).output(b"\xff\x1b[0m\x00")
    assert capfdbinary.readouterr().out == b"\xff\x1b[0m\x00"


def test_observers_without_sinks_are_silent() -> None:
    observers = Observers()
    assert not observers.tracing
    observers.progress(Progress("a", "done"))
    observers.output(b"lost")
    observers.close()


def test_bars_do_not_ask_for_a_trace() -> None:
    assert not Observers(Messages(0), Output(), Bars(0)).tracing


def test_tracing_is_known_before_anything_is_formatted(capfd: pytest.CaptureFixture[str]) -> None:
    observers = Observers(Trace())
    assert observers.tracing
    observers.trace("->", '{"method": "run"}\x9b2J')
    assert capfd.readouterr().err == '-> {"method": "run"}\n'


def wait_for_bars() -> None:
    """Return when they have appeared, which they do in a thread of their own."""
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()


class Screen:
    """What a terminal would show of bars."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        self.bars: dict[int, tuple[object, ...]] = {}
        self.added = 0
        self.is_shown = False

    def start(self) -> None:
        self.is_shown = True

    def stop(self) -> None:
        self.is_shown = False

    def add_task(self, *_arguments: object, **_options: object) -> int:
        self.added += 1
        return self.added

    def remove_task(self, number: int) -> None:
        del self.bars[number]

    def update(self, number: int, *, description: str, total: int, completed: int, count: str) -> None:
        self.bars[number] = (description, completed, total, count)


def test_bars_go_with_their_work_and_for_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screens: list[Screen] = []
    monkeypatch.setattr("rich.progress.Progress", lambda *_, **__: screens.append(Screen()) or screens[-1])
    monkeypatch.setattr(sinks, "BARS_AFTER", 0.0)
    monkeypatch.setattr(sinks, "MOST_BARS", 2)
    bars = Bars(0)
    bars.progress(Progress("a", "started", label="first"))
    wait_for_bars()
    bars.progress(Progress("b", "progress", 1, 4))
    bars.progress(Progress("c", "started"))  # for which there is no room
    bars.progress(Progress("b", "progress", 2, 4))
    [screen] = screens
    assert list(screen.bars.values()) == [("first", 0, None, ""), ("b", 2, 4, "2/4")]
    bars.progress(Progress("a", "done"))
    bars.progress(Progress("b", "skipped"))
    bars.progress(Progress("c", "done"))
    assert screen.bars == {}
    bars.progress(Progress("d", "progress", 1))
    bars.log("info")  # which is not shown
    assert (screen.is_shown, list(screen.bars.values())) == (True, [("d", 1, None, "1")])
    for make_room in (lambda: bars.log("warning"), bars.output, bars.close):
        make_room()
        assert not screens[-1].is_shown
        bars.progress(Progress("d", "progress", 2))
        wait_for_bars()
        assert (screens[-1].is_shown, list(screens[-1].bars.values())) == (True, [("d", 2, None, "2")])
    assert len(screens) == 4
    bars.close()


def test_a_label_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rich would take for colours, too: it is a path or an extension's."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=200)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    monkeypatch.setattr(sinks, "BARS_AFTER", 0.0)
    bars = Bars(0)
    bars.progress(Progress("a", "started", label="/srv/[/x] [red]tree"))
    wait_for_bars()
    bars.close()
    assert "/srv/[/x] [red]tree" in shown.getvalue()


@pytest.mark.parametrize(
    ("lacking", "error"),
    [
        ("rich.live._RefreshThread.start", RuntimeError("can't start new thread")),
        ("rich.progress.Progress.__init__", MemoryError()),
    ],
    ids=["the thread that keeps it moving", "memory"],
)
def test_work_goes_on_without_what_a_bar_takes(monkeypatch: pytest.MonkeyPatch, lacking: str, error: Exception) -> None:
    refused: list[bool] = []

    def refuse(*_arguments: object, **_options: object) -> None:
        refused.append(True)
        raise error

    fallen: list[object] = []
    monkeypatch.setattr(lacking, refuse)
    monkeypatch.setattr(sinks, "BARS_AFTER", 0.0)
    monkeypatch.setattr("threading.excepthook", fallen.append)
    bars = Bars(0)
    bars.progress(Progress("a", "started"))
    wait_for_bars()
    bars.progress(Progress("a", "done"))
    bars.close()
    assert refused
    assert not fallen
