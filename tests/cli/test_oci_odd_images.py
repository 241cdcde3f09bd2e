"""Odd images through ``cfsctl oci pull``: each gets the answer that support.oci_odd has, and what was here stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.commands import cfsctl, the_error
from support.oci_images import init, pull
from support.oci_layers import run_generator
from support.oci_layout import simple
from support.oci_odd import ACCEPTED, BASE, BOOTABLE_ONLY, ODD, READ_OTHERWISE, REFUSED

WRONG = {
    "wrong-diff-id": "the archive of a layer has the digest sha256:",
    "wrong-blob": "has the digest sha256:",
}
"""Stored by composefs-rs, which does not look; refused here."""


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One repository for all cases, which has the images of both formats made."""
    return init(tmp_path_factory.mktemp("odd") / "repo", "sha256", 1, 2)


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    run_generator("make_boot_layout.py", 0, tmp_path / "layout", f"--case={request.node.callspec.params['case']}")
    return f"oci:{tmp_path / 'layout'}"


def tags(repo: Path) -> set[str]:
    return {path.name for path in (repo / "streams/refs/oci").glob("*")}


def refused(repo: Path, source: str, case: str, *options: str, words: str = "") -> str:
    """Pull, which must fail with one line and set no tag; return the line."""
    before = tags(repo)
    done = cfsctl("--repo", repo, "oci", "pull", source, case, *options, status=None)
    assert done.returncode in (3, 5, 8, 9)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert tags(repo) == before
    return done.stderr


@pytest.mark.parametrize("case", [case for case in ODD if case not in {*REFUSED, *BOOTABLE_ONLY, *WRONG}])
def test_accepted(repo: Path, source: str, case: str) -> None:
    if case == "no-usr":
        facts = pull(repo, source, case)
        refused(repo, source, case, "--bootable", words="/usr")
    else:
        facts = pull(repo, source, case, "--bootable")
    row = ODD[case]
    images = facts["images"]
    for version, key in ((1, ".v1"), (2, "")):
        told = row.get(f"sha256-v{version}", {})
        if case in READ_OTHERWISE:
            sealed = told["pull --bootable"]
            known = pull(repo, source, case, "--bootable", f"--expected-digest={sealed}")
            assert known["boot_image"] == sealed
            assert known["format_version"] == version or images[f"composefs.image.boot{key}"] == sealed
        elif row["rs"] == "accepted":
            assert images[f"composefs.image{key}"] == told["pull"]
            assert images[f"composefs.image.boot{key}"] == told["pull --bootable"]
    if ACCEPTED.get(case) == BASE:
        assert images["composefs.image.v1"] == BASE
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", case, "--json").stdout)["ok"]


@pytest.mark.parametrize("case", REFUSED)
def test_refused(repo: Path, source: str, case: str) -> None:
    stage, words = REFUSED[case]
    error = refused(repo, source, case, words=words)
    assert ("the image's tree: " in error) == (stage == "image"), "a path alone could be one of this machine"
    assert "--no-propagate-usr-to-root" not in error, "an option of other commands"


@pytest.mark.parametrize("case", WRONG)
def test_wrong_digests_are_refused(tmp_path: Path, source: str, case: str) -> None:
    # In a repository of its own: a layer that another case has brought, by its right digest, would not be read again.
    refused(init(tmp_path / "repo", "sha256", 1, 2), source, case, words=WRONG[case])


@pytest.mark.parametrize("case", sorted(BOOTABLE_ONLY))
def test_refused_when_made_bootable(repo: Path, source: str, case: str, tmp_path: Path) -> None:
    told: dict[str, Any] = ODD[case]
    images = pull(repo, source, case)["images"]
    assert images == {
        "composefs.image": told["sha256-v2"]["pull"],
        "composefs.image.v1": told["sha256-v1"]["pull"],
    }
    refused(repo, source, f"{case}-bootable", "--bootable")
    refused(repo, source, case, "--bootable")
    assert case in tags(repo)


def test_the_repository_is_sound_after_all_of_that(repo: Path) -> None:
    report = cfsctl("--repo", repo, "oci", "fsck").stdout
    assert "status: ok" in report
    cfsctl("--repo", repo, "gc")
    assert "status: ok" in cfsctl("--repo", repo, "oci", "fsck").stdout


def test_a_layout_whose_files_are_links_out_of_it(tmp_path: Path) -> None:
    """Bazel makes such; what is not below the path that was given has to be allowed."""
    layout = simple().write(tmp_path / "layout")
    repo = init(tmp_path / "repo")
    whole = pull(init(tmp_path / "other"), f"oci:{layout}", "app")
    for place, which in ((layout / "inner", 0), (tmp_path / "the cache", 1)):
        place.mkdir()
        for path in sorted((layout / "blobs/sha256").iterdir())[which::2]:
            if not path.is_symlink():
                path.rename(place / path.name)
                path.symlink_to(place / path.name)
    outer = tmp_path / "the cache"
    error = the_error("--repo", repo, "oci", "pull", f"oci:{layout}", "app", status=7)
    assert f"leads to {outer}/" in error
    assert f"cfsctl --ext-read '{outer}'" in error
    done = cfsctl("--repo", repo, "--ext-read", outer, "oci", "pull", f"oci:{layout}", "app", "--json")
    assert json.loads(done.stdout) == whole
