"""The SDK's framing."""

from __future__ import annotations

import json

import pytest

from composefs_ext.errors import ProtocolError, TooLargeError
from composefs_ext.wire import LINE_LIMIT, LineBuffer, decode, encode


def test_a_message_is_one_line_of_utf8() -> None:
    line = encode({"method": "log", "params": {"message": "ä\nb"}})
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert "ä".encode() in line
    assert json.loads(line)["params"]["message"] == "ä\nb"


def test_a_name_that_is_no_utf8_still_makes_a_line_of_utf8() -> None:
    line = encode({"message": "caf\udce9"})
    assert json.loads(line.decode("ascii")) == {"message": "caf\udce9"}


def test_a_message_over_the_limit_is_refused_before_it_is_sent() -> None:
    assert len(encode({"a": "x" * (LINE_LIMIT - 9)})) == LINE_LIMIT
    with pytest.raises(TooLargeError, match="over the limit"):
        encode({"a": "x" * (LINE_LIMIT - 8)})


@pytest.mark.parametrize("line", [b"", b"[1]", b'"x"', b"{", b"\xff", b"[" * 100_000])
def test_rubbish_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(line)


def test_an_endless_line_is_a_protocol_error() -> None:
    buffer = LineBuffer()
    assert buffer.feed(b"x" * (LINE_LIMIT - 1)) == []
    with pytest.raises(ProtocolError, match="more than"):
        buffer.feed(b"x")
    with pytest.raises(ProtocolError, match="more than"):
        LineBuffer().feed(b"x" * LINE_LIMIT + b"\n")
