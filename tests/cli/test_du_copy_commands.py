"""cfsctl du, copy, import-image and transaction."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from composefs.repository import Repository
from composefs.repository.publication import Publication, StreamName
from support.commands import CFSCTL, TIMEOUT, cfsctl, mkcomposefs, run
from support.populated import Populated, populate
from support.strace import read, recorder


@pytest.fixture
def made(tmp_path: Path) -> Populated:
    return populate(tmp_path / "repo")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    cfsctl("init", "--insecure", "--algorithm", "fsverity-sha256-12", tmp_path / "target")
    return tmp_path / "target"


def test_du_reads_what_many_refs_name_once(made: Populated, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def opened() -> int:
        run(*recorder(log, children=True), CFSCTL, "--repo", made.path, "du")
        return sum(made.top[2:] in call.arguments for call in read(log) if call.name == "openat")

    before = opened()
    for number in range(20):
        (made.path / f"streams/refs/oci/again{number}").symlink_to("../../top")
    assert opened() == before == 1


def test_du(made: Populated) -> None:
    lines = cfsctl("--repo", made.path, "du").stdout.splitlines()
    assert lines[0].split() == ["NAME", "OBJECTS", "SIZE", "ALONE", "SHARED"]
    assert [line.split()[:2] for line in lines[1:3]] == [
        ["streams/refs/oci/team%2Fapp:1", "6"],
        ["images/refs/os/1", "3"],
    ]
    assert lines[3].startswith("all refs: 9 objects, ")
    assert lines[4].startswith("garbage: 2 objects, ")
    (made.path / "streams/refs/oci/again").symlink_to("../../top")
    sizes = [re.findall("([0-9]+) bytes", line) for line in cfsctl("--repo", made.path, "du").stdout.splitlines()[1:4]]
    (together, _, _), _, (size, _, _) = sizes
    assert sizes == [[together, "0", together], [together, "0", together], [size, size, "0"]]
    usage = json.loads(cfsctl("--repo", made.path, "du", "--json", "os/1").stdout)
    assert [holding["name"] for holding in usage["holdings"]] == ["images/refs/os/1"]
    for name in ("streams/refs/oci/team%2Fapp:1", "images/refs/os/1"):  # it takes the names that it prints
        usage = json.loads(cfsctl("--repo", made.path, "du", "--json", name).stdout)
        assert [holding["name"] for holding in usage["holdings"]] == [name]
    (made.path / "images/refs/None").symlink_to(f"../{made.alone}")
    usage = json.loads(cfsctl("--repo", made.path, "du", "--json", made.inner).stdout)
    assert [(holding["name"], holding["id"]) for holding in usage["holdings"]] == [(made.inner, made.inner)]
    (made.path / "images/refs/stray").write_bytes(b"")
    failed = cfsctl("--repo", made.path, "du", "none", status=3)
    assert failed.stdout == ""
    assert failed.stderr.startswith("cfsctl: left out: images/refs/stray")


def test_du_of_one_object(target: Path, tmp_path: Path) -> None:
    (tmp_path / "tree/usr").mkdir(parents=True)
    cfsctl("--repo", target, "create-image", tmp_path / "tree", "os")
    assert cfsctl("--repo", target, "du").stdout.splitlines()[-2:] == [
        "all refs: 1 object, 16384 bytes",
        "garbage: 0 objects, 0 bytes",
    ]
    image = cfsctl("--repo", target, "images", "--no-trunc").stdout.split()[-1]
    both = json.loads(cfsctl("--repo", target, "du", "--json", "os", image).stdout)["holdings"]
    assert [each["alone_objects"] for each in both] == [1, 0], "only a ref keeps it"
    cfsctl("--repo", target, "ref", "remove", "--image", "os")
    without = ["all refs: 0 objects, 0 bytes", "garbage: 1 object, 16384 bytes"]
    assert cfsctl("--repo", target, "du").stdout.splitlines() == without
    # What is asked for by its id is garbage all the same.
    assert cfsctl("--repo", target, "du", image).stdout.splitlines()[-2:] == without


def test_copy(made: Populated, target: Path) -> None:
    done = cfsctl("--repo", target, "copy", "--from", made.path, "oci/team/app:1", "os/1")
    assert done.stdout.splitlines()[-1] == "objects 9 copied, 0 present"
    assert "stream  top\n" in done.stdout
    refs = json.loads(cfsctl("--repo", target, "ref", "list", "--json").stdout)["refs"]
    assert refs == json.loads(cfsctl("--repo", made.path, "ref", "list", "--json").stdout)["refs"]
    assert json.loads(cfsctl("--repo", target, "fsck", "--json").stdout)["streams_checked"] == 1
    assert "Objects: 0 removed" in cfsctl("--repo", target, "gc").stdout
    again = json.loads(cfsctl("--repo", target, "copy", "--from", made.path, "--json", "refs/oci/team%2Fapp:1").stdout)
    assert (again["objects_copied"], again["objects_present"]) == (0, 6)
    assert again["refs"] == ["streams/refs/oci/team%2Fapp:1"]
    assert again["images"] == [made.inner]


def test_copy_replaces_what_was_asked_for_and_nothing_else(made: Populated, target: Path) -> None:
    with Repository.open(made.path, writable=True) as repository:
        repository.publish(Publication(streams=[StreamName("layer", made.layer)]))
    cfsctl("--repo", target, "copy", "--from", made.path, "old")
    with Repository.open(target, writable=True) as repository:
        repository.publish(Publication(streams=[StreamName("layer", made.old), StreamName("top", made.old)]))
    copied = ("--repo", target, "copy", "--from", made.path, "--json", "oci/team/app:1", "oci/team/app:1")
    assert json.loads(cfsctl(*copied).stdout)["refs"] == ["streams/refs/oci/team%2Fapp:1"]
    assert (target / "streams/top").samefile(target / "objects" / made.top[:2] / made.top[2:])
    assert (target / "streams/layer").samefile(target / "objects" / made.old[:2] / made.old[2:])


def test_copy_of_what_has_no_ref(made: Populated, target: Path) -> None:
    """By its own name it gets none either."""
    copied = json.loads(cfsctl("--repo", target, "copy", "--from", made.path, "--json", "old", made.inner).stdout)
    assert [each["name"] for each in copied["streams"]] == ["old"]
    assert (copied["images"], copied["refs"]) == ([made.inner], [])
    assert os.listdir(target / "images") == [made.inner]
    assert cfsctl("--repo", target, "ref", "list").stdout == "No refs found\n"


def test_copy_of_nothing_known(made: Populated, target: Path) -> None:
    told = cfsctl("--repo", target, "copy", "--from", made.path, "os/1", "none", status=3).stderr
    assert f"'none' (`cfsctl --repo {made.path} ref list` lists the refs there)" in told
    assert os.listdir(target / "images") == []
    cfsctl("--repo", target, "copy", "--from", target / "none", "os/1", status=3)
    cfsctl("--repo", target, "copy", "--from", made.path, status=2)


def test_copying_twice_at_once(made: Populated, target: Path) -> None:
    command = [CFSCTL, "--repo", str(target), "copy", "--from", str(made.path), "oci/team/app:1", "os/1"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for each in both:
        each.communicate(timeout=TIMEOUT)
        assert each.returncode == 0
    cfsctl("--repo", target, "fsck")


def test_import_image(made: Populated) -> None:
    with made.object(made.inner).open("rb") as image:
        assert cfsctl("--repo", made.path, "import-image", "os/2", stdin=image).stdout == f"sha256:{made.inner}\n"
    with made.object(made.inner).open("rb") as image:
        told = json.loads(cfsctl("--repo", made.path, "import-image", "--json", "os/2", stdin=image).stdout)
    assert (told["id"], told["erofs_version"], told["name"]) == (made.inner, 1, "os/2")
    images = json.loads(cfsctl("--repo", made.path, "images", "--json").stdout)["images"]
    assert {"name": "os/2", "digest": made.inner} in images


def test_import_image_refuses_what_is_none(made: Populated) -> None:
    data = bytearray(made.object(made.inner).read_bytes())
    data[1024:1028] = b"none"  # the superblock's magic
    file = made.path.parent / "image"
    plain = bytes(1024) + made.object(made.inner).read_bytes()[1024:]  # EROFS as of others: the kernel would mount it
    link = b"/ 0 40755 2 0 0 0 0.0 - - -\n/link 6 120777 1 0 0 0 0.0 target - -\n"
    file.write_bytes(link)
    mkcomposefs("--from-file", file, made.path.parent / "linked")
    for content, reason in (
        ((made.path.parent / "linked").read_bytes().replace(b"target", b"tar\0et"), "the target of a symlink"),
        (b"no image", "malformed image"),
        (bytes(data), "malformed image"),
        (bytes(data[:4096]), "malformed image"),
        (plain, "standard input is not a composefs image"),
    ):
        file.write_bytes(content)
        with file.open("rb") as image:
            failed = cfsctl("--repo", made.path, "import-image", "os/2", stdin=image, status=5)
        assert reason in failed.stderr
        assert (
            "(make it with mkcomposefs, or give the dump to `cfsctl create-image --from-dump -` instead)"
            in failed.stderr
        )
    assert not os.path.lexists(made.path / "images/refs/os/2")


def test_import_image_of_mkcomposefs_into_sha512(made: Populated, tmp_path: Path) -> None:
    """It is not told to make the image as it was made."""
    other = tmp_path / "other"
    cfsctl("init", "--insecure", other)
    with made.object(made.inner).open("rb") as image:
        told = cfsctl("--repo", other, "import-image", "os/2", stdin=image, status=5).stderr
    assert "a sha256 digest among sha512 digests" in told
    assert "(here digests are of sha512, and mkcomposefs makes images with those of sha256: give a dump to `cfs" in told


def test_import_image_refuses_a_path_that_leads_to_another_object(made: Populated, tmp_path: Path) -> None:
    """It would show the other object's content wherever fs-verity is not enforced."""
    three, four = made.files["three"], made.files["four"]
    file = f"/f {made.object(three).stat().st_size} 100644 1 0 0 0 0.0 {four[:2]}/{four[2:]} - {three}"
    (tmp_path / "dump").write_text(f"/ 0 40755 2 0 0 0 0.0 - - -\n{file}\n")
    mkcomposefs("--from-file", tmp_path / "dump", tmp_path / "image")
    with (tmp_path / "image").open("rb") as image:
        told = cfsctl("--repo", made.path, "import-image", "os/2", stdin=image, status=5).stderr
    assert "the file 'f' has a path that is not its digest's" in told
    assert not os.path.lexists(made.path / "images/refs/os/2")


def test_import_image_wants_the_objects(made: Populated, target: Path) -> None:
    with made.object(made.inner).open("rb") as image:
        failed = cfsctl("--repo", target, "import-image", "os/2", stdin=image, status=5)
    assert made.files["three"] in failed.stderr or made.files["four"] in failed.stderr
    with made.object(made.inner).open("rb") as image:
        cfsctl("--repo", target, "import-image", "--allow-missing", "os/2", stdin=image)
    assert json.loads(cfsctl("--repo", target, "fsck", "--json").stdout)["missing_objects"] == 2


@contextlib.contextmanager
def transaction(path: Path):
    """A transaction that has its lock."""
    process = subprocess.Popen(
        # It waits, as what it is told by has the lock itself for a moment.
        [CFSCTL, "--repo", str(path), "--wait", str(TIMEOUT), "transaction"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + TIMEOUT
        while cfsctl("--repo", path, "gc", "--dry-run", status=None).returncode != 4:
            assert process.poll() is None
            assert time.monotonic() < deadline
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()


def test_transaction_keeps_gc_away_and_nobody_else(made: Populated) -> None:
    with transaction(made.path) as process:
        assert "in use" in cfsctl("--repo", made.path, "gc", status=4).stderr
        cfsctl("--repo", made.path, "fsck")
        cfsctl("--repo", made.path, "ref", "remove", "--image", "os/1")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=TIMEOUT)
        assert (out, process.returncode) == (b"", 128 + signal.SIGTERM)
    cfsctl("--repo", made.path, "gc")
