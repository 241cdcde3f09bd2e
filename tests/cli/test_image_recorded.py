"""image-objects, dump-files, ls and diff on the repositories that composefs-rs made: what it answered, ours answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.commands import cfsctl
from support.recorded import RECORDED, answers, unpack

pytestmark = pytest.mark.vectors


@pytest.fixture(scope="module", params=RECORDED)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    name = str(request.param)
    return unpack(name, tmp_path_factory.mktemp(name)), answers(name)


@pytest.mark.parametrize("name", ["image-objects", "dump-files"])
def test_as_recorded(recorded: tuple[Path, dict[str, Any]], name: str) -> None:
    repo, told = recorded
    rows = [each for each in told["commands"] if each["argv"][0] == name]
    assert len(rows) >= 8
    for row in rows:
        done = cfsctl("--repo", repo, *row["argv"], status=None)
        assert (done.returncode != 0) == (row["rc"] != 0), row["argv"]
        if row["rc"]:
            assert done.stdout == ""
            assert done.stderr.count("\n") == 1
        elif "sorted" in row:  # composefs-rs prints them in the order of a hash table.
            assert done.stdout.splitlines() == row["sorted"]
            document = json.loads(cfsctl("--repo", repo, *row["argv"], "--json").stdout)
            assert [line.partition(":")[2] for line in row["sorted"]] == document["objects"]
        else:
            assert done.stdout == row["stdout"]


def test_errors_say_what(recorded: tuple[Path, dict[str, Any]]) -> None:
    repo, _ = recorded
    assert (
        "/no-such not found" in cfsctl("--repo", repo, "dump-files", "refs/tree-1", "/y0", "/no-such", status=3).stderr
    )
    assert "invalid file name '/'" in cfsctl("--repo", repo, "dump-files", "refs/tree-1", "/", status=2).stderr
    for command in (["image-objects"], ["ls"], ["diff", "refs/tree-1"]):
        assert (
            "there is no image or stream 'refs/none'" in cfsctl("--repo", repo, *command, "refs/none", status=3).stderr
        )


def test_names_of_all_files_are_listed(recorded: tuple[Path, dict[str, Any]]) -> None:
    repo, _ = recorded
    pending, listed = ["/"], []
    while pending:
        directory = pending.pop()
        document = json.loads(cfsctl("--repo", repo, "ls", "--json", "refs/tree-1", directory).stdout)
        assert document["path"] == directory
        names = [entry["name"] for entry in document["entries"]]
        assert cfsctl("--repo", repo, "ls", "refs/tree-1", directory).stdout.splitlines() == names
        for entry in document["entries"]:
            path = f"{directory.rstrip('/')}/{entry['name']}"
            listed.append((path, entry))
            if entry["type"] == "directory":
                pending.append(path)
    dump = cfsctl("--repo", repo, "dump-files", "refs/tree-1", *(path for path, _ in listed if path.count("/") == 1))
    lines = {line.split()[0]: line.split() for line in dump.stdout.splitlines()}
    assert set(lines) == {path for path, _ in listed}
    for path, entry in listed:
        if lines[path][2].startswith("@"):
            continue
        assert lines[path][2][-4:] == entry["mode"]
        if entry["type"] == "file":
            assert int(lines[path][1]) == entry["size"]
            assert lines[path][10] == (entry["object"] or "-")


def test_diff_of_an_image_with_itself_and_others(recorded: tuple[Path, dict[str, Any]]) -> None:
    repo, told = recorded
    ids = sorted(
        {path.removeprefix("images/") for path in told["images"] if "/refs/" not in path and "images/" in path}
    )
    ids = [each for each in ids if "/" not in each and len(each) >= 64]
    assert len(ids) == 5
    same = json.loads(cfsctl("--repo", repo, "diff", "--json", ids[0], ids[0]).stdout)
    assert same == {"added": [], "removed": [], "changed": [], "fetch": {"objects": 0, "bytes": 0}}
    there = json.loads(cfsctl("--repo", repo, "diff", "--json", ids[0], ids[1]).stdout)
    back = json.loads(cfsctl("--repo", repo, "diff", "--json", ids[1], ids[0]).stdout)
    assert (there["added"], there["removed"], there["changed"]) == (back["removed"], back["added"], back["changed"])
    objects = [
        set(json.loads(cfsctl("--repo", repo, "image-objects", "--json", each).stdout)["objects"]) for each in ids[:2]
    ]
    assert there["fetch"]["objects"] == len(objects[1] - objects[0])
    assert there["fetch"]["bytes"] == sum(
        (repo / "objects" / each[:2] / each[2:]).stat().st_size for each in objects[1] - objects[0]
    )
