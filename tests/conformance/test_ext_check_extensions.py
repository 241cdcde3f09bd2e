"""Extensions that are right pass the kit strictly: the samples of this source, and the installed formats."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support import oci_layout, ostree_repo
from support.commands import cfsctl
from support.peers import require

ROOT = Path(__file__).parents[2]
SAMPLES = {"sh/shfetch": "jq", "perl/sums": "perl", "lua/cpio": "lua5.4"}


def check(*arguments: str | Path) -> dict[str, Any]:
    """Check an extension strictly; return what there is to say, should it not pass."""
    report = json.loads(cfsctl("ext", "check", "--strict", "--json", *arguments).stdout)
    for rule in report["rules"]:
        assert rule["state"] in ("pass", "needless"), rule
    assert report["ok"] is True
    return {rule["rule"]: rule["tried"] for rule in report["rules"]}


@pytest.mark.parametrize("sample", SAMPLES)
def test_samples(tmp_path: Path, sample: str) -> None:
    require(SAMPLES[sample])
    for suffix in ("", ".json"):
        shutil.copy(ROOT / f"samples/{sample}{suffix}", tmp_path)
    assert check(tmp_path / Path(sample).name)["P-27"] > 5


def test_the_sample_in_perl_checks_stores_and_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(tmp_path / "ext"))
    shutil.copytree(ROOT / "samples/perl", tmp_path / "ext")
    cfsctl("init", "--insecure", tmp_path / "repo")
    example = json.loads((ROOT / "samples/perl/sums.json").read_text())["commands"][0]["examples"][0]
    for name, text in example["files"].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = cfsctl("--repo", tmp_path / "repo", "sums", "pull", tmp_path / "release", "greetings")
    assert done.stdout.startswith("sums/greetings ")
    assert done.stderr == ""
    listed = cfsctl("--repo", tmp_path / "repo", "ls", "refs/sums/greetings").stdout
    assert listed.splitlines() == ["a blank.txt", "empty", "hello.txt"]
    (tmp_path / "release/hello.txt").write_text("damaged\n")
    failed = cfsctl("--repo", tmp_path / "repo", "sums", "pull", tmp_path / "release", "other", status=5)
    assert "hello.txt does not have the digest that is promised" in failed.stderr
    assert cfsctl("--repo", tmp_path / "repo", "fsck").stdout.endswith("status: ok\n")


def test_the_sample_in_lua_gives_the_archive_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("lua5.4")
    require("bsdtar")
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(tmp_path / "ext"))
    shutil.copytree(ROOT / "samples/lua", tmp_path / "ext")
    tree = tmp_path / "tree"
    (tree / ".hidden dir").mkdir(parents=True)
    (tree / ".hidden dir/naïve \\ name").write_bytes(b"x" * 100_000)
    (tree / "a").write_text("linked\n")
    (tree / ".hidden dir/b").hardlink_to(tree / "a")
    (tree / "empty").touch()
    (tree / "link").symlink_to("-")
    os.mkfifo(tree / "pipe")
    archive = tmp_path / "tree.cpio"
    subprocess.run(["bsdtar", "-cf", archive, "--format=newc", "-C", tree, "."], check=True)
    repo = tmp_path / "repo"
    cfsctl("init", "--insecure", repo)
    result = json.loads(cfsctl("--repo", repo, "cpio", "import", archive, "tree", "--json").stdout)
    whole = cfsctl("--repo", repo, "cat", result["stream"]).stdout.encode(errors="surrogateescape")
    assert whole == archive.read_bytes()
    dumped = cfsctl("--repo", repo, "dump-files", "cpio/tree", ".hidden dir", "a", "empty", "link", "pipe").stdout
    lines = {fields[0]: fields for fields in map(str.split, dumped.splitlines())}
    assert lines["/link"][8] == r"\x2d"
    assert lines["/a"][3] == lines[r"/.hidden\x20dir/b"][3] == "2"
    assert lines[r"/.hidden\x20dir/na\xc3\xafve\x20\\\x20name"][1] == "100000"
    archive.write_bytes(archive.read_bytes()[:1000])
    failed = cfsctl("--repo", repo, "cpio", "import", archive, "other", status=5)
    assert failed.stderr == "cfsctl: the archive ends too early\n"
    assert cfsctl("--repo", repo, "fsck").stdout.endswith("status: ok\n")


@pytest.mark.parametrize("name", ["oci", "ostree"])
def test_offline_examples(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(ROOT / "libexec"))
    tried = check(name)
    assert tried["P-27"] > 10
    assert tried["P-41"] > 10
    commands = json.loads((ROOT / f"extensions/{name}/libexec/composefs/ext/{name}.json").read_text())["commands"]
    assert all("result_schema" in command for command in commands)


def test_a_pull_of_ostree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(ROOT / "libexec"))
    repository = ostree_repo.make_repo(tmp_path / "source")
    ostree_repo.commit(repository, ostree_repo.make_tree(tmp_path / "tree"))
    tried = check("ostree", "--", "pull-local", repository, ostree_repo.BRANCH)
    assert all(tried[f"P-{rule}"] for rule in (8, 9, 12, 14, 20, 22, 25, 27, 29, 32, 35, 40))


def test_a_pull_of_oci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(ROOT / "libexec"))
    layout = oci_layout.simple().write(tmp_path / "layout")
    tried = check("oci", "--", "pull", f"oci:{layout}:latest", "app")
    assert all(tried[f"P-{rule}"] for rule in (8, 9, 12, 14, 20, 22, 25, 27, 29, 32, 35, 40))
