"""The options of a pull, against what the ostree command does with the same ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.commands import cfsctl, run
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import commit, make_repo, make_tree, update_summary
from support.peers import require
from support.server import Fault, serve

pytestmark = pytest.mark.usefixtures("extensions")

REF = "os/stable"


class Source:
    """An archive repository with a history of three commits on one ref, and a second ref."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = make_tree(path.with_name("tree"))
        make_repo(path)
        self.history = [self.commit(f"@{1700000000 + number}", f"change {number}") for number in range(3)]
        self.other = commit(path, self.tree / "usr" / "bin", "--timestamp=@1700000000", branch="os/testing")

    def commit(self, timestamp: str, text: str, *arguments: str, branch: str = REF) -> str:
        """Commit the tree with a changed file."""
        (self.tree / "usr" / "changed").write_text(text * 100)
        done = run(
            require("ostree"),
            "commit",
            f"--repo={self.path}",
            f"--branch={branch}",
            f"--timestamp={timestamp}",
            "--subject=x",
            *arguments,
            self.tree,
        )
        return done.stdout.strip()

    def ostree(self, *arguments: str) -> str:
        return run("ostree", f"--repo={self.path}", *arguments).stdout


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "source")


class Theirs:
    """An ostree repository with the source as its remote."""

    def __init__(self, path: Path, source: Path, *options: str) -> None:
        self.path = make_repo(path, "bare-user-only" if os.getuid() else "bare")
        run("ostree", f"--repo={path}", "remote", "add", *(options or ("--no-gpg-verify",)), "o", f"file://{source}")

    def pull(self, *arguments: str, status: int | None = 0) -> str:
        done = run("ostree", f"--repo={self.path}", "pull", "o", *arguments, status=status)
        return done.stdout + done.stderr

    def refs(self) -> dict[str, str]:
        names = run("ostree", f"--repo={self.path}", "refs").stdout.split()
        return {
            name.removeprefix("o:"): run("ostree", f"--repo={self.path}", "rev-parse", name).stdout.strip()
            for name in names
        }

    def objects(self, kind: str) -> set[str]:
        return {path.parent.name + path.stem for path in (self.path / "objects").rglob(f"*.{kind}")}

    def partial(self) -> set[str]:
        return {path.stem for path in (self.path / "state").glob("*.commitpartial")}


def refs_of(target: Target) -> dict[str, str]:
    return {row["name"]: row["commit"] for row in target.json("images")["images"]}


# Several refs


def test_several_refs_are_set_as_ostree_sets_them(tmp_path: Path, source: Source, target: Target) -> None:
    theirs = Theirs(tmp_path / "theirs", source.path)
    theirs.pull(REF, "os/testing")
    with serve(source.path) as server:
        done = target.json("pull", server.url, REF, "os/testing")
    assert [row["ref"] for row in done["pulled"]] == [REF, "os/testing"]
    assert refs_of(target) == theirs.refs() == {REF: source.history[-1], "os/testing": source.other}
    text = target.ostree("pull-local", source.path, REF, "os/testing").stdout
    assert text.count("commit  ") == text.count("tagged  ") == 2


@pytest.mark.parametrize("missing", ["first", "last"])
def test_one_bad_ref_of_several_and_none_is_set(source: Source, target: Target, missing: str) -> None:
    names = [REF, "os/none"] if missing == "last" else ["os/none", REF]
    refused = target.ostree("pull-local", source.path, *names, status=3)
    assert "os/none" in refused.stderr
    assert target.names() == {}
    line = source.ostree("ls", "-C", "os/testing", "/tool").split()
    file_id = next(word for word in line if len(word) == 64)
    (source.path / "objects" / file_id[:2] / f"{file_id[2:]}.filez").unlink()
    target.ostree("pull-local", source.path, REF, "os/testing", status=3)
    assert target.names() == {}
    assert target.left_over() == []


def test_parents_are_named_as_in_ostree(tmp_path: Path, source: Source, target: Target) -> None:
    alone = Target(tmp_path / "alone").json("pull-local", source.path, REF)
    pulled = target.json("pull-local", source.path, REF, "--depth=1")
    assert pulled["files_fetched"] == alone["files_fetched"] + 1, "what came of the parent counts"
    told = target.ostree("pull-local", source.path, REF, "--depth=1").stdout
    assert "\nparents 1\n" in told
    for name in (REF, f"{REF}^", f"{source.history[-1]}^", f"{source.history[-1][:8]}^"):
        assert target.json("inspect", name)["commit"] == source.ostree("rev-parse", name).strip()
    for name, told in (
        (f"{REF}^^", f"the parent of '{REF}^', commit {source.history[0]}, is not here"),
        (f"{REF}^^", f"it was not pulled (pull {REF}^ again with --depth=1), or cfsctl gc has removed it"),
        ("os/none^", "'os/none' is not a known ostree ref"),
    ):
        assert told in target.ostree("inspect", name, status=3).stderr
    target.ostree("tag", f"{REF}^", REF)
    target.ostree("export", REF, tmp_path / "out")
    assert refs_of(target) == {REF: source.history[-2]}
    target.ostree("pull-local", source.path, source.history[0])
    assert f"the commit '{REF}^' has no parent" in target.ostree("compute-id", f"{REF}^^", status=3).stderr


def test_all_refs_of_a_directory(source: Source, target: Target) -> None:
    names = [*"zywxvuts", REF, "os/testing"]  # made in no order, told in that of their names
    for name in names[:8]:
        source.ostree("refs", f"--create={name}", REF)
    pulled = target.json("pull-local", source.path, "--disable-verify-bindings")["pulled"]
    assert [row["ref"] for row in pulled] == sorted(names)
    assert refs_of(target) == {**dict.fromkeys(names, source.history[-1]), "os/testing": source.other}
    refused = target.ostree("pull", f"file://{source.path}", status=2)
    assert "nothing to pull (name a ref or a commit; cfsctl ostree list-refs lists them)" in refused.stderr


def test_a_mirror_has_no_refs_but_those_of_collections(tmp_path: Path, target: Target) -> None:
    theirs, mirror = make_repo(tmp_path / "theirs"), make_repo(tmp_path / "mirror")
    run(require("ostree"), "config", f"--repo={theirs}", "set", "core.collection-id", "org.a.B")
    tree = make_tree(tmp_path / "tree", files=1)
    made = run("ostree", "commit", f"--repo={theirs}", "--branch=a", f"--tree=dir={tree}").stdout.strip()
    update_summary(theirs)
    words = ("--no-gpg-verify", "--collection-id=org.a.B", "o")
    run("ostree", "remote", f"--repo={mirror}", "add", *words, theirs.as_uri())
    run("ostree", "pull", f"--repo={mirror}", "--mirror", "o", "a")
    update_summary(mirror)
    told = target.ostree("pull-local", mirror, status=3).stderr
    assert "has no refs of its own" in told
    lists = ("ostree", "list-refs", "--path", str(mirror), "--collections")
    assert f"cfsctl {' '.join(lists)} " in told
    assert f"{made}  org.a.B" in cfsctl(*lists).stdout
    target.ostree("remote", "add", *words, "http://h")
    target.ostree("pull-local", mirror, "a", "--remote=o")
    assert refs_of(target) == {"o:a": made}


def test_all_refs_of_a_directory_whose_summary_is_old(tmp_path: Path, source: Source, target: Target) -> None:
    """Refs are those that have files, commits those in the summary: both name the one that it lacks."""
    theirs = make_repo(tmp_path / "theirs")
    update_summary(source.path)
    source.ostree("refs", "--delete", "os/testing")
    newer = source.commit("@1700000005", "newer", branch="os/newer")
    refused = run("ostree", f"--repo={theirs}", "pull-local", source.path, status=1).stderr
    assert "'os/newer' in repository summary" in refused
    refused = target.ostree("pull-local", source.path, status=3).stderr
    assert "'os/newer'" in refused
    assert "ostree summary -u" in refused
    assert target.names() == {}
    update_summary(source.path)
    run("ostree", f"--repo={theirs}", "pull-local", source.path)
    target.ostree("pull-local", source.path)
    assert refs_of(target) == {REF: source.history[-1], "os/newer": newer}
    assert set(refs_of(target)) == set(run("ostree", f"--repo={theirs}", "refs").stdout.split())


def test_refs_in_the_letters_of_all_scripts(tmp_path: Path, source: Source, target: Target) -> None:
    names = ["é", "日本/x²", "a‿b", "e\u0301", "_/٣"]
    commits = {name: source.commit("@1700000005", name, branch=name) for name in names}
    with serve(source.path) as server:
        target.ostree("pull", server.url, *names)
    assert refs_of(target) == commits
    target.ostree("pull-local", source.path)
    assert refs_of(target) == commits | {REF: source.history[-1], "os/testing": source.other}
    update_summary(source.path)
    assert {row["name"] for row in target.json("list-refs", f"file://{source.path}")["refs"]} == set(refs_of(target))
    exported = make_repo(tmp_path / "exported")
    run("ostree", f"--repo={exported}", "pull-local", source.path, names[0])
    target.ostree("export", names[1], exported)
    theirs = Theirs(tmp_path / "theirs", exported)
    theirs.pull(*names[:2])  # of a repository with a summary, which lists both
    assert theirs.refs() == {name: commits[name] for name in names[:2]}


def test_a_file_url_is_the_directory(source: Source, tmp_path: Path, target: Target) -> None:
    by_path = Target(tmp_path / "by-path").json("pull-local", source.path, REF)
    assert target.json("pull", f"file://{source.path}", REF) == by_path


def test_what_one_ref_brought_is_not_fetched_for_the_next(source: Source, target: Target, tmp_path: Path) -> None:
    source.ostree("refs", "--create=os/old", source.history[0])
    with serve(source.path) as server:
        done = target.json("pull", server.url, "--disable-verify-bindings", REF, "os/old", "os/testing")
        files = {path for path in server.requests if path.endswith(".filez")}
        assert server.count("*.filez") == len(files)
    assert [row["files_fetched"] for row in done["pulled"]][1:] == [1, 0]


# REF@COMMIT


def test_a_ref_at_a_commit(tmp_path: Path, source: Source, target: Target) -> None:
    old = source.history[0]
    theirs = Theirs(tmp_path / "theirs", source.path)
    theirs.pull(f"{REF}@{old}")
    done = target.json("pull-local", source.path, f"{REF}@{old}")
    assert (done["commit"], done["ref"]) == (old, REF)
    assert refs_of(target) == theirs.refs() == {REF: old}
    assert "is not a commit id" in target.ostree("pull-local", source.path, f"{REF}@12ab", status=2).stderr
    # The bindings are those of the ref, wherever the commit comes from.
    evil = f"os/evil@{old}"
    assert "no requested ref" in theirs.pull(evil, status=1)
    assert "is bound to os/stable, not to 'os/evil'" in target.ostree("pull-local", source.path, evil, status=5).stderr


# Ages


def test_a_downgrade_is_refused_as_ostree_refuses_it(tmp_path: Path, source: Source, target: Target) -> None:
    theirs = Theirs(tmp_path / "theirs", source.path)
    theirs.pull(REF)
    target.ostree("pull-local", source.path, REF)
    part = Target(tmp_path / "part")
    part.ostree("pull-local", source.path, REF, "--commit-metadata-only")
    source.ostree("reset", REF, source.history[1])
    assert "is chronologically older" in part.ostree("pull-local", source.path, REF, "-T", status=5).stderr
    said = theirs.pull("-T", REF, status=1)
    for option in (["-T"], ["--timestamp-check"], ["--timestamp-check-from-rev", REF]):
        refused = target.ostree("pull-local", source.path, REF, *option, status=5).stderr
        for words in (source.history[1], source.history[2], "is chronologically older", "Tue Nov 14 22:13:21 2023"):
            assert words in said
            assert words in refused
        assert refs_of(target) == {REF: source.history[2]}
    assert target.json("pull-local", source.path, REF)["commit"] == source.history[1]
    # The same age is no downgrade, and a first pull has nothing to be compared with.
    again = source.commit("@1700000001", "the same second")
    assert target.json("pull-local", source.path, REF, "-T")["commit"] == again
    assert Target(tmp_path / "fresh").json("pull-local", source.path, REF, "-T")["commit"] == again


def test_a_downgrade_of_a_commit_that_is_here(source: Source, target: Target) -> None:
    target.ostree("pull-local", source.path, REF, "--depth=-1")
    refused = target.ostree("pull-local", source.path, f"{REF}@{source.history[0]}", "-T", status=5)
    assert "chronologically older" in refused.stderr
    assert refs_of(target) == {REF: source.history[2]}


# Histories


def test_fewer_parents_than_none_are_a_mistake(source: Source, target: Target) -> None:
    refused = target.ostree("pull-local", source.path, REF, "--depth=-2", status=2)
    assert "--depth takes how many parents, or -1 for all, not -2" in refused.stderr
    assert target.names() == {}


@pytest.mark.parametrize("depth", [0, 1, -1])
def test_a_history_is_as_deep_as_ostrees(tmp_path: Path, source: Source, target: Target, depth: int) -> None:
    theirs = Theirs(tmp_path / "theirs", source.path)
    theirs.pull(f"--depth={depth}", REF)
    done = target.json("pull-local", source.path, REF, f"--depth={depth}")
    streams = {name.rpartition("-")[2] for name in target.names() if name.startswith("streams/ostree-commit-")}
    assert streams == theirs.objects("commit") == {*done["parents"], source.history[-1]}
    run(*cfsctl_of(target), "gc")  # the child's stream keeps its parents
    for commit_id in streams:
        assert target.ostree("dump", commit_id).stdout
    run(*cfsctl_of(target), "fsck")
    assert target.json("fsck")["ok"]
    assert target.json("pull-local", source.path, REF, f"--depth={depth}")["metadata_fetched"] == 0


def cfsctl_of(target: Target) -> list[str]:
    from support.commands import CFSCTL

    return [CFSCTL, "--repo", str(target.path)]


def test_a_history_that_ends_early_is_no_error(tmp_path: Path, source: Source, target: Target) -> None:
    first = source.history[0]
    (source.path / "objects" / first[:2] / f"{first[2:]}.commit").unlink()
    theirs = Theirs(tmp_path / "theirs", source.path)
    theirs.pull("--depth=-1", REF)
    done = target.json("pull-local", source.path, REF, "--depth=-1")
    assert set(done["parents"]) == theirs.objects("commit") - {source.history[2]} == {source.history[1]}


def test_a_history_can_be_added_later(source: Source, target: Target) -> None:
    target.ostree("pull-local", source.path, REF)
    later = target.json("pull-local", source.path, REF, "--depth=1")
    assert later["parents"] == [source.history[1]]
    assert later["files_fetched"] == 1
    run(*cfsctl_of(target), "gc")
    assert target.ostree("dump", source.history[1]).stdout
    # A pull without it takes nothing away.
    target.ostree("pull-local", source.path, REF)
    run(*cfsctl_of(target), "gc")
    assert target.ostree("dump", source.history[1]).stdout


# Parts


SUBPATHS = [
    ["/usr/bin"],
    ["/usr/share/empty"],
    ["/usr/bin/tool"],
    ["/usr/bin/tool", "/usr/share"],
    ["/usr/bin", "/usr/bin/tool", "/usr"],
]


@pytest.mark.parametrize("subpaths", SUBPATHS, ids=" ".join)
def test_a_part_has_the_objects_that_ostree_pulls(
    tmp_path: Path, source: Source, target: Target, subpaths: list[str]
) -> None:
    options = [f"--subpath={path}" for path in subpaths]
    theirs = Theirs(tmp_path / "theirs", source.path)
    theirs.pull(*options, REF)
    with serve(source.path) as server:
        done = target.json("pull", server.url, REF, *options)
        asked = {path.rpartition("/")[0][-2:] + Path(path).stem for path in server.requests if ".filez" in path}
    assert asked == theirs.objects("file")
    assert theirs.partial() == {source.history[-1]}
    whole = {line.split(" ")[0] for line in target.ostree("dump", REF).stdout.splitlines()}
    wanted = [path.rstrip("/") for path in subpaths]
    for path in whole:
        assert any(
            f"{path}/".startswith(f"{each}/") or f"{each}/".startswith(f"{path}/".replace("//", "/")) for each in wanted
        )
    for each in wanted:
        assert each in whole
    assert done["subpaths"] is not None
    assert set(done["subpaths"]) <= set(wanted)
    assert target.ostree("compute-id", REF).stdout.strip() == done["image"]


def test_what_is_fetched_of_a_part_is_counted(source: Source, target: Target) -> None:
    with serve(source.path) as server:
        part = target.json("pull", server.url, REF, "--subpath=/usr/bin")
        assert part["metadata_fetched"] == sum(server.count(f"*.{kind}") for kind in ("commit", "dirtree", "dirmeta"))
        assert part["files_fetched"] == server.count("*.filez")


def test_a_part_is_completed_by_a_pull_without_subpath(tmp_path: Path, source: Source, target: Target) -> None:
    whole = Target(tmp_path / "whole").json("pull-local", source.path, REF)
    part = target.json("pull-local", source.path, REF, "--subpath=/usr/bin")
    assert part["image"] != whole["image"]
    assert not any("ostree-commit-" in name for name in target.names())
    more = target.json("pull-local", source.path, REF, "--subpath=/usr/share/empty")
    assert more["subpaths"] == ["/usr/bin", "/usr/share/empty"]
    assert more["files_fetched"] == 0
    nothing = target.json("pull-local", source.path, REF, "--subpath=/usr/bin/tool")
    assert nothing == {**more, "metadata_fetched": 0}
    completed = target.json("pull-local", source.path, REF)
    assert (completed["image"], completed["verity"]) == (whole["image"], whole["verity"])
    assert completed["files_fetched"] == whole["files_fetched"] - 2
    assert completed["subpaths"] is None
    run(*cfsctl_of(target), "gc")
    assert not any("ostree-partial-" in name for name in target.names())
    # A part of what is here whole is the whole.
    assert target.json("pull-local", source.path, REF, "--subpath=/usr/bin") == {
        **completed,
        "metadata_fetched": 0,
        "files_fetched": 0,
    }


def test_a_part_is_completed_by_a_pull_of_the_commit_that_no_ref_names(source: Source, target: Target) -> None:
    part = target.json("pull-local", source.path, REF, "--subpath=/usr/bin")
    run(*cfsctl_of(target), "ref", "remove", f"ostree/{REF}")
    completed = target.json("pull-local", source.path, part["commit"])
    assert part["files_fetched"] == 2
    whole = Target(target.path.with_name("whole")).json("pull-local", source.path, REF)
    assert completed["files_fetched"] == whole["files_fetched"] - 2


def test_a_part_is_not_taken_for_the_whole(tmp_path: Path, source: Source, target: Target) -> None:
    part = target.json("pull-local", source.path, REF, "--subpath=/usr/bin")
    assert "partial /usr/bin\n" in target.ostree("inspect", REF).stdout
    assert target.json("inspect", part["commit"][:8])["subpaths"] == ["/usr/bin"]
    assert target.ostree("images").stdout.splitlines()[1].split() == [REF, part["commit"], "partial"]
    assert "(partial)" in target.ostree("tag", REF, "also").stdout
    assert target.json("images")["images"][0]["partial"] is True
    checked = target.json("fsck")
    assert checked["ok"]
    assert checked["partial"] == {part["commit"]: ["/usr/bin"]}
    # A pull of the whole takes from the part what it has, and nothing for granted.
    newer = source.commit("@1800000000", "newer")
    done = target.json("pull-local", source.path, REF, "--base-name=also")
    assert done["commit"] == newer
    fresh = Target(tmp_path / "fresh").json("pull-local", source.path, REF)
    assert (done["image"], done["verity"]) == (fresh["image"], fresh["verity"])
    assert done["files_fetched"] == fresh["files_fetched"] - 2  # tool and link
    make_repo(tmp_path / "export")
    refused = target.ostree("export", "also", tmp_path / "export", status=9)
    assert "in part only (/usr/bin)" in refused.stderr


def test_parts_of_a_history(tmp_path: Path, source: Source, target: Target) -> None:
    """Parents have the paths that they have: one is newer than they are."""
    (source.tree / "usr" / "new").mkdir()
    (source.tree / "usr" / "new" / "file").write_text("new")
    newest = source.commit("@1800000000", "with something new")
    options = ["--subpath=/usr/new", "--subpath=/usr/bin", "--depth=2"]
    theirs = Theirs(tmp_path / "theirs", source.path)
    theirs.pull(*options, REF)
    done = target.json("pull-local", source.path, REF, *options)
    parts = {newest: ["/usr/bin", "/usr/new"], source.history[2]: ["/usr/bin"], source.history[1]: ["/usr/bin"]}
    assert target.json("fsck")["partial"] == parts
    assert theirs.partial() == set(parts)
    run(*cfsctl_of(target), "gc")
    assert "/usr/bin/tool" in target.ostree("dump", source.history[1]).stdout
    only_new = target.json("pull-local", source.path, f"{REF}@{newest}", "--subpath=/usr/new/file", "--depth=1")
    assert only_new["files_fetched"] == 0
    # The whole history completes all of them, and nothing of it is fetched twice.
    again = target.json("pull-local", source.path, REF, "--depth=-1")
    assert len(again["parents"]) == 3
    assert target.json("fsck")["partial"] == {}
    whole = Target(tmp_path / "whole").json("pull-local", source.path, REF, "--depth=-1")
    assert (again["image"], again["commit"]) == (whole["image"], done["commit"])
    assert again["files_fetched"] + done["files_fetched"] == whole["files_fetched"]
    # A path that the commit itself lacks is an error all the same.
    target.ostree("pull-local", source.path, REF, "--subpath=/usr/older", "--depth=1", status=0)
    target.ostree("pull-local", source.path, f"{REF}@{source.history[0]}", "--subpath=/usr/new", status=0)
    fresh = Target(tmp_path / "fresh")
    fresh.ostree("pull-local", source.path, f"{REF}@{source.history[0]}", "--subpath=/usr/new", status=3)


@pytest.mark.parametrize("path", ["/no/such", "/usr/bin/tool/below", "usr", "/usr/../etc", "/" + "x" * 300])
def test_paths_that_name_nothing(source: Source, target: Target, path: str) -> None:
    refused = target.ostree("pull-local", source.path, REF, f"--subpath={path}", status=None)
    assert refused.returncode in (2, 3)
    assert path[:200] in refused.stderr
    assert target.names() == {}


def test_the_root_as_subpath_is_the_whole(source: Source, target: Target) -> None:
    assert target.json("pull-local", source.path, REF, "--subpath=/")["subpaths"] is None


def test_commit_metadata_only(tmp_path: Path, source: Source, target: Target) -> None:
    theirs = Theirs(tmp_path / "theirs", source.path)
    theirs.pull("--commit-metadata-only", "--depth=-1", REF)
    with serve(source.path) as server:
        done = target.json("pull", server.url, REF, "--commit-metadata-only", "--depth=-1")
        assert server.count("*.dirtree") == server.count("*.dirmeta") == server.count("*.filez") == 0
    assert {done["commit"], *done["parents"]} == theirs.objects("commit") == theirs.partial() == {*source.history}
    assert (done["image"], done["subpaths"], done["metadata_fetched"]) == (None, [], len(source.history))
    lines = target.ostree("pull-local", source.path, REF, "--commit-metadata-only").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["commit", "verity", "partial", "tagged", "objects"]
    assert "partial the commit object alone\n" in target.ostree("inspect", REF).stdout
    for command in (("dump", REF), ("compute-id", REF), ("mount", REF, tmp_path)):
        assert "commit-metadata-only" in target.ostree(*command, status=3).stderr
    assert f"commit {done['commit']} has no image here" in target.ostree("mount", REF, tmp_path, status=3).stderr
    run(*cfsctl_of(target), "gc")
    assert target.json("fsck")["partial"] == {commit_id: [] for commit_id in source.history}
    part = target.json("pull-local", source.path, REF, "--subpath=/usr/bin")
    assert part["subpaths"] == ["/usr/bin"]
    whole = target.json("pull-local", source.path, REF)
    assert whole["image"] == Target(tmp_path / "fresh").json("pull-local", source.path, REF)["image"]
    target.ostree("pull-local", source.path, REF, "--commit-metadata-only", "--subpath=/usr", status=2)


def test_commit_metadata_only_reads_nothing_of_what_the_ref_named_before(source: Source, target: Target) -> None:
    target.ostree("pull-local", source.path, REF)
    source.commit("@1800000000", "another")
    pull = ("--trace", "ostree", "pull-local", source.path, REF)
    alone = run(*cfsctl_of(target), *pull, "--commit-metadata-only").stderr
    whole = run(*cfsctl_of(target), *pull).stderr
    for asked in ("inline_into", "sizes_into"):
        assert asked not in alone
        assert asked in whole


# Bindings


def test_collections_must_be_those_of_the_remote(tmp_path: Path, source: Source, target: Target) -> None:
    bound = source.commit("@1800000000", "bound", "--add-metadata-string=ostree.collection-binding=org.example.Os")
    with serve(source.path) as server:
        for name, collection in (("right", "org.example.Os"), ("wrong", "org.example.Other")):
            target.ostree("remote", "add", "--no-gpg-verify", f"--collection-id={collection}", name, server.url)
        assert target.json("pull", "right", REF)["commit"] == bound
        refused = target.ostree("pull", "wrong", REF, status=5)
        assert "org.example.Os" in refused.stderr
        assert "org.example.Other" in refused.stderr
        assert "(pull it from a remote of its collection, or give --disable-verify-bindings)" in refused.stderr
        source.ostree("commit", "--orphan", "--no-bindings", "--tree=ref=" + REF, "--timestamp=@1800000001")
        plain = source.commit("@1800000002", "no bindings", "--no-bindings", branch="os/plain")
        refused = target.ostree("pull", "right", "os/plain", status=5)
        assert "found none" in refused.stderr
        done = target.json("pull", "right", "os/plain", "--disable-verify-bindings")
        assert (done["commit"], done["ref"]) == (plain, "right:os/plain")
        assert "found none" in target.ostree("pull", "right", "os/plain", status=5).stderr  # though the ref is there


def test_every_commit_must_be_of_the_remotes_collection(tmp_path: Path, source: Source, target: Target) -> None:
    """Parents too, and what is pulled by its id, in ostree as here."""
    collection = "org.example.Os"
    words = (f"--add-metadata-string=ostree.collection-binding={collection}",)
    parent = source.commit("@1800000000", "of no collection", branch="os/bound")
    tip = source.commit("@1800000001", "bound", *words, branch="os/bound")
    theirs = Theirs(tmp_path / "theirs", source.path)
    with serve(source.path) as server:
        remote = ("remote", "add", "--force", "--no-gpg-verify", f"--collection-id={collection}", "o", server.url)
        run("ostree", f"--repo={theirs.path}", *remote)
        target.ostree(*remote)
        for wanted in (("os/bound", "--depth=1"), (parent,)):
            names = target.names()
            told = target.ostree("pull", "o", *wanted, status=5).stderr
            assert target.names() == names
            for said in (told.lower(), theirs.pull(*wanted, status=1).lower()):
                assert f"commit {parent}: expected commit metadata to have collection id binding" in said
            assert told.endswith("found none (give --disable-verify-bindings to pull it all the same)\n")
        theirs.pull(tip)
        assert target.json("pull", "o", tip)["commit"] == tip
        assert target.json("pull", "o", "os/bound", "--depth=1", "--disable-verify-bindings")["parents"] == [parent]


def test_a_ref_that_was_set_past_the_bindings_is_left(tmp_path: Path, source: Source, target: Target) -> None:
    bound = source.commit("@1800000000", "bound", branch="os/bound")
    source.ostree("refs", "--create=os/other", "os/bound")
    theirs = Theirs(tmp_path / "theirs", source.path)
    with serve(source.path) as server:
        assert "bound to os/bound, not to 'os/other'" in target.ostree("pull", server.url, "os/other", status=5).stderr
        target.ostree("pull", server.url, "os/other", "--disable-verify-bindings")
        assert target.json("pull", server.url, "os/other")["commit"] == bound
    theirs.pull("os/other", "--disable-verify-bindings")
    assert "no requested ref" in theirs.pull("os/other", status=1)


# Remotes


def test_refs_of_a_remote(tmp_path: Path, source: Source, target: Target) -> None:
    theirs = Theirs(tmp_path / "theirs", source.path)
    theirs.pull(REF)
    with serve(source.path) as server:
        target.ostree("remote", "add", "--no-gpg-verify", "o", server.url)
        assert target.json("pull", f"o:{REF}")["ref"] == f"o:{REF}"
        assert {f"o:{name}": commit_id for name, commit_id in theirs.refs().items()} == refs_of(target)
        assert target.json("pull", "o", REF, "o:os/testing")["pulled"][1]["ref"] == "o:os/testing"
        pulled = target.json("pull", "o:os/testing", REF)["pulled"]
        assert [row["ref"] for row in pulled] == ["o:os/testing", f"o:{REF}"]
        assert target.ostree("dump", f"o:{REF}").stdout
        # Away from the server, from a copy: the same remote.
        done = target.json("pull-local", source.path, "--remote=o", REF)
        assert (done["ref"], done["files_fetched"]) == (f"o:{REF}", 0)
        assert "nope" in target.ostree("pull", f"nope:{REF}", status=3).stderr


# Detached metadata


def test_detached_metadata_that_is_empty(source: Source, target: Target) -> None:
    """Where there was none it says nothing; where there was some, that it has been removed."""
    whole = target.json("pull-local", source.path, REF)
    name = whole["commit"]
    detached = source.path / "objects" / name[:2] / f"{name[2:]}.commitmeta"
    verities = [whole["verity"]]
    for content in (b"", b"k\0\0\0\0\0\0\0v\0\0s\2\x0d", b""):
        detached.write_bytes(content)
        verities.append(target.json("pull-local", source.path, REF)["verity"])
    assert verities[0] == verities[1]
    assert len(set(verities[1:])) == 3


def test_detached_metadata_is_kept_with_the_commit(source: Source, target: Target) -> None:
    target.ostree("pull-local", source.path, REF)
    before = target.json("inspect", REF)
    stream = f"ostree-commit-{before['commit']}"
    content = run(*cfsctl_of(target), "cat", stream).stdout
    name = before["commit"]
    detached = source.path / "objects" / name[:2] / f"{name[2:]}.commitmeta"
    detached.write_bytes(b"k\0\0\0\0\0\0\0v\0\0s\2\x0d")
    metadata = run("ostree", f"--repo={source.path}", "show", "--print-detached-metadata-key=k", REF, status=None)
    assert "v" in metadata.stdout, metadata.stderr
    with serve(source.path) as server:
        done = target.json("pull", server.url, REF)
        order = [path for path in server.requests if before["commit"][2:] in path]
        assert [Path(path).suffix for path in order] == [".commitmeta"]
    assert done["verity"] != before["verity"]
    assert run(*cfsctl_of(target), "cat", stream).stdout == content
    run(*cfsctl_of(target), "gc")
    kept = run(*cfsctl_of(target), "cat", f"ostree-commitmeta-{name}").stdout
    assert kept == detached.read_text().replace("\r", "\n")
    # It stays when the source has lost it, and hostile ones are refused.
    detached.unlink()
    assert target.json("pull-local", source.path, REF)["verity"] == done["verity"]
    detached.write_bytes(b"\xff" * 50)
    assert "malformed detached metadata" in target.ostree("pull-local", source.path, REF, status=5).stderr


# Repair


@pytest.mark.parametrize("command", ["pull", "pull-local"])
def test_damaged_objects_are_found_and_fetched_again(source: Source, target: Target, command: str) -> None:
    first = target.json("pull-local", source.path, REF)
    sizes = sorted((target.path / "objects").rglob("*"), key=lambda path: path.stat().st_size)
    largest = sizes[-1]
    content = largest.read_bytes()
    largest.chmod(0o644)
    largest.write_bytes(content[:1000] + b"X" + content[1001:])
    found = target.json("fsck", REF)
    assert not found["ok"]
    assert any(
        f"{largest.parent.name}{largest.name}" in error and "/usr/bin/tool" in error for error in found["errors"]
    )
    assert found["affected"]["refs"] == ["streams/refs/ostree/os%2Fstable"]
    shown = target.ostree("fsck", status=1).stdout
    assert "/usr/bin/tool" in shown
    assert "--repair" in shown
    with serve(source.path) as server:
        place = server.url if command == "pull" else str(source.path)
        assert target.json(command, place, REF)["files_fetched"] == 0  # not looked for
        repaired = target.json(command, place, REF, "--repair")
    assert repaired == {**first, "metadata_fetched": 1, "files_fetched": 1}
    assert largest.read_bytes() == content
    assert target.json("fsck")["ok"]
    run(*cfsctl_of(target), "fsck")


def test_a_damaged_image_or_stream_is_made_again(source: Source, target: Target) -> None:
    first = target.json("pull-local", source.path, REF)
    for what in ("image", "verity"):
        damaged = target.path / "objects" / first[what][:2] / first[what][2:]
        content = damaged.read_bytes()
        damaged.chmod(0o644)
        damaged.write_bytes(content[:-1] + b"X")
        assert not target.json("fsck")["ok"]
        again = target.json("pull-local", source.path, REF, "--repair")
        assert (again["image"], again["verity"]) == (first["image"], first["verity"])
        assert damaged.read_bytes() == content
        assert target.json("fsck")["ok"]


def test_fsck_of_what_is_sound_and_of_nothing(source: Source, target: Target) -> None:
    first = target.json("pull-local", source.path, REF)
    checked = target.json("fsck", REF)
    assert checked == {
        "ok": True,
        "commits": [first["commit"]],
        "partial": {},
        "metadata_checked": checked["metadata_checked"],
        "files_checked": first["files_fetched"],
        "errors": [],
        "affected": checked["affected"],
        "status": 0,
    }
    assert "status: ok" in target.ostree("fsck").stdout
    target.ostree("pull-local", source.path, REF, "--depth=1")
    both = target.json("fsck")
    assert sorted(both["commits"]) == sorted(source.history[1:])
    assert both["files_checked"] == first["files_fetched"] + 1, "each once"
    assert target.json("fsck", REF, first["commit"])["commits"] == [first["commit"]]
    assert "no/such" in target.ostree("fsck", "no/such", status=3).stderr
    assert Target(target.path.with_name("empty")).json("fsck")["commits"] == []


def test_damage_behind_an_interruption_is_fetched_again(source: Source, target: Target) -> None:
    update_summary(source.path)
    with serve(source.path) as server:
        server.fault("*.dirmeta", Fault(status=404), times=1)
        target.ostree("pull", server.url, REF, status=3)
        server.forgive()
        assert target.json("pull", server.url, REF)["ref"] == REF
    assert target.json("fsck")["ok"]
