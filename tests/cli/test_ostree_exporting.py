"""What ``export`` finds in the repository that it writes to, and makes of it."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from composefs_ostree.formats.config import MAX_CONFIG
from support.commands import CFSCTL, run
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.peers import require

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what tests start from is kept."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def made(tmp_path: Path, kept: Path) -> Target:
    """A repository with a commit on the branch main, of which one file is larger than what is kept inline."""

    def prepare(target: Target) -> None:
        (kept / "tree").mkdir()
        (kept / "tree/file").write_bytes(b"content" * 10_000)
        target.ostree("commit", f"--tree=dir={kept / 'tree'}", "-b", "main", "--timestamp=@1")

    return Target.copied(tmp_path / "target", kept / "made", prepare)


@pytest.fixture
def out(made: Target, tmp_path: Path, kept: Path) -> Path:
    """An ostree repository with that commit."""
    if not (kept / "out").exists():
        made.ostree("export", "main", kept / "out")
    return shutil.copytree(kept / "out", tmp_path / "out", symlinks=True)


def test_what_was_made_in_vain_is_taken_away(made: Target, out: Path, tmp_path: Path) -> None:
    """And nothing that was there before: an empty directory, a repository without objects."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "init").mkdir()
    run(require("ostree"), f"--repo={tmp_path}/init", "init", "--mode=archive")
    (tmp_path / "init/.lock").touch()
    before = sorted(tmp_path.rglob("*"))
    content = max((made.path / "objects").rglob("*"), key=lambda path: path.stat().st_size)
    kept, size = content.read_bytes(), content.stat().st_size
    content.chmod(0o644)
    for damaged in (True, False):
        content.write_bytes(b"x" if damaged else kept)
        for name in ("new", "empty", "init"):
            if damaged:
                assert f"it has 1 bytes, not {size}" in made.ostree("export", "main", tmp_path / name, status=5).stderr
                assert sorted(tmp_path.rglob("*")) == before
            else:
                made.ostree("export", "main", tmp_path / name)
                assert commit_of(tmp_path / name).name == commit_of(out).name
    (tmp_path / "begun/objects").mkdir(parents=True)
    made.ostree("export", "main", tmp_path / "begun", "--no-summary")
    assert (tmp_path / "begun/config").exists()


def commit_of(out: Path) -> Path:
    """Return the path of the only commit object."""
    return next((out / "objects").rglob("*.commit"))


@pytest.mark.parametrize("damage", ["missing", "rubbish"])
def test_a_ref_without_its_commit_leaves_the_summary_as_it_is(made: Target, out: Path, damage: str) -> None:
    gone = "ab" * 32
    (out / "refs/heads/gone").write_text(f"{gone}\n")
    if damage == "rubbish":
        (out / "objects/ab").mkdir(exist_ok=True)
        (out / f"objects/ab/{gone[2:]}.commit").write_bytes(b"rubbish")
    before = (out / "summary").read_bytes()
    told = made.ostree("export", "main", out, "--reference=other", status=5).stderr
    assert f"{out}: the ref gone names the commit {gone}, which is missing or damaged" in told
    assert "(delete the ref, or add --no-summary)" in told
    assert (out / "summary").read_bytes() == before
    made.ostree("export", "main", out, "--reference=other", "--no-summary")
    assert (out / "summary").read_bytes() == before


@pytest.mark.root
@pytest.mark.parametrize(("name", "bits"), [(".lock", 0o400), ("tmp", 0o500)], ids=["lock", "tmp"])
def test_what_may_not_be_written_is_named(made: Target, out: Path, name: str, bits: int) -> None:
    """As where root has exported before."""
    (out / name).chmod(bits)
    export = ["setpriv", "--bounding-set=-all", CFSCTL, "--repo", made.path, "ostree", "export", "main"]
    told = run(*export, out, status=7).stderr
    assert told == f"cfsctl: {out}/{name}: Permission denied (check the owner and mode)\n"


@pytest.mark.root
@pytest.mark.parametrize("within", [False, True], ids=["all", "one"])
def test_a_directory_of_objects_that_may_not_be_written_is_named(made: Target, out: Path, within: bool) -> None:
    content = next((out / "objects").rglob("*.filez"))
    content.unlink()
    folder = content.parent
    if within:
        folder.chmod(0o500)
    else:
        folder.rmdir()
        folder = folder.parent
        folder.chmod(0o500)
    export = ["setpriv", "--bounding-set=-all", CFSCTL, "--repo", made.path, "ostree", "export", "main"]
    told = run(*export, out, status=7).stderr
    assert told == f"cfsctl: {folder}: Permission denied (check the owner and mode)\n"


def test_links_that_are_no_aliases_are_in_no_summary(made: Target, out: Path, tmp_path: Path) -> None:
    heads, commit = out / "refs/heads", (out / "refs/heads/main").read_text()
    (tmp_path / "outside").write_text(commit)
    (out / "refs/remotes/o").mkdir()
    (out / "refs/remotes/o/main").write_text(commit)
    for name, target in (
        ("away", tmp_path / "outside"),
        ("above", "../../../outside"),
        ("remote", "../remotes/o/main"),
        ("itself", "itself"),
        ("one", "two"),
        ("two", "one"),
        ("nothing", "none"),
        ("directory", "pipe"),
        ("alias", "main"),
    ):
        (heads / name).symlink_to(target)
    (heads / "wrong name").write_text(commit)
    (heads / "pipe").mkdir()
    os.mkfifo(heads / "pipe/line")
    made.ostree("export", "main", out)
    listed = run(require("ostree"), "summary", "--view", f"--repo={out}").stdout
    assert [line.split()[1] for line in listed.splitlines() if line.startswith("* ")] == ["alias", "main"]


@pytest.mark.parametrize("name", ["config", "commit"])
def test_a_symlink_in_the_place_of_a_file_is_not_followed(
    made: Target, out: Path, tmp_path: Path, kept: Path, name: str
) -> None:
    place = out / "config" if name == "config" else commit_of(out)
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    (out / "refs/heads/other").write_text((out / "refs/heads/main").read_text())
    if name == "commit":  # which an export of the same one replaces
        made.ostree("commit", f"--tree=dir={kept / 'tree'}", "-b", "main", "--timestamp=@2")
    told = made.ostree("export", "main", out, status=5).stderr
    assert f"{place}: it is a symlink" in told


@pytest.mark.parametrize("is_link", [True, False], ids=["symlink", "directory"])
def test_a_lock_that_is_no_file(made: Target, out: Path, is_link: bool) -> None:
    (out / ".lock").unlink()
    (out / ".lock").symlink_to("config") if is_link else (out / ".lock").mkdir()
    told = made.ostree("export", "main", out, status=5).stderr
    assert f"{out}/.lock: it is not a regular file (see what it is, and put it right)" in told


@pytest.mark.parametrize("name", ["refs", "tmp", "objects", "refs/heads"])
def test_a_layout_does_not_lead_elsewhere(made: Target, tmp_path: Path, name: str) -> None:
    """Also while there is no config, and what is there is taken for the rest of an interrupted run."""
    place = tmp_path / "out" / name
    place.parent.mkdir(parents=True)
    (tmp_path / "out/state").mkdir()
    place.symlink_to(tmp_path / "out/state")
    before = sorted(tmp_path.rglob("*"))
    told = made.ostree("export", "main", tmp_path / "out", status=5).stderr
    assert f"{place} is not a directory but a file or a symlink" in told
    assert sorted(tmp_path.rglob("*")) == before


def export_and_exchange(made: Target, out: Path, mode: str, exchange: Callable[[], object]) -> int:
    """Export to a new repository, of which something is exchanged when the directory of the run has just been made."""
    run(require("ostree"), f"--repo={out}", "init", f"--mode={mode}")
    log = out.with_name("log")
    os.mkfifo(log)
    stop = ["-P", out / "tmp", "-e", "trace=mkdirat", "-e", "inject=mkdirat:signal=STOP:when=1"]
    export = [CFSCTL, "--repo", made.path, "ostree", "export", "main", out]
    with (
        subprocess.Popen([require("strace"), "-f", "-qq", "-o", log, *stop, *export]) as process,
        log.open() as lines,
    ):
        for line in lines:
            if "stopped by SIGSTOP" in line:
                exchange()
                os.kill(int(line.split()[0]), signal.SIGCONT)
    return process.returncode


@pytest.mark.parametrize("mode", ["archive", "bare-user-only"])
def test_a_directory_that_is_exchanged_meanwhile_does_not_lead_elsewhere(
    made: Target, tmp_path: Path, mode: str
) -> None:
    """Who owns the repository could have root write where they may not."""
    out, elsewhere = tmp_path / "out", tmp_path / "out/elsewhere"

    def exchange() -> None:
        elsewhere.mkdir()
        (out / "tmp").rename(out / "moved")
        (out / "tmp").mkdir()
        for each in (out / "moved").glob("cfsctl-export-*"):
            (out / "tmp" / each.name).symlink_to(elsewhere)

    status = export_and_exchange(made, out, mode, exchange)
    assert list((out / "tmp").iterdir()) != []
    assert list(elsewhere.iterdir()) == []
    assert status == 0
    run(require("ostree"), "fsck", f"--repo={out}")


@pytest.mark.root
def test_nothing_is_staged_where_another_could_exchange_it(made: Target, tmp_path: Path) -> None:
    """Who owns the repository could put a directory of theirs in the place of root's."""
    out, exchanged = tmp_path / "out", []

    def exchange() -> None:
        for each in (out / "tmp").glob("cfsctl-export-*"):
            each.rename(out / "moved")
            each.mkdir()
            os.chown(each, 65534, 65534)
            exchanged.append(each)

    assert export_and_exchange(made, out, "bare", exchange) == 0
    assert list((out / "tmp").glob("cfsctl-export-*")) == exchanged != []  # a run removes that which it has staged in
    assert list(exchanged[0].iterdir()) == []


def test_a_config_of_any_length_is_not_read(made: Target, out: Path) -> None:
    os.truncate(out / "config", MAX_CONFIG + 1)
    told = made.ostree("export", "main", out, status=5).stderr
    assert f"{out}/config: it is longer than {MAX_CONFIG} bytes" in told


@pytest.mark.parametrize("most", [64, 1024])
def test_more_directories_than_files_may_be_open(made: Target, out: Path, most: int) -> None:
    """A Flatpak repository has two of refs for each app."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    for number in range(1100):
        (out / f"refs/heads/app/org.example.App{number}").mkdir(parents=True)
        shutil.copy(out / "refs/heads/main", out / f"refs/heads/app/org.example.App{number}/stable")
    made.ostree("export", "main", out, preexec_fn=limit)
    assert (out / "summary").read_bytes().count(b"app/org.example.App") == 1100


def test_the_index_of_flatpak_is_told_to_be_stale(made: Target, out: Path) -> None:
    (out / "summary.idx").touch()
    told = made.ostree("export", "main", out).stderr
    assert (
        f"clients of Flatpak read summary.idx, where the export is not; flatpak build-update-repo {out} writes" in told
    )


def test_a_ref_that_is_like_the_beginning_of_its_commit_is_set(made: Target, out: Path) -> None:
    commit = made.json("inspect", "main")["commit"]
    for digits in (1, 8):
        assert made.json("export", commit[: digits + 3], out)["ref"] is None
        made.ostree("tag", "main", commit[:digits])
        assert made.json("export", commit[:digits], out, "--reference=other")["ref"] == "other"
        assert made.json("export", commit[:digits], out)["ref"] == commit[:digits]
        assert (out / "refs/heads" / commit[:digits]).read_text() == f"{commit}\n"


def test_a_signature_is_that_of_the_summary(made: Target, tmp_path: Path) -> None:
    told = made.ostree(
        "export", "main", tmp_path / "new", "--sign-from-file=/dev/null", "--no-summary", status=2
    ).stderr
    assert "what is signed is the summary, and --no-summary leaves it alone" in told
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("mode", ["archive", "bare-user"])
def test_an_object_of_another_length_is_not_exported(made: Target, tmp_path: Path, mode: str) -> None:
    [large] = [path for path in (made.path / "objects").glob("*/*") if path.stat().st_size == 70_000]
    large.chmod(0o644)
    os.truncate(large, 60_000)
    told = made.ostree("export", "main", tmp_path / "new", f"--mode={mode}", status=5).stderr
    assert f"object {large.parent.name}{large.name} is damaged: it has 60000 bytes, not 70000" in told
    assert not list((tmp_path / "new").rglob("*.commit"))
