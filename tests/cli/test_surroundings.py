"""What a process gets from whoever starts it: limits, rights, variables."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from composefs.linux.prctl import drop_capabilities
from support.commands import BIN, CFSCTL, TIMEOUT, cfsctl, mkcomposefs, run
from support.ostree_pull import Target
from support.ostree_repo import BRANCH, commit, make_repo
from support.peers import require

_DAC_OVERRIDE = 1
_NOBODY = 0xFFFFFFFF
"""Whom an entry of an ACL names that is for no user."""


def test_more_files_than_a_user_may_have_on_their_way_to_other_processes(tmp_path: Path) -> None:
    """The limit holds for all processes of a user together, who may run many commands at a time."""

    def be_limited() -> None:
        drop_capabilities(frozenset({_DAC_OVERRIDE}))  # root is spared this limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))

    (tmp_path / "tree").mkdir()
    for number in range(200):
        with (tmp_path / f"tree/{number}").open("wb") as file:
            os.truncate(file.fileno(), 1 << 20)
    command = ("--no-repo", "compute-id", "--no-propagate-usr-to-root", tmp_path / "tree")
    assert cfsctl(*command, preexec_fn=be_limited).stdout == cfsctl(*command).stdout


def test_wherever_a_limit_of_open_files_is_met_it_is_told(target: Target) -> None:
    """While an extension is started the process that it will be meets it, too."""
    told = ""
    for most in range(16, 64):
        limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (most, most))
        done = target.ostree("images", status=None, preexec_fn=limit)
        if done.returncode == 0:
            break
        assert done.stderr.endswith(": Too many open files (raise the limit of open files: ulimit -n)\n")
        told += done.stderr
    assert "could not be executed" in told
    assert target.left_over() == []


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "command",
    [
        "cfsctl --no-repo create-dumpfile --no-propagate-usr-to-root tree",
        "cfsctl --repo repo cat os file",
        "cfsctl --repo repo dump-files os dir",
        "composefs-info dump image",
    ],
)
def test_output_that_is_cut_off_is_an_error(tmp_path: Path, command: str, unbuffered: str) -> None:
    """Images of containers often have PYTHONUNBUFFERED set, so that what is logged comes at once."""
    (tmp_path / "tree").mkdir()
    for number in range(100):
        (tmp_path / f"tree/{number}").touch()
    mkcomposefs(tmp_path / "tree", tmp_path / "image")
    cfsctl("init", "--insecure", tmp_path / "repo")
    lines = [
        "/ 0 40755 2 0 0 0 0.0 - - -",
        f"/file 5000 100644 1 0 0 0 0.0 - {'x' * 5000} -",
        "/dir 0 40755 2 0 0 0 0.0 - - -",
    ]
    lines += [f"/dir/{number} 0 100644 1 0 0 0 0.0 - - -" for number in range(200)]
    cfsctl("--repo", tmp_path / "repo", "create-image", "--from-dump", "-", "os", input="\n".join(lines) + "\n")
    with (tmp_path / "output").open("wb") as output:
        done = subprocess.run(
            ["sh", "-c", f"exec {BIN}/{command}"],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=TIMEOUT,
            cwd=tmp_path,
            # Python takes what it could write of a .pyc file for a whole one.
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONDONTWRITEBYTECODE": "1"},
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (4096, 4096)),
        )
    assert done.returncode == 1
    assert "writing to standard output: File too large" in done.stderr


@pytest.mark.parametrize("output", [">&-", "1</dev/null"], ids=["closed", "not for writing"])
@pytest.mark.parametrize("command", ["ref list", "ostree images", "ostree --help"])
def test_output_that_cannot_be_written_has_its_remedy(target: Target, command: str, output: str) -> None:
    script = f'"$0" --repo "$1" {command} {output}'
    done = run("sh", "-c", script, CFSCTL, target.path, status=1)
    told = "writing to standard output: Bad file descriptor (it is not open for writing: redirect it, to /dev/null"
    assert done.stderr.startswith(f"cfsctl: {told}")


def test_help_without_docstrings() -> None:
    """As some images of containers have it, to save space."""
    optimized = {**os.environ, "PYTHONOPTIMIZE": "2"}
    for command in (("gc", "--help"), ("ext", "--help")):
        assert cfsctl(*command, env=optimized).stdout == cfsctl(*command).stdout


def test_modules_in_the_working_directory_are_not_ours(tmp_path: Path) -> None:
    """Who lists a directory of somebody else's runs nothing of it."""
    for name in (*sys.stdlib_module_names, "click", "composefs", "composefs_ext", "composefs_oci", "composefs_ostree"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit({name!r})\n")
    cfsctl("init", "--insecure", "repo", cwd=tmp_path)
    for command in (("images",), ("ostree", "images"), ("oci", "images"), ("ext", "list")):
        cfsctl("--repo", "repo", *command, cwd=tmp_path)
    run(BIN / "mkcomposefs", tmp_path / "repo", tmp_path / "image", cwd=tmp_path)
    run(BIN / "composefs-info", "ls", tmp_path / "image", cwd=tmp_path)


def test_attributes_that_the_file_system_lets_nobody_remove(target: Target, tmp_path: Path) -> None:
    """As system.nfs4_acl, which every file of NFS v4 has; here they inherit an ACL of POSIX."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"more than an inode holds" * 1000)
    commit(make_repo(tmp_path / "source"), tmp_path / "tree")
    entries = [(1, 7, _NOBODY), (2, 7, 1234), (4, 0, _NOBODY), (16, 7, _NOBODY), (32, 0, _NOBODY)]
    acl = b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(target.path, "system.posix_acl_default", struct.pack("<I", 2) + acl)
    strace = [require("strace"), "-f", "-qqq", "-o", "/dev/null", "-e", "inject=fremovexattr:error=EINVAL"]
    run(*strace, CFSCTL, "--repo", target.path, "ostree", "pull-local", tmp_path / "source", BRANCH)
    for path in (target.path / "objects").glob("*/*"):
        assert path.stat().st_mode & 0o777 == 0o444
    cfsctl("--repo", target.path, "fsck")
    assert target.left_over() == []
