"""Files of keys that somebody else wrote: read within the time that their length takes."""

from __future__ import annotations

import base64
import resource
import subprocess
import sys

import pytest

from composefs_ostree.signatures.publickeys import pem_blocks

READ = """
import sys
from composefs_ostree.signatures.packets import dearmour
from composefs_ostree.signatures.publickeys import pem_blocks
data = sys.stdin.buffer.read()
assert pem_blocks(data, b"PUBLIC KEY") == []
assert dearmour(data) == data
"""


def limit_seconds() -> None:
    """Of the processor: more than 16 MiB take, and a thousandth of what they took."""
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))


PIECES = [
    b"-----BEGIN %b-----\n",
    b"-----BEGIN %bAAAA",
    b"x-----BEGIN %b-----\n",
    b"-----BEGIN %b-----\n-x\n",
    b"-----",
]


@pytest.mark.parametrize(
    "piece", [each % label if b"%" in each else each for each in PIECES for label in (b"A", b"PGP A")]
)
def test_beginnings_without_an_end(piece: bytes) -> None:
    data = (piece * (1 + (16 << 20) // len(piece)))[: 16 << 20]
    subprocess.run([sys.executable, "-c", READ], input=data, check=True, preexec_fn=limit_seconds)


def test_keys_between_beginnings_without_an_end() -> None:
    key = b"-----BEGIN PUBLIC KEY-----\n%b\n-----END PUBLIC KEY-----\n" % base64.b64encode(b"key" * 100)
    assert pem_blocks(b"-----BEGIN A-----\nno end\n" + key + b"--" + key, b"PUBLIC KEY") == [b"key" * 100] * 2
