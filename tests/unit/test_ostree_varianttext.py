"""GVariant text that is no value: GLib takes none of it either, but for what stands apart below."""

from __future__ import annotations

import pytest

from composefs_ext.errors import FormatError
from composefs_ostree.committing.varianttext import parse_text
from composefs_ostree.formats.gvariant import Variant


@pytest.mark.parametrize(
    "text",
    [
        *("1_0", "0o7", "0x", "08", "byte 256", "uint16 -1", "double 0inf", "1e400", "0x1p3", "9" * 5000, "-", "--1"),
        *("[1,]", "(1)", "(1,2,)", "{1: 2,}", "[,]", "{1, 2, 3}", "{1: 1, 2: 2.5}", "{[1]: 2}", "{just 1: 2}"),
        *("[@i 5, nothing]", "[1, 'a']", "just nothing", "[]", "{}", "5 5", "", "<1", "@(i", "@s'x'", "@a{vs} {}"),
        *("true\v", "\u00a05", "'\\u0000'", "'\\u12'", "'a", "objectpath 'a'", "signature 'mi'", "signature '('"),
        *("infinity", "word", "[" * 200, "'\udcff'"),
        # These GLib takes, for what cannot be written or read back as it was meant.
        *("'\\ud800'", "'\\U00110000'", "'\\Uffffffff'", "{'a': 1, 'a': 2}", "@an [@y 5]"),
    ],
)
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_text(text)


def test_values_of_one_array_settle_each_others_types() -> None:
    assert parse_text("[(1, []), (2.5, ['a'])]") == Variant("a(das)", [(1.0, []), (2.5, ["a"])])
    assert parse_text("[{1, 'x'}, {uint16 2, 'y'}]") == Variant("a{qs}", {1: "x", 2: "y"})
    assert parse_text("[1, nothing, just just 2]") == Variant("ammi", [((1,),), None, ((2,),)])


@pytest.mark.parametrize(
    ("before", "behind"),
    [("[", "]"), ("(", ",)"), ("<", ">"), ("just ", ""), ("int32 ", ""), ("@i ", ""), ("{1: ", "}"), ("{1, ", "}")],
)
def test_values_are_nested_as_deep_as_that_and_no_deeper(before: str, behind: str) -> None:
    assert parse_text(before * 32 + "1" + behind * 32)
    with pytest.raises(FormatError, match="nested too deep"):
        parse_text(before * 33 + "1" + behind * 33)


def test_keys_are_nested_no_deeper_either() -> None:
    with pytest.raises(FormatError, match="nested too deep"):
        parse_text("{" * 33 + "1: 1" + "}" * 33)
