"""``cfsctl oci tag`` and ``untag``."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.commands import cfsctl

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    cfsctl("init", "--insecure", tmp_path / "repo")
    return tmp_path / "repo"


def test_tagging_what_is_not_here_names_the_digest_and_changes_nothing(repo: Path) -> None:
    done = cfsctl("--repo", repo, "oci", "tag", DIGEST, "app:1", status=3)
    assert DIGEST in done.stderr
    assert "cfsctl oci images" in done.stderr
    assert not (repo / "streams/refs/oci").exists()


def test_removing_a_name_that_is_not_there(repo: Path) -> None:
    assert "'app:1'" in cfsctl("--repo", repo, "oci", "untag", "app:1", status=3).stderr
