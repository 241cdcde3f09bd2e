"""Repositories with OCI images that the installed command pulled."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from composefs.digest import ALGORITHMS
from composefs.repository import Repository
from support.commands import cfsctl


def init(path: Path, algorithm: str = "sha256", erofs_format: int = 1, *extra: int) -> Path:
    """Make a repository that wants images of these EROFS formats."""
    Repository.init(path, algorithm=ALGORITHMS[algorithm], erofs_default=erofs_format, insecure=True)
    if extra:
        meta = json.loads((path / "meta.json").read_text())
        meta["erofs_formats"]["extra"] = list(extra)
        (path / "meta.json").write_text(json.dumps(meta))
    return path


def pack(layout: Path) -> Path:
    """Make an archive of a layout."""
    archive = layout.with_suffix(".tar")
    subprocess.run(["tar", "-C", layout, "-cf", archive, "."], check=True)
    return archive


def pull(repo: Path, source: str, *arguments: str) -> dict[str, Any]:
    """Pull an image; return what came of it."""
    facts: dict[str, Any] = json.loads(cfsctl("--repo", repo, "oci", "pull", source, *arguments, "--json").stdout)
    return facts
