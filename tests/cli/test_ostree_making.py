"""``commit`` and ``export``: what a user sees, hostile input, full disks, and interruption."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.commands import CFSCTL, TIMEOUT, cfsctl, completions, limit_memory, run
from support.gpg import Keys, keys  # noqa: F401  a fixture
from support.made_repo import OPTIONS, make_system
from support.mounts import mounted
from support.oci_made import CAPABILITY
from support.ostree_pull import LIBEXEC, Target, extensions  # noqa: F401  a fixture
from support.peers import require
from support.server import serve

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.fixture
def made(target: Target, tmp_path: Path) -> Target:
    """A repository with a commit on the branch main."""
    target.ostree("commit", f"--tree=dir={make_system(tmp_path / 'tree')}", "-b", "main", *OPTIONS)
    return target


def test_what_commit_and_export_print(made: Target, tmp_path: Path) -> None:
    printed = made.ostree(
        "commit", f"--tree=dir={tmp_path / 'tree'}", "--branch=main", "--reference=main", *OPTIONS, "--parent=none"
    ).stdout
    lines = [line.split() for line in printed.splitlines()]
    assert [line[0] for line in lines] == ["commit", "verity", "tagged"]
    commit, verity = lines[0][1], lines[1][1]
    told = made.json("inspect", "main")
    assert told["verity"] == verity
    assert (made.path / "images" / told["image"]).is_symlink()
    assert lines[2] == ["tagged", "main"]
    printed = made.ostree("export", "main", tmp_path / "out", "--reference", "other/name")
    assert printed.stdout == f"commit  {commit}\ntagged  other/name\n"
    remedy = "a pull of other/name will refuse it (--reference main sets a ref that it is for)"
    assert printed.stderr == f"warning: the commit says that it is for main: {remedy}\n"
    assert (tmp_path / "out/refs/heads/other/name").read_text() == f"{commit}\n"
    result = made.json("export", commit[:10], tmp_path / "out")
    assert (result["ref"], result["mode"], result["commit"]) == (None, "archive", commit)
    assert made.ostree("export", commit, tmp_path / "out").stdout == f"commit  {commit}\n"
    assert [each.name for each in (tmp_path / "out/refs").rglob("*") if each.is_file()] == ["name"]
    usage = " ".join(run(CFSCTL, "ostree", "export", "--help").stdout.split())
    assert "the one that was given if this is not, and none for a commit id." in usage
    unnamed = made.json("commit", f"--tree=dir={tmp_path / 'tree'}", "--timestamp=@7")
    assert (unnamed["ref"], unnamed["unchanged"]) == (None, False)
    exported = made.json("export", unnamed["commit"], tmp_path / "fresh")
    assert unnamed["metadata_objects"] == exported["metadata_written"]
    assert unnamed["files"] == exported["files_written"]
    assert made.json("commit", "--orphan", f"--tree=dir={tmp_path / 'tree'}", "--timestamp=@7") == unnamed
    again = made.ostree("commit", "-b", "main", f"--tree=dir={tmp_path / 'tree'}", *OPTIONS, "--skip-if-unchanged")
    assert again.stdout == f"commit  {commit}\nverity  {verity}\nunchanged\n"
    assert made.ostree("inspect", unnamed["commit"]).returncode == 0


def test_a_commit_that_is_for_several_refs_is_exported_to_each(made: Target, tmp_path: Path) -> None:
    made.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", "b", "--bind-ref=a", "--bind-ref=c")
    for ref in ("a", "b", "c"):
        assert made.ostree("export", "b", tmp_path / "out", f"--reference={ref}").stderr == ""
    assert "it is for a, b, c: a pull of d" in made.ostree("export", "b", tmp_path / "out", "--reference=d").stderr


def test_a_version_that_is_no_string_is_in_no_summary(made: Target, tmp_path: Path) -> None:
    made.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", "main", "--add-metadata=version=uint32 5")
    made.ostree("export", "main", tmp_path / "out")
    summary = run(require("ostree"), "summary", f"--repo={tmp_path / 'out'}", "--view").stdout
    assert "* main" in summary
    assert "ostree.commit.version" not in summary


@pytest.mark.root
def test_capabilities_are_kept_in_a_bare_repository(target: Target, tmp_path: Path) -> None:
    """The system takes them away from a file that changes hands, and from one that is written to."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"content" * 1000)
    os.chown(tmp_path / "tree/file", 5, 5)
    os.setxattr(tmp_path / "tree/file", "security.capability", CAPABILITY)
    target.ostree("commit", "-b", "main", f"--tree=dir={tmp_path / 'tree'}")
    target.ostree("export", "main", tmp_path / "out", "--mode=bare")
    [path] = tmp_path.glob("out/objects/*/*.file")
    assert os.getxattr(path, "security.capability") == CAPABILITY
    assert "no errors found" in run(require("ostree"), "fsck", f"--repo={tmp_path / 'out'}").stdout


def test_a_clock_before_1970(made: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux has none, what stands in for its clock may have: the time is kept as ostree keeps it."""
    extension = tmp_path / "ext/ostree"
    extension.parent.mkdir()
    shutil.copy(LIBEXEC / "ostree.json", extension.parent)
    begin = "import time; time.time = lambda: -315619200.5; from composefs_ostree.main import main; main()"
    extension.write_text(f"#!{sys.executable}\n{begin}\n")
    extension.chmod(0o755)
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(extension.parent))
    made.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", "old")
    assert "1960-01-01 00:00:00" in made.ostree("inspect", "old").stdout
    made.ostree("export", "old", tmp_path / "out")
    summary = run(require("ostree"), "summary", f"--repo={tmp_path / 'out'}", "--view").stdout
    assert "(ostree.summary.last-modified): 1960-01-01" in summary


@pytest.mark.root
def test_a_file_system_without_extended_attributes(made: Target, tmp_path: Path) -> None:
    """Such as many of FUSE: a directory there is committed and a bare repository pulled from, as ostree does both."""
    small = tmp_path / "small"
    small.mkdir()
    (small / "file").write_text("content")
    (small / "link").symlink_to("file")
    commit = ("ostree", "commit", f"--tree=dir={small}", "-b", "small", *OPTIONS)
    bare = tmp_path / "bare"
    cfsctl("--repo", made.path, *commit)
    made.ostree("export", "small", bare, "--mode=bare")
    inject = "inject=listxattr,flistxattr,llistxattr:error=EOPNOTSUPP"
    strace = [require("strace"), "-f", "-qqq", "-o", "/dev/null", "-e", "signal=none", "-e", inject]
    other = Target(tmp_path / "other")
    run(*strace, CFSCTL, "--repo", other.path, *commit)
    assert other.json("inspect", "small")["commit"] == made.json("inspect", "small")["commit"]
    other = Target(tmp_path / "third")
    run(*strace, CFSCTL, "--repo", other.path, "ostree", "pull-local", bare, "small")
    assert other.ostree("fsck").returncode == 0


def test_an_image_by_name_and_one_that_was_never_a_commit(target: Target, tmp_path: Path) -> None:
    tree = make_system(tmp_path / "tree")
    run(CFSCTL, "--repo", target.path, "create-image", "--no-propagate-usr-to-root", tree, "os/1")
    by_name, by_ref = (
        target.json("commit", name, f"--reference=by/{number}", *OPTIONS, "--no-bindings")
        for number, name in enumerate(("os/1", "refs/os/1"))
    )
    of_tree = target.json("commit", f"--tree=dir={tree}", *OPTIONS, "--no-bindings")
    assert by_name["commit"] == by_ref["commit"] == of_tree["commit"]
    assert by_name["verity"] == of_tree["verity"]
    assert "commit" in target.ostree("images").stdout.lower()


def test_completion_and_help(made: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.path.parent)
    assert completions("--repo", str(made.path), "ostree", "export", "m") == ["main"]
    assert completions("ostree", "commit", "--tree", "t") == ["tar="]
    for option in ("--base", "--tree-ref", "--branch"):
        assert completions("--repo", str(made.path), "ostree", "commit", option, "m") == ["main"]
    assert completions("ostree", "export", "--mode", "bare-user-") == ["bare-user-only"]
    for command in ("commit", "export"):
        assert f"$ cfsctl ostree {command}" in run(CFSCTL, "ostree", command, "--help").stdout


def test_relative_paths_and_short_options(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_system(tmp_path / "tree")
    monkeypatch.chdir(tmp_path)
    target.ostree("commit", "--tree=dir=tree", "-b", "main", "-s", "Subject", "-m", "Body")
    facts = target.json("inspect", "main")
    assert (facts["subject"], facts["body"]) == ("Subject", "Body")
    target.ostree("export", "main", "new/../out")
    assert (tmp_path / "out/refs/heads/main").is_file()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "give a tree to commit"),
        (("--tree=dir=.", "an-image"), 3, "there is no image"),
        ("--tree=dir=nowhere", 3, "does not exist"),
        ("--tree=dir=empty.tar", 3, "it is not a directory (give a directory, or an archive as --tree=tar=FILE)"),
        (("no/such/image",), 3, "there is no image"),
        (("--base=nowhere",), 3, "'nowhere' is not a known ostree ref or valid commit ID"),
        (("--tree=dir=.", "--tree-ref=nowhere"), 3, "cfsctl ostree images lists the refs"),
        (("--tree=dir=.", "--orphan", "-b", "main"), 2, "--orphan is for a commit without a branch"),
        (("--tree=dir=.", "--body=b", "--body-file=empty.tar"), 2, "--body and --body-file exclude each other"),
        (("--tree=dir=.", "--body-file=nowhere"), 3, "nowhere"),
        (("--tree=dir=.", "--body-file=latin"), 5, "latin is not text in UTF-8"),
        (("--tree=dir=.", "--body-file=nul"), 5, "nul is not text in UTF-8"),
        (("--tree=dir=.", "--body-file=large"), 8, "large has more than 1048576 bytes"),
        (("--tree=dir=.", "--collection-id=example"), 2, "write it like org.example.Stable"),
        (("--tree=dir=.", "--collection-id=org.1x"), 2, "'org.1x' is not a collection id"),
        (("--tree=dir=.", "--collection-id=org.x", "--no-bindings"), 2, "--collection-id and --no-bindings exclude"),
        (("--tree=dir=.", "--keep-metadata=version"), 2, "there is no commit before this one"),
        (("--tree=dir=.", "-b", "new", "--keep-metadata=version"), 2, "give --parent, or a branch that is here"),
        (("--tree=dir=.", f"--parent={'ab' * 32}", "--keep-metadata=v"), 3, "leave out --keep-metadata"),
        (("--tree=dir=.", f"--parent={'ab' * 32}", "--skip-if-unchanged"), 3, f"commit {'ab' * 32}, is not here"),
        (("--tree=dir=.", "--branch=../x"), 2, "not an ostree ref"),
        (("--tree=dir=.", "--branch=a", "--reference=b"), 2, "same option"),
        (("--tree=dir=.", "--owner-uid=-1"), 2, "no user or group id"),
        (("--tree=dir=.", "--owner-gid=4294967296"), 2, "no user or group id"),
        (("--tree=dir=.", "--owner-uid=5", "--canonical-permissions"), 2, "lets root own everything"),
        (("--tree=dir=.", "--timestamp=tomorrow"), 2, "is not a time"),
        (("--tree=dir=.", "--timestamp=@9223372036854775808"), 2, "write now, @SECONDS since 1970, or a date"),
        (("--tree=dir=.", "--parent=main"), 2, "neither a commit id nor none"),
        (("--tree=dir=.", "--add-metadata-string=novalue"), 2, "is not KEY=VALUE"),
        (("--tree=dir=.", "--add-metadata-string==nokey"), 2, "is not KEY=VALUE"),
        (("--tree=dir=.", "--add-metadata=a=[1"), 2, "the value ends too early"),
        (("--tree=dir=.", "--add-metadata=a=[]"), 2, "type is not clear"),
        (("--tree=dir=.", "--add-metadata=a='\\U00110000'"), 2, "--add-metadata a: there is no character"),
        (("--tree=dir=.", "--add-metadata-string=a=1", "--add-metadata-string=a=2"), 2, "given twice"),
        (("--tree=dir=.", "--add-metadata-string=ostree.ref-binding=x"), 2, "given twice"),
        (("--tree=dir=.", "--no-bindings", "--bind-ref=a"), 2, "exclude each other"),
        (("--tree=dir=.", "--tar-autocreate-parents"), 2, "is for --tree=tar"),
        (("--tree=dir=.", "--tar-pathname-filter=a,b"), 2, "--tar-pathname-filter is for --tree=tar"),
        (("--tree=tar=empty.tar", "--tar-pathname-filter=a"), 2, "'a' is not REGEX,REPLACEMENT"),
        (("--tree=tar=empty.tar", "--tar-pathname-filter=(,b"), 2, "(REGEX is in Python's syntax)"),
        (("--tree=tar=empty.tar", "--tar-pathname-filter=a,\\1"), 2, "invalid group reference 1"),
        (("--tree=tar=empty.tar", "--tar-pathname-filter=a,\\g<b>"), 2, "unknown group name"),
        (("--tree=tar=empty.tar",), 5, "not a tar archive"),
        (("--from-dump=empty.tar",), 5, "empty.tar"),
        (("--tree=dir=.", "--bootable"), 5, "install one there, where ostree looks for it, or leave out --bootable"),
    ],
    ids=range(45),
)
def test_mistakes_are_told_and_change_nothing(
    target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/empty.tar").write_bytes(b"no archive" * 100)
    (tmp_path / "here/latin").write_bytes("grüße".encode("latin-1"))
    (tmp_path / "here/nul").write_bytes(b"a\0b")
    (tmp_path / "here/large").write_bytes(b"x" * ((1 << 20) + 1))
    monkeypatch.chdir(tmp_path / "here")
    given = (arguments,) if isinstance(arguments, str) else arguments
    failed = target.ostree("commit", *given, status=status)
    assert message in failed.stderr
    assert (failed.stdout, target.names(), target.left_over()) == ("", {}, [])


@pytest.mark.parametrize("epoch", ["-1", "1.5", "", "\u0661", str(1 << 63)])
def test_an_epoch_that_is_no_time(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str) -> None:
    (tmp_path / "tree").mkdir()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    words = ("commit", f"--tree=dir={tmp_path / 'tree'}")
    assert f"SOURCE_DATE_EPOCH={epoch!r} is not a time after 1970" in target.ostree(*words, status=2).stderr
    assert target.names() == {}
    target.ostree(*words, "--timestamp=@1")


def test_a_dump_that_names_what_is_not_here(target: Target, tmp_path: Path) -> None:
    digest = "ab" * 32
    (tmp_path / "dump").write_text(
        f"/ 0 40755 2 0 0 0 0.0 - - -\n/file 5000 100644 1 0 0 0 0.0 {digest[:2]}/{digest[2:]} - {digest}\n"
    )
    assert digest in target.ostree("commit", "--from-dump", tmp_path / "dump", status=5).stderr
    (tmp_path / "dump").write_text("/ 0 40755 2 0 0 0 0.0 - - -\n/file 5 100644 1 0 0 0 0.0 - - -\n")
    told = target.ostree("commit", "--from-dump", tmp_path / "dump", status=5).stderr
    assert "/file has neither its 5 bytes of content nor a digest" in told
    (tmp_path / "dump").write_text("/ 0 40755 2 0 0 0 0.0 - - -\n/null 0 20666 1 0 0 259 0.0 - - -\n")
    assert "/null is a device" in target.ostree("commit", "--from-dump", tmp_path / "dump", status=9).stderr


def test_what_cannot_be_read_is_told_with_the_image_or_commit_that_it_is_of(made: Target, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    cfsctl("--repo", made.path, "create-image", "--no-propagate-usr-to-root", tmp_path / "small", "small")
    shown = made.json("inspect", "main")
    damage((made.path / "images/refs/small").resolve())
    assert "cfsctl: image 'small': object " in made.ostree("commit", "small", status=5).stderr
    damage((made.path / f"streams/ostree-commit-{shown['commit']}").resolve())
    for words in (("commit", "--tree-ref=main"), ("export", "main", tmp_path / "out"), ("inspect", "main")):
        told = made.ostree(*words, status=5).stderr
        assert f"cfsctl: commit {shown['commit']}: object {shown['verity']} is damaged" in told
    assert f"error   commit {shown['commit']}: object " in made.ostree("fsck", status=1).stdout


def damage(path: Path) -> None:
    """Change the last byte of an object."""
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def test_a_damaged_object_is_not_committed(made: Target) -> None:
    image = made.json("inspect", "main")["image"]
    large = max((made.path / "objects").glob("*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(large.read_bytes())
    data[150_000] ^= 1
    large.chmod(0o644)
    large.write_bytes(data)
    failed = made.ostree("commit", image, status=5)
    assert f"{large.parent.name}{large.name} is damaged" in failed.stderr
    assert "cfsctl fsck" in failed.stderr
    out = made.path.parent / "out"
    assert "does not have its checksum" in made.ostree("export", "main", out, status=5).stderr
    assert not (out / "refs/heads/main").exists()
    assert not list(out.rglob("*.commit"))
    assert not (out / "summary").exists()
    for option in ("--base=main", "--tree-ref=main"):
        failed = made.ostree("commit", option, status=5)
        assert f"{large.parent.name}{large.name} is damaged" in failed.stderr
    large.unlink()
    for option in ("--base=main", "--tree-ref=main"):
        failed = made.ostree("commit", option, status=5)
        assert f"the tree needs 1 object not in the repository: {large.parent.name}{large.name}" in failed.stderr
        assert "pull that commit with --repair" in failed.stderr
    failed = made.ostree("export", "main", out, status=5)
    assert f"object {large.parent.name}{large.name} is missing in the composefs repository" in failed.stderr
    assert "pull --repair" in failed.stderr
    assert str(out) not in failed.stderr  # nothing is wrong with what is written


@pytest.mark.parametrize(
    ("option", "text", "status", "message"),
    [
        ("--statoverride", "04755 /file\n", 5, "'04755 /file' is not a mode and a path (write [=]MODE PATH with the"),
        ("--statoverride", "4096 /file\n", 5, "mode in decimal, 2048 for setuid"),
        ("--statoverride", "-1 /file\n", 5, "is not a mode and a path"),
        ("--statoverride", "== /file\n", 5, "is not a mode and a path"),
        ("--statoverride", "٤ /file\n", 5, "is not a mode and a path"),
        ("--statoverride", f"{'9' * 5000} /file\n", 5, "is not a mode and a path"),
        ("--statoverride", "2048\n", 5, "'2048' is not a mode and a path"),
        (
            "--statoverride",
            "2048 /file\n1 file\n",
            2,
            "--statoverride names what no tree has: file (paths begin with /",
        ),
        ("--statoverride", "=2048 /else\n2048 /new\nline\n", 5, "'line' is not a mode and a path"),
        ("--statoverride", "=2048 /else\n2048 /other\n", 2, "names what no tree has: /else, /other"),
        ("--skip-list", "/file/\n", 2, "--skip-list names what no tree has: /file/"),
        (
            "--skip-list",
            "/file\n" + "".join(f"/{n}\n" for n in range(9)),
            2,
            "no tree has: /0, /1, /2, /3, /4, /5, /6, /7 …",
        ),
        ("--skip-list", "/directory\n/directory/below\n", 2, "no tree has: /directory/below"),
        ("--skip-list", "/\n", 5, "the root cannot be left out"),
        ("--skip-list", "/" * (4 << 20) + "x", 8, "too many for a list of paths"),
    ],
    ids=range(15),
)
def test_lists_of_paths_that_are_wrong(
    target: Target, tmp_path: Path, option: str, text: str, status: int, message: str
) -> None:
    (tmp_path / "tree/directory/below").mkdir(parents=True)
    (tmp_path / "tree/file").touch()
    (tmp_path / "list").write_text(text)
    failed = target.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", f"{option}={tmp_path / 'list'}", status=status)
    assert message in failed.stderr
    assert (len(failed.stderr) < 700, target.names(), target.left_over()) == (True, {}, [])


def test_what_no_commit_can_hold_can_be_left_out(target: Target, tmp_path: Path) -> None:
    tree = make_system(tmp_path / "tree")
    expected = target.json("commit", f"--tree=dir={tree}", *OPTIONS)["commit"]
    os.mkfifo(tree / "etc/pipe")
    (tree / os.fsdecode(b"not \xff UTF-8")).mkdir()
    (tree / os.fsdecode(b"not \xff UTF-8") / "below").touch()
    (tmp_path / "list").write_bytes(b"/etc/pipe\n/not \xff UTF-8\n")
    skipping = target.json("commit", f"--tree=dir={tree}", *OPTIONS, f"--skip-list={tmp_path / 'list'}")
    assert skipping["commit"] == expected
    # Of an image too, in which equal files are one.
    run(CFSCTL, "--repo", target.path, "ostree", "tag", expected, "system")
    image = target.json("inspect", "system")["image"]
    (tmp_path / "list").write_text("/usr/share/twin\n/usr/lib\n")
    (tree / "etc/pipe").unlink()
    shutil.rmtree(os.fsencode(tree / os.fsdecode(b"not \xff UTF-8")))
    (tree / "usr/share/twin").unlink()
    shutil.rmtree(tree / "usr/lib")
    expected = target.json("commit", f"--tree=dir={tree}", *OPTIONS)["commit"]
    skip = f"--skip-list={tmp_path / 'list'}"
    for source in (image, "--tree-ref=system"):
        assert target.json("commit", source, skip, *OPTIONS)["commit"] == expected
    failed = target.ostree("commit", "--base=system", skip, status=2)
    assert "no tree has: /usr/lib, /usr/share/twin" in failed.stderr


# Trees over one another


AS_IS = "--no-propagate-usr-to-root"


def put(path: Path, **files: str | None) -> Path:
    """Make a directory with these files, and directories for None; __ in a name is a slash."""
    path.mkdir()
    for name, text in files.items():
        file = path / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.mkdir() if text is None else file.write_text(text)
    return path


def test_an_image_a_dump_and_trees_are_laid_over_one_another_in_this_order(target: Target, tmp_path: Path) -> None:
    image, dump, tree = (
        put(tmp_path / name, own=None, **{f"own__{name}": name}, **dict.fromkeys(shared, name * 500))
        for name, shared in (("image", ("a", "b", "c")), ("dump", ("b", "c")), ("tree", ("c",)))
    )
    tarfile.open(tmp_path / "nothing.tar", "w").close()
    run(CFSCTL, "--repo", target.path, "create-image", AS_IS, image, "lowest")
    run(CFSCTL, "--repo", target.path, "create-image", AS_IS, dump)  # for its objects to be there
    (tmp_path / "dump.txt").write_text(run(CFSCTL, "--repo", target.path, "create-dumpfile", AS_IS, dump).stdout)
    words = ("commit", *OPTIONS, "--no-bindings", "--parent=none")
    of_trees = target.json(*words, *(f"--tree=dir={path}" for path in (image, dump, tree)))
    order = (f"--tree=dir={tree}", "--from-dump", tmp_path / "dump.txt", "lowest", f"--tree=tar={tmp_path}/nothing.tar")
    laid = target.json(*words, *order, "--branch=laid")
    assert (laid["commit"], laid["verity"]) == (of_trees["commit"], of_trees["verity"])
    assert laid["files"] == 6
    target.ostree("export", "laid", tmp_path / "out")
    seen = run("ostree", f"--repo={tmp_path / 'out'}", "cat", "laid", "/a", "/b", "/c").stdout
    assert seen == "image" * 500 + "dump" * 500 + "tree" * 500


def test_what_is_a_directory_in_one_tree_and_not_in_another(target: Target, tmp_path: Path) -> None:
    file, directory = put(tmp_path / "file", etc__x="file"), put(tmp_path / "directory", etc__x=None)
    link = put(tmp_path / "link", etc=None)
    (link / "etc/x").symlink_to("/")
    for kind in (file, directory, link):
        run("tar", "-C", kind, "-cf", kind.with_suffix(".tar"), ".")
        run(CFSCTL, "--repo", target.path, "create-image", AS_IS, kind, kind.name)
        dump = run(CFSCTL, "--repo", target.path, "create-dumpfile", AS_IS, kind).stdout
        kind.with_suffix(".dump").write_text(dump)
    before = target.names()
    for lower, upper in ((file, directory), (link, directory), (directory, file), (directory, link)):
        for words, where in (
            ((f"--tree=dir={lower}", f"--tree=dir={upper}"), f"{upper}/etc/x"),
            ((f"--tree=dir={lower}", f"--tree=tar={upper}.tar"), f"{upper}.tar: /etc/x"),
            ((lower.name, f"--from-dump={upper}.dump"), f"{upper}.dump: /etc/x"),
        ):
            failed = target.ostree("commit", "-b", "x", *words, status=5)
            assert f"{where} is both a file and a directory" in failed.stderr
            assert "leave one of them out" in failed.stderr
            assert len(failed.stderr.splitlines()) == 1
            assert (failed.stdout, target.names(), target.left_over()) == ("", before, [])


def test_more_trees_than_directories_may_be_open(target: Target, tmp_path: Path) -> None:
    """Each of them has more directories than stay open, for a walk as for the workers."""
    trees = []
    for number in range(12):
        tree = put(tmp_path / f"tree {number}", **{f"d{each}__f{number}": str(number) for each in range(40)})
        trees.append(f"--tree=dir={tree}")

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    target.ostree("commit", *trees, "-b", "x", preexec_fn=few_files)
    listed = target.ostree("dump", "x").stdout.splitlines()
    assert len(listed) == 1 + 40 + 12 * 40


# Hostile archives


def archive(path: Path, *members: tuple[str, bytes, bytes], **changes: int) -> Path:
    """Write an archive of members: name, type, link name."""
    with tarfile.open(path, "w") as out:
        root = tarfile.TarInfo(".")
        root.type, root.mode = tarfile.DIRTYPE, 0o755
        out.addfile(root)
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = link.decode()
            for key, value in changes.items():
                setattr(member, key, value)
            out.addfile(member)
    return path


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../out", tarfile.REGTYPE, b"")], "leads out of the archive"),
        ([("a/../../out", tarfile.REGTYPE, b"")], "leads out of the archive"),
        ([("a", tarfile.LNKTYPE, b"../../etc/passwd")], "leads out of the archive"),
        ([("a", tarfile.LNKTYPE, b"/etc/passwd")], "/a is a link to /etc/passwd, which is no file before it"),
        ([("a", tarfile.SYMTYPE, b"/etc"), ("a/shadow", tarfile.REGTYPE, b"")], "does not stand before it"),
        ([("a", tarfile.REGTYPE, b""), ("a", tarfile.DIRTYPE, b"")], "both a file and a directory"),
        ([("a", tarfile.DIRTYPE, b""), ("a", tarfile.REGTYPE, b"")], "both a file and a directory"),
        ([("a", tarfile.LNKTYPE, b"a")], "no file before it"),
        ([("a", tarfile.CHRTYPE, b"")], "a device"),
        ([("a", tarfile.FIFOTYPE, b"")], "a pipe"),
        ([("x" * 256, tarfile.REGTYPE, b"")], "longer than 255 bytes"),
        ([(".", tarfile.REGTYPE, b"")], "the root is not a directory"),
    ],
    ids=range(12),
)
def test_hostile_names_in_an_archive(
    target: Target, tmp_path: Path, members: list[tuple[str, bytes, bytes]], message: str
) -> None:
    path = archive(tmp_path / "x.tar", *members)
    failed = target.ostree("commit", f"--tree=tar={path}", "-b", "x", status=None)
    assert failed.returncode in (5, 9)
    assert message in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert (target.names(), target.left_over()) == ({}, [])


def test_absolute_names_are_below_the_root(target: Target, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", ("/etc", tarfile.DIRTYPE, b""), ("//etc/./passwd", tarfile.REGTYPE, b""))
    target.ostree("commit", f"--tree=tar={path}", "-b", "x")
    paths = [line.split()[0] for line in target.ostree("dump", "x").stdout.splitlines()]
    assert paths == ["/", "/etc", "/etc/passwd"]


def test_names_that_are_replaced_stay_in_the_archive(target: Target, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", ("./", tarfile.DIRTYPE, b""), ("etc", tarfile.REGTYPE, b""))
    for replacement, message in (
        ("../etc", "leads out of the archive"),
        ("a/../..", "leads out of the archive"),
        ("", "the root is not a directory"),
    ):
        words = ("commit", f"--tree=tar={path}", f"--tar-pathname-filter=etc,{replacement}")
        assert message in target.ostree(*words, status=5).stderr
    assert target.left_over() == []


def _flip(data: bytes) -> bytes:
    return data[:600] + bytes([data[600] ^ 1]) + data[601:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:1000], "damaged"),
        (lambda data: data[:1124], "damaged"),
        (lambda data: data[:1024] + b"rubbish" * 100, "damaged"),
        (_flip, "damaged"),
        (lambda data: data[:-1], None),  # less than the usual padding behind it
    ],
    ids=["cut in a header", "cut in the end", "rubbish for a header", "a flipped bit", "short padding"],
)
def test_a_damaged_archive_is_not_taken_for_a_shorter_one(
    target: Target, tmp_path: Path, damage: Callable[[bytes], bytes], message: str | None
) -> None:
    path = archive(tmp_path / "x.tar", ("a", tarfile.DIRTYPE, b""), ("b", tarfile.DIRTYPE, b""))
    path.write_bytes(damage(path.read_bytes()))
    done = target.ostree("commit", f"--tree=tar={path}", "-b", "x", status=5 if message else 0)
    assert (message or "") in done.stderr
    assert bool(target.names()) == (message is None)


def _pax(records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    member = tarfile.TarInfo("header")
    member.type, member.size = kind, len(records)
    return member.tobuf() + records.ljust(-(-len(records) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (_pax(b"", tarfile.GNUTYPE_LONGNAME)[:124] + b"77777777777\0" + _pax(b"")[136:], 5),
        (_pax(b"30 mtime=99999999999999999999\n") * 3000, 5),
        (_pax(b"1000001 a=" + b"x" * 999_990 + b"\n", tarfile.XGLTYPE) * 5, 5),
        (_pax(b"-5 a=b\n"), 5),
        (
            b"".join(
                _pax(b"%d k%06d=%b\n" % (900_011, number, b"x" * 900_000), tarfile.XGLTYPE) for number in range(9)
            ),
            8,
        ),
    ],
    ids=["a name of 8 GiB", "headers for headers", "one global header", "a record of -5 bytes", "global headers"],
)
def test_headers_without_end_take_no_memory(target: Target, tmp_path: Path, data: bytes, status: int) -> None:
    (tmp_path / "x.tar").write_bytes(data + bytes(1024))
    failed = target.ostree("commit", f"--tree=tar={tmp_path / 'x.tar'}", status=None, preexec_fn=limit_memory)
    assert failed.returncode in (5, 8), failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert "internal error" not in failed.stderr
    assert target.names() == {}
    assert status


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (b"13 path=a\0/b\n", "has a NUL in it"),
        (b"22 GNU.sparse.major=0\n22 GNU.sparse.minor=1\n26 GNU.sparse.map=0,5,3,5\n", "a damaged map"),
        (b"22 GNU.sparse.major=0\n22 GNU.sparse.minor=1\n27 GNU.sparse.map=0,5,9,99\n", "a damaged map"),
    ],
    ids=["a name with a NUL", "pieces over one another", "a piece behind the end"],
)
def test_headers_that_contradict_themselves(target: Target, tmp_path: Path, records: bytes, message: str) -> None:
    member = tarfile.TarInfo("file")
    member.size = 10
    path = archive(tmp_path / "x.tar")
    path.write_bytes(path.read_bytes()[:512] + _pax(records) + member.tobuf() + bytes(512) + bytes(1024))
    assert message in target.ostree("commit", f"--tree=tar={path}", status=5).stderr
    assert (target.names(), target.left_over()) == ({}, [])


def test_content_that_claims_more_than_there_is(target: Target, tmp_path: Path) -> None:
    member = tarfile.TarInfo("big")
    member.size = 1 << 50
    (tmp_path / "x.tar").write_bytes(archive(tmp_path / "y.tar").read_bytes()[:512] + member.tobuf() + bytes(100))
    failed = target.ostree("commit", f"--tree=tar={tmp_path / 'x.tar'}", status=None)
    assert failed.returncode in (5, 8)
    assert target.left_over() == []


def test_what_no_commit_can_hold_has_to_be_mended_in_the_tree(target: Target, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("link")
        member.type = tarfile.SYMTYPE
        archive.addfile(member)
    told = target.ostree("commit", "-b", "a", f"--tree=tar={tmp_path}/a.tar", "--tar-autocreate-parents", status=5)
    assert "/link: malformed file header: symlink target of 0 bytes" in told.stderr
    assert "(mend it where the tree comes from; if that was changed meanwhile, run the command again)" in told.stderr


def test_damaged_and_unknown_compression(target: Target, tmp_path: Path) -> None:
    plain = archive(tmp_path / "x.tar", ("a", tarfile.DIRTYPE, b"")).read_bytes()
    import bz2
    import gzip
    import lzma

    for packed in (gzip.compress(plain), bz2.compress(plain), lzma.compress(plain)):
        for data in (packed[:-10], packed[:30] + b"\xff\xff" + packed[32:]):
            (tmp_path / "x").write_bytes(data)
            failed = target.ostree("commit", f"--tree=tar={tmp_path / 'x'}", status=5)
            assert "damaged" in failed.stderr
    (tmp_path / "x").write_bytes(b"\x28\xb5\x2f\xfd" + plain)
    assert "zstd -d" in target.ostree("commit", f"--tree=tar={tmp_path / 'x'}", status=9).stderr
    large = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 << 20}]
    (tmp_path / "x").write_bytes(lzma.compress(plain, filters=large))
    told = target.ostree("commit", f"--tree=tar={tmp_path / 'x'}", status=8).stderr
    assert "to unpack it takes more than 256 MiB of memory (unpack it first: xz -d)" in told
    assert (target.names(), target.left_over()) == ({}, [])


def test_a_branch_that_is_set_while_its_commit_is_made_stays_as_it_was_set(made: Target, tmp_path: Path) -> None:
    """Else the commit, whose parent is another one, would take the place of what is newer."""
    other = made.json("commit", f"--tree=dir={tmp_path / 'tree'}", "--timestamp=@7")["commit"]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    options = ("-b", "main", f"--tree=tar={pipe}", "--tar-autocreate-parents")
    argv = [CFSCTL, "--repo", made.path, "ostree", "commit", *options]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    with pipe.open("wb") as archive:
        made.ostree("tag", other, "main")
        archive.write(bytes(10240))  # one without members
    told = process.communicate(timeout=TIMEOUT)[1]
    assert process.returncode == 4
    assert "ref 'main' was changed by somebody else meanwhile (run the command again" in told
    assert made.json("inspect", "main")["commit"] == other


def test_a_conflict_about_something_else_is_told_as_it_is(target: Target, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (target.path / "streams/refs").mkdir()
    (target.path / "streams/refs/ostree").touch()
    told = target.ostree("commit", "-b", "main", f"--tree=dir={tmp_path / 'tree'}", status=4).stderr
    assert "'ostree' is a ref already, so nothing can be below it" in told


@pytest.mark.parametrize(("number", "told"), [(0, "none"), (21, ", ".join(f"k{each:02}" for each in range(20)))])
def test_what_there_is_to_keep_of_the_parent_is_told(target: Target, tmp_path: Path, number: int, told: str) -> None:
    (tmp_path / "tree").mkdir()
    commit = ("commit", "-b", "main", f"--tree=dir={tmp_path / 'tree'}")
    target.ostree(*commit, "--no-bindings", *(f"--add-metadata-string=k{each:02}=v" for each in range(number)))
    refused = target.ostree(*commit, "--keep-metadata=other", status=2).stderr
    assert f", has no such key (it has {told})\n" in refused


def test_a_body_may_have_a_mebibyte(target: Target, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "body").write_bytes(b"x" * (1 << 20))
    target.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", "main", f"--body-file={tmp_path / 'body'}")
    assert len(target.json("inspect", "main")["body"]) == 1 << 20


@pytest.mark.parametrize("mode", [0o777, 0o4755], ids=["for everybody", "setuid"])
def test_what_bare_user_only_cannot_keep_is_seen_before_anything_is_made(
    target: Target, tmp_path: Path, mode: int
) -> None:
    (tmp_path / "tree/d").mkdir(parents=True)
    for name in ("a", "d/b"):
        (tmp_path / "tree" / name).write_text(name)
    (tmp_path / "tree/d/b").chmod(mode)
    options = ("--owner-uid=0", "--owner-gid=0", "--no-xattrs")
    target.ostree("commit", "-b", "main", f"--tree=dir={tmp_path / 'tree'}", *options)
    told = target.ostree("export", "main", tmp_path / "out", "--mode=bare-user-only", status=9).stderr
    assert ": /d/b: bare-user-only keeps neither owners nor attributes nor modes beyond 0775" in told
    assert not (tmp_path / "out").exists()


def test_an_archive_through_a_pipe(target: Target, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", ("a", tarfile.DIRTYPE, b""))
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cp", path, tmp_path / "pipe"]) as feeder:
        made = target.json("commit", f"--tree=tar={tmp_path / 'pipe'}", *OPTIONS)
        assert feeder.wait(timeout=TIMEOUT) == 0
    assert made["commit"] == target.json("commit", f"--tree=tar={path}", *OPTIONS)["commit"]


# Targets of an export


def test_a_directory_that_is_something_else_is_left_alone(made: Target, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("x")
    assert "neither an ostree repository nor empty" in made.ostree("export", "main", tmp_path / "out", status=4).stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]
    file = tmp_path / "out/precious"
    assert "neither an ostree repository nor empty" in made.ostree("export", "main", file, status=4).stderr
    assert f"mkdir -p {tmp_path}/new/a" in made.ostree("export", "main", tmp_path / "new/a/b", status=3).stderr
    made.ostree("export", "main", tmp_path / "good")
    failed = made.ostree("export", "main", tmp_path / "good", "--mode=bare", status=2)
    assert "is a repository of the mode archive, not bare" in failed.stderr
    (tmp_path / "good/config").write_text("[core]\nrepo_version=1\nmode=bare-split-xattrs\n")
    assert "cannot be written" in made.ostree("export", "main", tmp_path / "good", status=9).stderr
    (tmp_path / "good/config").write_text("[core]\nrepo_version=2\n")
    assert "repository version '2'" in made.ostree("export", "main", tmp_path / "good", status=9).stderr


@pytest.mark.parametrize("kind", ["directory", "symlink"])
def test_a_directory_with_a_lock_that_is_none_is_left_alone(made: Target, tmp_path: Path, kind: str) -> None:
    lock = tmp_path / "out/.lock"
    lock.parent.mkdir()
    if kind == "directory":
        lock.mkdir()
    else:
        lock.symlink_to("nowhere")
    assert "neither an ostree repository nor empty" in made.ostree("export", "main", lock.parent, status=4).stderr
    assert list(lock.parent.iterdir()) == [lock]


@pytest.mark.parametrize("place", ["objects", "objects/XX", "refs/heads", "tmp", "refs/heads/main"])
def test_symlinks_in_a_repository_lead_nowhere(made: Target, tmp_path: Path, place: str) -> None:
    out, trap = tmp_path / "out", tmp_path / "trap"
    made.ostree("export", "main", out)
    trap.mkdir()
    folder = (out / "refs/heads/main").read_text()[:2]
    link = out / place.replace("XX", folder)
    if link.is_dir():
        shutil.rmtree(link)
    else:
        link.unlink()
    link.symlink_to(trap)
    done = made.ostree("export", "main", out, status=None)
    assert list(trap.iterdir()) == []
    if place == "refs/heads/main":  # a file is replaced, whatever it was
        assert done.returncode == 0
        assert not link.is_symlink()
    else:
        assert done.returncode == 5
        assert "is not a directory but a file or a symlink" in done.stderr


def test_damaged_objects_of_the_target_are_written_again(made: Target, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made.ostree("export", "main", out)
    before = {path: path.read_bytes() for path in (out / "objects").rglob("*.*")}
    tree = next(out.rglob("*.dirtree"))
    tree.write_bytes(b"rubbish")
    file = next(out.rglob("*.filez"))
    file.write_bytes(b"")
    next(out.rglob("*.dirmeta")).unlink()
    result = made.json("export", "main", out)
    assert (result["files_written"], result["metadata_written"]) == (1, 3)
    assert {path: path.read_bytes() for path in (out / "objects").rglob("*.*")} == before


@pytest.mark.parametrize(
    "mode", ["archive", pytest.param("bare", marks=pytest.mark.root), "bare-user", "bare-user-only"]
)
def test_a_symlink_is_written_once_and_again_when_it_is_another(target: Target, tmp_path: Path, mode: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to("target")
    target.ostree("commit", "-b", "main", f"--tree=dir={tmp_path / 'tree'}", "--canonical-permissions")
    export = ("export", "main", tmp_path / "out")
    assert target.json(*export, f"--mode={mode}")["files_written"] == 1
    assert target.json(*export)["files_written"] == 0
    [path] = tmp_path.glob("out/objects/*/*.file*")

    def content() -> bytes:
        return os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()

    before = content()
    path.unlink()
    if mode in ("bare", "bare-user-only"):
        path.symlink_to("elsewhere")
    else:
        path.write_bytes(b"elsewhere")
    assert target.json(*export)["files_written"] == 1
    assert content() == before


@pytest.mark.parametrize("kind", [".filez", ".dirtree", ".commit", "summary", "summary.sig", "config"])
def test_what_is_no_file_where_one_should_be_is_told_by_name(made: Target, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    made.ostree("export", "main", out)
    place = next(out.rglob("*" + kind), out / kind)
    place.unlink(missing_ok=True)
    if kind == "config":
        os.mknod(place, stat.S_IFSOCK | 0o600)
    else:
        place.mkdir()
    failed = made.ostree("export", "main", out, status=5)
    assert f"{place}: it is not a regular file" in failed.stderr
    assert list((out / "tmp").glob("cfsctl-*")) == []
    if kind == "config":
        assert "not a regular file" in made.ostree("pull-local", out, "main", status=5).stderr


def test_a_ref_where_a_directory_is_and_a_directory_where_a_ref_is(made: Target, tmp_path: Path) -> None:
    made.ostree("export", "main", tmp_path / "out", "--reference=a/b")
    assert "is a directory" in made.ostree("export", "main", tmp_path / "out", "--reference=a", status=2).stderr
    failed = made.ostree("export", "main", tmp_path / "out", "--reference=a/b/c", status=5)
    assert "is not a directory but a file" in failed.stderr
    assert "one ref's name cannot be the beginning" in failed.stderr
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/refs/heads/app").symlink_to(tmp_path / "elsewhere")
    failed = made.ostree("export", "main", tmp_path / "out", "--reference=app/b", status=5)
    assert "app is not a directory but a file or a symlink (a repository has its objects and refs in" in failed.stderr
    assert "not an ostree ref" in made.ostree("export", "main", tmp_path / "out", "--reference=../x", status=2).stderr
    # A name that composefs-rs has given is not silently left out.
    streams = made.path / "streams/refs/ostree"
    (streams / "50%25off").symlink_to((streams / "main").readlink())
    assert "--reference" in made.ostree("export", "50%off", tmp_path / "out", status=2).stderr
    made.ostree("export", "50%off", tmp_path / "out", "--reference=half")
    assert (tmp_path / "out/refs/heads/half").exists()
    shutil.rmtree(tmp_path / "out/objects")
    (tmp_path / "out/objects").touch()
    failed = made.ostree("export", "main", tmp_path / "out", status=5)
    assert (
        "objects is not a directory but a file or a symlink (a repository has its objects and refs in" in failed.stderr
    )


def test_a_commit_in_part_is_not_exported(made: Target, tmp_path: Path) -> None:
    made.ostree("export", "main", tmp_path / "whole")
    partial = Target(tmp_path / "partial")
    partial.ostree("pull-local", tmp_path / "whole", "main", "--subpath=/usr/bin")
    failed = partial.ostree("export", "main", tmp_path / "out", status=9)
    assert "is here in part only" in failed.stderr
    assert not (tmp_path / "out").exists()
    skip = ("-b", "main", f"--tree=dir={tmp_path / 'tree'}", "--skip-if-unchanged")
    assert "is here in part only (/usr/bin)" in partial.ostree("commit", *skip, status=9).stderr
    for option in ("--base=main", "--tree-ref=main"):
        assert "is here in part only (/usr/bin)" in partial.ostree("commit", option, status=9).stderr
    # A commit that was in part at the target, or deleted there, is whole then.
    commit = (tmp_path / "whole/refs/heads/main").read_text().strip()
    marks = [f"state/{commit}.commitpartial", f"objects/{commit[:2]}/{commit[2:]}.tombstone-commit"]
    for mark in marks:
        (tmp_path / "whole" / mark).touch()
    made.ostree("export", "main", tmp_path / "whole")
    assert [mark for mark in marks if (tmp_path / "whole" / mark).exists()] == []


@pytest.mark.root
def test_who_may_not_give_files_away_is_told_of_other_modes(made: Target, tmp_path: Path) -> None:
    """Of those that were not begun: a repository of the mode bare is there by then."""
    made.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", "other", "--owner-uid=5")
    export = [CFSCTL, "--repo", made.path, "ostree", "export", "other"]
    refused = run("setpriv", "--bounding-set=-chown", *export, tmp_path / "bare", "--mode=bare", status=7).stderr
    assert "run it as root, or export to another directory, with --mode=archive or --mode=bare-user" in refused
    run("setpriv", "--bounding-set=-chown", *export, tmp_path / "other", "--mode=bare-user")


@pytest.mark.root
def test_a_file_system_that_has_no_attributes_for_bare_user(made: Target, tmp_path: Path) -> None:
    made.ostree("export", "main", tmp_path / "whole", "--mode=bare-user")
    memory = tmp_path / "memory"
    memory.mkdir()
    with mounted(memory, "-t", "ramfs", "ramfs"):
        refused = made.ostree("export", "main", memory / "out", "--mode=bare-user", status=9).stderr
        assert refused.endswith(
            ".file: its file system does not keep attributes, which a repository of the mode bare-user needs"
            " (export to a directory on another one, or with --mode=archive)\n"
        )
        made.ostree("export", "main", memory / "archive", "--mode=archive")
        shutil.copytree(tmp_path / "whole", memory / "copied", symlinks=True)
        other = Target(tmp_path / "other")
        refused = other.ostree("pull-local", memory / "copied", "main", status=5).stderr
        assert refused.endswith(
            ".file: it has no attribute user.ostreemeta"
            " (copy the repository with its attributes, to a file system that has them: cp -a, or rsync -aX)\n"
        )


@pytest.mark.parametrize("inject", ["fchmod:retval=0", "?symlink,symlinkat:error=EPERM"], ids=["modes", "symlinks"])
def test_a_file_system_that_loses_modes_or_has_no_symlinks(made: Target, tmp_path: Path, inject: str) -> None:
    """As NTFS-3G by default, and FAT: nothing is published that has other ids than its names."""
    plain = ("--canonical-permissions", "--no-xattrs")
    made.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", "plain", *plain)
    strace = [require("strace"), "-f", "-qqq", "-o", "/dev/null", "-e", "signal=none", "-e", f"inject={inject}"]
    export = [*strace, CFSCTL, "--repo", made.path, "ostree", "export", "plain", tmp_path / "out"]
    refused = run(*export, "--mode=bare-user-only", status=9).stderr
    assert refused.startswith(f"cfsctl: {tmp_path}/out/tmp/cfsctl-export-")
    assert refused.endswith(
        ".file: its file system does not keep modes and symlinks, which a repository of the mode bare-user-only needs"
        " (export to a directory on another one, or with --mode=archive)\n"
    )
    assert list((tmp_path / "out/objects").rglob("*.file")) == []


def test_a_user_namespace_that_lacks_an_owner_is_told_of_other_modes(made: Target, tmp_path: Path) -> None:
    made.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", "other", "--owner-uid=5")
    words = ["ostree", "export", "other", tmp_path / "bare", "--mode=bare"]
    refused = run("unshare", "--user", "--map-root-user", CFSCTL, "--repo", made.path, *words, status=7).stderr
    assert "Invalid argument: a bare repository has the owners" in refused
    assert "export to another directory, with --mode=archive or --mode=bare-user" in refused


@pytest.mark.root
def test_an_object_that_may_not_be_read_is_named(target: Target, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(bytes(9999))
    target.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", "main")
    (stored,) = [path for path in target.path.glob("objects/*/*") if path.stat().st_size == 9999]
    stored.parent.chmod(0)
    export = ["setpriv", "--bounding-set=-all", CFSCTL, "--repo", target.path, "ostree", "export", "main"]
    refused = run(*export, tmp_path / "out", status=7)
    assert refused.stderr == f"cfsctl: {stored}: Permission denied (check the owner and mode)\n"


@pytest.mark.root
@pytest.mark.parametrize("mode", ["archive", "bare", "bare-user", "bare-user-only"])
def test_an_export_needs_no_rights_but_those_of_a_files_owner(target: Target, tmp_path: Path, mode: str) -> None:
    """Of files of one's own, with attributes, and too large to be a part of the commit's stream."""
    (tmp_path / "tree").mkdir()
    for name, bits in (("read", 0o444), ("write", 0o644)):
        (tmp_path / "tree" / name).write_bytes(os.urandom(9999))
        os.setxattr(tmp_path / "tree" / name, "user.it", b"is")
        (tmp_path / "tree" / name).chmod(bits)
    options = ["--canonical-permissions", "--no-xattrs"] if mode == "bare-user-only" else []
    owner = ["setpriv", "--bounding-set=-all", CFSCTL, "--repo", target.path, "ostree"]
    run(*owner, "commit", f"--tree=dir={tmp_path / 'tree'}", "--branch=mine", *options)
    run(*owner, "export", "mine", tmp_path / "out", "--mode", mode)
    run("ostree", "fsck", f"--repo={tmp_path / 'out'}")


@pytest.mark.root
@pytest.mark.parametrize("name", ["file", "directory"])
def test_what_may_not_be_read_is_told_by_its_path(target: Target, tmp_path: Path, name: str) -> None:
    hidden = tmp_path / "tree/a/b" / name
    (tmp_path / "tree/a/b/directory").mkdir(parents=True)
    (tmp_path / "tree/a/b/file").touch()
    hidden.chmod(0)
    commit = ["setpriv", "--bounding-set=-all", CFSCTL, "--repo", target.path, "ostree", "commit"]
    refused = run(*commit, f"--tree=dir={tmp_path / 'tree'}", "--branch=mine", status=7)
    assert refused.stderr == f"cfsctl: {hidden}: Permission denied (check the owner and mode)\n"


def test_levels_of_compression(made: Target, tmp_path: Path) -> None:
    sizes = []
    for level in (1, 9):
        made.ostree("export", "main", tmp_path / f"{level}", "--zlib-level", str(level))
        assert f"[archive]\nzlib-level={level}\n" in (tmp_path / f"{level}/config").read_text()
        files = {path: path.stat().st_size for path in (tmp_path / f"{level}").rglob("*.filez")}
        sizes.append(sum(files.values()))
        for path in files:
            path.unlink()
        made.ostree("export", "main", tmp_path / f"{level}")
        assert {path: path.stat().st_size for path in files} == files, "the config's level counts"
    assert sizes[0] > sizes[1]
    assert "is not between 1 and 9" in made.ostree("export", "main", tmp_path / "x", "--zlib-level=0", status=2).stderr


def test_a_locked_repository_is_waited_for(made: Target, tmp_path: Path) -> None:
    import fcntl
    import struct

    out = tmp_path / "out"
    made.ostree("export", "main", out)
    with (out / ".lock").open("r+b") as lock:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        argv = [CFSCTL, "--repo", made.path, "ostree", "export", "main", out]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
    assert process.communicate(timeout=TIMEOUT)[0].startswith(b"commit")
    assert process.returncode == 0


# Signatures and what stands beside a commit


def test_detached_metadata_is_kept_and_exported_and_pulled(made: Target, tmp_path: Path) -> None:
    same = ("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", "noted", "--parent=none", *OPTIONS)
    for detached in ((), ("--add-detached-metadata-string=key=value",), ()):  # given later, and not given up again
        made.ostree(*same, *detached)
    made.ostree("export", "noted", tmp_path / "out")
    commit = (tmp_path / "out/refs/heads/noted").read_text().strip()
    shown = run("ostree", f"--repo={tmp_path / 'out'}", "show", "--print-detached-metadata-key=key", "noted").stdout
    assert shown == "'value'\n"
    back = Target(tmp_path / "back")
    with serve(tmp_path / "out") as server:
        back.ostree("pull", server.url, "noted")
    back.ostree("export", "noted", tmp_path / "again")
    name = f"objects/{commit[:2]}/{commit[2:]}.commitmeta"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_signed_commits_and_summaries_are_verified_by_ostree(
    made: Target,
    tmp_path: Path,
    keys: Keys,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = keys.gpg.make_key("Maker <maker@example.org>")
    monkeypatch.setenv("GNUPGHOME", str(keys.gpg.home))
    (tmp_path / "key.gpg").write_bytes(keys.gpg.run("--export", key))
    made.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", "signed", *OPTIONS, f"--gpg-sign={key}")
    made.ostree("export", "signed", tmp_path / "out", f"--gpg-sign={key}")
    theirs = tmp_path / "theirs"
    run("ostree", "init", f"--repo={theirs}", "--mode=bare-user")
    with serve(tmp_path / "out") as server:
        add = ("remote", "add", "--set=gpg-verify-summary=true", "--gpg-import", tmp_path / "key.gpg")
        run("ostree", f"--repo={theirs}", *add, "origin", server.url)
        run("ostree", f"--repo={theirs}", "pull", "origin", "signed")
        # And by ourselves; what is not signed does not pass.
        back = Target(tmp_path / "back")
        back.ostree("pull", server.url, "signed", "--gpg-key", tmp_path / "key.gpg")
        made.ostree("export", "main", tmp_path / "out")
        assert not (tmp_path / "out/summary.sig").exists()
        back.ostree("pull", server.url, "main", "--gpg-key", tmp_path / "key.gpg", status=5)


# The disk is full, the user is impatient


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mountpoint = tmp_path / "small"
    mountpoint.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mountpoint)
    yield mountpoint
    run("umount", mountpoint)


@pytest.mark.root
def test_a_full_disk(made: Target, small_disk: Path) -> None:
    failed = made.ostree("export", "main", small_disk / "out", "--mode=bare-user", status=8)
    assert "No space left" in failed.stderr
    out = small_disk / "out"
    assert list(small_disk.iterdir()) == []
    run("mount", "-o", "remount,size=30M", small_disk)
    made.ostree("export", "main", out)
    assert "no errors found" in run("ostree", f"--repo={out}", "fsck").stdout
    other = Target(small_disk / "target")
    run("mount", "-o", "remount,size=12M", small_disk)
    tree = made.path.parent / "large"
    tree.mkdir()
    for number in range(20):
        (tree / f"{number}").write_bytes(os.urandom(1_000_000))
    assert "No space left" in other.ostree("commit", f"--tree=dir={tree}", "-b", "x", status=8).stderr
    assert (other.names(), other.left_over()) == ({}, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("command", ["commit", "export"])
def test_interruption_leaves_nothing_half_done(target: Target, tmp_path: Path, command: str, number: int) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    tree.mkdir()
    for each in range(100 if command == "commit" else 25):
        with (tree / f"file {each}").open("wb") as file:
            file.write(os.urandom(1000))
            file.truncate(60_000_000)
    if command == "export":
        target.ostree("commit", f"--tree=dir={tree}", "-b", "main", *OPTIONS)
        argv = [CFSCTL, "--repo", target.path, "ostree", "export", "main", out]
    else:
        argv = [CFSCTL, "--repo", target.path, "ostree", "commit", f"--tree=dir={tree}", "-b", "main"]
    before = target.names()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        deadline = time.monotonic() + TIMEOUT
        while not [*target.path.glob("staging/*/work/w*"), *out.glob("tmp/cfsctl-export-*/*.filez")]:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert printed == b""
    assert target.names() == before
    if command == "export":
        assert out.exists() == (number == signal.SIGKILL)
        assert not (out / "refs/heads/main").exists()
        assert not (out / "summary").exists()
        assert not list((out / "objects").rglob("*.*"))
    # What a killed run has left goes with the next one.
    for each in tree.iterdir():
        if each.name not in ("file 0", "file 1"):
            each.unlink()
    target.ostree("commit", f"--tree=dir={tree}", "-b", "main", *OPTIONS)
    target.ostree("export", "main", out, "--zlib-level=1")
    assert list((out / "tmp").iterdir()) == [out / "tmp/cache"]
    assert target.left_over() == []


def test_exports_at_once_make_one_repository_with_all_refs_in_its_summary(made: Target, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = [CFSCTL, "--repo", made.path, "ostree", "export", "main", out, "--reference"]
    running = [subprocess.Popen([*argv, f"ref/{number}"], stdout=subprocess.DEVNULL) for number in range(4)]
    assert [process.wait(timeout=TIMEOUT) for process in running] == [0] * 4
    listed = json.loads(run(CFSCTL, "ostree", "list-refs", "--path", out, "--json").stdout)["refs"]
    assert {row["name"] for row in listed} == {f"ref/{number}" for number in range(4)}
