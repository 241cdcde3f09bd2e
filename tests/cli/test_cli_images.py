"""What users see of create-image, images and mount: lines, statuses, and one clear line for each failure."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from support.commands import cfsctl, the_error

SHA256_DIGITS = 64


def files(repo: Path) -> set[str]:
    return {str(path.relative_to(repo)) for path in repo.rglob("*")}


class TestImages:
    def test_none(self, repo: Path) -> None:
        assert cfsctl("--repo", repo, "images").stdout == "No images found\n"
        assert json.loads(cfsctl("--repo", repo, "images", "--json").stdout) == {"images": []}

    def test_sorted_by_name(self, repo: Path, tree: Path) -> None:
        names = ["z", "b", "team/50%off", "a"]
        ids = [cfsctl("--repo", repo, "create-image", tree, name).stdout.strip() for name in names]
        assert len(set(ids)) == 1
        digest = ids[0].removeprefix("sha256:")
        assert len(digest) == SHA256_DIGITS
        names.sort()
        text = cfsctl("--repo", repo, "images", "--json").stdout
        assert json.loads(text) == {"images": [{"name": name, "digest": digest} for name in names]}
        rows = [line.split() for line in cfsctl("--repo", repo, "list-images").stdout.splitlines()]
        assert rows == [["NAME", "DIGEST"], *([name, digest[:12]] for name in names)]
        assert digest in cfsctl("--repo", repo, "images", "--no-trunc").stdout
        for command in (["ls", digest[:12]], ["diff", "a", digest[:12]]):
            told = cfsctl("--repo", repo, *command, status=3).stderr
            assert f"there is no image or stream '{digest[:12]}' (give the whole id, {digest})" in told


class TestCreateImage:
    def test_the_same_again(self, repo: Path, tree: Path) -> None:
        first = cfsctl("--repo", repo, "create-image", tree, "os")
        before = files(repo)
        assert cfsctl("--repo", repo, "create-image", tree, "os").stdout == first.stdout
        assert files(repo) == before
        image = first.stdout.strip().removeprefix("sha256:")
        assert os.readlink(repo / "images" / image) == f"../objects/{image[:2]}/{image[2:]}"
        assert os.readlink(repo / "images/refs/os") == f"../{image}"

    def test_a_name_moves(self, repo: Path, tree: Path) -> None:
        first = cfsctl("--repo", repo, "create-image", tree, "os").stdout
        (tree / "usr" / "new").write_text("new")
        second = cfsctl("--repo", repo, "create-image", tree, "os").stdout
        assert first != second
        assert second.strip().endswith(
            json.loads(cfsctl("--repo", repo, "images", "--json").stdout)["images"][0]["digest"]
        )

    def test_what_compute_id_says(self, repo: Path, tree: Path) -> None:
        before = files(repo)
        image = cfsctl("--repo", repo, "compute-id", tree).stdout.strip()
        assert files(repo) == before, "compute-id writes nothing"
        assert cfsctl("--no-repo", "--hash", "sha256", "compute-id", tree).stdout.strip() == image
        told = json.loads(cfsctl("--repo", repo, "create-image", "--json", tree, "os").stdout)
        assert told["id"] == image
        assert told["name"] == "os"
        assert told["size"] == (repo / "images" / image).stat().st_size
        assert cfsctl("--repo", repo, "--erofs-version", "2", "compute-id", tree).stdout.strip() != image

    def test_user_xattrs_count_only_when_kept(self, repo: Path, tree: Path) -> None:
        plain = cfsctl("--repo", repo, "compute-id", tree).stdout
        os.setxattr(tree / "usr" / "bin" / "hello", "user.note", b"x")
        assert cfsctl("--repo", repo, "compute-id", tree).stdout == plain
        assert cfsctl("--repo", repo, "compute-id", "--xattrs", "keep-user-xattrs", tree).stdout != plain

    def test_of_a_dump(self, repo: Path, tree: Path) -> None:
        image = cfsctl("--repo", repo, "create-image", tree).stdout
        dump = cfsctl("--repo", repo, "create-dumpfile", tree).stdout
        assert "/usr/bin/hello" in dump
        (tree.parent / "dump").write_text(dump)
        assert cfsctl("--repo", repo, "create-image", "--from-dump", tree.parent / "dump", "named").stdout == image
        assert cfsctl("--repo", repo, "compute-id", "--from-dump", "-", input=dump).stdout.strip() == image[7:].strip()
        assert cfsctl("--repo", repo, "images").stdout.splitlines()[1].startswith("named")

    def test_of_a_dump_whose_objects_are_missing(self, repo: Path, tree: Path) -> None:
        for number in range(30):
            (tree / "usr" / f"file{number}").write_bytes(os.urandom(1000))
        (tree.parent / "dump").write_text(cfsctl("--repo", repo, "create-dumpfile", tree).stdout)
        before = files(repo)
        error = the_error("--repo", repo, "create-image", "--from-dump", tree.parent / "dump", "os", status=5)
        assert "32 objects" in error
        assert len(re.findall(rf"\b[0-9a-f]{{{SHA256_DIGITS}}}\b", error)) == 20
        assert files(repo) - before <= {"staging"}

    def test_of_a_dump_whose_path_leads_to_another_object(self, repo: Path, tree: Path) -> None:
        """It would show the other object's content wherever fs-verity is not enforced."""
        cfsctl("--repo", repo, "create-image", tree)
        lines = cfsctl("--repo", repo, "create-dumpfile", tree).stdout.splitlines()
        hello, other = (next(line.split() for line in lines if line.startswith(f"/usr/bin/{n}")) for n in ("h", "o"))
        dump = "\n".join(lines).replace(hello[8], other[8]) + "\n"
        error = the_error("--repo", repo, "create-image", "--from-dump", "-", "os", input=dump, status=5)
        assert "hello" in error

    @pytest.mark.parametrize("damage", ["truncated", "zeroed", "emptied"])
    def test_a_damaged_object_is_repaired(self, repo: Path, tree: Path, damage: str) -> None:
        image = cfsctl("--repo", repo, "create-image", tree).stdout
        victim = next(
            path for path in (repo / "objects").rglob("*") if path.is_file() and path.stat().st_size == 100_000
        )
        good = victim.read_bytes()
        victim.chmod(0o644)
        bad = {"truncated": good[:50_000], "zeroed": bytes(len(good)), "emptied": b""}[damage]
        victim.write_bytes(bad)
        victim.chmod(0o444)
        assert cfsctl("--repo", repo, "create-image", tree).stdout == image
        assert victim.read_bytes() == good

    def test_bad_names_are_refused_before_the_work(self, repo: Path, tree: Path) -> None:
        before = files(repo)
        for name in ("../../escape", "/etc/passwd", "a//b", ".", "a/../b", ""):
            the_error("--repo", repo, "create-image", tree, name, status=5)
            the_error("--repo", repo, "import-image", name, status=5)  # though there is none on standard input
        assert files(repo) == before

    def test_bad_dump(self, repo: Path, tmp_path: Path) -> None:
        (tmp_path / "dump").write_text("/ 0 40755 2 0 0 0 0.0 - - -\n/x nonsense\n")
        error = the_error("--repo", repo, "compute-id", "--from-dump", tmp_path / "dump", status=5)
        assert f"{tmp_path}/dump: dump line 2: " in error
        told = cfsctl("-vv", "--repo", repo, "compute-id", "--from-dump", tmp_path / "dump", status=5).stderr
        assert f"\ncomposefs.errors.FormatError: {tmp_path}/dump: dump line 2: " in told
        (tmp_path / "empty").touch()
        assert "empty: " in the_error("--repo", repo, "compute-id", "--from-dump", tmp_path / "empty", status=5)
        assert "standard input: " in the_error("--repo", repo, "compute-id", "--from-dump", "-", input="x", status=5)
        assert "nowhere" in the_error("--repo", repo, "compute-id", "--from-dump", tmp_path / "nowhere", status=3)
        assert "composefs-dump(5)" not in error
        (tmp_path / "other").write_bytes(bytes(range(256)))
        error = the_error("--repo", repo, "create-image", "--from-dump", tmp_path / "other", status=5)
        assert error.startswith(f"cfsctl: {tmp_path}/other: dump line 1: ")
        assert error.endswith(
            "(a dump is text with a line for each file, that of / first, as cfsctl create-dumpfile writes it: "
            "see composefs-dump(5))\n"
        )

    def test_sources_exclude_each_other(self, repo: Path, tree: Path) -> None:
        the_error("--repo", repo, "compute-id", status=2)
        the_error("--repo", repo, "compute-id", tree, "--from-dump", "x", status=2)
        the_error("--repo", repo, "compute-id", "--from-dump", "x", "--no-propagate-usr-to-root", status=2)

    def test_missing_directory_and_no_usr(self, repo: Path, tmp_path: Path) -> None:
        assert "nothing" in the_error("--repo", repo, "create-image", tmp_path / "nothing", status=3)
        (tmp_path / "bare").mkdir()
        (tmp_path / "bare/large").write_bytes(bytes(1000))
        before, remedy = files(repo), "(say --no-propagate-usr-to-root to take the tree as it is)"
        assert remedy in the_error("--repo", repo, "create-image", tmp_path / "bare", status=5)
        assert files(repo) == before
        (tmp_path / "bare/usr").touch()
        assert remedy in the_error("--repo", repo, "create-image", tmp_path / "bare", status=5)
        cfsctl("--repo", repo, "create-image", "--no-propagate-usr-to-root", tmp_path / "bare", "empty")

    def test_a_file_is_no_tree(self, repo: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "file" in the_error("--repo", repo, "compute-id", tmp_path / "file", status=3)


class TestMount:
    def test_reading_and_writing(self, repo: Path, tree: Path, tmp_path: Path) -> None:
        image = cfsctl("--repo", repo, "create-image", tree, "os").stdout.strip().removeprefix("sha256:")
        for name in ("mnt", "up", "work"):
            (tmp_path / name).mkdir()
        mountpoint = tmp_path / "mnt"
        cfsctl("--repo", repo, "mount", "refs/os", mountpoint)
        try:
            assert (mountpoint / "usr/bin/other").read_bytes() == (tree / "usr/bin/other").read_bytes()
            with pytest.raises(OSError, match="Read-only"):
                (mountpoint / "new").touch()
        finally:
            subprocess.run(["umount", mountpoint], check=True)
        writable = ("--upperdir", tmp_path / "up", "--workdir", tmp_path / "work", "--read-write")
        cfsctl("--repo", repo, "mount", *writable, image, mountpoint)
        try:
            (mountpoint / "usr/bin/hello").write_text("changed")
        finally:
            subprocess.run(["umount", mountpoint], check=True)
        assert (tmp_path / "up/usr/bin/hello").read_text() == "changed"

    def test_refusals(self, repo: Path, tree: Path, tmp_path: Path) -> None:
        cfsctl("--repo", repo, "create-image", tree, "os")
        assert "none" in the_error("--repo", repo, "mount", "refs/none", tmp_path, status=3)
        the_error("--repo", repo, "mount", "refs/os", tmp_path / "nowhere", status=3)
        the_error("--repo", repo, "mount", "--read-write", "refs/os", tmp_path, status=2)
        the_error("--repo", repo, "mount", "--upperdir", tmp_path, "refs/os", tmp_path, status=2)
