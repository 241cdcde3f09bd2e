"""cfsctl gc and fsck: what they print, their exit statuses, and who waits for whom."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
from functools import partial
from pathlib import Path

import pytest

from composefs.repository import Repository
from support.commands import CFSCTL, TIMEOUT, cfsctl, completions, wait_until_open
from support.populated import Populated, populate


@pytest.fixture
def made(tmp_path: Path) -> Populated:
    return populate(tmp_path / "repo")


def test_gc_tells_a_few_of_many_problems(made: Populated) -> None:
    for number in range(30):
        (made.path / f"images/refs/bad{number:02}").symlink_to("../none")
    refused = cfsctl("--repo", made.path, "gc", status=5).stderr
    assert refused.count("\n") == 1
    assert refused.count("images/refs/bad") == 3
    assert "and 27 more, which -v lists" in refused
    long = cfsctl("--repo", made.path, "-v", "gc", status=5).stderr
    assert [line.count("images/refs/bad") for line in long.splitlines()] == [3] + [1] * 27


def test_gc_tells_of_what_its_remedy_is_for(made: Populated) -> None:
    (made.path / "images/refs/d").mkdir()
    for number in range(3):
        (made.path / f"images/refs/d/{number}").touch()
    (made.path / "streams/refs/oci/gone").symlink_to("../../none")
    refused = cfsctl("--repo", made.path, "gc", status=5).stderr
    first = "streams/refs/oci/gone: there is no streams/none; images/refs/d/0: "
    assert f": {first}" in refused
    assert "; and 1 more, " in refused
    assert "`cfsctl ref remove " in refused


def test_gc(made: Populated) -> None:
    size = made.object(made.garbage).stat().st_size + made.object(made.old).stat().st_size
    removed = f"Objects: 2 removed ({size} bytes)\n"
    dry = cfsctl("--repo", made.path, "gc", "--dry-run")
    assert (dry.stdout, dry.stderr) == ("Dry run (no files deleted):\n" + removed, "")
    assert json.loads(cfsctl("-v", "--repo", made.path, "gc", "-n", "--json").stdout) == {
        "dry_run": True,
        "objects_removed": 2,
        "bytes_removed": size,
        "images_pruned": 0,
        "streams_pruned": 1,
        "odd": [],
    }
    told = "".join(
        f"object {each} ({made.object(each).stat().st_size} bytes)\n" for each in sorted((made.garbage, made.old))
    )
    listed = cfsctl("--repo", made.path, "-v", "gc", "-n")
    assert (listed.stdout, listed.stderr) == (f"stream old\n{told}{dry.stdout}", "")
    pruned = "Pruned symlinks: 0 images, 1 streams\n"
    assert cfsctl("--repo", made.path, "-v", "gc").stdout == f"stream old\n{told}{removed}{pruned}"
    assert cfsctl("--repo", made.path, "gc").stdout == "Objects: 0 removed (0 bytes)\n"
    cfsctl("--repo", made.path, "ref", "remove", "--image", "os/1")
    assert cfsctl("--repo", made.path, "gc").stdout.endswith("\nPruned symlinks: 1 images, 0 streams\n")


def test_gc_lists_to_somebody_who_has_gone(made: Populated) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [CFSCTL, "--repo", made.path, "-v", "gc", "-n"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_gc_keeps_roots(made: Populated) -> None:
    assert "Objects: 1 removed" in cfsctl("--repo", made.path, "gc", "-r", "old", "--root", "os/1").stdout
    failed = cfsctl("--repo", made.path, "gc", "-r", "none", status=3)
    assert "'none'" in failed.stderr


def test_gc_says_which_ref_stops_it(made: Populated) -> None:
    (made.path / "streams/top").unlink()
    failed = cfsctl("--repo", made.path, "gc", status=5)
    assert failed.stdout == ""
    assert failed.stderr.startswith("cfsctl: nothing was deleted, ")
    assert "streams/refs/oci/team%2Fapp:1: there is no streams/top" in failed.stderr
    assert "fsck --repair" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_gc_tells_of_odd_files_and_quiet_does_not(made: Populated) -> None:
    (made.path / "objects/od\x1bd").write_text("")
    told = cfsctl("--repo", made.path, "gc")
    assert told.stderr == "cfsctl: left alone: objects/od: it is not named as an object is\n"
    assert cfsctl("--repo", made.path, "-q", "gc").stderr == ""


def test_gc_waits_only_when_told(made: Populated) -> None:
    with Repository.open(made.path):
        failed = cfsctl("--repo", made.path, "gc", status=4)
        assert "--wait SECONDS" in failed.stderr
        waiting = subprocess.Popen(
            [CFSCTL, "--repo", str(made.path), "--wait", str(TIMEOUT), "gc"], stdout=subprocess.PIPE, text=True
        )
        wait_until_open(waiting, made.path)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
    assert "Objects: 2 removed" in waiting.communicate(timeout=TIMEOUT)[0]
    assert waiting.returncode == 0


def test_gc_completes_roots(made: Populated) -> None:
    assert completions("--repo", str(made.path), "gc", "--root", "o") == ["oci/team/app:1", "old", "os/1"]


def test_fsck(made: Populated) -> None:
    count = len(made.ids())
    done = cfsctl("--repo", made.path, "fsck")
    assert done.stdout == (f"meta.json: ok\nobjects: {count}/{count} ok\nstreams: 2/2 ok\nimages: 2/2 ok\nstatus: ok\n")
    assert done.stderr == ""


def test_fsck_tells_that_there_is_no_meta_json_and_the_remedy_makes_one(made: Populated) -> None:
    path = made.path.rename(made.path.with_name("of old"))
    (path / "meta.json").unlink()
    fsck = ("--repo", path, "fsck")
    assert cfsctl(*fsck).stdout.splitlines()[0] == "meta.json: absent"
    report = json.loads(cfsctl(*fsck, "--json").stdout)
    assert (report["ok"], report["has_metadata"]) == (True, False)
    remedy = shlex.split(cfsctl("--repo", path, "gc", status=7).stderr.split("`")[1])
    assert remedy[0] == "cfsctl"
    cfsctl(*remedy[1:])
    assert cfsctl(*fsck).stdout.splitlines()[0] == "meta.json: ok"


def test_fsck_of_metadata_tells_that_objects_were_not_read(made: Populated) -> None:
    fsck = ("--repo", made.path, "fsck", "--metadata-only")
    said = "meta.json: ok\nobjects: not read (--metadata-only)\nstreams: 2/2 ok\nimages: 2/2 ok\nstatus: ok\n"
    assert cfsctl(*fsck).stdout == said
    report = json.loads(cfsctl(*fsck, "--json").stdout)
    assert (report["ok"], report["objects_checked"]) == (True, 0)


def test_fsck_of_a_damaged_repository_and_its_repair(made: Populated, tmp_path: Path) -> None:
    path = made.object(made.files["one"])
    path.chmod(0o644)
    path.write_bytes(b"x")
    done = cfsctl("--repo", made.path, "fsck", status=1)
    assert f"fsck: object-digest-mismatch: objects/{path.parent.name}/{path.name}: " in done.stdout
    affected = f"affected images: 1\n  {made.alone}\naffected refs: 1\n  images/refs/os/1\nstatus: corrupted\n"
    assert affected in done.stdout
    assert done.stderr.startswith("cfsctl: `cfsctl fsck --repair --from REPO|DIR` puts good objects back")
    assert cfsctl("-q", "--repo", made.path, "fsck", status=1).stderr == ""
    report = json.loads(cfsctl("--repo", made.path, "fsck", "--json").stdout)
    assert (report["ok"], report["objects_corrupted"]) == (False, 1)
    good = populate(tmp_path / "good")
    done = cfsctl("--repo", made.path, "fsck", "--repair", "--from", good.path)
    assert "repaired objects: 1\nstatus: ok\n" in done.stdout
    cfsctl("--repo", made.path, "fsck")


@pytest.mark.parametrize("command", [("fsck",), ("fsck", "--metadata-only"), ("gc", "-n")], ids=" ".join)
def test_want_of_descriptors_is_no_damage(made: Populated, command: tuple[str, ...]) -> None:
    statuses = []
    for most in range(5, 20):
        limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (most, most))
        done = cfsctl("--repo", made.path, *command, status=None, preexec_fn=limit)
        statuses.append(done.returncode)
        if done.returncode:
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.endswith(": Too many open files (raise the limit of open files: ulimit -n)\n")
            assert done.stderr.count("\n") == 1
    assert statuses == sorted(statuses, reverse=True)
    assert set(statuses) == {0, 1}


def test_fsck_counts_what_is_missing(made: Populated) -> None:
    made.object(made.files["four"]).unlink()
    for name in "xy":
        (made.path / "images/refs" / name).symlink_to("../none")
    told = cfsctl("--repo", made.path, "fsck", status=1).stdout
    assert "\nbroken links: 2\nmissing objects: 1\n" in told


def test_gc_is_the_remedy_of_damage_that_no_ref_meets(made: Populated) -> None:
    path = made.object(made.files["one"])
    path.unlink()
    cfsctl("--repo", made.path, "ref", "remove", "--image", "os/1")
    told = cfsctl("--repo", made.path, "fsck", status=1)
    assert f"affected images: 1\n  {made.alone}\nstatus: corrupted\n" in told.stdout
    assert told.stderr == "cfsctl: no ref needs what is bad: `cfsctl gc` removes it\n"
    wrong = made.path / "images/refs/wrong"  # of which nobody but people know what it should name
    wrong.symlink_to("../none")
    assert cfsctl("--repo", made.path, "fsck", status=1).stderr == ""
    wrong.unlink()
    cfsctl("--repo", made.path, "gc")
    assert cfsctl("--repo", made.path, "fsck").stderr == ""


def test_what_was_made_wrong_is_not_mended_by_good_objects(made: Populated) -> None:
    (made.path / "images" / made.garbage).symlink_to(f"../objects/{made.garbage[:2]}/{made.garbage[2:]}")
    (made.path / "images/refs/wrong").symlink_to(f"../{made.garbage}")
    told = cfsctl("--repo", made.path, "fsck", status=1)
    assert "affected refs: 1\n  images/refs/wrong\n" in told.stdout
    assert told.stderr == ""


@pytest.mark.parametrize("command", [("fsck", "--repair"), ("copy", "os/1")], ids=" ".join)
def test_a_source_in_which_garbage_is_collected_is_waited_for_when_told(
    made: Populated, tmp_path: Path, command: tuple[str, ...]
) -> None:
    source = populate(tmp_path / "source")
    made.object(made.files["one"]).unlink()
    with Repository.open(source.path, exclusive=True):
        assert "--wait SECONDS" in cfsctl("--repo", made.path, *command, "--from", source.path, status=4).stderr
        waiting = subprocess.Popen(
            [CFSCTL, "--repo", made.path, "--wait", str(TIMEOUT), *command, "--from", source.path],
            stdout=subprocess.DEVNULL,
        )
        wait_until_open(waiting, source.path)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
    assert waiting.wait(TIMEOUT) == 0
    cfsctl("--repo", made.path, "fsck")


def test_fsck_shows_progress(made: Populated) -> None:
    events = cfsctl("--progress", "json", "--repo", made.path, "fsck").stderr.splitlines()
    assert json.loads(events[0])["kind"] == "started"
    last = json.loads(events[-1])
    assert (last["kind"], last["done"]) == ("done", len(made.ids()))


@pytest.mark.parametrize(
    "arguments", [["--repair"], ["--from", "x"], ["--repair", "--from", "x", "--metadata-only"]], ids=" ".join
)
def test_options_of_fsck_that_do_not_go_together(made: Populated, arguments: list[str]) -> None:
    cfsctl("--repo", made.path, "fsck", *arguments, status=2)
