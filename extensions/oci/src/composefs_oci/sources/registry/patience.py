"""How often and how late what may pass is tried again, as users and servers want it.

That is connections refused, reset or silent, and the statuses 408, 429 and 5xx but 511: later and later, or when
Retry-After says.  A host that has never answered and cannot be connected to is left sooner: its name or port may be
wrong, and whoever has typed them waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from time import sleep, time

from composefs_ext.errors import ExtError, NetworkError
from composefs_oci.sources.registry.http import RETRIES, RETRY_DELAY, Response, UnreachedError, setting
from composefs_oci.sources.registry.proxy import NETWORK_LOGIN

__all__ = ["PASSING", "PassingError", "Patience"]

_FIRST_RETRIES = 2
"""How often to try again where nobody has answered yet, unless the user says how often."""
_LONG_WAIT = 1.0
_LONGEST_WAIT = 120.0
_TOO_MANY = 429
PASSING = frozenset({408, _TOO_MANY, *range(500, 600)} - {NETWORK_LOGIN})
_LIMITED = frozenset({_TOO_MANY, 503})
"""What servers that limit the rate of requests answer; nginx says 503 unless it is told otherwise."""


class PassingError(NetworkError):
    """A failure that may pass, by the status of a response; ``seconds`` is what the peer said to wait, or None."""

    def __init__(self, message: str, response: Response, *, subject: str, registry: str) -> None:
        self.seconds = _retry_after(response.header("Retry-After"))
        hint = "try again later"
        if response.status in _LIMITED and (self.seconds or 0) <= _LONGEST_WAIT:
            hint += f", or more often: {RETRIES}=N in the environment"
        if response.status == _TOO_MANY:
            hint += f"; who is logged in may often ask for more: skopeo login {registry}"
        super().__init__(message, hint=hint, subject=subject, retryable=True)


class Patience:
    """How often and how late to try again; ``tell`` gets a line before each longer wait."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._retries = int(setting(RETRIES))
        self._first_retries = self._retries if os.environ.get(RETRIES) else _FIRST_RETRIES
        self._delay = setting(RETRY_DELAY)
        self._attempts = 0

    def wait(self, error: ExtError) -> None:
        """Wait before the next attempt; raise the error if it will not pass or was seen too often."""
        self._attempts += 1
        retries = self._first_retries if isinstance(error, UnreachedError) else self._retries
        if not error.retryable or self._attempts > retries:
            raise (_extended(error, f" ({self._attempts} attempts)") if self._attempts > 1 else error) from None
        # Up to a quarter more, so that those who failed together do not come again together.
        seconds = min(self._delay * 2 ** min(self._attempts - 1, 20), _LONGEST_WAIT) * (1 + os.urandom(1)[0] / 1024)
        if isinstance(error, PassingError) and error.seconds is not None:
            if error.seconds > _LONGEST_WAIT:
                raise _extended(error, f" and wants us to wait for {error.seconds:.0f} seconds") from None
            seconds = max(seconds, error.seconds)
        if seconds >= _LONG_WAIT:
            self._tell(f"{error.message}; trying again in {seconds:.0f} s")
        sleep(seconds)

    def reset(self) -> None:
        """Begin to count anew, as there was progress."""
        self._attempts = 0


def _extended(error: ExtError, text: str) -> ExtError:
    error.message += text
    return error


def _retry_after(text: str) -> float | None:
    """Return the seconds that a header Retry-After means (RFC 9110, 10.2.3)."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None
