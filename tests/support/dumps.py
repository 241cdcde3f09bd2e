"""Dumps and trees from the seeded generators of tests/vectors, and the answers that were recorded for them."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from composefs import dumpfile
from composefs.digest import SHA256, SHA512, Algorithm
from composefs.erofs.reader import Image, ReadRules, read_tree
from composefs.fsverity import digest_bytes
from support.commands import BIN, cfsctl, run
from support.vectors import DATA

WITH_WHITEOUTS = 2
"""The format whose whiteouts are devices."""


def recorded(name: str) -> Any:
    """Return a file of recorded answers."""
    return json.loads((DATA / name).read_text())


def row_name(row: dict[str, Any]) -> str:
    """Return the id of the test of a row of images.json."""
    return "-".join([str(row["seed"]), str(row["entries"]), *(flag.strip("-") for flag in row["flags"])])


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


def image_of_its_dump(repository: Path, image: str, dump: Path) -> str:
    """Dump an image of a repository into a file, make an image of that text, and return its id.

    Its text is the same again, whether or not the id is.
    """
    text = _text_of(repository, image)
    dump.write_text(text, errors="surrogateescape")
    again = cfsctl("--repo", repository, "create-image", "--from-dump", dump).stdout.strip().rpartition(":")[2]
    assert _text_of(repository, again) == text
    return again


def _text_of(repository: Path, image: str) -> str:
    """Return the text of an image; composefs-info leaves out the whiteouts of format 2, as C's does."""
    path = repository / "images" / image
    data = path.read_bytes()
    if Image(data).version != WITH_WHITEOUTS:
        return run(BIN / "composefs-info", "dump", path).stdout
    text = io.BytesIO()
    rules = ReadRules("rs", SHA256 if len(image) == SHA256.hex_size else SHA512)
    dumpfile.write(read_tree(Image(data), rules), text.write)
    return text.getvalue().decode(errors="surrogateescape")
