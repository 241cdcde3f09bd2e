"""The two ioctls, and our computation against the kernel's."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path

from composefs import fsverity
from composefs.digest import ALGORITHMS, SHA256
from composefs.errors import BusyError, UnsupportedError
from composefs.linux import verity
from vm import lab
from vm.checks.common import BIG, SOME, error_of, fails, measured


def check_the_kernel_computes_the_same_digests(directory: Path) -> None:
    for algorithm in ALGORITHMS.values():
        for size in (0, 1, 4095, 4096, 4097, 64 * 4096, 64 * 4096 + 1, 3_000_000):
            path = directory / f"{algorithm}-{size}"
            path.write_bytes((BIG * 30)[:size])
            assert measured(path) is None
            with path.open("rb") as file:
                assert verity.enable(file.fileno(), algorithm)
                assert not verity.enable(file.fileno(), algorithm)
                assert verity.measure(file.fileno()) == (algorithm, fsverity.digest_fd(file.fileno(), algorithm))
            assert error_of(partial(path.open, "r+b")) == errno.EPERM


def check_enabling_says_what_is_in_its_way(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(SOME)
    with path.open("rb") as file:
        with path.open("ab"):
            assert fails(BusyError, lambda: verity.enable(file.fileno(), SHA256)).retryable
        assert verity.enable(file.fileno(), SHA256)
    path = lab.MEMORY / "file"
    path.write_bytes(SOME)
    with path.open("rb") as file:
        assert "ext4" in str(fails(UnsupportedError, lambda: verity.enable(file.fileno(), SHA256)).hint)
