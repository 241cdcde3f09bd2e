"""Framing and JSON of the protocol, byte by byte."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composefs.errors import KINDS, ComposefsError, NotFoundError, ProtocolError, UnsupportedError, UsageError
from composefs.ext.channel import Channel
from composefs.ext.limiter import ProgressLimiter
from composefs.ext.trace import redact
from composefs.observe import Observers
from composefs.protocol.errors import from_wire, printable, row_error, to_wire
from composefs.protocol.limits import MAX_DEPTH, MAX_INTEGER, Limits
from composefs.protocol.wire import LineReader, decode, depth_exceeds, encode, parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(st.binary(max_size=50).map(lambda line: line.replace(b"\n", b"")), max_size=10), st.data())
def test_lines_do_not_depend_on_how_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines) + b"rest"
    reader = LineReader(100)
    found: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == lines
    assert reader.feed(b"\n") == [b"rest"]


@pytest.mark.parametrize("chunks", [[b"x" * 10], [b"x" * 5, b"x" * 5], [b"x" * 10 + b"\n"], [b"a\n" + b"x" * 10]])
def test_line_of_the_limit_is_too_long_as_its_newline_counts(chunks: list[bytes]) -> None:
    reader = LineReader(10)
    for chunk in chunks[:-1]:
        reader.feed(chunk)
    with pytest.raises(ProtocolError, match="longer than 10 bytes"):
        reader.feed(chunks[-1])


def test_line_just_below_the_limit_passes() -> None:
    assert LineReader(10).feed(b"x" * 9 + b"\n") == [b"x" * 9]


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_messages_round_trip_in_ascii_on_one_line(message: dict[str, Any]) -> None:
    line = encode(message)
    assert line.isascii()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == message


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", r"a JSON message \(Expecting value\): ''"),
        (b"hello", r"a JSON message \(Expecting value\): 'hello'"),
        (b"{", "Expecting"),
        (b"{} {}", "Extra data"),
        (b'{"a": "\xc3"}', "not UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b'{"a": 9007199254740992}', "beyond"),
        (b'{"a": -9007199254740992}', "beyond"),
        (b'{"a": ' + b"9" * 5000 + b"}", "beyond"),
        (b'{"a": Infinity}', "Infinity is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1e400}', "beyond the range"),
        (b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nested more than"),
        (b"[" * 500_000, "nested too deep"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"\x1b[31m" * 100, "not a JSON message"),
    ],
)
def test_lines_that_are_no_messages(line: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason) as caught:
        decode(line)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_largest_integers_and_deepest_nesting_pass() -> None:
    assert parse_json(b"[9007199254740991, -9007199254740991]") == [MAX_INTEGER, -MAX_INTEGER]
    assert not depth_exceeds(parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH), MAX_DEPTH)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_survives_the_wire(kind: str) -> None:
    from composefs.errors import error_of_kind

    error = error_of_kind(kind)("what", hint="how", subject="which", causes=("why",), retryable=True)
    wire = json.loads(json.dumps(to_wire(error)))
    back = from_wire(wire)
    assert type(back) is type(error)
    assert (back.message, back.hint, back.subject, back.causes, back.retryable) == (
        "what",
        "how",
        "which",
        ("why",),
        True,
    )
    assert row_error(error) == {"message": "what", **wire["data"]}


@pytest.mark.parametrize(
    ("error", "cls"),
    [
        ({"code": -32601, "message": "m"}, UnsupportedError),
        ({"code": -32602, "message": "m", "data": None}, UsageError),
        ({"code": -32602, "message": "m", "data": {"kind": "not_found"}}, NotFoundError),
        ({"code": 1, "message": "m", "data": {"kind": "from the future"}}, ComposefsError),
        ({"code": 1, "message": "m", "data": {"kind": 7, "causes": "x", "hint": 3, "retryable": 1}}, ComposefsError),
        ({"code": 1}, ProtocolError),
        ("text", ProtocolError),
        ([], ProtocolError),
    ],
)
def test_errors_of_other_shapes(error: Any, cls: type[ComposefsError]) -> None:
    found = from_wire(error)
    assert type(found) is cls
    assert (found.hint, found.causes, found.retryable) == (None, (), False)


def test_text_is_made_harmless() -> None:
    assert printable("a\x1b[2J\x9b\x7f\n\tb\ud800") == "a\ufffd[2J\ufffd\ufffd\n\tb\ufffd"
    assert printable("x" * 5000) == "x" * 4095 + "…"
    assert printable("Grüße ✓") == "Grüße ✓"
    assert printable("a\u202eb\u2066c") == "a\ufffdb\ufffdc"  # else a line reads as another one than it is


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b'{"url":"https://user:pw@example.org/x"}', '{"url":"https://***@example.org/x"}'),
        (rb'{"url":"https:\/\/user:pw@example.org\/x"}', r'{"url":"https:\/\/***@example.org\/x"}'),
        (b'{"url":"https://h/?x=1&access_token=abc&y=2"}', '{"url":"https://h/?x=1&access_token=***&y=2"}'),
        (b'{"registry_password":"a\\"b","x":1}', '{"registry_password":"***","x":1}'),
        (b'{"id":"abc"}\n', '{"id":"abc"}'),
        (b"\xff", "\\xff"),
    ],
)
def test_secrets_are_struck_out_of_the_trace(line: bytes, shown: str) -> None:
    assert redact(line) == shown


def test_a_channel_holds_so_much_and_no_more() -> None:
    """P-8: of what came and waits to be served, and of answers that nobody takes."""
    message = {"jsonrpc": "2.0", "method": "log", "params": {"message": "x" * 10_000}}
    line = encode(message)
    enough = Limits().line // len(line) + 1
    reading, writing = os.pipe()
    try:
        channel = Channel(reading, writing, Limits(), Observers())
        for _ in range(enough):
            assert channel.wants_read
            os.write(writing, line)
            channel.read()
        assert not channel.wants_read
        channel.next_message()
        assert channel.wants_read
        for _ in range(enough):
            assert channel.wants_read
            assert channel.has_message
            channel.send(message)
        assert not channel.wants_read
        assert not channel.has_message
    finally:
        os.close(reading)
        os.close(writing)


def test_long_lines_are_cut_in_the_trace() -> None:
    assert len(redact(b"x" * 100_000)) < 5000


def test_progress_limiter() -> None:
    limiter = ProgressLimiter(10)
    assert [limiter.passes("a", "progress", 100 + step / 64) for step in range(8)] == [True] + [False] * 6 + [True]
    assert limiter.passes("b", "progress", 100.15)
    assert limiter.passes("a", "done", 100.15)
    assert not limiter.passes("a", "done", 100.15)
    assert sum(limiter.passes(str(number), "skipped", 100.2) for number in range(5000)) < 1000
    assert limiter.passes("z", "started", 102)
