"""What takes as long as a repository is large tells that it is at work, and when it has ended.

A bar shows life by itself once there is one: for a million files each of these says nothing for ten seconds to minutes
otherwise.
"""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path

import pytest

from support.commands import CFSCTL, cfsctl, run
from support.oci_layout import Layout, tar
from support.peers import require

COMMANDS = {
    "gc": "collecting garbage",
    "diff ostree/os ostree/os": "comparing",
    "ls -R ostree/os": "reading the image",
    "dump-files ostree/os usr": "reading the image",
    "du": "measuring",
    "fsck": "checking objects",
    "create-image TREE os": "image",
    "compute-id TREE": "image",
    "compute-id --from-dump DUMP": "reading the dump",
    "ostree commit --tree=dir=TREE --orphan": "tree",
    "ostree fsck": "commits",
    "ostree dump os": "tree",
    "ostree compute-id os": "tree",
    "ostree export os EXPORTED": "files",
    "ostree list-refs --path SOURCE": "refs",
    "ostree pull-local SOURCE os": "refs",
    "oci list-tags oci:LAYOUT": "tags",
    "oci fsck": "images",
    "oci dump app": "tree",
    "oci compute-id app": "tree",
    "oci pull oci:LAYOUT new": "image",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a repository that has a commit and an image, and with the layout of another image."""
    directory = tmp_path_factory.mktemp("progress")
    (directory / "tree" / "usr").mkdir(parents=True)
    (directory / "tree" / "usr" / "file").write_bytes(bytes(1000))
    (directory / "dump").write_text("/ 0 40755 2 0 0 0 0.0 - - -\n")
    cfsctl("init", "--insecure", directory / "repo")
    repo = ("--repo", directory / "repo")
    cfsctl(*repo, "ostree", "commit", "--branch=os", f"--tree=dir={directory}/tree")
    cfsctl(*repo, "ostree", "export", "os", directory / "source")
    for name in ("old", "layout"):
        layout = Layout()
        layout.add(layout.image(tar(a=name.encode() * 500)))
        layout.write(directory / name)
    cfsctl(*repo, "oci", "pull", f"oci:{directory}/old", "app")
    return directory


@pytest.mark.parametrize("command", COMMANDS)
def test_progress_that_ends(made: Path, tmp_path: Path, command: str) -> None:
    """It is there, and nothing that was started is left without its end; how early it starts, events do not tell."""
    paths = {name.upper(): made / name for name in ("tree", "source", "layout", "dump")} | {
        "EXPORTED": tmp_path / "exported"
    }
    words = reduce(lambda words, name: words.replace(name, str(paths[name])), paths, command)
    told = cfsctl("--progress", "json", "--repo", made / "repo", *words.split()).stderr.splitlines()
    events = [(event["kind"], event["label"]) for event in map(json.loads, told)]
    started, done = (sorted(label for kind, label in events if kind == end) for end in ("started", "done"))
    assert COMMANDS[command] in started
    assert started == done


def test_several_files_of_an_image_are_one_work(made: Path) -> None:
    words = ("--progress", "json", "--repo", made / "repo", "dump-files", "ostree/os", "usr", "usr/file")
    told = cfsctl(*words).stderr.splitlines()
    assert [json.loads(event)["kind"] for event in told] == ["started", "done"]


@pytest.mark.parametrize(
    "more", [(), ("-e", "inject=clone,clone3:error=EAGAIN")], ids=["other processes", "none may be started"]
)
def test_few_files_that_take_long_are_told_before_they_are_done(tmp_path: Path, more: tuple[str, ...]) -> None:
    for number in range(9):
        (tmp_path / str(number)).write_bytes(bytes(100))
    slow = (require("strace"), "-qqq", "-o", "/dev/null", "-e", "inject=flistxattr:delay_enter=300000", *more)
    done = run(*slow, CFSCTL, "--no-repo", "--progress", "json", "compute-id", "--no-propagate-usr-to-root", tmp_path)
    first, *_ = map(json.loads, done.stderr.splitlines())
    assert (first["kind"], first["label"]) == ("started", str(tmp_path))
    assert first["done"] < 9
    assert len(done.stdout) == 129
