"""How the connections that the user allows are shared out."""

from __future__ import annotations

import pytest

from composefs_ostree.remotes.limits import Limits
from composefs_ostree.remotes.record import Remote
from composefs_ostree.signatures.policy import NO_OPTIONS
from composefs_ostree.sources import url as urls
from composefs_ostree.sources.url import UrlSource


@pytest.mark.parametrize("cores", [1, 2, 64])
@pytest.mark.parametrize("settings", [{}, {"contenturl": "http://b.example"}], ids=["one place", "two places"])
def test_all_together_have_no_more_than_that(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(urls, "available_cores", lambda: cores)
    for most in range(2 + len(settings), 257):
        limits = Limits(None, most, None, None, None, None, None)
        source = UrlSource("http://a.example", Remote("r", settings), limits, NO_OPTIONS)
        metadata, of_worker, workers = source._shares
        assert min(metadata, of_worker, workers) > 0
        assert source.max_workers == workers <= cores
        assert metadata + of_worker * workers + len(settings) <= most
