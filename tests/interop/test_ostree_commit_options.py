"""What the options of ``ostree commit`` mean, held against the ostree of the distribution."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from support.made_repo import make_system
from support.ostree_making import (
    BRANCH,
    commit_both,
    make_bootable,
    ostree,
    random_layer,
)
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import make_repo
from support.server import serve

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.mark.parametrize(
    "options",
    [
        ("--timestamp=2024-05-06T07:08:09Z", "--subject=s", "--body=more\nlines"),
        ("--timestamp=Mon, 06 May 2024 07:08:09 +0200", "--no-bindings"),
        ("--timestamp=2024-05-06 07:08:09",),
        ("--timestamp=@0", "--bind-ref=zz", "--bind-ref=a/b", "--add-metadata-string=z=1", "--add-metadata-string=a=="),
        ("--timestamp=@0", "--bind-ref=zz", "--bind-ref=a/b", "--bind-ref=zz", f"--bind-ref={BRANCH}"),
        ("--timestamp=@1", "--parent=" + "ab" * 32, "--canonical-permissions"),
        ("--timestamp=@1", "--owner-uid=5", "--owner-gid=2147483647", "--no-xattrs"),
        ("--timestamp=@1", "--add-metadata=b=['x', \"y\"]", "--add-metadata-string=c=d", "--add-metadata=a=uint32 5"),
        ("--timestamp=@1", "--add-metadata=k={'a': <1>, 'b': <(true, @as [])>}", "--add-metadata=m=@ms nothing"),
        ("--timestamp=@1", "--add-metadata=k=[1, 2.5]", "--add-metadata=n=b'bytes\\001'", "--add-metadata=x=-0x10"),
        ("--timestamp=@1", "--add-metadata=k=[byte 0x01, 0xff]", "--add-metadata=t=(int64 -1, 'x', just 3)"),
        ("--timestamp=@1", "--add-metadata=j=@ms 'x'", "--add-metadata=k=@a(mi) [(5,), (nothing,)]"),
    ],
    ids=range(12),
)
def test_options_mean_what_they_mean_to_ostree(tmp_path: Path, options: tuple[str, ...]) -> None:
    tree = make_system(tmp_path / "tree")
    target, theirs, ours, expected = commit_both(tmp_path, f"dir={tree}", *options)
    target.ostree("export", BRANCH, tmp_path / "exported")
    assert ostree(tmp_path / "exported", "show", "--raw", BRANCH).stdout == ostree(theirs, "show", "--raw", ours).stdout
    assert ours == expected


def test_values_mean_what_they_mean_to_ostree(tmp_path: Path) -> None:
    """Types that values take from each other, escapes, and what GLib's tokens end at."""
    (tmp_path / "tree").mkdir()
    values = (
        *("[(1, []), (2.5, ['a'])]", "[['/'], [objectpath '/x']]", "[1, just just 2]", "[@mi nothing, 5]"),
        *("{1: 1, 2.0: 2}", "[{1, 'x'}, {uint16 2, 'y'}]", "{1: just 5, 2: nothing}", "{'k', <@u 5>}"),
        *("'\\0\\377\\x41'", "'\\u00e4\\U0001f600\\\n'", "b'\\u00e4\\1018\\377'", "b'ä'", "b'a\\000b'"),
        *("just-1", "uint32+5", "[0b101, -0x1f, 017]", "-0x1e", "double 0x1p3", "[0x10, 2.5]", "-inf", "byte 0xff"),
        *("@a{s(ii)} {}", "@a{s(ii)} {'a': (1, 2)}", "@a{yas} {1: []}", "[@a{sv} {'a': <1>}, {'b': <@as []>}]"),
        *('string"it\'s"', "signature 'a{sv}i'", "\f(handle -1,)"),
    )
    options = [f"--add-metadata=k{number:02}={value}" for number, value in enumerate(values)]
    _, _, ours, expected = commit_both(tmp_path, f"dir={tmp_path / 'tree'}", "--timestamp=@1", *options)
    assert ours == expected


@pytest.mark.parametrize("body", ["", "one line", "one line\n", "a\n\n# grüße\n  b \r\n"], ids=range(4))
def test_a_body_from_a_file_is_what_ostree_takes(tmp_path: Path, body: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "body").write_text(body, newline="")
    options = ("-F", str(tmp_path / "body"), "--subject=s", "--timestamp=@1")
    target, _, ours, expected = commit_both(tmp_path, f"dir={tmp_path / 'tree'}", *options)
    assert ours == expected
    assert target.json("inspect", BRANCH)["body"] == body


def test_commits_of_a_collection_are_what_ostree_makes_in_its_repository(tmp_path: Path) -> None:
    tree, collection = make_bootable(tmp_path / "tree", "6.1"), "org.example.Os_2"
    target, theirs = Target(tmp_path / "ours"), make_repo(tmp_path / "theirs")
    ostree(theirs, "config", "set", "core.collection-id", collection)
    for options in ((), ("--bind-ref=zz", "--add-metadata-string=version=1"), ("--bootable", "--add-metadata=n=1")):
        words = ("commit", "-b", BRANCH, f"--tree=dir={tree}", "--timestamp=@1", "--parent=none", *options)
        ours = target.json(*words, f"--collection-id={collection}")["commit"]
        assert ours == ostree(theirs, *words).stdout.strip()
    # Bound to it, the commit is what a remote of the collection may bring.
    exported = make_repo(tmp_path / "exported")
    ostree(exported, "config", "set", "core.collection-id", collection)
    target.ostree("export", BRANCH, exported)
    with serve(exported) as server:
        puller = make_repo(tmp_path / "puller", "bare-user")
        remote = ("remote", "add", "--no-gpg-verify", f"--collection-id={collection}", "origin", server.url)
        ostree(puller, *remote)
        ostree(puller, "pull", "origin", BRANCH)
        back = Target(tmp_path / "back")
        back.ostree(*remote)
        assert back.json("pull", "origin", BRANCH)["commit"] == ours
    assert "no errors found" in ostree(puller, "fsck").stdout


def test_metadata_of_the_parent_are_kept_as_ostree_keeps_them(tmp_path: Path) -> None:
    tree = make_bootable(tmp_path / "tree", "6.1")
    target, theirs = Target(tmp_path / "ours"), make_repo(tmp_path / "theirs")
    first = (
        *("--add-metadata=list=[{'a': <(1, 'x')>}, {}]", "--add-metadata-string=version=1", "--add-metadata=t=true"),
        *("--bootable", "--add-metadata=nested=<<@as []>>", "--add-metadata-string=left=out"),
    )
    kept = [f"--keep-metadata={key}" for key in ("t", "version", "ostree.linux", "nested", "list")]
    changed = ("--add-metadata-string=version=2", "--keep-metadata=list", "--keep-metadata=nested")
    for options in (first, (*kept, "--add-metadata=b=1"), changed, ("--keep-metadata=list", "--bootable")):
        words = ("commit", "-b", BRANCH, f"--tree=dir={tree}", "--timestamp=@1", *options)
        ours = target.json(*words)
        assert ours["commit"] == ostree(theirs, *words).stdout.strip()
    # Of another commit than the branch's, and of one whose object alone is here.
    by_id = ("commit", "--orphan", f"--tree=dir={tree}", "--timestamp=@1", f"--parent={ours['parent']}")
    expected = ostree(theirs, *by_id, "--keep-metadata=nested").stdout.strip()
    assert target.json(*by_id, "--keep-metadata=nested")["commit"] == expected
    partial = Target(tmp_path / "partial")
    partial.ostree("pull-local", "--commit-metadata-only", "--depth=1", theirs, BRANCH)
    assert partial.json(*by_id[:-1], f"--parent={ours['commit']}", "--keep-metadata=list")["parent"] == ours["commit"]
    words = ("commit", "-b", BRANCH, f"--tree=dir={tree}", "--keep-metadata=left")
    failed = target.ostree(*words, status=2)
    assert f"--keep-metadata left: the parent, commit {ours['commit']}, has no such key" in failed.stderr
    assert "it has list, ostree.bootable, ostree.linux, ostree.ref-binding" in failed.stderr
    assert "Missing metadata key 'left'" in ostree(theirs, *words, status=1).stderr


def test_an_unchanged_tree_is_skipped_where_ostree_skips_it(tmp_path: Path) -> None:
    tree = make_system(tmp_path / "tree")
    target, theirs = Target(tmp_path / "ours"), make_repo(tmp_path / "theirs")
    skip = ("commit", "-b", BRANCH, f"--tree=dir={tree}", "--skip-if-unchanged")
    answers = []

    def commit(*options: str) -> None:
        made = target.json(*skip, *options)
        assert made["commit"] == ostree(theirs, *skip, *options).stdout.strip()
        assert target.json("inspect", BRANCH)["commit"] == ostree(theirs, "rev-parse", BRANCH).stdout.strip()
        answers.append((made["commit"], made["unchanged"]))

    commit("--timestamp=@1")
    commit("--timestamp=@2", "--subject=other", "--add-metadata-string=version=2")
    tree.chmod(0o700)  # the root's mode is a part of the tree
    commit("--timestamp=@3")
    commit("--timestamp=@4")
    commit("--timestamp=@5", "--owner-uid=5")
    (tree / "etc/os-release").write_text("NAME=Demo\nVERSION=2\n")
    commit("--timestamp=@6", f"--parent={answers[0][0]}")
    commit("--timestamp=@7", "--parent=none")
    assert [unchanged for _, unchanged in answers] == [False, True, False, True, False, False, False]
    # Beside its branch: nothing is set.
    before = target.names()
    made = target.json("commit", "-b", "other", *skip[3:], f"--parent={answers[-1][0]}")
    assert (made["commit"], made["unchanged"], made["ref"]) == (answers[-1][0], True, None)
    assert target.names() == before


def test_executables_are_made_read_only_as_by_ostree(tmp_path: Path) -> None:
    (tree := tmp_path / "tree").mkdir()
    for mode in (0o600, 0o611, 0o755, 0o777, 0o4775, 0o601, 0o1666, 0o222, 0o111):
        (tree / f"{mode:o}").write_text("x")
        (tree / f"{mode:o}").chmod(mode)
    (tree / "writable").mkdir(mode=0o777)
    (tree / "link").symlink_to("755")
    _, theirs, ours, expected = commit_both(tmp_path, f"dir={tree}", "--timestamp=@1", "--mode-ro-executables")
    assert ours == expected
    assert "-04555" in ostree(theirs, "ls", BRANCH, "/4775").stdout


def test_times_mean_what_they_mean_to_ostree(tmp_path: Path) -> None:
    """In a zone with summer time, whose rules need no file; the clocks go through 01:30 of 3 November twice."""
    (tmp_path / "tree").mkdir()
    theirs, target = make_repo(tmp_path / "theirs"), Target(tmp_path / "target")
    env = {**os.environ, "TZ": "EST5EDT,M3.2.0,M11.1.0"}

    def words(text: str) -> tuple[str, ...]:
        return "commit", f"--timestamp={text}", "-b", BRANCH, f"--tree=dir={tmp_path / 'tree'}", "--parent=none"

    for text in (
        *("@1700000000", "@-1", "@-1.5", "@1700000000.9", "1969-12-31", "2024-01-02", "2024-07-02 03:04"),
        *("2024-07-02 03:04:05", "2024-01-02T03:04:05.9", "2024-01-02T03:04:05Z", "2024-01-02 03:04:05 +05:30"),
        *("2024-01-02T03:04:05-0100", "2024-11-03T01:30:00", "Tue, 02 Jan 2024 03:04:05 -0000", "1 Jan 2024 03:04 PDT"),
        "Tue Jan  2 03:04:05 UTC 2024",
    ):
        made = json.loads(target.ostree(*words(text), "--json", env=env).stdout)["commit"]
        assert (text, made) == (text, ostree(theirs, *words(text), env=env).stdout.strip())
    for text in ("@9223372036854775808", "2024-02-30", "2024-03-10T02:30:00", "2024-01-02+01:00", "20240102T030405x"):
        ostree(theirs, *words(text), env=env, status=1)
        target.ostree(*words(text), env=env, status=2)

    target.ostree(*words("1969-12-31T23:59:59Z"))
    ostree(theirs, *words("1969-12-31T23:59:59Z"))
    assert "1969-12-31 23:59:59" in ostree(theirs, "show", BRANCH).stdout
    assert "1969-12-31 23:59:59" in target.ostree("inspect", BRANCH).stdout
    before = int(time.time())
    target.ostree(*words("now"))
    assert before <= target.json("inspect", BRANCH)["timestamp"] <= int(time.time())


def test_the_same_branches_and_values_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    theirs, target = make_repo(tmp_path / "theirs"), Target(tmp_path / "target")
    for option in ("--branch=" + "0f" * 32, "--branch=a\u2013b", "--add-metadata=k=1e999"):
        words = ("commit", "--branch=x", option, f"--tree=dir={tmp_path / 'tree'}")
        if option.startswith("--branch"):
            words = (words[0], *words[2:])
        ostree(theirs, *words, status=1)
        target.ostree(*words, status=2)
    assert target.names() == {}


def test_the_parent_is_what_the_branch_names_and_the_time_comes_from_the_environment(tmp_path: Path) -> None:
    tree = make_system(tmp_path / "tree")
    target, theirs, first, expected = commit_both(tmp_path, f"dir={tree}", env={"SOURCE_DATE_EPOCH": "1234567890"})
    assert first == expected
    (tree / "new").write_text("new")
    arguments = ("commit", "-b", BRANCH, f"--tree=dir={tree}", "--timestamp=@2000000000")
    second = target.json(*arguments)
    assert second["parent"] == first
    assert second["commit"] == ostree(theirs, *arguments).stdout.strip()
    # Both are exported, into one repository.
    exported = tmp_path / "exported"
    target.ostree("export", first, exported)
    assert ostree(exported, "refs").stdout == ""
    again = target.json("export", BRANCH, exported)
    assert (again["files_written"], again["metadata_written"]) == (1, 2)
    log = ostree(exported, "log", BRANCH).stdout
    assert f"commit {second['commit']}" in log
    assert f"commit {first}" in log
    assert "no errors found" in ostree(exported, "fsck").stdout
    nothing = target.json("export", BRANCH, exported)
    assert (nothing["files_written"], nothing["metadata_written"]) == (0, 1)


@pytest.mark.root
def test_options_by_chance_mean_what_they_mean_to_ostree(tmp_path: Path) -> None:
    """All that may be combined, on trees over one another and over other commits."""
    target, theirs = Target(tmp_path / "target"), make_repo(tmp_path / "theirs")
    (kernel := tmp_path / "kernel/usr/lib/modules/1").mkdir(parents=True)
    (kernel / "vmlinuz").write_text("kernel")
    lower = ("commit", "-b", "made/lower", f"--tree=dir={tmp_path / 'kernel'}", "--timestamp=@1")
    assert target.json(*lower)["commit"] == ostree(theirs, *lower).stdout.strip()
    (tmp_path / "modes").write_text("=2541 /usr/lib/modules/1/vmlinuz\n=1023 /usr/lib\n")
    (tmp_path / "left out").write_text("/usr/lib/modules/1/vmlinuz\n")
    lists = (f"--statoverride={tmp_path / 'modes'}", f"--skip-list={tmp_path / 'left out'}")
    free = (
        *(
            "--bootable",
            "--mode-ro-executables",
            "--no-xattrs",
            "--skip-if-unchanged",
            "--add-metadata-string=b=",
            *lists,
        ),
        *(
            "--add-metadata=a=1",
            "--add-metadata-string=version=1",
            "--keep-metadata=ostree.ref-binding",
            "--bind-ref=zz",
        ),
    )
    answers = []
    for seed in range(40):
        chooser = random.Random(seed)
        trees = [f"dir={tmp_path / 'kernel'}", random_layer(tmp_path / f"{seed}", chooser)]
        chooser.shuffle(trees)
        options = [option for option in free if chooser.random() < 0.3]
        if "--keep-metadata=ostree.ref-binding" in options:
            options = [*(option for option in options if option != "--bind-ref=zz"), "--no-bindings"]
        if trees[0].startswith("dir") and trees[1].startswith("dir") and chooser.random() < 0.5:
            options += chooser.choice(
                [("--owner-uid=7",), ("--owner-gid=9",), ("--no-xattrs", "--canonical-permissions")]
            )
        else:
            options.append("--tar-autocreate-parents" if "tar=" in "".join(trees) else "--orphan")
        commits = chooser.choice([(), ("--base=made/lower",), ("--tree-ref=made/lower",)])
        branch = [] if "--orphan" in options else ["-b", f"branch{chooser.randrange(2)}"]
        words = ("commit", *branch, *options, f"--timestamp=@{seed}", *commits, *(f"--tree={tree}" for tree in trees))
        of_ostree = [word.replace("--tree-ref=", "--tree=ref=") for word in words]
        expected = ostree(theirs, *of_ostree, status=None)
        done = target.ostree(*words, "--json", status=None)
        answers.append(expected.returncode)
        made = json.loads(done.stdout)["commit"] if done.returncode == 0 else ""
        assert (words, made) == (words, expected.stdout.strip()), (done.stderr, expected.stderr)
    assert answers.count(0) > 30
    assert answers.count(1) > 2
