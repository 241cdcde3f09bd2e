#!/usr/bin/env python3
"""A line with a round trip of its own in front of a server on this machine: what arrives is passed on later.

    slowline.py PORT SECONDS        prints the port that it listens on

Each direction takes half a round trip, and a connection one more until its first byte, as TCP's handshake does.
Bandwidth has no bound and there is no slow start: what is measured is how many round trips a program waits for, one
after the other.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PIECE = 256 << 10
_LEAST = 1e-6
"""Seconds between two pieces, so that the order of their timers is theirs."""


@contextmanager
def slow_line(port: int, round_trip: float) -> Iterator[int]:
    """Have a line to a port of this machine while the block runs; yields the port at its end."""
    argv = [sys.executable, str(Path(__file__)), str(port), str(round_trip)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


async def _serve(port: int, round_trip: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened = asyncio.get_running_loop().time()
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port, limit=_PIECE)
        await asyncio.gather(
            _carry(reader, there_writer, round_trip / 2, opened + round_trip),
            _carry(there_reader, writer, round_trip / 2, opened),
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=_PIECE)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, earliest: float) -> None:
    """Pass on what is read, ``delay`` seconds later; nothing is on its way before ``earliest``."""
    loop = asyncio.get_running_loop()
    due = earliest + delay
    while True:
        try:
            data = await reader.read(_PIECE)
        except ConnectionError:
            data = b""
        due = max(due + _LEAST, loop.time() + delay)
        if not data:
            loop.call_at(due, writer.close)
            return
        loop.call_at(due, _write, writer, data)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
