"""The SDK's conversation with the core, over real pipes, with this module as the core."""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from composefs_ext.connection import Connection
from composefs_ext.core import Core
from composefs_ext.errors import CancelledError, CoreGoneError, CorruptError, NotFoundError, ProtocolError
from composefs_ext.protocol import UNANSWERED
from composefs_ext.staging import Staging


class Peer:
    """The core's end: reads calls and writes what a test wants."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.calls: BinaryIO = os.fdopen(read_fd, "rb")
        self.out: BinaryIO = os.fdopen(write_fd, "wb", buffering=0)

    def read(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.calls.readline())
        return message

    def write(self, **members: Any) -> None:
        self.out.write(json.dumps({"jsonrpc": "2.0", **members}).encode() + b"\n")

    def answer_next(self) -> dict[str, Any]:
        call = self.read()
        self.write(id=call["id"], result={"echo": call["method"]})
        return call


@pytest.fixture
def ends() -> Iterator[tuple[Core, Peer]]:
    ext_read, core_write = os.pipe()
    core_read, ext_write = os.pipe()
    peer = Peer(core_read, core_write)
    yield Core(ext_read, ext_write), peer
    peer.calls.close()
    peer.out.close()
    os.close(ext_read)
    os.close(ext_write)


def test_calls_are_sent_before_their_answers_come(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    first, second = connection.send("a"), connection.send("b", {"x": 1})
    assert not first.done
    assert not second.done
    peer.answer_next()
    assert peer.answer_next()["params"] == {"x": 1}
    assert second.result() == {"echo": "b"}
    assert first.done
    assert first.result() == {"echo": "a"}


def test_an_error_is_raised_by_the_result_of_its_call(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    pending = connection.send("ref.get")
    data = {"kind": "not_found", "hint": "look elsewhere", "retryable": True, "causes": ["a", "b"], "new": 1}
    peer.write(id=peer.read()["id"], error={"code": -32000, "message": "no such ref", "data": data})
    with pytest.raises(NotFoundError, match="no such ref") as caught:
        pending.result()
    assert (caught.value.hint, caught.value.retryable, caught.value.causes) == ("look elsewhere", True, ("a", "b"))
    connection.drain()  # it was seen, so the run does not fail because of it


def test_an_error_that_nobody_asked_about_fails_the_run(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    connection.send("publish")
    peer.write(id=peer.read()["id"], error={"code": -32000, "message": "no", "data": {"kind": "not_found"}})
    with pytest.raises(NotFoundError):
        connection.drain()


def test_what_is_not_there_is_none_to_who_asks_so_and_fails_no_run(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    here, gone, bad = (connection.send("stream.get") for _ in range(3))
    peer.answer_next()
    for kind in ("not_found", "corrupt"):
        peer.write(id=peer.read()["id"], error={"code": -32000, "message": "no", "data": {"kind": kind}})
    assert here.found() == {"echo": "stream.get"}
    assert gone.found() is None
    with pytest.raises(CorruptError):
        bad.found()
    connection.drain()


@pytest.mark.parametrize("when", ["before its answer", "behind its answer"])
def test_an_optional_answer_fails_whoever_asks_and_not_the_run(ends: tuple[Connection, Peer], when: str) -> None:
    connection, peer = ends
    pending = connection.send("stream.get")
    if when == "before its answer":
        assert pending.optional() is pending
    peer.write(id=peer.read()["id"], error={"code": -32000, "message": "no", "data": {"kind": "not_found"}})
    while not pending.done:
        connection.pump(None)
    if when == "behind its answer":
        pending.optional()
    connection.drain()
    with pytest.raises(NotFoundError):
        pending.result()


def test_the_window_is_never_exceeded(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    sent = [connection.send("x") for _ in range(UNANSWERED)]
    assert not any(each.done for each in sent)
    for _ in range(3):
        peer.answer_next()
    sent.append(connection.send("y"))  # would be one too many, had it not read the answers first
    assert [each.done for each in sent] == [True] * 3 + [False] * (UNANSWERED - 2)


def test_what_another_core_offers_and_allows(ends: tuple[Core, Peer], tmp_path: Path) -> None:
    """Of its features those are taken that are known here; of its calls fewer may be under way."""
    core, peer = ends
    offered = {"versions": [1, 2], "features": ["future", "packs"], "limits": {"unanswered": 2}}
    assert core.accept({**offered, "staging": str(tmp_path)}) == {"version": 1, "features": ["packs"]}
    sent = [core.send("x") for _ in range(2)]
    peer.answer_next()
    sent.append(core.send("y"))
    assert [each.done for each in sent] == [True, False, False]


def test_send_reads_answers_while_the_core_does_not_read(ends: tuple[Connection, Peer]) -> None:
    """The core answers each call with more than a pipe holds, and reads the next only when that answer is taken."""
    connection, peer = ends
    padding = "x" * 200_000
    count = 20

    def core() -> None:
        for _ in range(count):
            call = peer.read()
            peer.write(id=call["id"], result={"padding": padding})

    thread = threading.Thread(target=core)
    thread.start()
    pending = [connection.send("x", {"padding": padding}) for _ in range(count)]
    assert [len(one.result()["padding"]) for one in pending] == [len(padding)] * count
    thread.join()


def test_a_select_loop_sees_all_that_has_arrived(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    pending = [connection.send("x") for _ in range(5)]
    assert select.select([connection], [], [], 0)[0] == []
    for _ in pending:
        peer.answer_next()
    assert select.select([connection], [], [], 0)[0] == [connection]
    connection.pump()
    assert all(one.done for one in pending)
    assert select.select([connection], [], [], 0)[0] == []


def test_cancel_is_raised_once_and_cleaning_up_may_still_call(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    pending = connection.send("x")
    peer.write(method="cancel", params={})
    with pytest.raises(CancelledError):
        pending.result()
    assert connection.cancelled
    peer.answer_next()
    assert pending.result() == {"echo": "x"}


def test_the_core_going_away_is_told_from_a_cancel(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    pending = connection.send("x")
    peer.out.close()
    with pytest.raises(CoreGoneError):
        pending.result()
    with pytest.raises(CoreGoneError):
        connection.send("y")


def test_a_core_that_reads_no_more_is_gone(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    peer.calls.close()
    with pytest.raises(CoreGoneError):
        connection.send("x")


def test_an_unknown_call_of_the_core_is_unsupported_and_an_unknown_notification_is_nothing(
    ends: tuple[Connection, Peer],
) -> None:
    connection, peer = ends
    peer.write(method="new.notification", params={})
    peer.write(id=7, method="new.call", params={})
    connection.pump(1)
    answer = peer.read()
    assert (answer["id"], answer["error"]["code"]) == (7, -32000)
    assert answer["error"]["data"]["kind"] == "unsupported"


@pytest.mark.parametrize(
    "line", [b"rubbish\n", b'{"id":99,"result":{}}\n', b'{"id":1,"result":3}\n', b'{"id":1}\n'], ids=str
)
def test_a_core_that_breaks_the_rules_is_a_protocol_error(ends: tuple[Connection, Peer], line: bytes) -> None:
    connection, peer = ends
    pending = connection.send("x")
    peer.out.write(line)
    with pytest.raises(ProtocolError):
        pending.result()


def test_an_answer_to_nothing_is_a_protocol_error(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    peer.write(id=1, result={})
    with pytest.raises(ProtocolError):
        connection.pump(None)


def test_strict_mode_sends_a_stray_field(ends: tuple[Connection, Peer]) -> None:
    connection, peer = ends
    connection.stray_field = True
    connection.send("x", {"a": 1})
    params = peer.read()["params"]
    assert params.pop("a") == 1
    assert len(params) == 1


def test_a_list_may_come_inline_although_a_file_was_named(ends: tuple[Core, Peer], tmp_path: Path) -> None:
    """As from an older core, which knows no file for this list."""
    core, peer = ends
    core.staging = Staging(str(tmp_path))
    inline, in_file = core.ref_list("a"), core.ref_list("b")
    peer.write(id=peer.read()["id"], result={"refs": [{"name": "a/a"}]})
    call = peer.read()
    (tmp_path / call["params"]["refs_into"]).write_text('{"name":"b/b"}\n')
    peer.write(id=call["id"], result={})
    assert inline.result() == [{"name": "a/a"}]
    assert in_file.result() == [{"name": "b/b"}]
