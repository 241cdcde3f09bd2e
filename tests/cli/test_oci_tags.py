"""``cfsctl oci tag`` and ``untag``."""

from __future__ import annotations

from pathlib import Path

import pytest

from composefs.repository import Repository
from support.commands import cfsctl, run
from support.oci_layout import Layout, digest, tar
from support.peers import require

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


def test_a_tag_means_the_one_image_that_its_config_names(tmp_path: Path, repo: Path) -> None:
    layout = Layout()
    layout.add(layout.image(tar(a=b"a")), "1")
    layout.write(tmp_path / "layout")
    cfsctl("--repo", repo, "oci", "pull", f"oci:{tmp_path}/layout", "app:1")
    image = cfsctl("--repo", repo, "oci", "compute-id", "app:1").stdout.strip()
    assert cfsctl("--repo", repo, "ls", "oci/app:1").stdout == cfsctl("--repo", repo, "ls", image).stdout == "usr\n"
    assert "(its name is oci/app:1)" in cfsctl("--repo", repo, "ls", "app:1", status=3).stderr
    told = cfsctl("--repo", repo, "oci", "inspect", "oci/app:1", status=3).stderr
    assert "(leave out oci/; cfsctl oci images" in told
    with Repository.open(repo) as repository:
        [layer] = [name for name, _ in repository.streams.list("oci-layer-")]
    refused = cfsctl("--repo", repo, "ls", layer, status=3).stderr
    assert f"the stream '{layer}' names no image (`cfsctl cat {layer}` writes what it was made of)" in refused


def test_two_images_as_podman_pulls_them(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSEFS_OCI_RETRIES", "0")
    one, two = "docker://127.0.0.1:1/one", "docker://127.0.0.1:1/two"
    for name, is_warned in ((two, True), (one, False), ("two", False)):
        told = cfsctl("--repo", repo, "oci", "pull", one, name, status=6).stderr
        assert (f"warning: {one} alone is pulled, and called {two} here\n" in told) == is_warned
        assert told.count("\n") == 1 + is_warned


def test_an_image_of_a_layout_by_its_number_as_skopeo_has_it(tmp_path: Path, repo: Path) -> None:
    layout = Layout()
    for content in (b"a", b"b"):
        layout.add({**layout.image(tar(a=content)), "platform": {"os": "linux", "architecture": "s390x"}})
    index = Layout()
    index.add(index.index(*layout.entries), "index")
    index.blobs |= layout.blobs
    nested = f"oci:{index.write(tmp_path / 'index')}:index"
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    options = ("--platform", "linux/s390x")
    told = cfsctl("--repo", repo, "oci", "pull", *options, source, status=5).stderr
    assert "2 images fit linux/s390x" in told
    assert "(name one of them by its number, the first :@0, or by a tag of its own)" in told
    told = cfsctl("--repo", repo, "oci", "pull", *options, nested, status=5).stderr
    assert "2 images fit linux/s390x" in told
    assert "(name one of them by a tag of its own, or in a registry by its digest)" in told
    for number, entry in enumerate(layout.entries):
        named = run(require("skopeo"), "inspect", "--raw", f"{source}:@{number}").stdout
        assert digest(named.encode()) == entry["digest"]
        done = cfsctl("--repo", repo, "oci", "pull", *options, f"{source}:@{number}", "app")
        assert f"manifest {entry['digest']}\n" in done.stdout


def test_what_an_image_says_of_itself_stays_within_its_line(tmp_path: Path, repo: Path) -> None:
    layout = Layout()
    image = layout.image(tar(a=b"a"), architecture="x\x1b[2J\ny")
    layout.add(image)
    assert cfsctl("oci", "list-tags", f"oci:{layout.write(tmp_path / 'none')}").stdout == "No tags found\n"
    layout.entries.clear()
    layout.add(image, "a\x1b[2Jb\nc")
    layout.write(tmp_path / "layout")
    assert cfsctl("oci", "list-tags", f"oci:{tmp_path}/layout").stdout == "a\ufffd[2Jb\ufffdc\n"
    cfsctl("--repo", repo, "oci", "pull", f"oci:{tmp_path}/layout", "app")
    [_, line] = cfsctl("--repo", repo, "oci", "images").stdout.splitlines()
    assert line.split()[2] == "x\ufffd[2J\ufffdy"
