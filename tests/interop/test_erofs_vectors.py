"""Images byte for byte as libcomposefs' mkcomposefs 1.0.8 and composefs-rs 0.9.0 wrote them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from composefs import dumpfile, erofs
from composefs.digest import SHA256, SHA512
from support import peers
from support.commands import mkcomposefs, run
from support.dumps import generate_dump, image_hashes, recorded, row_name

ROWS = recorded("images.json")


@pytest.mark.parametrize("row", [row for row in ROWS if "v0" in row], ids=row_name)
def test_the_installed_tool_writes_the_c_tools_images(row: dict[str, Any], tmp_path: Path) -> None:
    peers.require("fsck.erofs")
    dump = tmp_path / "dump"
    image = tmp_path / "image"
    dump.write_bytes(generate_dump(row))
    assert row["vauto"] in (row["v0"], row["v1"])
    for key, lowest, highest in (("v0", 0, 0), ("v1", 1, 1), ("vauto", 0, 1)):
        options = (f"--min-version={lowest}", f"--max-version={highest}", "--print-digest", "--from-file")
        done = mkcomposefs(*options, dump, image)
        assert hashlib.sha256(image.read_bytes()).hexdigest() == row[key]["image_sha256"], key
        assert done.stdout == row[key]["fsverity"] + "\n"
        if key != "vauto":
            run("fsck.erofs", image)
    assert mkcomposefs("--from-file", "--print-digest-only", dump).stdout == row["vauto"]["fsverity"] + "\n"


@pytest.mark.parametrize("row", [row for row in ROWS if "v2" in row], ids=row_name)
def test_the_writer_makes_composefs_rs_images(row: dict[str, Any], tmp_path: Path) -> None:
    peers.require("fsck.erofs")
    algorithm = SHA512 if "--algorithm=sha512" in row["flags"] else SHA256
    tree = dumpfile.parse(generate_dump(row), algorithm)
    # These dumps are such that the two writers agree in formats 0 and 1.
    for version in (0, 1, 2):
        if f"v{version}" in row:
            pieces = [*erofs.write(tree, version=version)]
            assert image_hashes(pieces, algorithm) == row[f"v{version}"], version
            (tmp_path / "image").write_bytes(b"".join(pieces))
            run("fsck.erofs", tmp_path / "image")
