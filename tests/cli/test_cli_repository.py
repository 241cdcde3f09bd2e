"""What users see of init, create-image, images and ref: lines, JSON, statuses, and one clear line for each failure."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest

from composefs.repository import Publication, RefUpdate, Repository, StreamName
from support.commands import CFSCTL, cfsctl, completions

SHA256_DIGITS = 64


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Make an insecure sha256 repository."""
    cfsctl("init", "--insecure", "--algorithm", "fsverity-sha256-12", tmp_path / "repo")
    return tmp_path / "repo"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a small tree with a /usr, an inline file and two objects."""
    root = tmp_path / "tree"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "hello").write_bytes(b"#!/bin/sh\n" + b"echo hello\n" * 100)
    (root / "usr" / "bin" / "other").write_bytes(os.urandom(100_000))
    (root / "usr" / "small").write_text("small\n")
    for path in (*root.rglob("*"), root):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root


def the_error(*arguments: str | Path, status: int, **options: object) -> str:
    """Run cfsctl, which must fail with this status, say nothing on standard output and one line about why."""
    done = cfsctl(*arguments, status=status, **options)
    assert done.stdout == ""
    assert done.stderr.startswith("cfsctl: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def objects(repo: Path) -> dict[str, int]:
    return {
        path.parent.name + path.name: path.stat().st_size for path in (repo / "objects").rglob("*") if path.is_file()
    }


def files(repo: Path) -> set[str]:
    return {str(path.relative_to(repo)) for path in repo.rglob("*")}


class TestInit:
    def test_lines_of_an_insecure_repository(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "parents" / "repo"
        done = cfsctl("init", "--insecure", "--algorithm", "fsverity-sha256-12", path)
        assert done.stdout == (
            f"Initialized composefs repository at {path}\n"
            "  algorithm: fsverity-sha256-12\n"
            "  verity:    not required (insecure)\n"
        )
        meta = json.loads((path / "meta.json").read_text())
        assert meta["version"] == 1
        assert meta["algorithm"] == "fsverity-sha256-12"
        assert meta["features"]["read-only-compatible"] == ["v1_erofs"]

    def test_again_changes_nothing(self, repo: Path) -> None:
        before = (repo / "meta.json").read_bytes()
        done = cfsctl("init", "--insecure", "--algorithm", "fsverity-sha256-12", repo)
        assert done.stdout == f"Repository already initialized at {repo}\n"
        assert (repo / "meta.json").read_bytes() == before

    def test_another_algorithm_is_refused(self, repo: Path) -> None:
        before = (repo / "meta.json").read_bytes()
        error = the_error("init", "--insecure", "--algorithm", "fsverity-sha512-12", repo, status=4)
        assert str(repo) in error
        assert "sha256" in error
        assert (repo / "meta.json").read_bytes() == before

    def test_unknown_algorithm(self, tmp_path: Path) -> None:
        assert "md5" in the_error("init", "--algorithm", "md5", tmp_path / "x", status=5)
        assert not (tmp_path / "x").exists()

    def test_format_2_has_no_v1_feature(self, tmp_path: Path) -> None:
        cfsctl("init", "--insecure", "--erofs-version", "2", tmp_path / "repo")
        meta = json.loads((tmp_path / "repo" / "meta.json").read_text())
        assert meta["features"]["read-only-compatible"] == []
        assert meta["erofs_formats"] == {"default": 2}

    def test_json(self, tmp_path: Path) -> None:
        arguments = ("init", "--insecure", "--json", tmp_path / "repo")
        expected = {
            "path": str(tmp_path / "repo"),
            "created": True,
            "upgraded": False,
            "algorithm": "fsverity-sha512-12",
            "verity_required": False,
            "erofs_version": 1,
        }
        assert json.loads(cfsctl(*arguments).stdout) == expected
        assert json.loads(cfsctl(*arguments).stdout) == {**expected, "created": False}

    def test_user_repository(self, environment: Path) -> None:
        cfsctl("--user", "init", "--insecure")
        assert (environment / ".var/lib/composefs/meta.json").is_file()
        assert cfsctl("--user", "images").stdout == "No images found\n"

    def test_the_default_is_the_system_s_for_root_and_the_user_s_for_others(self, environment: Path) -> None:
        assert "no repository at /sysroot/composefs " in the_error("--system", "images", status=3)
        own = "/sysroot/composefs" if os.geteuid() == 0 else environment / ".var/lib/composefs"
        assert f"no repository at {own} " in the_error("images", status=3)

    def test_two_places_are_refused(self, tmp_path: Path) -> None:
        the_error("--repo", tmp_path / "a", "init", tmp_path / "b", status=2)
        the_error("--repo", tmp_path / "a", "--user", "images", status=2)
        assert not list(tmp_path.iterdir())

    def test_secure_needs_verity(self, tmp_path: Path) -> None:
        """Where the file system has none it says so, and what to do; nothing is half made."""
        done = cfsctl("init", tmp_path / "repo", status=None)
        if done.returncode == 0:
            assert "  verity:    required\n" in done.stdout
            return
        assert done.returncode == 9
        assert "--insecure" in done.stderr
        assert not (tmp_path / "repo" / "meta.json").exists()
        cfsctl("--insecure", "init", tmp_path / "repo")
        assert "--insecure" in the_error("init", tmp_path / "repo", status=4)

    def test_where_a_file_is(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert str(tmp_path / "file") in the_error("init", "--insecure", tmp_path / "file", status=1)


class TestImages:
    def test_none(self, repo: Path) -> None:
        assert cfsctl("--repo", repo, "images").stdout == "No images found\n"
        assert json.loads(cfsctl("--repo", repo, "images", "--json").stdout) == {"images": []}

    def test_sorted_by_name(self, repo: Path, tree: Path) -> None:
        ids = [cfsctl("--repo", repo, "create-image", tree, name).stdout.strip() for name in ("b", "team/50%off", "a")]
        assert len(set(ids)) == 1
        digest = ids[0].removeprefix("sha256:")
        assert len(digest) == SHA256_DIGITS
        names = ["a", "b", "team/50%off"]
        text = cfsctl("--repo", repo, "images", "--json").stdout
        assert json.loads(text) == {"images": [{"name": name, "digest": digest} for name in names]}
        rows = [line.split() for line in cfsctl("--repo", repo, "list-images").stdout.splitlines()]
        assert rows == [["NAME", "DIGEST"], *([name, digest[:12]] for name in names)]
        assert digest in cfsctl("--repo", repo, "images", "--no-trunc").stdout


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
        assert sum(len(word.strip(":,")) == SHA256_DIGITS for word in error.split()) == 20
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
        assert files(repo) == before

    def test_bad_dump(self, repo: Path, tmp_path: Path) -> None:
        (tmp_path / "dump").write_text("/ 0 40755 2 0 0 0 0.0 - - -\n/x nonsense\n")
        error = the_error("--repo", repo, "compute-id", "--from-dump", tmp_path / "dump", status=5)
        assert f"{tmp_path}/dump: dump line 2: " in error
        (tmp_path / "empty").touch()
        assert "empty: " in the_error("--repo", repo, "compute-id", "--from-dump", tmp_path / "empty", status=5)
        assert "standard input: " in the_error("--repo", repo, "compute-id", "--from-dump", "-", input="x", status=5)
        assert "nowhere" in the_error("--repo", repo, "compute-id", "--from-dump", tmp_path / "nowhere", status=3)

    def test_sources_exclude_each_other(self, repo: Path, tree: Path) -> None:
        the_error("--repo", repo, "compute-id", status=2)
        the_error("--repo", repo, "compute-id", tree, "--from-dump", "x", status=2)
        the_error("--repo", repo, "compute-id", "--from-dump", "x", "--no-propagate-usr-to-root", status=2)

    def test_missing_directory_and_no_usr(self, repo: Path, tmp_path: Path) -> None:
        assert "nothing" in the_error("--repo", repo, "create-image", tmp_path / "nothing", status=3)
        (tmp_path / "bare").mkdir()
        assert "usr" in the_error("--repo", repo, "create-image", tmp_path / "bare", status=5)
        cfsctl("--repo", repo, "create-image", "--no-propagate-usr-to-root", tmp_path / "bare", "empty")

    def test_a_file_is_no_tree(self, repo: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "file" in the_error("--repo", repo, "compute-id", tmp_path / "file", status=1)


class TestOpening:
    def test_missing(self, tmp_path: Path) -> None:
        error = the_error("--repo", tmp_path / "none", "images", status=3)
        assert str(tmp_path / "none") in error
        assert "init" in error

    def test_not_a_repository(self, tmp_path: Path) -> None:
        assert str(tmp_path) in the_error("--repo", tmp_path, "images", status=3)

    def test_wrong_hash(self, repo: Path) -> None:
        error = the_error("--repo", repo, "--hash", "sha512", "images", status=5)
        assert "sha256" in error
        assert "sha512" in error

    def test_insecure_where_verity_is_required(self, repo: Path) -> None:
        assert str(repo) in the_error("--repo", repo, "--require-verity", "images", status=9)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            '{"version": 2, "algorithm": "fsverity-sha256-12", "features": {}}',
            '{"version": 1}',
            "\x00" * 99,
        ],
    )
    def test_corrupt_meta(self, repo: Path, text: str) -> None:
        (repo / "meta.json").unlink()
        (repo / "meta.json").write_text(text)
        done = cfsctl("--repo", repo, "images", status=None)
        assert done.returncode in (5, 9)
        assert "meta.json" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_no_repo(self, tree: Path) -> None:
        the_error("--no-repo", "images", status=2)
        the_error("--no-repo", "create-image", tree, status=2)
        the_error("--no-repo", "init", status=2)

    def test_read_only(self, repo: Path, tree: Path) -> None:
        """A file system mounted read-only reads well and says what it is when written to."""
        cfsctl("--repo", repo, "create-image", tree, "os")
        script = (
            'mount --bind "$2" "$2" && mount -o remount,ro,bind "$2" && '
            '"$1" --repo "$2" images && exec "$1" --repo "$2" create-image "$3" again'
        )
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", CFSCTL, str(repo), str(tree)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 7, done.stderr
        assert done.stdout.splitlines()[1].startswith("os")
        assert str(repo) in done.stderr
        assert done.stderr.count("\n") == 1

    def test_full_disk(self, tree: Path, tmp_path: Path) -> None:
        """It says so, names nothing, and once there is room the same command succeeds."""
        (tree / "usr" / "large").write_bytes(os.urandom(3 << 20))
        (tmp_path / "small").mkdir()
        script = (
            'mount -t tmpfs -o size=2m none "$3" && "$1" init --insecure "$3/repo" >&2 || exit 99\n'
            '"$1" --repo "$3/repo" create-image "$2" os; status=$?\n'
            '"$1" --repo "$3/repo" images\n'
            'mount -o remount,size=20m "$3" && "$1" --repo "$3/repo" create-image "$2" os >&2 && exit $status'
        )
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", CFSCTL, tree, tmp_path / "small"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 8, done.stderr
        assert done.stdout == "No images found\n"
        [error] = [line for line in done.stderr.splitlines() if line.startswith("cfsctl: ")]
        assert "bytes are free" in error

    def test_waiting_for_a_lock(self, repo: Path) -> None:
        lock = os.open(repo, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "--wait" in the_error("--repo", repo, "images", status=4)
        process = subprocess.Popen(
            [CFSCTL, "--repo", repo, "--wait", "60", "images"], stdout=subprocess.PIPE, text=True
        )
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        os.close(lock)
        stdout, _ = process.communicate(timeout=60)
        assert stdout == "No images found\n"


@pytest.mark.root
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


class TestRefs:
    def test_stream_refs(self, repo: Path) -> None:
        with Repository.open(repo, writable=True) as opened:
            stream = opened.streams.put(1, b"inline", [-6])
            opened.publish(
                Publication(
                    streams=[StreamName("ostree-commit-1", stream.id)],
                    refs=[
                        RefUpdate("ostree/team/50%off", "ostree-commit-1", "flat"),
                        RefUpdate("other/team/x", "ostree-commit-1", "path"),
                    ],
                )
            )
        names = ["ostree/team/50%off", "other/team/x"]
        expected = {"refs": [{"kind": "stream", "name": name, "target": "ostree-commit-1"} for name in names]}
        assert json.loads(cfsctl("--repo", repo, "ref", "list", "--json").stdout) == expected
        assert cfsctl("--repo", repo, "ref", "list", "oth").stdout.splitlines()[1:] == [
            "stream  other/team/x  ostree-commit-1"
        ]
        for name in ("ostree-commit-1", *names, "refs/ostree/team%2F50%25off", "refs/other/team/x"):
            assert cfsctl("--repo", repo, "cat", name).stdout == "inline"
        for name in ("ostree/team", "refs/other/team/y", "ostree-commit-2"):
            assert "cfsctl ref list" in the_error("--repo", repo, "cat", name, status=3)
        the_error("--repo", repo, "ref", "remove", *names, "other/missing", status=3)
        assert json.loads(cfsctl("--repo", repo, "ref", "list", "--json").stdout) == expected, "all or none"
        cfsctl("--repo", repo, "ref", "remove", *names)
        assert cfsctl("--repo", repo, "ref", "list").stdout == "No refs found\n"
        assert cfsctl("--repo", repo, "cat", "ostree-commit-1").stdout == "inline"

    def test_image_refs(self, repo: Path, tree: Path) -> None:
        image = cfsctl("--repo", repo, "create-image", tree, "team/os").stdout.strip().removeprefix("sha256:")
        cfsctl("--repo", repo, "create-image", tree, "other")
        expected = {
            "refs": [
                {"kind": "image", "name": "other", "target": image},
                {"kind": "image", "name": "team/os", "target": image},
            ]
        }
        assert json.loads(cfsctl("--repo", repo, "ref", "list", "--json").stdout) == expected
        cfsctl("--repo", repo, "ref", "remove", "--image", "team/os")
        assert [line.split()[:2] for line in cfsctl("--repo", repo, "ref", "list").stdout.splitlines()[1:]] == [
            ["image", "other"]
        ]
        assert (repo / "images" / image).is_symlink()
        assert "team/os" in the_error("--repo", repo, "ref", "remove", "--image", "team/os", status=3)
        the_error("--repo", repo, "ref", "remove", "--image", "../meta.json", status=5)

    def test_none(self, repo: Path) -> None:
        assert cfsctl("--repo", repo, "ref", "list").stdout == "No refs found\n"


class TestFrame:
    def test_misspelt_command(self) -> None:
        assert "'images'" in the_error("imagse", status=2)

    def test_unknown_option_and_missing_command(self) -> None:
        the_error("--nonsense", status=2)
        the_error("ref", status=2)
        the_error("ref", "lst", status=2)
        the_error("images", "operand", status=2)

    def test_no_arguments_is_help(self) -> None:
        assert cfsctl().stdout == cfsctl("--help").stdout

    @pytest.mark.parametrize(
        "command",
        [
            *("init", "create-image", "compute-id", "create-dumpfile", "images", "cat", "mount", "completion"),
            *("ref list", "ref remove", "ext list", "ext show"),
        ],
    )
    def test_every_help_has_an_example(self, command: str) -> None:
        text = cfsctl(*command.split(), "--help").stdout
        assert "$ cfsctl" in text

    def test_closed_pipe_is_quiet(self, repo: Path, tree: Path) -> None:
        process = subprocess.Popen(
            [CFSCTL, "--repo", repo, "create-dumpfile", tree], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.close()
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 141
        assert stderr == b""

    def test_full_disk(self, repo: Path) -> None:
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [CFSCTL, "--repo", repo, "images"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 8
        assert done.stderr.startswith("cfsctl: writing to standard output: No space left")

    def test_colour_when_asked(self, tmp_path: Path) -> None:
        assert "\x1b[" in cfsctl("--color", "always", "--repo", tmp_path / "none", "images", status=3).stderr
        assert "\x1b[" not in cfsctl("--repo", tmp_path / "none", "images", status=3).stderr

    def test_traceback_only_when_debugging(self, tmp_path: Path) -> None:
        assert "Traceback" in cfsctl("-vv", "--repo", tmp_path / "none", "images", status=3).stderr

    def test_completion(self, repo: Path, tree: Path) -> None:
        cfsctl("--repo", repo, "create-image", tree, "os/42")

        assert "create-image" in completions("cre")
        assert completions("--repo", str(repo), "mount", "refs/") == ["refs/os/42"]
        assert completions("--repo", str(repo / "none"), "mount", "refs/") == []
        for shell in ("bash", "zsh", "fish"):
            assert "_CFSCTL_COMPLETE" in cfsctl("completion", shell).stdout
