"""GVariant: the examples of its specification, and everything that is not normal form."""

from __future__ import annotations

import struct

import pytest

from composefs_ext.errors import FormatError
from composefs_ostree.formats.gvariant import (
    MAX_DEPTH,
    MAX_VALUES,
    Variant,
    array_elements,
    decode,
    encode,
    offset_size,
    parse_type,
)

# "GVariant Serialisation", section 4: the notation there is bytes in hex and strings in quotes.
SPECIFICATION = [
    ("ms", ("hello world",), b"hello world\0\0"),
    ("ms", None, b""),
    ("ab", [True, False, False, True, True], bytes([1, 0, 0, 1, 1])),
    ("(si)", ("foo", -1), b"foo\0" + b"\xff\xff\xff\xff" + b"\x04"),
    ("a(si)", [("hi", -2), ("bye", -1)], b"hi\0\0\xfe\xff\xff\xff\x03\0\0\0bye\0\xff\xff\xff\xff\x04\x09\x15"),
    ("as", ["i", "can", "has", "strings?"], b"i\0can\0has\0strings?\0\x02\x06\x0a\x13"),
    ("ay", bytes([4, 5, 6, 7]), bytes([4, 5, 6, 7])),
    ("a{si}", {"a": 1, "b": 2}, b"a\0\0\0\x01\0\0\0\x02\0\0\0b\0\0\0\x02\0\0\0\x02\x09\x15"),
    ("{si}", ("a key", 514), b"a key\0\0\0\x02\x02\0\0\x06"),
    ("(yy)", (0x70, 0x80), b"\x70\x80"),
    ("(iy)", (96, 0x70), b"\x60\0\0\0\x70\0\0\0"),
    ("a(iy)", [(96, 0x70), (648, 0xF7)], b"\x60\0\0\0\x70\0\0\0\x88\x02\0\0\xf7\0\0\0"),
    ("()", (), b"\0"),
    ("v", Variant("s", "x"), b"x\0\0s"),
    ("a{sv}", {}, b""),
    ("mmb", ((True,),), b"\x01\0"),
    ("mmb", (None,), b"\0"),
    ("ao", ["/", "/a/B_2"], b"/\0/a/B_2\0\x02\x09"),
    ("(gg)", ("", "sa{sv}(yb)"), b"\0sa{sv}(yb)\0\x01"),
    ("d", 1.5, struct.pack("<d", 1.5)),
    ("(sss)", ("", "a", "b"), b"\0a\0b\0\x03\x01"),
]


@pytest.mark.parametrize(("signature", "value", "data"), SPECIFICATION)
def test_values_have_the_serialisation_of_the_specification(signature: str, value: object, data: bytes) -> None:
    assert encode(signature, value) == data
    assert decode(signature, data) == value


@pytest.mark.parametrize(
    ("signature", "data", "why"),
    [
        ("b", b"\x02", "a boolean that is neither 0 nor 1"),
        ("s", b"no end", "a string without NUL"),
        ("s", b"a\0b\0", "a string with a NUL inside"),
        ("s", b"", "an empty string has a NUL"),
        ("s", b"\xff\0", "not UTF-8"),
        ("u", b"\0\0\0", "too short"),
        ("u", b"\0\0\0\0\0", "too long"),
        ("au", b"\0\0\0\0\0", "not a whole number of elements"),
        ("(yu)", b"\x01\0\x01\0\x02\0\0\0", "padding that is not zero"),
        ("(iy)", b"\x60\0\0\0\x70\0\0\x01", "padding at the end that is not zero"),
        ("as", b"a\0\x03", "an element behind the end"),
        ("as", b"a\0b\0\x04\x02\x04", "offsets out of order"),
        ("as", b"a\0\x01\x02", "an element that is not a string"),
        ("(sss)", b"\0a\0b\0\x09\x01", "a member behind the end"),
        ("v", b"", "a variant without a type"),
        ("v", b"\0\0zz", "a variant of no type"),
        ("v", b"xs", "a variant without a separator"),
        ("a{sv}", encode("a{sv}", {"k": Variant("y", 1)}) + encode("a{sv}", {"k": Variant("y", 1)}), "two in one"),
        ("mb", b"\x01\x01", "two values in a maybe"),
        ("o", b"\0", "an empty object path"),
        ("o", b"ab\0", "an object path that is relative"),
        ("o", "/ä\0".encode(), "an object path beyond ASCII"),
        ("o", b"/a/\0", "an object path that ends with a slash"),
        ("o", b"/a-b\0", "an object path with another character"),
        ("g", b"(s\0", "an unfinished signature"),
        ("g", b"sz\0", "a signature with an unknown type"),
        ("g", b"ms\0", "a signature with a maybe"),
        ("g", b"y" * (MAX_VALUES + 1) + b"\0", "a signature that is too long"),
        ("g", b"a" * 5000 + b"y\0", "a signature that is nested too deep"),
        ("ms", b"x\0\x01", "a maybe that does not end with 0"),
    ],
)
def test_other_forms_are_refused(signature: str, data: bytes, why: str) -> None:
    with pytest.raises(FormatError):
        decode(signature, data)


def test_a_key_that_occurs_twice_is_refused() -> None:
    twice = encode("a(sv)", [("k", Variant("y", 1)), ("k", Variant("y", 2))])  # a{sv} and a(sv) look the same
    with pytest.raises(FormatError, match="has the key 'k' twice"):
        decode("a{sv}", twice)


def test_offsets_wider_than_needed_are_refused() -> None:
    strings = ["x" * 100, "y" * 150]
    body = b"".join(text.encode() + b"\0" for text in strings)
    assert decode("as", body + bytes([101, 252])) == strings
    with pytest.raises(FormatError):
        decode("as", body + b"\x65\0\xfc\0")


def test_the_width_of_offsets_counts_the_offsets() -> None:
    # 254 bytes of body and one offset fit a byte; 255 and one offset do not.
    assert encode("as", ["x" * 253])[-1:] == b"\xfe"
    assert encode("as", ["x" * 254])[-2:] == b"\xff\x00"
    assert [offset_size(size) for size in (0, 1, 255, 256, 65535, 65536, 1 << 32)] == [0, 1, 1, 2, 2, 4, 8]


def test_nesting_is_bounded() -> None:
    value = Variant("y", 1)
    for _ in range(MAX_DEPTH - 1):
        value = Variant("v", value)
    assert decode("v", encode("v", value)) == value
    with pytest.raises(FormatError, match="deep"):
        decode("v", encode("v", Variant("v", value)))


def test_byte_strings_are_as_deep_as_other_arrays() -> None:
    value = Variant("aay", [b"a"])
    for _ in range(MAX_DEPTH - 2):
        value = Variant("v", value)
    assert decode("v", encode("v", value)) == value
    with pytest.raises(FormatError, match="deep"):
        decode("v", encode("v", Variant("v", value)))


def test_a_type_may_have_255_characters_in_a_variant_too() -> None:
    value = Variant(f"({'y' * 253})", (0,) * 253)
    assert decode("v", encode("v", value)) == value


def test_strings_do_not_overlap() -> None:
    """They are made before one is looked at, and might be as many copies of the whole."""
    with pytest.raises(FormatError, match="out of order"):
        decode("aay", b"ab\x02\x00\x02")
    with pytest.raises(FormatError, match="a member outside of itself"):
        decode("(sss)", b"abcd\0\x03\x05")


@pytest.mark.parametrize("data", [b"\1", b"ab\4", b"\0" * 299 + b"\x28\1", b"ab\2\1\2", b"ab\4\2"])
def test_elements_have_offsets_in_order(data: bytes) -> None:
    """Where they are searched as they stand: nothing is serialised again to see whether it is the same."""
    with pytest.raises(FormatError, match=r"offset table|out of order"):
        list(array_elements(memoryview(data), 1))


def test_values_count_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composefs_ostree.formats.gvariant.MAX_VALUES", 13)
    assert decode("a(yyy)", bytes(9)) == [(0, 0, 0)] * 3
    with pytest.raises(FormatError, match="more than 13 values"):
        decode("a(yyy)", bytes(12))
    strings = [b""] * 6
    assert decode("(aay)", encode("(aay)", (strings,))) == (strings,)
    with pytest.raises(FormatError, match="more than 13 values"):
        decode("(aayaay)", encode("(aayaay)", (strings, strings)))


@pytest.mark.parametrize("signature", ["ab", "as"])
def test_the_number_of_values_is_bounded(signature: str) -> None:
    # An array is a value, too.
    data = bytes(MAX_VALUES) if signature == "ab" else bytes(MAX_VALUES + 1) + bytes(4 * (MAX_VALUES + 1))
    if signature == "as":
        data = data[:-4] + (MAX_VALUES + 1).to_bytes(4, "little")
    with pytest.raises(FormatError, match="values"):
        decode(signature, data)


@pytest.mark.parametrize(
    "signature",
    ["", "z", "zs}", "(", "(i", "i)", "{si", "{vi}", "{i}", "a", "ii", "a{sv}}", "a" * 300, f"({'y' * 254})"],
)
def test_malformed_types_are_refused(signature: str) -> None:
    with pytest.raises(FormatError):
        parse_type(signature)
