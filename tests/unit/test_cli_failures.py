"""What is wrong with a command line is told in our words, whatever those of the click that is installed are."""

from __future__ import annotations

import click
import pytest

from composefs.cli.failures import failure_of


@pytest.mark.parametrize(
    ("guesses", "told"),
    [
        ([], "no such option '--dept'"),
        (["--depth"], "no such option '--dept'. Did you mean '--depth'?"),
        (["--depth", "--depot"], "no such option '--dept'. Did you mean '--depth' or '--depot'?"),
    ],
    ids=["no guess", "one", "two"],
)
def test_an_unknown_option(guesses: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.NoSuchOption, "format_message", lambda error: f"No such option: {error.option_name}")
    failure = failure_of(click.NoSuchOption("--dept", possibilities=guesses))
    assert failure.message == told
    assert failure.hint == "see 'cfsctl --help'"
