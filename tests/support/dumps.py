"""Dumps and trees from the seeded generators of tests/vectors, and the answers that were recorded for them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from composefs.digest import Algorithm
from composefs.fsverity import digest_bytes
from support.vectors import DATA


def recorded(name: str) -> Any:
    """Return a file of recorded answers."""
    return json.loads((DATA / name).read_text())


def generate(script: str, *arguments: object) -> bytes:
    """Run a generator and return what it wrote."""
    command = [sys.executable, str(DATA / script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, timeout=300).stdout


def generate_dump(row: dict[str, Any]) -> bytes:
    """Return the dump of a row of images.json, which must be the one that the answers are for."""
    text = generate("gen_dump.py", row["seed"], row["entries"], *row["flags"])
    assert hashlib.sha256(text).hexdigest() == row["dump_sha256"]
    return text


def make_tree(script: str, destination: Path, *arguments: object) -> Path:
    """Run a generator of directories."""
    seed, *rest = arguments
    generate(script, seed, destination, *rest)
    return destination


def image_hashes(pieces: list[bytes], algorithm: Algorithm) -> dict[str, str]:
    """Return the two hashes by which images.json tells an image."""
    image = b"".join(pieces)
    return {"image_sha256": hashlib.sha256(image).hexdigest(), "fsverity": digest_bytes(image, algorithm).hex()}
