"""The two ioctls, and our computation against the kernel's."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path

from composefs import fsverity
from composefs.digest import ALGORITHMS, SHA256
from composefs.errors import BusyError, UnsupportedError
from vm import lab
from vm.checks.common import BIG, SOME, error_of, fails, measured


def check_the_kernel_computes_the_same_digests(directory: Path) -> None:
    for algorithm in ALGORITHMS.values():
        for size in (0, 1, 4095, 4096, 4097, 64 * 4096, 64 * 4096 + 1, 3_000_000):
            path = directory / f"{algorithm}-{size}"
            path.write_bytes((BIG * 30)[:size])
            assert measured(path) is None
            with path.open("rb") as file:
                assert fsverity.enable(file.fileno(), algorithm)
                assert not fsverity.enable(file.fileno(), algorithm)
                assert fsverity.measure(file.fileno()) == (algorithm, fsverity.digest_fd(file.fileno(), algorithm))
            assert error_of(partial(path.open, "r+b")) == errno.EPERM


def check_enabling_says_what_is_in_its_way(directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(SOME)
    with path.open("rb") as file:
        with path.open("ab"):
            assert fails(BusyError, lambda: fsverity.enable(file.fileno(), SHA256)).retryable
        assert fsverity.enable(file.fileno(), SHA256)
    path = lab.MEMORY / "file"
    path.write_bytes(SOME)
    with path.open("rb") as file:
        assert "ext4" in str(fails(UnsupportedError, lambda: fsverity.enable(file.fileno(), SHA256)).hint)
