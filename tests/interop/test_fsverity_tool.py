"""Our digests are those of fsverity-utils."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from composefs.digest import ALGORITHMS, Algorithm
from composefs.fsverity import digest_fd


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=str)
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 64 * 4096, 64 * 4096 + 1, 128 * 4096 + 1, 17_000_003])
def test_digest_equals_that_of_fsverity_utils(tmp_path: Path, algorithm: Algorithm, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(hashlib.shake_128(b"interop").digest(size))
    command = ["fsverity", "digest", "--compact", f"--hash-alg={algorithm}", str(path)]
    expected = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    with path.open("rb") as file:
        assert digest_fd(file.fileno(), algorithm).hex() == expected
