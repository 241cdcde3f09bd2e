"""The SDK's errors, as an extension makes them."""

from __future__ import annotations

from composefs_ext.errors import NetworkError, from_wire, to_wire


def test_an_error_at_a_place_names_it_first_and_as_its_subject() -> None:
    error = NetworkError.at("https://example.com", "no answer", hint="try again", causes=("a",), retryable=True)
    assert type(error) is NetworkError
    assert str(error) == "https://example.com: no answer"
    there = from_wire(to_wire(error))
    assert (there.subject, there.hint, there.causes, there.retryable) == (
        "https://example.com",
        "try again",
        ("a",),
        True,
    )
