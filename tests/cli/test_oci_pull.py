"""``cfsctl oci pull`` of bootable images: other compressions of what is here, sealed ids, letting go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.commands import cfsctl
from support.oci_images import init, pack, pull
from support.oci_layers import run_generator
from support.vectors import DATA

BOOT: dict[str, Any] = json.loads((DATA / "boot.json").read_text())


def boot_sources(tmp_path: Path, row: dict[str, Any]) -> tuple[str, str]:
    """The same image twice, from a layout and from an archive: one of them compressed."""
    number = BOOT["oci"].index(row)
    sources = []
    for name, compression in (("plain", "none"), ("packed", "gzip")):
        run_generator("make_boot_layout.py", row["seed"], tmp_path / name, f"--compression={compression}")
        is_archive = (name == "packed") == (number % 2 == 0)
        sources.append(f"oci-archive:{pack(tmp_path / name)}" if is_archive else f"oci:{tmp_path / name}")
    return sources[0], sources[1]


@pytest.mark.parametrize("row", BOOT["oci"], ids=lambda row: str(row["seed"]))
def test_bootable_images(tmp_path: Path, row: dict[str, Any]) -> None:
    plain, packed = boot_sources(tmp_path, row)
    repo = init(tmp_path / "repo", "sha256", 1, 2)
    facts = pull(repo, plain, "os")
    told = {version: row[f"sha256-v{version}"] for version in (1, 2)}
    assert facts["images"] == {"composefs.image": told[2]["plain"], "composefs.image.v1": told[1]["plain"]}
    assert (facts["manifest"], facts["config"]) == (row["manifest"], row["config"])
    # The other compression has other blobs, and the same layers: nothing is fetched but the manifest.
    lines = cfsctl("--repo", repo, "oci", "pull", packed, "os", "--bootable").stdout.splitlines()
    assert lines[-1] == told[1].get("pull --bootable", f"Boot image: {told[1]['bootable']}")
    keep = told[1]["bootable keep-user-xattrs"]
    sealed = ["--bootable", f"--expected-digest={keep}"]
    assert pull(repo, packed, "os", "--bootable", f"--expected-digest=sha256:{keep}")["boot_image"] == keep
    lines = cfsctl("--repo", repo, "oci", "pull", packed, "os", *sealed).stdout.splitlines()
    how = "keep-user-xattrs" if keep != told[1]["bootable"] else "allowlist-only"
    assert lines[-1] == f"Boot image: {keep} (xattr-mode={how}, format-version=V1)"
    made = init(tmp_path / "made", "sha256", 1, 2)
    keys = [f"composefs.image{rest}" for rest in (".v1", "", ".boot.v1", ".boot")]
    assert list(pull(made, plain, "os", "--bootable")["images"]) == keys, "the default format first"
    images = pull(repo, plain, "again")["images"]
    expected = {
        "composefs.image": told[2]["plain"],
        "composefs.image.v1": told[1]["plain"],
        "composefs.image.boot": told[2]["bootable"],
        "composefs.image.boot.v1": told[1]["bootable"],
    }
    if how == "keep-user-xattrs":
        expected["composefs.image.boot.v1.xattrs=keep-user-xattrs"] = keep
    assert images == expected
    shown = json.loads(cfsctl("--repo", repo, "oci", "inspect", "again").stdout)
    assert (shown["composefs_erofs"], shown["composefs_boot_erofs"]) == (told[1]["plain"], told[1]["bootable"])
    # Two manifests have this config: one goes, and takes nothing of the other with it.
    cfsctl("--repo", repo, "oci", "untag", "os")
    cfsctl("--repo", repo, "gc")
    assert {path.name for path in (repo / "images").iterdir()} == set(expected.values())
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)["ok"]


def test_an_id_that_no_variant_has(tmp_path: Path) -> None:
    run_generator("make_boot_layout.py", 1, tmp_path / "layout")
    repo, source = init(tmp_path / "repo"), f"oci:{tmp_path / 'layout'}"
    done = cfsctl("--repo", repo, "oci", "pull", source, "os", "--bootable", f"--expected-digest={'ab' * 32}", status=5)
    assert "none of the 8 combinations" in done.stderr
    assert "ab" * 32 in done.stderr
    assert not (repo / "streams/refs/oci").exists()
    for options in (["--expected-digest", "ab" * 32], ["--bootable", "--expected-digest", "abab"]):
        cfsctl("--repo", repo, "oci", "pull", source, "os", *options, status=2)
