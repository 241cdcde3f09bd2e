"""The repositories recorded from composefs-rs: unpacked, and the answers recorded with them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import zstandard

from support.vectors import VECTORS

RECORDED = ("sha256-v1", "sha256-v2", "sha512-v1")


def answers(name: str) -> dict[str, Any]:
    """Return what composefs-rs said about a recorded repository."""
    found: dict[str, Any] = json.loads((VECTORS / "repos" / f"{name}.json").read_text())
    return found


def unpack(name: str, directory: Path) -> Path:
    """Unpack a recorded repository below a directory, and return its path."""
    with (
        (VECTORS / "repos" / f"{name}.tar.zst").open("rb") as compressed,
        zstandard.ZstdDecompressor().stream_reader(compressed) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        archive.extractall(directory, filter="data")
    return directory / "repo"
