"""JSON of any length as it passes by: laid out as the standard library does it, refused where that refuses it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composefs.protocol.jsontext import indented

TEXTS = st.text(st.sampled_from('ab"\\/\n\x00\x7fé€\U0001d11eu0'))
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)


def finite(text: str) -> float:
    """Refuse what is no double, which JSON does not know and the protocol does (P-4): a digit more makes 1e3080."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def laid_out(data: bytes, size: int) -> str:
    return "".join(indented(data[at : at + size] for at in range(0, len(data), size)))


@given(OBJECTS, st.booleans(), st.sampled_from([(",", ":"), (" ,\r", "\t:\n ")]), st.integers(1, 40))
def test_it_is_laid_out_as_ever(document: object, ascii_only: bool, separators: tuple[str, str], size: int) -> None:
    data = json.dumps(document, ensure_ascii=ascii_only, separators=separators).encode()
    assert laid_out(data, size) == json.dumps(document, ensure_ascii=ascii_only, indent=2)


@given(OBJECTS, st.data(), st.sampled_from([1, 3, 4096]))
def test_damage_is_refused_where_the_standard_library_refuses_it(
    document: object, data: st.DataObject, size: int
) -> None:
    text = bytearray(json.dumps(document, ensure_ascii=False).encode())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", *(bytes([each]) for each in b'{}[],:"\\0-e. \n\xff')])
    )
    try:
        fine = isinstance(json.loads(bytes(text), parse_float=finite), dict)
    except ValueError:
        fine = False
    if fine:
        assert json.loads(laid_out(bytes(text), size)) == json.loads(bytes(text))
    else:
        with pytest.raises(ValueError, match=r"\w"):
            laid_out(bytes(text), size)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends too early"),
        (b'{"a": "b', "ends too early"),
        (b'{"a": 1', "ends too early"),
        (b"[]", "where an object should be"),
        (b"1", "where an object should be"),
        (b"{} {}", "where the end should be"),
        (b'{"a": 1,}', "where a name should be"),
        (b'{"a": [1,]}', "where a value should be"),
        (b'{"a" 1}', "where a colon should be"),
        (b'{"a": [1}', "where a comma or ] should be"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1e999}', "beyond the range"),
        (b'{"a": 9007199254740992}', "beyond"),
        (b'{"a": ' + b"1" * 5000 + b"}", "longer than any should be"),
        (b'{"a": "\n"}', "does not allow"),
        (b'{"a": "\\x"}      ', "does not allow"),
        (b'{"a": "\xc3"}', "not UTF-8"),
        (b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}", "more than 32 deep"),
        (b"\xef\xbb\xbf{}", "where an object should be"),
    ],
)
@pytest.mark.parametrize("size", [1, 4096])
def test_what_is_no_object_within_bounds_is_refused(data: bytes, reason: str, size: int) -> None:
    with pytest.raises(ValueError, match=reason):
        laid_out(data, size)


def test_no_more_than_a_piece_is_kept_of_a_long_string() -> None:
    pieces = [b'{"a": "', *[b'\\"' * 50_000] * 20, b'"}']
    longest = 0

    def watched() -> Iterator[bytes]:
        yield from pieces

    for text in indented(watched()):
        longest = max(longest, len(text))
    assert longest == 100_000
