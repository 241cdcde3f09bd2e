"""Interrupting what waits for a registry: it ends by itself, whatever it waits for, and leaves nothing."""

from __future__ import annotations

import fcntl
import gzip
import os
import signal
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands import TIMEOUT
from support.interrupting import Interrupted
from support.oci_hostile import Handler, hostile
from support.oci_layout import Layout, digest, tar

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
        run = Interrupted(tmp_path / "log", "--repo", repo, "oci", *words, "--tls-verify=false")
        assert asked.wait(TIMEOUT)
        if is_told:
            assert "HTTP status 429" in run.line()
        assert (
            run.end(number)
            == f"cfsctl: extension oci was {'interrupted' if number == signal.SIGINT else 'terminated'}\n"
        )
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


def test_waiting_for_an_archive_on_standard_input(tmp_path: Path, repo: Path) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, gzip.compress(LAYER)[:10])
    run = Interrupted(tmp_path / "log", "--repo", repo, "oci", "import-layer", digest(LAYER), stdin=ours)
    while any(fcntl.ioctl(ours, termios.FIONREAD, bytes(4))):
        assert run.process.poll() is None
    assert run.end() == "cfsctl: extension oci was interrupted\n"
    os.close(ours)
    os.close(theirs)
