"""The SDK's framing."""

from __future__ import annotations

import json

import pytest

from composefs_ext.errors import ProtocolError, TooLargeError
from composefs_ext.protocol import LINE_LIMIT
from composefs_ext.wire import LineBuffer, decode, encode


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


@pytest.mark.parametrize(
    "value", [{}, {"a": [1, -2.5, 1e300, 2**80, None, True, '\u2028\x00\x7f"\\'], "ä": {"": [[], {}]}}, {"n": 1 << 60}]
)
def test_a_message_is_written_and_read_as_json_does(value: dict[str, object]) -> None:
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    assert encode(value) == line + b"\n"
    assert decode(line) == decode(b" \t\r\n" + json.dumps(value, indent=1).encode() + b" \r") == value


@pytest.mark.parametrize("value", [{1}, float("nan"), float("-inf"), object()])
def test_what_is_no_json_is_refused_as_json_does(value: object) -> None:
    with pytest.raises((TypeError, ValueError)) as theirs:
        json.dumps({"a": value}, allow_nan=False)
    with pytest.raises(theirs.type, match=str(theirs.value)[:30]):
        encode({"a": value})


def test_a_circle_is_refused() -> None:
    circle: dict[str, object] = {}
    circle["a"] = [circle]
    with pytest.raises(ValueError, match="Circular"):
        encode(circle)


@pytest.mark.parametrize("line", [b"{} {}", b"{}x", b'{"a":}', b'{"a":1,}', b'{"a":"\x01"}', b"nul", b"-", b'{"a":01}'])
def test_what_json_refuses_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        json.loads(line)
    with pytest.raises(ProtocolError):
        decode(line)
