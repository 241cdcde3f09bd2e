"""Interrupting what waits for a registry: it ends by itself, whatever it waits for, and leaves nothing."""

from __future__ import annotations

import gzip
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands import CFSCTL, TIMEOUT
from support.oci_hostile import Handler, hostile
from support.oci_layout import Layout, digest, tar
from support.peers import require

LAYER = tar(file=b"content" * 500)
PULL = ("pull", "{image}", "app")
LIST_TAGS = ("list-tags", "docker://{host}/app")


def told_to_wait(handler: Handler) -> None:
    handler.answer(429, b"", {"Retry-After": "60"})


def unanswered(handler: Handler) -> None:
    handler.state.ending.wait(TIMEOUT)


def begun(handler: Handler) -> None:
    blob = handler.state.layout.blobs.get(handler.path.rpartition("/")[2], bytes(1000))
    handler.answer(200, blob[:1], {"Content-Type": "application/octet-stream"}, length=len(blob))
    unanswered(handler)


def refused_without_an_end(handler: Handler) -> None:
    handler.answer(500, b"{", length=1000)
    unanswered(handler)


def sent_for_a_token(handler: Handler) -> None:
    handler.answer(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{handler.state.host}/token"'})


def check(
    tmp_path: Path,
    repo: Path,
    command: tuple[str, ...],
    *rules: tuple[str, Callable[[Handler], None]],
    number: signal.Signals = signal.SIGINT,
    is_told: bool = False,
) -> None:
    """Interrupt a command that the registry keeps waiting by the last rule, and when the user ``is_told`` of that."""
    layout = Layout()
    layout.add(layout.image(LAYER))
    log = tmp_path / "signals"
    asked = threading.Event()
    with hostile(layout) as server:
        *others, (last, answer) = rules
        for place, rule in others:
            server.rule(place, rule)

        def answer_and_say_so(handler: Handler) -> None:
            asked.set()
            answer(handler)

        server.rule(last, answer_and_say_so)
        words = [word.format(image=server.image, host=server.host) for word in command]
        # Who does not end by itself in its time gets SIGTERM.  The process started is the command; strace is beside it.
        strace = [require("strace"), "-D", "-f", "-qqq", "-o", log, "-e", "trace=none", "-e", "signal=SIGTERM"]
        argv = [*strace, CFSCTL, "--repo", repo, "oci", *words, "--tls-verify=false"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert asked.wait(TIMEOUT)
            if is_told:
                assert process.stderr is not None
                assert "HTTP status 429" in process.stderr.readline()
            process.send_signal(number)
            out, told = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + number
    assert out == ""
    done = "interrupted" if number == signal.SIGINT else "terminated"
    assert told == f"cfsctl: extension oci was {done}\n"
    assert [line for line in log.read_text().splitlines() if not line.startswith(f"{process.pid} ")] == []
    assert list((repo / "streams").iterdir()) == []
    assert not (repo / "staging").exists() or list((repo / "staging").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_waiting_to_try_again(tmp_path: Path, repo: Path, number: signal.Signals) -> None:
    check(tmp_path, repo, PULL, ("/manifests/", told_to_wait), number=number, is_told=True)


@pytest.mark.parametrize("command", [PULL, LIST_TAGS], ids=lambda each: each[0])
@pytest.mark.parametrize("answer", [unanswered, begun, refused_without_an_end], ids=lambda each: each.__name__)
def test_waiting_for_a_document(
    tmp_path: Path, repo: Path, command: tuple[str, ...], answer: Callable[[Handler], None]
) -> None:
    check(tmp_path, repo, command, ("/v2/app/", answer))


def test_waiting_for_a_config(tmp_path: Path, repo: Path) -> None:
    check(tmp_path, repo, PULL, ("/blobs/", begun))


def test_waiting_for_referrers(tmp_path: Path, repo: Path) -> None:
    check(tmp_path, repo, (*PULL, "--referrers"), ("/referrers/", told_to_wait), is_told=True)
    check(tmp_path, repo, ("list-referrers", "{image}"), ("/referrers/", told_to_wait), is_told=True)


def test_waiting_for_a_token(tmp_path: Path, repo: Path) -> None:
    check(tmp_path, repo, PULL, ("/manifests/", sent_for_a_token), ("/token", told_to_wait), is_told=True)


@pytest.mark.parametrize("answer", [told_to_wait, begun], ids=lambda each: each.__name__)
def test_waiting_for_a_layer(tmp_path: Path, repo: Path, answer: Callable[[Handler], None]) -> None:
    check(tmp_path, repo, PULL, (digest(gzip.compress(LAYER, mtime=0)), answer))
