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
from operator import itemgetter
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    _Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
    """What getaddrinfo finds: family, type and protocol of a socket, a name, and the address itself."""

__all__ = ["connect"]

_PATIENCE = 0.25
"""Seconds after which the next address is tried too, as RFC 8305 recommends."""


def connect(place: tuple[str, int], timeout: float, _source: object = None) -> socket.socket:
    """Return a connection to a host and port; raise OSError.  It is called as ``socket.create_connection`` is."""
    deadline = monotonic() + timeout
    untried = deque(_addresses(place))
    failure: OSError = TimeoutError()
    with ExitStack() as stack:
        tried: list[socket.socket] = []
        while untried or tried:
            if untried:
                try:
                    tried.append(stack.enter_context(_begin(untried.popleft())))
                except OSError as error:
                    failure = error
                    continue
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


def _addresses(place: tuple[str, int]) -> list[_Address]:
    """Return the addresses of a host and port, one of each family in turn: a registry may have eight of IPv6."""
    turns: Counter[int] = Counter()
    found: list[tuple[int, _Address]] = []
    for each in socket.getaddrinfo(*place, type=socket.SOCK_STREAM):
        family = each[0]
        turns[family] += 1
        found.append((turns[family], each))
    return [each for _, each in sorted(found, key=itemgetter(0))]


def _begin(found: _Address) -> socket.socket:
    """Return a socket that is on its way to be connected.

    Raises OSError, also where a kernel has no IPv6, to which addresses of it are told all the same.
    """
    family, kind, protocol, _, address = found
    one = socket.socket(family, kind, protocol)
    one.setblocking(False)
    code = one.connect_ex(address)
    if code not in (0, EINPROGRESS):
        one.close()
        raise OSError(code, os.strerror(code))
    return one
