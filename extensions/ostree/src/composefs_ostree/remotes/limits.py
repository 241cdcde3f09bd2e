"""How much a command may take of the network, and how long it may wait: what the user says on the command line.

What is not said there comes from the environment, then from the defaults.
"""

from __future__ import annotations

from composefs_ext import Request
from composefs_ext.errors import UsageError
from composefs_ext.tuples import NamedTuple

__all__ = ["Limits", "limits_of"]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_RATE = r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([kKmMgG]?)"


class Limits(NamedTuple):
    """What the user asked for; None: nothing.

    ``rate`` is in bytes a second for all transfers together, ``connections`` how many may be open at a time;
    ``retries`` how often a transfer is tried again; one that stays below ``low_speed_bytes`` a second for
    ``low_speed_seconds`` is given up, and so is one that takes longer than ``seconds``.  ``header_file`` has headers
    to send.
    """

    rate: int | None
    connections: int | None
    retries: int | None
    low_speed_bytes: int | None
    low_speed_seconds: int | None
    seconds: int | None
    header_file: str | None


_NUMBERS = {
    "connections": ("max_connections", 2, 256),
    "retries": ("network_retries", 0, 1000),
    "low_speed_bytes": ("low_speed_limit_bytes", 0, 1 << 40),
    "low_speed_seconds": ("low_speed_time_seconds", 1, 86400),
    "seconds": ("timeout", 1, 30 * 86400),
}
"""The arguments that are numbers, with the least and the most that they can be."""


def limits_of(request: Request) -> Limits:
    """Read the arguments of a command; raise UsageError for values that make no sense."""
    numbers = {}
    for name, (argument, least, most) in _NUMBERS.items():
        value = request.get(argument)
        if value is not None and not least <= value <= most:
            raise UsageError(f"--{argument.replace('_', '-')} takes a number from {least} to {most}, not {value}")
        numbers[name] = value
    rate = request.get("limit_rate")
    return Limits(None if rate is None else _parse_rate(rate), **numbers, header_file=request.get("http_header_file"))


def _parse_rate(text: str) -> int:
    """Return the bytes a second of a rate such as ``500k`` or ``2.5M`` (of 1024); raise UsageError."""
    import re  # 5 ms that a run without a limit need not spend

    parts = re.fullmatch(_RATE, text)
    rate = round(float(parts[1]) * _UNITS[parts[2].lower()]) if parts else 0
    if rate < 1:
        raise UsageError(f"{text[:40]!r} is not a rate", hint="write bytes a second, as 500k or 2.5M")
    return rate
