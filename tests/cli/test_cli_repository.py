"""What users see of init, ref and the global options: lines, JSON, statuses, and one clear line for each failure."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path
from subprocess import PIPE

import pytest

from composefs.linux.locks import try_lock
from composefs.repository import Repository
from composefs.repository.publication import Publication, RefUpdate, StreamName
from composefs.splitstream import Parts
from support.commands import CFSCTL, TIMEOUT, cfsctl, completions, run, the_error, wait_until_open
from support.mounts import mounted
from support.ostree_pull import LIBEXEC

SHA256_DIGITS = 64


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

    def test_nobody_else_may_write_there_even_without_a_umask(self, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        cfsctl("init", "--insecure", tmp_path / "above/repo", umask=0)
        image = ("create-image", "--no-propagate-usr-to-root", tmp_path / "tree", "os/1")
        cfsctl("--repo", tmp_path / "above/repo", *image, umask=0)
        refs = tmp_path / "above/repo/images/refs"  # which a group can share, by its umask
        found = {path: path.stat().st_mode for path in (tmp_path / "above", *(tmp_path / "above").rglob("*"))}
        assert {path for path, mode in found.items() if mode & 0o022} == {refs, refs / "os"}
        assert oct(found[refs / "os"]) == "0o40775"

    @pytest.mark.root
    def test_refs_where_somebody_else_has_made_some(self, tmp_path: Path) -> None:
        """Root, mostly; all of several refs are removed, or none."""
        repo = tmp_path / "repo"
        (tmp_path / "tree").mkdir()
        cfsctl("init", "--insecure", repo)
        image = ["create-image", "--no-propagate-usr-to-root", tmp_path / "tree"]
        for name in ("a/x", "theirs/x"):
            cfsctl("--repo", repo, *image, name)
        user = ["setpriv", "--bounding-set=-all", CFSCTL, "--repo", repo]
        (repo / "images/refs/theirs").chmod(0o555)
        remedy = "(check the owner and mode, or run as root)"
        for command, where in (
            (["ref", "remove", "--image", "a/x", "theirs/x"], "theirs"),
            ([*image, "theirs/y"], "theirs"),
            ([*image, "theirs/z/x"], "theirs/z"),
        ):
            told = run(*user, *command, status=7).stderr
            assert told == f"cfsctl: publishing images/refs/{where} in {repo}: Permission denied {remedy}\n"
        assert (repo / "images/refs/a/x").is_symlink()
        # What is empty then may stay, if it is others' to remove.
        (repo / "images/refs").chmod(0o555)
        run(*user, "ref", "remove", "--image", "a/x")
        assert os.listdir(repo / "images/refs/a") == []

    @pytest.mark.root
    def test_refs_on_a_file_system_that_is_read_only(self, tmp_path: Path) -> None:
        """A mount of its own, or all of it remounted since the repository was opened."""
        repo = tmp_path / "repo"
        (tmp_path / "tree").mkdir()
        cfsctl("init", "--insecure", repo)
        image = ["--repo", repo, "create-image", "--no-propagate-usr-to-root", tmp_path / "tree"]
        cfsctl(*image, "os/x")
        refs = repo / "images/refs/os"
        with mounted(refs, "--bind", "-o", "ro", str(refs)):
            told = the_error(*image, "os/y", status=7)
        remedy = "(remount its file system writable, or name another repository with --repo)"
        assert told == f"cfsctl: publishing images/refs/os in {repo}: Read-only file system {remedy}\n"

    @pytest.mark.root
    def test_a_umask_keeps_nobody_from_their_own_files(self, tmp_path: Path, environment: Path) -> None:
        (tmp_path / "tree").mkdir()
        user = ["setpriv", "--bounding-set=-all", CFSCTL]
        run(*user, "init", "--insecure", tmp_path / "above/repo", umask=0o777)
        use = [*user, "--repo", tmp_path / "above/repo"]
        run(*use, "create-image", "--no-propagate-usr-to-root", tmp_path / "tree", "os/1", umask=0o777)
        run(*use, "ostree", "images", umask=0o777)
        assert (tmp_path / "above/repo/staging").stat().st_mode & 0o777 == 0o700
        assert os.listdir(environment / "tmp") == []

    def test_where_it_fails_it_leaves_nothing(self, tmp_path: Path) -> None:
        """The file system of temporary files has no fs-verity; in the virtual machine there is one that has."""
        (tmp_path / "before").mkdir()
        for path in ("repo", "new/parents/repo", "before", "before/new/repo"):
            assert "fs-verity" in the_error("init", tmp_path / path, status=9)
            assert "fs-verity" in the_error("init", "--reset-metadata", tmp_path / path, status=9)
        assert os.listdir(tmp_path) == ["before"]
        assert os.listdir(tmp_path / "before") == []

    def test_beside_one_that_removes_what_it_has_made(self, tmp_path: Path) -> None:
        """As it does for want of fs-verity, with the directory locked."""
        repo = tmp_path / "new/repo"
        repo.mkdir(parents=True)
        locked = os.open(repo, os.O_RDONLY)
        assert try_lock(locked, exclusive=True)
        process = subprocess.Popen([CFSCTL, "init", "--insecure", repo], stdout=PIPE, stderr=PIPE, text=True)
        wait_until_open(process, repo)
        repo.rmdir()
        repo.parent.rmdir()
        os.close(locked)
        stdout, stderr = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, stderr) == (0, "")
        assert stdout.startswith(f"Initialized composefs repository at {repo}\n")
        cfsctl("--repo", repo, "images")

    def test_where_no_directory_can_be_it_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("nowhere")
        for place in ("file", "link", "file/new/repo"):
            told = the_error("init", "--insecure", tmp_path / place, status=4)
            assert f"no repository can be made at {tmp_path}/{place}: what is there, or above it, is not a dir" in told
            assert told.endswith("(move it away, or name another place)\n")
        assert "too long" in the_error("init", "--insecure", tmp_path / "new" / ("x" * 256) / "repo", status=1)
        assert "No such file" in the_error("init", "--insecure", tmp_path / "link/repo", status=3)
        assert sorted(os.listdir(tmp_path)) == ["file", "link"]

    def test_again_without_the_options_it_says_which(self, tmp_path: Path) -> None:
        init = ["init", "--insecure", tmp_path / "repo"]
        options = ["--algorithm=fsverity-sha256-12", "--erofs-version=2"]
        cfsctl(*init, *options)
        assert "(say --algorithm fsverity-sha256-12 to accept it, or " in the_error(*init, status=4)
        assert "(say --erofs-version 2 to accept it, or " in the_error(*init, options[0], status=4)
        assert "already initialized" in cfsctl(*init, *options).stdout

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

    def test_global_options_say_what_it_is_like(self, tmp_path: Path) -> None:
        options = ("--insecure", "--hash=sha256", "--erofs-version=2")
        made = json.loads(cfsctl(*options, "init", "--json", tmp_path / "repo").stdout)
        assert (made["algorithm"], made["verity_required"], made["erofs_version"]) == ("fsverity-sha256-12", False, 2)

    def test_user_repository(self, environment: Path) -> None:
        hint = f"(make one with `cfsctl init {environment}/.var/lib/composefs`, or name another with --repo PATH)"
        assert hint in the_error("--user", "images", status=3)
        cfsctl("--user", "init", "--insecure")
        assert (environment / ".var/lib/composefs/meta.json").is_file()
        assert cfsctl("--user", "images").stdout == "No images found\n"

    def test_the_default_is_the_system_s_for_root_and_the_user_s_for_others(self, environment: Path) -> None:
        assert "no repository at /sysroot/composefs " in the_error("--system", "images", status=3)
        own = "/sysroot/composefs" if os.geteuid() == 0 else environment / ".var/lib/composefs"
        assert f"no repository at {own} " in the_error("images", status=3)
        user = ["unshare", "--user", "--map-user=1000", "--map-group=1000", CFSCTL]
        assert f"no repository at {environment}/.var/lib/composefs " in run(*user, "images", status=3).stderr
        assert "no repository at /sysroot/composefs " in run(*user, "--system", "images", status=3).stderr

    def test_the_environment_names_one_where_no_option_does(
        self, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CFSCTL_REPO", str(tmp_path / "mine"))
        monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(LIBEXEC))
        created = ("init", "--insecure", "--json")
        for options, where in (
            ((), tmp_path / "mine"),
            (("--repo", tmp_path / "option"), tmp_path / "option"),
            (("--user",), environment / ".var/lib/composefs"),
        ):
            assert json.loads(cfsctl(*options, *created).stdout)["path"] == str(where)
        assert json.loads(cfsctl(*created, tmp_path / "operand").stdout)["path"] == str(tmp_path / "operand")
        (tmp_path / "tree").mkdir()
        cfsctl("ostree", "commit", "--branch=os", f"--tree=dir={tmp_path}/tree")
        assert [path.name for path in (tmp_path / "mine/streams/refs/ostree").iterdir()] == ["os"]
        assert completions("cat", "ostree/") == ["ostree/os"]
        assert completions("--user", "cat", "ostree/") == []
        assert cfsctl("--no-repo", "compute-id", "--no-propagate-usr-to-root", tmp_path / "tree").stdout
        assert "no repository at /sysroot/composefs " in the_error("--system", "images", status=3)
        monkeypatch.setenv("CFSCTL_REPO", "nowhere")
        assert the_error("images", status=3).endswith(", or name another with --repo PATH)\n")
        monkeypatch.setenv("CFSCTL_REPO", "")
        default = "--system" if os.geteuid() == 0 else "--user"
        assert cfsctl("images", status=None).stderr == cfsctl(default, "images", status=None).stderr

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

    def test_what_meta_says_is_shown_as_text(self, repo: Path) -> None:
        """A feature's name has what a terminal obeys, and half of a character, which cannot be written."""
        (repo / "meta.json").unlink()
        features = r'{"incompatible": ["\u001b[31mred\ud800\ude00\ud800"]}'
        text = f'{{"version": 1, "algorithm": "fsverity-sha512-12", "features": {features}}}'
        (repo / "meta.json").write_text(text)
        told = "cfsctl: the repository uses unknown features: red\U00010200 (use a newer composefs)\n"
        assert the_error("--repo", repo, "images", status=9) == told
        debugging = cfsctl("-vv", "--repo", repo, "images", status=9).stderr
        assert debugging.startswith(told + "Traceback")
        assert "\x1b" not in debugging

    def test_no_repo(self, tree: Path) -> None:
        the_error("--no-repo", "images", status=2)
        the_error("--no-repo", "create-image", tree, status=2)
        the_error("--no-repo", "init", status=2)

    def test_read_only(self, repo: Path, tree: Path) -> None:
        """A file system mounted read-only reads well and says what it is when written to."""
        cfsctl("--repo", repo, "create-image", tree, "os")
        script = (
            'mount --bind "$2" "$2" && mount -o remount,ro,bind "$2" && '
            '"$1" --repo "$2" images && "$1" --repo "$2" gc -n && exec "$1" --repo "$2" create-image "$3" again'
        )
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", CFSCTL, str(repo), str(tree)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 7, done.stderr
        assert done.stdout.splitlines()[1].startswith("os")
        assert done.stdout.endswith("Dry run (no files deleted):\nObjects: 0 removed (0 bytes)\n")
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
            [CFSCTL, "--repo", repo, "--wait", str(TIMEOUT), "images"], stdout=subprocess.PIPE, text=True
        )
        wait_until_open(process, repo)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        os.close(lock)
        stdout, _ = process.communicate(timeout=TIMEOUT)
        assert stdout == "No images found\n"


@pytest.mark.root
class TestRefs:
    def test_stream_refs(self, repo: Path) -> None:
        with Repository.open(repo, writable=True) as opened:
            stream = opened.streams.put(Parts(1, b"inline", [-6]))
            opened.publish(
                Publication(
                    streams=[StreamName("ostree-commit-1", stream.id)],
                    refs=[
                        RefUpdate("ostree/team/50%off", "ostree-commit-1", "flat"),
                        RefUpdate("other/team/x", "ostree-commit-1", "path"),
                        RefUpdate("zip/team/y", "ostree-commit-1", "flat"),
                        RefUpdate("refs/other/team/x", "ostree-commit-1", "path"),
                    ],
                )
            )
        cfsctl("--repo", repo, "ref", "remove", "refs/other/team/x")  # and not what others take that for
        for broken in (False, True):
            if broken:
                (repo / "streams/refs/zip").mkdir(exist_ok=True)
                (repo / "streams/refs/zip/team%2Fy").symlink_to("nowhere")
            cfsctl("--repo", repo, "ref", "remove", "zip/team/y")  # its extension's name of it, by which `cat` finds it
        the_error("--repo", repo, "ref", "remove", "ostree/team%2F50%25off", status=3)
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

    def test_a_global_option_behind_the_command(self, repo: Path) -> None:
        assert "cfsctl --repo … COMMAND" in the_error("images", "--repo", repo, status=2)
        assert "--quiet comes before the command" in the_error("ref", "list", "--quiet", status=2)

    def test_summaries_of_a_group_are_whole(self) -> None:
        shown = " ".join(cfsctl("ref", "--help").stdout.split())
        assert "what kind of thing each names, and which." in shown

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
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as pipe:
            argv = [CFSCTL, "--repo", repo, "create-dumpfile", tree]
            done = subprocess.run(argv, stdout=pipe, stderr=subprocess.PIPE, check=False, timeout=TIMEOUT)
        assert (done.returncode, done.stderr) == (141, b"")

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

    def test_completion(self, repo: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cfsctl("--repo", repo, "create-image", tree, "os/42")
        monkeypatch.setenv("HOME", str(repo.parent))  # the shell expands neither for completion

        assert "create-image" in completions("cre")
        assert completions("--repo", str(repo), "mount", "refs/") == ["refs/os/42"]
        assert completions("--repo", str(repo / "none"), "mount", "refs/") == []
        for place in ("~", "$HOME"):
            assert completions("--repo", f"{place}/{repo.name}", "mount", "refs/") == ["refs/os/42"]
            assert completions("copy", "--from", f"{place}/{repo.name}", "o") == ["os/42"]
        for shell in ("bash", "zsh", "fish"):
            assert "_CFSCTL_COMPLETE" in cfsctl("completion", shell).stdout
