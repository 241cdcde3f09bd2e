"""The commands that work on commits which are here already."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from composefs.repository import Repository
from composefs.repository.publication import Publication, StreamName
from composefs.splitstream import Parts
from support.commands import CFSCTL, TIMEOUT, cfsctl, run
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ostree")
    make_tree(directory / "tree")
    repo = make_repo(directory / "source")
    metadata = ("--add-metadata-string=version=1.0", "--add-metadata=number=uint32 7", "--body=first\nsecond")
    commit(repo, directory / "tree", *metadata, subject="the subject")
    return repo


@pytest.fixture
def target(tmp_path: Path, source: Path) -> Target:
    return Target.copied(
        tmp_path / "target", source.parent / "pulled", lambda made: made.ostree("pull-local", source, BRANCH)
    )


def ref_of_composefs_rs(target: Target, file_name: str, commit: str) -> None:
    """Make a ref as composefs-rs does, which takes names that ostree would not."""
    (target.path / "streams/refs/ostree" / file_name).symlink_to(f"../../ostree-commit-{commit}")


def test_images_lists_refs(tmp_path: Path, source: Path, target: Target) -> None:
    assert Target(tmp_path / "empty").ostree("images").stdout == "No ostree commits found\n"
    assert Target(tmp_path / "empty2").json("images") == {"images": []}
    head = run("ostree", f"--repo={source}", "rev-parse", BRANCH).stdout.strip()
    ref_of_composefs_rs(target, "another%2F50%25off", head)
    lines = [line.split() for line in target.ostree("images").stdout.splitlines()]
    assert lines == [["NAME", "COMMIT"], ["another/50%off", head], [BRANCH, head]]
    names = [
        {"name": "another/50%off", "commit": head, "partial": False},
        {"name": BRANCH, "commit": head, "partial": False},
    ]
    assert target.json("images") == {"images": names}


def test_a_ref_means_the_image_of_its_commit(target: Target, tmp_path: Path) -> None:
    told = target.json("inspect", BRANCH)
    image = told["image"]
    path = f"refs/ostree/{BRANCH.replace('/', '%2F')}"
    for command in (["ls", "NAME"], ["dump-files", "NAME", "/usr"], ["image-objects", "NAME"], ["diff", "NAME", image]):

        def of(name: str, status: int = 0, command: list[str] = command) -> subprocess.CompletedProcess[str]:
            words = [name if word == "NAME" else word for word in command]
            return cfsctl("--repo", target.path, *words, status=status)

        for name in (f"ostree/{BRANCH}", path, f"streams/{path}", f"ostree-commit-{told['commit']}"):
            assert of(name).stdout == of(image).stdout
        refused = of(BRANCH, status=3).stderr
        assert f"there is no image or stream '{BRANCH}' (its name is ostree/{BRANCH})" in refused
    copy = (f"--repo={tmp_path}/other", "copy", "--from", target.path)
    cfsctl("init", "--insecure", tmp_path / "other")
    for line in (["ls"], ["cat"], ["du"], ["gc", "--dry-run", "--root"], ["ref", "remove"], copy):
        assert f"(its name is ostree/{BRANCH})" in cfsctl("--repo", target.path, *line, BRANCH, status=3).stderr
        told = cfsctl("--repo", target.path, *line, f"{BRANCH}x", status=3)
        assert "ref list` lists the" in told.stderr
    for command in ("inspect", "untag"):  # and the other way round: as the core calls it
        assert f"(did you mean {BRANCH}?)" in target.ostree(command, f"ostree/{BRANCH}", status=3).stderr


def test_a_commit_without_files_does_not_mean_its_parents_image(tmp_path: Path) -> None:
    source, tree, target = make_repo(tmp_path / "source"), tmp_path / "tree", Target(tmp_path / "target")
    make_tree(tree)
    commit(source, tree)
    target.ostree("pull-local", source, BRANCH)
    commit(source, tree, subject="the next")
    target.ostree("pull-local", source, BRANCH, "--commit-metadata-only", "--depth=1")
    with Repository.open(target.path) as repository:
        stream = repository.refs.read(f"ostree/{BRANCH}", "flat")
        with repository.streams.open(repository.streams.resolve(stream)) as reader:
            [(_, whole)] = [named for named in reader.named_refs if named[0] == "ostree.parent"]
        with repository.streams.open(whole) as reader:
            assert reader.named_refs[0][0] == "composefs.image"
    refused = cfsctl("--repo", target.path, "ls", f"ostree/{BRANCH}", status=3).stderr
    assert f"the stream 'ostree/{BRANCH}' names no image (`cfsctl cat ostree/{BRANCH}` writes" in refused


def test_inspect(source: Path, target: Target) -> None:
    head = run("ostree", f"--repo={source}", "rev-parse", BRANCH).stdout.strip()
    text = target.ostree("inspect", BRANCH).stdout
    lines = text.splitlines()
    assert lines[0] == f"commit  {head}"
    assert lines[1] == "date    2023-11-14 22:13:20 UTC"
    assert lines[-5:] == ["", "the subject", "", "first", "second"]
    assert target.ostree("inspect", head).stdout == text
    assert target.ostree("inspect", head[:8]).stdout == text
    assert target.ostree("inspect", "--metadata", BRANCH).stdout == "number=7\nversion=1.0\n"
    facts = target.json("inspect", BRANCH)
    assert facts["metadata"] == {"number": 7, "version": "1.0"}
    assert (facts["commit"], facts["parent"], facts["timestamp"]) == (head, None, 1_700_000_000)
    assert (facts["subject"], facts["body"]) == ("the subject", "first\nsecond")


@pytest.mark.parametrize("command", [("images",), ("inspect", BRANCH), ("dump", BRANCH)])
def test_output_that_cannot_be_written_is_a_failure(target: Target, command: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        argv = [CFSCTL, "--repo", target.path, "ostree", *command]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == 8
    assert done.stderr.startswith("cfsctl: writing to standard output: No space left")


def test_inspect_shows_the_parent(tmp_path: Path, target: Target) -> None:
    source = make_repo(tmp_path / "source")
    make_tree(tmp_path / "tree")
    first = commit(source, tmp_path / "tree", subject="one")
    commit(source, tmp_path / "tree", subject="two")
    target.ostree("pull-local", source, BRANCH)
    assert f"parent  {first}\n" in target.ostree("inspect", BRANCH).stdout


def test_tag_and_untag(target: Target) -> None:
    head = target.json("inspect", BRANCH)["commit"]
    before = target.names()
    assert target.ostree("tag", BRANCH, "team/half").stdout == f"Tagged {BRANCH} as team/half\n"
    assert target.names()["streams/refs/ostree/team%2Fhalf"] == f"../../ostree-commit-{head}"
    assert target.ostree("tag", head, "by/id").stdout == f"Tagged {head} as by/id\n"
    ref_of_composefs_rs(target, "team%2F50%25off", head)
    for name in ("team/half", "by/id", "team/50%off"):
        assert target.ostree("untag", name).stdout == ""
    assert "looks like a commit id" in target.ostree("tag", BRANCH, "0" * 64, status=2).stderr
    assert target.names() == before


def test_tag_takes_the_names_that_ostree_takes(target: Target, source: Path, tmp_path: Path) -> None:
    ostree = ["ostree", f"--repo={tmp_path / 'ostree'}"]
    run(*ostree, "init", "--mode=bare-user-only")
    run(*ostree, "pull-local", source, BRANCH)

    def ostree_takes(name: str) -> bool:
        create = [*ostree, "refs", f"--create={name}", BRANCH]
        made = subprocess.run(create, check=False, stderr=subprocess.PIPE, timeout=TIMEOUT)
        assert (made.returncode == 0) == (b"Invalid refspec" not in made.stderr)
        return made.returncode == 0

    before = target.names()
    for name in ("_", "x.", "a-b/c_d", "a.b:c/d"):
        assert ostree_takes(name)
        assert target.ostree("tag", BRANCH, "--", name).stdout == f"Tagged {BRANCH} as {name}\n"
        target.ostree("untag", "--", name)
    refs = ["x y", "-x", "/x", "x/", "x//y", "x/../y", "50%off", "x+", ":", "x:", "r:-x", "r:x y", ".x"]
    remotes = ["a:b:x", ":x", "x y:x", "a/b:x"]
    for name in refs + remotes:
        assert not ostree_takes(name)
        told = "the name of a remote" if name in remotes else "is not an ostree ref"
        assert told in target.ostree("tag", BRANCH, "--", name, status=2).stderr
    assert target.names() == before


@pytest.mark.parametrize("name", ["no/such", "0" * 64, "abcdef", "../../x", "x" * 300])
@pytest.mark.parametrize("command", ["inspect", "dump", "compute-id"])
def test_unknown_commits(target: Target, command: str, name: str) -> None:
    refused = target.ostree(command, name, status=3)
    assert f"{name!r} is not a known ostree ref or valid commit ID" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert refused.stdout == ""


def test_the_ref_of_a_remote_is_told_to_who_leaves_the_remote_out(target: Target) -> None:
    target.ostree("tag", BRANCH, "vendor:os/stable")
    for command in (["log"], ["inspect"], ["dump"], ["untag"]):
        assert "(did you mean vendor:os/stable?)" in target.ostree(*command, "os/stable", status=3).stderr
    target.ostree("tag", BRANCH, "other:os/stable")
    told = target.ostree("tag", "os/stable^", "x", status=3).stderr
    assert "(did you mean other:os/stable or vendor:os/stable?)" in told


def test_untag_of_what_is_not_there(target: Target) -> None:
    for command in (("untag", ""), ("tag", BRANCH, "")):
        assert "an empty name" in target.ostree(*command, status=2).stderr
    assert "'no/such' is not a known ostree ref" in target.ostree("untag", "no/such", status=3).stderr


def test_dump_lists_what_was_committed(target: Target) -> None:
    lines = target.ostree("dump", BRANCH).stdout.splitlines()
    paths = {line.split(" ", 1)[0] for line in lines}
    assert {"/", "/usr", "/usr/bin/tool", "/usr/share/file\\x200", "/usr/share/twin"} <= paths
    assert lines[0].startswith("/ 0 40755 ")
    tool = next(line.split(" ") for line in lines if line.startswith("/usr/bin/tool "))
    assert (tool[1], tool[2]) == ("300010", "100755")
    link = next(line.split(" ") for line in lines if line.startswith("/usr/bin/link "))
    assert (link[2], link[8]) == ("120777", "tool")
    twins = [line for line in lines if line.startswith(("/usr/share/twin ", "/usr/share/back"))]
    assert sum(" @120000 " in line for line in twins) == 1


def test_a_damaged_stream_is_refused(target: Target) -> None:
    head = target.json("inspect", BRANCH)["commit"]
    stream = (target.path / "streams" / f"ostree-commit-{head}").resolve()
    stream.chmod(0o644)
    stream.write_bytes(stream.read_bytes()[:-40])
    refused = target.ostree("dump", BRANCH, status=5)
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1


def test_fsck_of_a_file_that_is_gone(target: Target) -> None:
    gone = max((target.path / "objects").glob("*/*"), key=lambda path: path.stat().st_size)
    gone.unlink()
    told = target.ostree("fsck", status=1).stdout
    assert f"): object {gone.parent.name}{gone.name}: No such file or directory" in told
    assert told.endswith("status: corrupted\ncfsctl ostree pull --repair fetches again what is damaged\n")


def store_anew(target: Target, change: Callable[[Parts], Parts], what: str = "commit") -> None:
    """Store the commit's stream with a change, as a program that is wrong would."""
    name = f"ostree-{what}-{target.json('inspect', BRANCH)['commit']}"
    with Repository.open(target.path, writable=True) as repo:
        with repo.streams.open(repo.streams.resolve(name)) as old:
            inline = b"".join(data for _, data in old.chunks())
            chunks = [chunk for chunk, _ in old.chunks()]
            parts = Parts(old.content_type, inline, chunks, list(old.object_refs()), old.named_refs)
        (target.path / "streams" / name).unlink()
        repo.publish(Publication(streams=[StreamName(name, repo.streams.put(change(parts)).id)]))


HEAD = (b"tool\0\x1d", b"tool\0\x03")
"""The end of a symlink's head in a commit's stream, and one that is malformed."""


def swapped(right: bytes, wrong: bytes) -> Callable[[Parts], Parts]:
    def change(parts: Parts) -> Parts:
        assert isinstance(parts.inline, bytes)
        assert parts.inline.count(right) == 1
        return parts._replace(inline=parts.inline.replace(right, wrong))

    return change


def without_table(parts: Parts) -> Parts:
    assert isinstance(parts.inline, bytes)
    return parts._replace(inline=bytes(len(parts.inline)))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (swapped(*HEAD), ("/usr/bin/link (file ", "malformed file header")),
        (swapped(b"link\0", b"lonk\0"), ("dirtree ", "has another checksum")),
        (swapped(b"the subject", b"another one"), ("commit ", "has another checksum")),
        (without_table, ("inconsistent table",)),
    ],
    ids=["head", "dirtree", "commit", "table"],
)
def test_what_was_never_right_in_a_stream(
    target: Target, source: Path, damage: Callable[[Parts], Parts], says: tuple[str, ...]
) -> None:
    image = target.json("inspect", BRANCH)["image"]
    store_anew(target, damage)
    told = target.ostree("fsck", status=1).stdout
    assert all(each in told for each in says)
    assert target.json("pull-local", source, BRANCH, "--repair")["image"] == image
    assert target.json("fsck")["ok"]


def test_a_file_that_is_right_in_one_commit_may_be_wrong_in_another(target: Target, tmp_path: Path) -> None:
    (tmp_path / "same").mkdir()
    for name in "ab":
        (tmp_path / "same" / name).write_text(name * 1000)
    target.ostree("commit", "-b", BRANCH, f"--tree=dir={tmp_path / 'same'}")
    target.ostree("commit", "-b", "again", f"--tree-ref={BRANCH}")
    store_anew(target, lambda parts: parts._replace(object_refs=parts.object_refs[::-1]))
    assert target.json("fsck", "again")["ok"]
    assert target.ostree("fsck", "again", BRANCH, status=1).stdout.count(", its content is object ") == 2


@pytest.mark.parametrize("gone", ["image", "content"])
def test_what_was_never_right_and_lacks_something(target: Target, source: Path, gone: str) -> None:
    image = target.json("inspect", BRANCH)["image"]
    store_anew(target, swapped(*HEAD))
    objects = cfsctl("--repo", target.path, "image-objects", image).stdout.split()
    lost = image if gone == "image" else objects[0].rpartition(":")[2]
    (target.path / "objects" / lost[:2] / lost[2:]).unlink()
    assert target.json("pull-local", source, BRANCH, "--repair")["image"] == image
    assert target.json("fsck")["ok"]


@pytest.mark.parametrize("part", [None, "--subpath=/usr/bin", "--commit-metadata-only"])
def test_a_repair_gives_up_nothing_that_cannot_be_read(target: Target, source: Path, part: str | None) -> None:
    told = target.json("inspect", BRANCH)
    kept = ("ostree.parent", told["verity"])  # any stream will do

    def damage(parts: Parts) -> Parts:
        return swapped(*HEAD)(parts._replace(named_refs=[*parts.named_refs, kept]))

    store_anew(target, damage)
    repaired = target.json("pull-local", source, BRANCH, "--repair", *([] if part is None else [part]))
    assert repaired["image"] == told["image"]
    assert target.json("fsck")["ok"]
    with Repository.open(target.path) as repo, repo.streams.open(repaired["verity"]) as stream:
        assert stream.named_refs == [("composefs.image", told["image"]), kept]


def test_a_repair_of_a_part_that_tells_of_a_path_which_it_does_not_have(source: Path, tmp_path: Path) -> None:
    target = Target(tmp_path / "target")
    target.ostree("pull-local", source, BRANCH, "--subpath=/usr/bin")
    store_anew(target, swapped(b"/usr/bin\0", b"/usr/bon\0"), "partial")
    assert not target.json("fsck")["ok"]
    whole = Target(tmp_path / "whole").json("pull-local", source, BRANCH)["image"]
    assert target.json("pull-local", source, BRANCH, "--repair")["image"] == whole
    assert target.json("fsck")["ok"]


def test_a_repair_keeps_the_paths_of_a_part_that_cannot_be_read(source: Path, tmp_path: Path) -> None:
    target, fresh = Target(tmp_path / "target"), Target(tmp_path / "fresh")
    both = ("--subpath=/usr/bin", "--subpath=/usr/share/twin")
    image = target.json("pull-local", source, BRANCH, *both)["image"]
    store_anew(target, swapped(*HEAD), "partial")
    assert target.json("pull-local", source, BRANCH, "--repair", both[0])["image"] == image
    assert target.json("fsck")["ok"]
    assert fresh.json("pull-local", source, BRANCH, *both)["verity"] == target.json("inspect", BRANCH)["verity"]


def test_fsck_of_detached_metadata_that_were_never_right(target: Target) -> None:
    commit_id = target.json("inspect", BRANCH)["commit"]
    with Repository.open(target.path, writable=True) as repo:
        kept = repo.streams.put(Parts(0x6F73747265656D64, b"no signatures", [-13])).id
    store_anew(target, lambda parts: parts._replace(named_refs=[*parts.named_refs, ("ostree.commitmeta", kept)]))
    cfsctl("--repo", target.path, "fsck")
    told = target.ostree("fsck", status=1).stdout
    assert f"error   commit {commit_id}: the detached metadata of commit {commit_id}" in told


def test_fsck_of_a_commit_with_the_image_of_another_tree(target: Target, source: Path, tmp_path: Path) -> None:
    commit_id, right = (target.json("inspect", BRANCH)[key] for key in ("commit", "image"))
    (tmp_path / "empty").mkdir()
    made = cfsctl("--repo", target.path, "create-image", "--no-propagate-usr-to-root", tmp_path / "empty").stdout
    wrong = made.strip().rpartition(":")[2]
    store_anew(target, lambda parts: parts._replace(named_refs=[(name, wrong) for name, _ in parts.named_refs]))
    cfsctl("--repo", target.path, "fsck")  # everything is what its digest says
    told = target.ostree("fsck", status=1).stdout
    assert f"error   commit {commit_id}: the image {wrong} is not that of its tree\n" in told
    assert right not in told
    assert target.json("pull-local", source, BRANCH)["image"] == wrong
    repaired = target.json("pull-local", source, BRANCH, "--repair")
    assert (repaired["image"], repaired["files_fetched"]) == (right, 0)
    assert target.json("fsck")["ok"]
