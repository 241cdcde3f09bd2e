"""To which places a remote's login is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from composefs_ostree.remotes.curl import pycurl
from composefs_ostree.remotes.limits import Limits
from composefs_ostree.remotes.record import Remote
from composefs_ostree.remotes.settings import settings_of

NO_LIMITS = Limits(None, None, None, None, None, None, None)


@pytest.mark.parametrize(
    ("url", "is_given"),
    [
        ("https://a.example/x", True),
        ("https://A.example:443/y", True),
        ("http://a.example/x", False),
        ("http://a.example:443/x", False),  # where whoever listens on the way would read it
        ("https://a.example:444/x", False),
        ("https://b.example/x", False),
        ("http://c.example:80/x", True),
        ("http://c.example:8080/x", False),
    ],
)
def test_a_login_is_for_the_scheme_host_and_port_that_are_named(tmp_path: Path, url: str, is_given: bool) -> None:
    (tmp_path / "login").write_text("user:password\n")
    remote = Remote("r", {"http-basic-auth-file": str(tmp_path / "login")})
    settings = settings_of(remote, NO_LIMITS, ["https://a.example/x", "http://c.example/x"])
    assert (pycurl.PASSWORD in [option for option, _ in settings.options(url)]) == is_given
