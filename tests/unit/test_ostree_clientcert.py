"""Which failures are told as the want of a client certificate, and which are not."""

from __future__ import annotations

import pytest

from composefs_ostree.remotes.clientcert import certificate_error
from composefs_ostree.remotes.curl import pycurl
from composefs_ostree.remotes.failures import Failure

REFUSED = Failure("https://h/config", "", pycurl.E_RECV_ERROR, "error: alert unknown ca", 0, 0, True, 0.1, 0)
BAD_REQUEST = REFUSED._replace(code=None, reason="", status=400)


def told(failure: Failure, *, is_given: bool = False, page: bytes = b"") -> str | None:
    error = certificate_error(failure, is_given=is_given, page=page, has_asked=False, is_last=True)
    return None if error is None else error.message


def test_an_alert_about_a_certificate_is_one_about_ours_only_if_it_was_shown() -> None:
    assert told(REFUSED) is None
    said = told(REFUSED, is_given=True)
    assert said == "https://h/config: the server does not take the client certificate: unknown ca"


@pytest.mark.parametrize(("before", "is_wanted"), [(0, True), (900, True), (2000, False)])
def test_a_page_says_it_in_its_title(before: int, is_wanted: bool) -> None:
    page = b" " * before + b"<title>400 No required SSL certificate was sent</title>"
    assert (told(BAD_REQUEST, page=page) is not None) == is_wanted
