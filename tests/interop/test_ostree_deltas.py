"""Static deltas that ostree makes, pulled and applied by the installed command: the same images as without them."""

from __future__ import annotations

import base64
import copy
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from composefs_ostree.deltas.listing import index_path, parse_index
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Variant
from support.commands import CFSCTL, cfsctl, run
from support.gpg import Keys, keys
from support.ostree_delta import SmallCommit, file_id
from support.ostree_pull import Target, extensions, start_by  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree, update_summary
from support.peers import require
from support.server import Fault, Server, serve

__all__ = ["keys"]

pytestmark = pytest.mark.usefixtures("extensions")

GENERATE = {
    "plain": (),
    "without bsdiff": ("--disable-bsdiff",),
    "inline": ("--inline",),
    "many parts": ("--max-chunk-size=1", "--min-fallback-size=0"),
    "fallbacks": ("--min-fallback-size=1",),
    "patches at most 1 MB": ("--max-bsdiff-size=1",),
    "big-endian": ("--set-endianness=B",),
}


class Source:
    """A repository with two commits: small changes in large files, moved blocks, new files, removed ones."""

    def __init__(self, path: Path) -> None:
        self.kept = path
        chooser = random.Random(4)
        tree = make_tree(path / "tree")
        words = [chooser.randbytes(9) for _ in range(500)]
        large = b"".join(chooser.choices(words, k=120_000))
        (tree / "usr" / "large").write_bytes(large)
        (tree / "usr" / "random").write_bytes(chooser.randbytes(1_100_000))
        (tree / "usr" / "empty").write_bytes(b"")
        self.repo = make_repo(path / "source")
        self.old = commit(self.repo, tree)
        changed = bytearray(large)
        changed[1000] ^= 1
        changed[300_000:300_000] = b"inserted" * 100
        del changed[800_000:830_000]
        (tree / "usr" / "large").write_bytes(changed)
        (tree / "usr" / "bin" / "tool").write_bytes(b"#!/bin/bash\n" + (tree / "usr" / "bin" / "tool").read_bytes())
        (tree / "usr" / "moved").write_bytes(large[500_000:] + large[:450_000])
        (tree / "usr" / "share" / "file 5").unlink()
        (tree / "usr" / "new link").symlink_to("moved")
        self.new = commit(self.repo, tree)
        self._made: dict[tuple[str, ...], Path] = {}

    def copy(self, path: Path) -> Source:
        """The same in another place."""
        shutil.copytree(self.repo, path)
        other = copy.copy(self)
        other.repo = path
        return other

    def generate(self, *arguments: str) -> None:
        """Make a delta, once for all copies: xz takes its time."""
        words = ("static-delta", "generate", *arguments, f"--to={self.new}")
        if any(word.startswith("--filename") for word in arguments):
            run("ostree", f"--repo={self.repo}", *words)
            return
        deltas = self.repo / "deltas"
        if arguments not in self._made:
            before = set(deltas.glob("*/*"))
            run("ostree", f"--repo={self.repo}", *words)
            kept = self._made[arguments] = Path(tempfile.mkdtemp(dir=self.kept))
            for made in set(deltas.glob("*/*")) - before:
                shutil.copytree(made, kept / made.relative_to(deltas))
        shutil.copytree(self._made[arguments], deltas, dirs_exist_ok=True)

    def publish(self) -> None:
        update_summary(self.repo)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(tmp_path_factory.mktemp("deltas"))


@pytest.fixture
def source(made: Source, tmp_path: Path) -> Source:
    """A copy to make deltas in."""
    return made.copy(tmp_path / "source")


@pytest.fixture
def server(source: Source) -> Iterator[Server]:
    with serve(source.repo) as running:
        yield running


def test_content_that_repeats_itself(tmp_path: Path) -> None:
    """Of which bsdiff makes thousands of empty controls, one behind the other."""
    tree = make_tree(tmp_path / "tree", files=2)
    lines = b"line of text 3\n" * 12_637
    half = len(lines) // 2 + 1
    (tree / "lines").write_bytes(lines)
    repo = make_repo(tmp_path / "source")
    commit(repo, tree)
    target = Target(tmp_path / "target")
    target.ostree("pull-local", repo, BRANCH)
    (tree / "lines").write_bytes(lines[half:] + lines[:half])
    new = commit(repo, tree)
    run("ostree", f"--repo={repo}", "static-delta", "generate", BRANCH)
    update_summary(repo)
    with serve(repo) as server:
        target.ostree("pull", server.url, BRANCH)
        assert server.count("/deltas/*") >= 2
        assert server.count("*.filez") == 0
    plain = Target(tmp_path / "plain")
    plain.ostree("pull-local", repo, BRANCH)
    assert target.names()[f"streams/ostree-commit-{new}"] == plain.names()[f"streams/ostree-commit-{new}"]


def direct(source: Source, path: Path) -> tuple[str, str]:
    """Image and stream of a pull without deltas."""
    pulled = Target(path).json("pull-local", source.repo, source.new)
    return pulled["image"], pulled["verity"]


def on_one_processor() -> None:
    """As ``preexec_fn``: have a pull with one worker."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@pytest.mark.parametrize("how", GENERATE)
def test_from_scratch(source: Source, server: Server, tmp_path: Path, how: str) -> None:
    source.generate("--empty", *GENERATE[how])
    source.publish()
    target = Target(tmp_path / "target")
    pulled = target.json("pull", server.url, BRANCH)
    assert (pulled["image"], pulled["verity"]) == direct(source, tmp_path / "direct")
    parts = server.count("/deltas/*") - 1
    assert pulled["delta_parts"] == (parts if how != "inline" else 1)
    assert (parts > 1) == (how == "many parts")
    assert server.count("*.filez") == (3 if how == "fallbacks" else 0)
    assert server.count("*.dirtree") + server.count("*.dirmeta") + server.count("*.commit") == 0
    assert target.left_over() == []
    assert target.ostree("fsck").returncode == 0


@pytest.mark.parametrize("how", GENERATE)
def test_from_another_commit(source: Source, server: Server, tmp_path: Path, how: str) -> None:
    source.generate(f"--from={source.old}", *GENERATE[how])
    source.publish()
    target = Target(tmp_path / "target", "sha512")
    target.ostree("pull-local", source.repo, source.old)
    target.ostree("tag", source.old, BRANCH)
    pulled = target.json("pull", server.url, BRANCH)
    expected = Target(tmp_path / "direct", "sha512").json("pull-local", source.repo, source.new)
    assert (pulled["image"], pulled["verity"]) == (expected["image"], expected["verity"])
    assert pulled["delta_parts"] >= 1
    assert server.count("*/superblock") == 1
    fallbacks = {"plain": 0, "fallbacks": None}.get(how, 0)
    assert fallbacks is None or server.count("*.filez") == fallbacks
    assert target.left_over() == []


def test_from_a_commit_that_is_not_the_first_base(source: Source, server: Server, tmp_path: Path) -> None:
    source.generate(f"--from={source.old}")
    source.publish()
    target = Target(tmp_path / "target")
    target.ostree("pull-local", source.repo, source.old)
    target.ostree("tag", source.old, BRANCH)
    (tmp_path / "tree").mkdir()
    other = commit(make_repo(tmp_path / "other"), tmp_path / "tree")
    target.ostree("pull-local", tmp_path / "other", other)
    done = target.ostree("pull", server.url, BRANCH, "--base-name", other)
    assert "delta part" in done.stdout
    assert "one by one" not in done.stderr
    assert server.count("*.filez") == 0


def test_without_delta(source: Source, server: Server, tmp_path: Path) -> None:
    source.generate("--empty")
    source.publish()
    pulled = Target(tmp_path / "target").json("pull", server.url, BRANCH, "--no-delta")
    assert pulled["delta_parts"] == 0
    assert server.count("/deltas/*") == 0
    assert (pulled["image"], pulled["verity"]) == direct(source, tmp_path / "direct")
    assert Target(tmp_path / "near").json("pull-local", source.repo, BRANCH)["delta_parts"] == 0


def test_a_scratch_delta_is_not_used_over_something(source: Source, server: Server, tmp_path: Path) -> None:
    source.generate("--empty")
    source.publish()
    target = Target(tmp_path / "target")
    target.ostree("pull-local", source.repo, source.old)
    target.ostree("tag", source.old, BRANCH)
    assert target.json("pull", server.url, BRANCH)["delta_parts"] == 0


def test_a_list_in_the_summary_itself(source: Source, server: Server, tmp_path: Path) -> None:
    source.generate("--empty")
    run("ostree", f"--repo={source.repo}", "config", "set", "core.no-deltas-in-summary", "false")
    source.publish()
    for index in (source.repo / "delta-indexes").rglob("*.index"):
        index.unlink()
    pulled = Target(tmp_path / "target").json("pull", server.url, BRANCH)
    # With indexes announced and none there, there are no deltas; a summary that announces none lists them itself.
    assert pulled["delta_parts"] == (0 if server.count("*.index") else 1)


@pytest.mark.parametrize("gone", ["*/superblock", "/deltas/*/0"])
def test_a_delta_that_is_gone_is_done_without(source: Source, server: Server, tmp_path: Path, gone: str) -> None:
    source.generate("--empty")
    source.publish()
    server.fault(gone, Fault(status=404))
    target = Target(tmp_path / "target")
    done = target.ostree("pull", server.url, BRANCH)
    assert "one by one" in done.stderr
    assert "delta parts" not in done.stdout
    image = target.json("pull", server.url, BRANCH)["image"]
    assert image == direct(source, tmp_path / "direct")[0]


@pytest.mark.parametrize("gone", [0, 1, -1])
def test_one_part_that_is_gone(source: Source, server: Server, tmp_path: Path, gone: int) -> None:
    source.generate("--empty", *GENERATE["many parts"])
    source.publish()
    parts = sorted(int(path.name) for path in (source.repo / "deltas").rglob("*") if path.name.isdigit())
    server.fault(f"/deltas/*/{parts[gone]}", Fault(status=404))
    target = Target(tmp_path / "target")
    done = target.ostree("pull", server.url, BRANCH)
    assert done.stderr.count("one by one") == 1
    assert f"via {len(parts)} delta parts" not in done.stdout
    image, stream = direct(source, tmp_path / "direct")
    assert image == target.json("pull", server.url, BRANCH)["image"]
    assert target.json("pull", server.url, BRANCH)["verity"] == stream
    assert target.left_over() == []


@pytest.mark.parametrize("odd", ["a file that is a directory's metadata", "a directory that is a file", "nothing"])
def test_a_tree_that_takes_the_objects_of_its_delta_for_others(tmp_path: Path, odd: str) -> None:
    commit = SmallCommit({"a": b"content" * 100, "b": b"c"})
    meta = sha256(commit.meta).digest()
    files, directories = [("a", file_id(b"content" * 100))], []
    if odd.startswith("a file"):
        files.append(("b", meta))
    elif odd.startswith("a directory"):
        directories.append(("b", file_id(b"c"), meta))
    commit.set_tree(files, directories)
    made = commit.part()
    path = commit.write(tmp_path / "delta", commit.superblock([made]), [made])
    target = Target(tmp_path / "target")
    done = target.ostree("apply-delta", path, status=0 if odd == "nothing" else None)
    if odd == "nothing":  # but a file that the tree does not name is not kept
        kept = cfsctl("--repo", target.path, "cat", f"ostree-commit-{commit.id.hex()}").stdout.encode(
            errors="surrogateescape"
        )
        assert file_id(b"content" * 100) in kept
        assert file_id(b"c") not in kept
    else:
        assert done.returncode in (3, 5)
        assert target.names() == {}


@pytest.mark.parametrize("where", ["*/superblock", "/deltas/*/0"])
@pytest.mark.parametrize("at", [0, -1])
def test_an_altered_delta_is_refused(source: Source, server: Server, tmp_path: Path, where: str, at: int) -> None:
    source.generate("--empty")
    source.publish()
    server.fault(where, Fault(flip=at))
    target = Target(tmp_path / "target")
    done = target.ostree("pull", server.url, BRANCH, status=None)
    assert done.returncode == 5
    assert "/deltas/" in done.stderr
    assert target.names() == {}
    assert target.left_over() == []
    server.forgive()
    assert target.ostree("pull", server.url, BRANCH).returncode == 0


def with_the_old_commit(source: Source, tmp_path: Path) -> Target:
    """Make a delta from the old commit, in the repository and in ``file`` alone, and a target that has that commit."""
    source.generate(f"--from={source.old}")
    source.generate(f"--from={source.old}", "--inline", "--min-fallback-size=0", f"--filename={tmp_path / 'file'}")
    source.publish()
    target = Target(tmp_path / "target")
    target.ostree("pull-local", source.repo, source.old)
    target.ostree("tag", source.old, BRANCH)
    return target


@pytest.mark.parametrize(("damage", "told"), [("altered", "is damaged here"), ("emptied", "it has 0 bytes, not ")])
def test_a_damaged_old_file_is_no_fault_of_the_delta(
    source: Source, server: Server, tmp_path: Path, damage: str, told: str
) -> None:
    target = with_the_old_commit(source, tmp_path)
    largest = max((target.path / "objects").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    for path in (target.path / "objects").rglob("*"):
        if path.is_file() and path.stat().st_size in (largest.stat().st_size, 1_080_000):
            content = bytearray(path.read_bytes())
            content[5000:5010] = b"0123456789"
            path.chmod(0o644)
            path.write_bytes(content if damage == "altered" else b"")
    # A delta in a file has no repository beside it that could have the object.
    alone = target.ostree("apply-delta", tmp_path / "file", status=None)
    assert alone.returncode == 5
    assert len(alone.stderr.splitlines()) == 1
    assert told in alone.stderr
    assert "(pull the commit that the delta is from again, with --repair)" in alone.stderr
    done = target.ostree("pull", server.url, BRANCH, status=None)
    assert told in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("arguments", [(), ("--depth=1",), ("--repair",), ("--repair", "--depth=1")], ids=" ".join)
def test_a_damaged_old_commit_is_done_without(
    source: Source, server: Server, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    target = with_the_old_commit(source, tmp_path)
    stream = (target.path / "streams" / f"ostree-commit-{source.old}").resolve()
    stream.chmod(0o644)
    stream.write_bytes(stream.read_bytes()[:1000])
    target.ostree("pull", server.url, BRANCH, *arguments)
    assert target.names()[f"streams/ostree-commit-{source.new}"]
    assert target.left_over() == []
    assert server.count("*.filez") > 0


def test_an_old_file_that_is_gone_and_that_no_part_reads(source: Source, tmp_path: Path) -> None:
    """The core tells of it; a delta in a file has no repository beside it that could have the object."""
    target = with_the_old_commit(source, tmp_path)
    [same] = [
        path for path in (target.path / "objects").rglob("*") if path.is_file() and path.stat().st_size == 1_100_000
    ]
    same.unlink()
    told = target.ostree("apply-delta", tmp_path / "file", status=5).stderr
    assert told.startswith("cfsctl: ")
    assert ": the delta needs file " in told
    assert told.endswith(" (pull the commit that the delta is from again, with --repair)\n")
    assert told.count("\n") == 1
    target.ostree("pull-local", source.repo, source.old, "--repair")
    target.ostree("apply-delta", tmp_path / "file")


def test_an_old_file_of_which_a_page_cannot_be_read(source: Source, server: Server, tmp_path: Path) -> None:
    """The kernel is asked for the pages of a map before they are looked at, as that would end the extension."""
    target = with_the_old_commit(source, tmp_path)
    failing = ("-f", "-qqq", "-o", str(tmp_path / "log"), "-e", "trace=madvise", "-e", "inject=madvise:error=EFAULT")
    command = (require("strace"), *failing, CFSCTL, "--repo", target.path, "ostree")
    told = ": Input/output error"
    alone = run(*command, "apply-delta", tmp_path / "file", status=5)
    assert told in alone.stderr
    assert alone.stderr.count("\n") == 1
    done = run(*command, "pull", server.url, BRANCH)
    assert told in done.stderr
    assert target.names()


def test_an_old_file_that_is_larger_than_what_32_bits_can_map(
    source: Source, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is here, and no repair makes it smaller."""
    target = with_the_old_commit(source, tmp_path)
    lines = (
        "import mmap",
        "from composefs_ostree.deltas import old_files",
        "def refuse(*_arguments, **_options): raise ValueError('mmap length is too large')",
        "old_files.mmap = type('mmap', (), {**vars(mmap), 'mmap': refuse})",
    )
    start_by("\n".join(lines), "ostree", tmp_path / "ext", monkeypatch)
    told = " cannot be mapped by a process of 32 bits"
    alone = target.ostree("apply-delta", tmp_path / "file", status=8)
    assert alone.stderr.endswith(f"{told}\n")
    assert told in target.ostree("pull", server.url, BRANCH).stderr
    assert target.names()


def test_a_delta_in_one_file(source: Source, tmp_path: Path) -> None:
    for arguments, name in ((("--empty",), "scratch"), ((f"--from={source.old}",), "update")):
        source.generate(*arguments, "--inline", "--min-fallback-size=0", f"--filename={tmp_path / name}")
    target = Target(tmp_path / "target")
    missing = target.ostree("apply-delta", tmp_path / "update", status=None)
    assert missing.returncode == 3
    assert f"{source.old}, which is not here (pull that commit first, or take a delta from scratch)" in missing.stderr
    target.ostree("pull-local", source.repo, source.old, "--commit-metadata-only")
    missing = target.ostree("apply-delta", tmp_path / "update", status=3)
    assert f"{source.old}, which is here in part only (pull that commit again without --subpath" in missing.stderr
    image = direct(source, tmp_path / "direct")[0]
    lines = target.ostree("apply-delta", tmp_path / "scratch").stdout.splitlines()
    assert lines[0] == f"commit  {source.new}"
    assert lines[2] == f"image   {image}"
    assert lines[3].endswith(" files applied via 1 delta parts")
    assert f"streams/ostree-commit-{source.new}" in target.names()
    again = target.json("apply-delta", tmp_path / "update")
    assert (again["image"], again["delta_parts"]) == (image, 0)
    second = Target(tmp_path / "second")
    second.ostree("pull-local", source.repo, source.old)
    assert second.json("apply-delta", tmp_path / "update")["image"] == image
    assert second.left_over() == []


@pytest.mark.parametrize("part", ["--commit-metadata-only", "--subpath=/usr/bin"])
def test_a_delta_in_one_file_completes_a_commit(source: Source, tmp_path: Path, part: str) -> None:
    for arguments, name in ((("--empty",), "scratch"), ((f"--from={source.old}",), "update")):
        source.generate(*arguments, "--inline", "--min-fallback-size=0", f"--filename={tmp_path / name}")
        target = Target(tmp_path / f"{name}-target")
        if name == "update":
            target.ostree("pull-local", source.repo, source.old)
        target.ostree("pull-local", source.repo, source.new, part)
        done = target.json("apply-delta", tmp_path / name)
        assert (done["image"], done["delta_parts"]) == (direct(source, tmp_path / f"{name}-direct")[0], 1)
        assert target.json("fsck")["ok"]


@pytest.mark.parametrize(
    ("has_old", "lacks_content"),
    [(True, True), (True, False), (False, False)],
    ids=["with the old one", "only the image", "alone"],
)
def test_a_delta_in_one_file_of_a_commit_that_is_here(
    source: Source, tmp_path: Path, has_old: bool, lacks_content: bool
) -> None:
    """The old one need not be here to make the image again, only to bring what else is gone."""
    source.generate(f"--from={source.old}", "--inline", "--min-fallback-size=0", f"--filename={tmp_path / 'update'}")
    target = Target(tmp_path / "target")
    if has_old:
        target.ostree("pull-local", source.repo, source.old)
    held = {path.name for path in (target.path / "objects").rglob("*") if path.is_file()}
    image = target.json("pull-local", source.repo, source.new)["image"]
    gone = [target.path / "objects" / image[:2] / image[2:]]
    if lacks_content:
        new = [path for path in (target.path / "objects").rglob("*") if path.is_file() and path.name not in held]
        stream = (target.path / "streams" / f"ostree-commit-{source.new}").resolve()
        gone += [path for path in new if path not in (*gone, stream)]
        assert len(gone) > 1
    for path in gone:
        path.unlink()
    done = target.json("apply-delta", tmp_path / "update")
    assert (done["image"], done["delta_parts"]) == (image, int(lacks_content))
    assert target.json("fsck")["ok"]


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_delta_in_one_file_of_a_commit_whose_stream_is_bad(source: Source, tmp_path: Path, how: str) -> None:
    source.generate(f"--from={source.old}", "--inline", "--min-fallback-size=0", f"--filename={tmp_path / 'update'}")
    target = Target(tmp_path / "target")
    target.ostree("pull-local", source.repo, source.old)
    image = target.json("pull-local", source.repo, source.new)["image"]
    stream = (target.path / "streams" / f"ostree-commit-{source.new}").resolve()
    if how == "damaged":
        stream.write_bytes(stream.read_bytes()[:-1] + b"x")
    else:
        stream.unlink()
    done = target.json("apply-delta", tmp_path / "update")
    assert (done["image"], done["delta_parts"]) == (image, 1)
    assert target.json("fsck")["ok"]


def test_a_delta_between_commits_of_the_same_tree(tmp_path: Path) -> None:
    tree, repo = make_tree(tmp_path / "tree"), make_repo(tmp_path / "source")
    old, new = (commit(repo, tree, subject=subject) for subject in ("old", "new"))
    generate = ("static-delta", "generate", f"--repo={repo}", f"--from={old}", f"--to={new}")
    run("ostree", *generate)
    run("ostree", *generate, "--inline", f"--filename={tmp_path / 'file'}")
    update_summary(repo)
    bare = make_repo(tmp_path / "ostree", "bare-user")
    witness, pulled, applied = (Target(tmp_path / name) for name in ("witness", "pulled", "applied"))
    expected = witness.json("pull-local", repo, new)
    for target in (pulled, applied):
        target.ostree("pull-local", repo, old)
    with serve(repo) as server:
        run("ostree", f"--repo={bare}", "remote", "add", "--no-gpg-verify", "o", server.url)
        run("ostree", f"--repo={bare}", "pull", "o", old)
        run("ostree", f"--repo={bare}", "pull", "--require-static-deltas", "o", BRANCH)
        server.forgive()
        done = pulled.json("pull", server.url, BRANCH, f"--base-name={old}")
        assert server.count("*/superblock") == 1
        assert server.count("*.commit") + server.count("/objects/*.dir*") + server.count("*.filez") == 0
    run("ostree", f"--repo={bare}", "fsck")
    for made in (done, applied.json("apply-delta", tmp_path / "file")):
        assert (made["commit"], made["image"], made["verity"]) == (new, expected["image"], expected["verity"])


def test_a_delta_in_a_directory(source: Source, tmp_path: Path) -> None:
    source.generate("--empty", "--min-fallback-size=0", "--max-chunk-size=1")
    (superblock,) = (source.repo / "deltas").rglob("superblock")
    applied = Target(tmp_path / "target").json("apply-delta", superblock.parent)
    assert applied["image"] == direct(source, tmp_path / "direct")[0]
    assert applied["delta_parts"] > 1


def test_parts_beside_a_superblock_are_out_of_reach(source: Source, tmp_path: Path) -> None:
    source.generate("--empty", "--min-fallback-size=0", "--max-chunk-size=1")
    (superblock,) = (source.repo / "deltas").rglob("superblock")
    superblock = superblock.parent.rename(tmp_path / "the delta") / superblock.name
    target = Target(tmp_path / "target")
    refused = target.ostree("apply-delta", superblock, status=None)
    assert refused.returncode == 7
    assert f"{superblock.parent}/" in refused.stderr
    assert ": it cannot be read, as only its superblock was given" in refused.stderr
    assert f"cfsctl ostree apply-delta '{superblock.parent}'" in refused.stderr
    assert target.names() == {}
    assert target.ostree("apply-delta", superblock.parent).returncode == 0
    assert target.ostree("apply-delta", superblock).returncode == 0  # it needs no part any more


def test_a_delta_with_fallbacks_is_not_enough(source: Source, tmp_path: Path) -> None:
    source.generate("--empty", "--min-fallback-size=1")
    (superblock,) = (source.repo / "deltas").rglob("superblock")
    target = Target(tmp_path / "target")
    done = target.ostree("apply-delta", superblock, status=None)
    assert done.returncode == 9
    assert "--min-fallback-size=0" in done.stderr
    assert target.names() == {}
    target.ostree("pull-local", source.repo, source.new)
    assert target.ostree("apply-delta", superblock).returncode == 0


def test_a_delta_with_one_fallback(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", files=1)
    (tree / "large").write_bytes(random.Random(4).randbytes(1_100_000))
    repo = make_repo(tmp_path / "source")
    new = commit(repo, tree)
    generate = ("ostree", "static-delta", "generate", f"--repo={repo}", "--empty", "--min-fallback-size=1")
    run(*generate, f"--to={new}")
    (superblock,) = (repo / "deltas").rglob("superblock")
    refused = Target(tmp_path / "target").ostree("apply-delta", superblock, status=9).stderr
    assert "the delta leaves 1 large file to be fetched one by one" in refused


def test_an_interrupted_pull_leaves_out_the_parts_that_it_has(source: Source, server: Server, tmp_path: Path) -> None:
    source.generate("--empty", "--max-chunk-size=1", "--min-fallback-size=0")
    source.publish()
    parts = len([path for path in (source.repo / "deltas").rglob("*") if path.name.isdigit()])
    server.fault(f"/deltas/*/{parts - 1}", Fault(flip=100))
    target = Target(tmp_path / "target")
    # By one worker the parts come one after the other: all others are here when the last one is refused.
    target.ostree("pull", server.url, BRANCH, status=5, preexec_fn=on_one_processor)
    server.forgive()
    pulled = target.json("pull", server.url, BRANCH)
    assert parts > 2
    assert pulled["delta_parts"] == 1
    assert server.count("*.dirtree") == server.count("*.dirmeta") == 0
    assert pulled["image"] == direct(source, tmp_path / "direct")[0]


@pytest.mark.parametrize("is_collected", [False, True], ids=["held", "collected"])
def test_a_carried_delta_can_be_applied_after_it_was_damaged(
    source: Source, tmp_path: Path, is_collected: bool
) -> None:
    """Files of the first attempt are noted as here, and perhaps are; metadata is in the delta alone."""
    source.generate("--empty", "--max-chunk-size=1", "--min-fallback-size=0")
    (superblock,) = (source.repo / "deltas").rglob("superblock")
    last = max((path for path in superblock.parent.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    good = last.read_bytes()
    last.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    target = Target(tmp_path / "target")
    assert target.ostree("apply-delta", superblock.parent, status=5).stderr.count(str(last)) == 1
    last.write_bytes(good)
    if is_collected:
        cfsctl("--repo", target.path, "gc")
    assert target.json("apply-delta", superblock.parent)["image"] == direct(source, tmp_path / "direct")[0]


def test_what_is_altered_in_a_file_is_refused_by_both(source: Source, tmp_path: Path) -> None:
    name = tmp_path / "delta"
    source.generate("--empty", "--inline", "--min-fallback-size=0", f"--filename={name}")
    good = name.read_bytes()
    target = Target(tmp_path / "target")
    theirs = make_repo(tmp_path / "theirs", "bare-user")
    for place in (len(good) // 2, good.index(bytes.fromhex(source.new)) + 5):
        name.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        run("ostree", f"--repo={theirs}", "static-delta", "apply-offline", name, status=1)
        refused = target.ostree("apply-delta", name, status=5)
        assert str(name) in refused.stderr
        assert target.names() == {}
        assert target.left_over() == []
    name.write_bytes(b"text")
    assert f"{name} is no static delta" in target.ostree("apply-delta", name, status=5).stderr
    name.write_bytes(good)
    run("ostree", f"--repo={theirs}", "static-delta", "apply-offline", name)
    assert run("ostree", f"--repo={theirs}", "show", source.new).returncode == 0
    assert target.json("apply-delta", name)["commit"] == source.new


def test_a_signed_superblock(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ostree of the distribution signs with its dummy kind only, so ed25519 is put in by hand."""
    monkeypatch.setenv("OSTREE_DUMMY_SIGN_ENABLED", "1")
    for name, signing in (("dummy", ("--sign-type=dummy", "--sign=someone")), ("plain", ())):
        source.generate("--empty", "--inline", "--min-fallback-size=0", f"--filename={tmp_path / name}", *signing)
    run("ostree", f"--repo={source.repo}", "static-delta", "verify", "--sign-type=dummy", tmp_path / "dummy", "someone")
    dummy, plain = tmp_path / "dummy", tmp_path / "plain"
    assert dummy.read_bytes().startswith(b"OSTSGNDT")
    assert Target(tmp_path / "trusting").json("apply-delta", dummy)["commit"] == source.new
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    ours = f"--sign-key=ed25519=inline:{base64.b64encode(key.public_key().public_bytes_raw()).decode()}"
    target = Target(tmp_path / "target")
    data = plain.read_bytes()
    magic = int.from_bytes(b"OSTSGNDT", "little")
    for signer, status in ((None, 5), (other, 5), (key, 0)):
        signed = tmp_path / f"signed{status}{signer is None}"
        made = {} if signer is None else {"ostree.sign.ed25519": Variant("aay", [signer.sign(data)])}
        signed.write_bytes(gvariant.encode("(taya{sv})", (magic, data, made)))
        refused = target.ostree("apply-delta", signed, ours, status=status).stderr
        assert bool(status) == ("signature" in refused)
        assert bool(status) == (target.names() == {})
    assert "signature" in Target(tmp_path / "second").ostree("apply-delta", dummy, ours, status=5).stderr


@pytest.mark.parametrize("key", ["right", "wrong"])
def test_a_commit_that_comes_in_a_delta_is_verified(
    source: Source, server: Server, tmp_path: Path, keys: Keys, key: str
) -> None:
    run("ostree", f"--repo={source.repo}", "gpg-sign", f"--gpg-homedir={keys.gpg.home}", source.new, keys.good)
    source.generate("--empty")
    source.publish()
    keyring = tmp_path / "keyring"
    keyring.write_bytes(keys.gpg.export(keys.good if key == "right" else keys.rsa))
    target = Target(tmp_path / "target")
    target.ostree("remote", "add", f"--gpg-import={keyring}", "o", server.url)
    if key == "wrong":
        assert "signature" in target.ostree("pull", f"o:{BRANCH}", status=None).stderr
        assert server.count("/deltas/*/0") == server.count("*.filez") == 0
        assert "streams/refs/ostree/o:test%2Fmain" not in target.names()
        return
    pulled = target.json("pull", f"o:{BRANCH}")
    assert pulled["delta_parts"] == 1
    assert [each["problem"] for each in pulled["signatures"]] == [None]
    # A delta in a file brings the signatures along.
    source.generate("--empty", "--inline", "--min-fallback-size=0", f"--filename={tmp_path / 'file'}")
    applied = Target(tmp_path / "offline")
    assert applied.json("apply-delta", tmp_path / "file", f"--gpg-key={keyring}")["commit"] == source.new
    assert applied.json("inspect", source.new)["signatures"]
    # Where two kinds are wanted, the delta may have the one and the commit in it the other.
    secret, data = Ed25519PrivateKey.generate(), (tmp_path / "file").read_bytes()
    made = {"ostree.sign.ed25519": Variant("aay", [secret.sign(data)])}
    magic = int.from_bytes(b"OSTSGNDT", "little")
    (tmp_path / "signed").write_bytes(gvariant.encode("(taya{sv})", (magic, data, made)))
    (tmp_path / "other").write_bytes(keys.gpg.export(keys.rsa))
    both = Target(tmp_path / "both")
    ours = f"--sign-key=ed25519=inline:{base64.b64encode(secret.public_key().public_bytes_raw()).decode()}"
    refused = both.ostree("apply-delta", tmp_path / "signed", ours, f"--gpg-key={tmp_path / 'other'}", status=5).stderr
    assert "GPG signature" in refused
    assert both.json("apply-delta", tmp_path / "signed", ours, f"--gpg-key={keyring}")["commit"] == source.new


@pytest.mark.parametrize("by", ["ref", "id"])
def test_detached_metadata_that_only_the_delta_has(source: Source, server: Server, tmp_path: Path, by: str) -> None:
    detached = source.repo / "objects" / source.new[:2] / f"{source.new[2:]}.commitmeta"
    detached.write_bytes(metadata := b"k\0\0\0\0\0\0\0v\0\0s\2\x0d")
    run("ostree", f"--repo={source.repo}", "static-delta", "generate", "--empty", f"--to={source.new}")
    detached.unlink()
    source.publish()
    target, name = Target(tmp_path / "target"), BRANCH if by == "ref" else source.new
    assert target.json("pull", server.url, name)["delta_parts"] == 1
    target.ostree("export", source.new, tmp_path / "out", "--reference=a")
    assert (tmp_path / "out" / detached.relative_to(source.repo)).read_bytes() == metadata
    ostree = ("ostree", f"--repo={tmp_path / 'theirs'}")  # which takes no delta into an archive
    run(*ostree, "init", "--mode=bare-user-only")
    run(*ostree, "remote", "add", "--no-gpg-verify", "o", server.url)
    run(*ostree, "pull", "o", name)
    assert (tmp_path / "theirs" / detached.relative_to(source.repo)).read_bytes() == metadata


def test_indexes_that_ostree_writes_anew(source: Source, server: Server, tmp_path: Path) -> None:
    source.generate("--empty")
    source.generate(f"--from={source.old}")
    source.publish()
    index = source.repo / index_path(bytes.fromhex(source.new))
    shutil.rmtree(source.repo / "delta-indexes")
    assert Target(tmp_path / "without").json("pull", server.url, BRANCH)["delta_parts"] == 0
    run("ostree", f"--repo={source.repo}", "static-delta", "reindex")
    assert run("ostree", f"--repo={source.repo}", "static-delta", "indexes").stdout.split() == [source.new]
    assert set(parse_index(index.read_bytes())) == {source.new, f"{source.old}-{source.new}"}
    assert Target(tmp_path / "with").json("pull", server.url, BRANCH)["delta_parts"] == 1


def test_an_altered_fallback_is_refused(source: Source, server: Server, tmp_path: Path) -> None:
    source.generate("--empty", "--min-fallback-size=1")
    source.publish()
    server.fault("*.filez", Fault(flip=-3))
    target = Target(tmp_path / "target")
    refused = target.ostree("pull", server.url, BRANCH, status=5)
    assert ".filez" in refused.stderr
    assert target.names() == {}
    server.forgive()
    # Whether the part, or what came of it, was here when the fallback was refused is a race.
    assert target.json("pull", server.url, BRANCH)["delta_parts"] == server.count("/deltas/*/0")
    assert server.count("*.filez") == 3
    assert target.json("fsck")["ok"]
