"""Connecting to a host of several addresses: while one keeps us waiting, the next is tried too (RFC 8305).

Where a network has IPv6 that leads nowhere, each connection would else first cost all the time that one may take.
"""

from __future__ import annotations

import os
import select
import socket
from collections import Counter, deque
from contextlib import ExitStack
from errno import EINPROGRESS
from time import monotonic

__all__ = ["connect"]

_PATIENCE = 0.25
"""Seconds after which the next address is tried too, as RFC 8305 recommends."""


def connect(place: tuple[str, int], timeout: float, _source: object = None) -> socket.socket:
    """Return a connection to a host and port; raise OSError.  It is called as ``socket.create_connection`` is."""
    deadline = monotonic() + timeout
    families: Counter[int] = Counter()

    def turn(found: tuple[int, *tuple[object, ...]]) -> int:
        families[found[0]] += 1
        return families[found[0]]

    # One of each family in turn: a registry may have eight of IPv6.
    untried = deque(sorted(socket.getaddrinfo(*place, type=socket.SOCK_STREAM), key=turn))
    failure: OSError = TimeoutError()
    with ExitStack() as stack:
        tried: list[socket.socket] = []
        while untried or tried:
            if untried:
                family, kind, protocol, _, address = untried.popleft()
                try:
                    one = stack.enter_context(socket.socket(family, kind, protocol))
                except OSError as error:  # of a kernel without IPv6, to which addresses are told all the same
                    failure = error
                    continue
                one.setblocking(False)
                code = one.connect_ex(address)
                if code not in (0, EINPROGRESS):
                    failure = OSError(code, os.strerror(code))
                    continue
                tried.append(one)
            left = max(0.0, deadline - monotonic())
            _, ready, _ = select.select([], tried, [], min(left, _PATIENCE) if untried else left)
            if not ready and not untried:
                raise TimeoutError
            for one in ready:
                code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    connection = socket.socket(fileno=one.detach())
                    connection.settimeout(timeout)
                    return connection
                tried.remove(one)
                failure = OSError(code, os.strerror(code))
    raise failure
