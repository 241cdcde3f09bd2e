"""An extension that was taken over: every attack fails with one clear line, and the repository stays as it was.

As root it is confined by Landlock alone, and then runs as another user too.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from composefs.ext.cache import CACHE
from composefs.ext.errortext import MAX_ERROR_TEXT
from composefs.linux import landlock
from support.commands import CFSCTL, cfsctl, run
from support.hosting import HERE, install
from support.mounts import list_of_mounts, shown_by_descriptor

SCOPES = 6
"""The version of Landlock that holds back all that is tried here (Linux 6.12)."""

OTHER_USER = "nobody"

# What each attack comes to: the exit status and the end of the only line on standard error.
DENIED = (7, r"cfsctl: refused: Permission denied")
ATTACKS = {
    "write-repository": DENIED,
    "read-secrets": (7, "cfsctl: refused: (Permission denied|Operation not permitted)"),
    "attack-core": (7, "cfsctl: refused: Operation not permitted"),
    "use-network": (7, "cfsctl: refused: Operation not permitted"),
    "run-staged-program": DENIED,
    "keep-open": (7, "cfsctl: refused: stored what was put"),
    "keep-mapped": (7, "cfsctl: refused: stored what was put"),
    "hand-over-symlink": (7, "cfsctl: refused: .*a.*(symlink|symbolic link|not a regular file)"),
    "keep-second-name": (7, "cfsctl: refused: Operation not permitted"),
    "hand-over-hard-link": (7, "cfsctl: refused: Operation not permitted"),
    "hand-over-fifo": (7, "cfsctl: refused: .*a.*not a regular file"),
    "hand-over-directory": (7, "cfsctl: refused: .*a.*not a regular file"),
    "hand-over-device": (7, "cfsctl: refused: Operation not permitted"),
    "plant-link": (7, "cfsctl: refused: staged file b exists already"),
    "plant-dangling-link": (7, "cfsctl: refused: staged file b exists already"),
    "escape-staging": (7, "cfsctl: refused: .*private.*"),
    "flood-stdout": (10, "cfsctl: extension hostile broke the protocol: a message is longer than 1048576 bytes"),
    "flood-stderr": (8, f"cfsctl: extension hostile wrote more than {MAX_ERROR_TEXT} bytes to standard error"),
    "fork-and-stay": (0, r"warning: extension hostile left processes behind, which were killed \(1\)"),
    "name-others-streams": (7, "cfsctl: refused: .*ostree-commit-00"),
    "name-others-refs": (7, "cfsctl: refused: .*ostree/os"),
    "name-others-images": (7, "cfsctl: refused: .*ostree/os"),
    "remove-others-refs": (7, "cfsctl: refused: .*other/kept"),
    "escape-by-ref-name": (7, "cfsctl: refused: .*hostile/"),
}


@contextmanager
def shared_cache() -> Iterator[None]:
    """Have the cache of the other user removed by the last of the processes that run these tests."""
    cache = Path(CACHE, str(pwd.getpwnam(OTHER_USER).pw_uid))
    lock = os.open(Path(CACHE).parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(cache, ignore_errors=True)
    finally:
        os.close(lock)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Make a repository with an image and the extension where other users get to them, as /srv and /usr are."""
    with shared_cache(), tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "tree").mkdir()
        (place / "tree/file").write_bytes(b"of the victim\n" * 100)
        run_in = {"env": {**os.environ, "HOME": name}}
        cfsctl("init", "--insecure", "--algorithm", "fsverity-sha256-12", place / "repo", **run_in)
        cfsctl(
            "--repo", place / "repo", "create-image", "--no-propagate-usr-to-root", place / "tree", "victim", **run_in
        )
        install(HERE / "extensions", "hostile", place / "ext")
        yield place


def contents(repo: Path) -> dict[str, tuple[int, int, str]]:
    """Everything that a repository consists of: modes, owners, and what files and links hold."""
    found = {}
    for path in sorted(repo.rglob("*")):
        info = path.lstat()
        data = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(repo))] = (info.st_mode, info.st_uid, hashlib.sha256(data).hexdigest())
    return found


@pytest.mark.parametrize("user", [None, OTHER_USER])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_fails_with_one_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str, user: str | None
) -> None:
    assert landlock.abi() >= SCOPES, "this needs Landlock as Linux 6.12 has it: older ones confine less"
    assert user is None or os.geteuid() == 0, "only root can test --ext-user"
    shutil.copytree(place / "repo", repo := place / tmp_path.name, symlinks=True)
    before = contents(repo)
    home = Path(os.environ["HOME"])
    (home / ".secret").write_text("secret")
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(place / "ext"))
    options = [] if user is None else ["--ext-user", user]
    status, line = ATTACKS[attack]
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
        port = tcp.getsockname()[1]
        local.bind(f"\0composefs-test-{port}")
        local.listen()
        done = cfsctl("--repo", repo, *options, "hostile", "attack", attack, f"--port={port}", status=status)
    assert done.stdout == ""
    *flood, last = done.stderr.splitlines()
    assert re.match(line, last), done.stderr[-1000:]
    assert bool(flood) == (attack in ("flood-stderr", "fork-and-stay"))
    assert len(done.stderr) < 2 * MAX_ERROR_TEXT
    assert "\x1b" not in done.stderr
    if attack == "fork-and-stay":
        assert not Path("/proc", flood[0]).exists()
    after = contents(repo)
    changed = {name: after.get(name) for name in before if after.get(name) != before[name]}
    assert changed == {}
    # Objects that nobody names may have been added, and nothing else.
    assert {name.split("/")[0] for name in set(after) - set(before)} <= {"objects", "staging"}
    assert not any(name.startswith("staging/") for name in after)
    fsck = cfsctl("--repo", repo, "fsck", "--json")
    assert '"ok": true' in fsck.stdout
    shutil.rmtree(repo)


@pytest.mark.parametrize("attack", ["keep-second-name", "hand-over-hard-link"])
def test_links_whatever_the_machine_is_called(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    """By linux32 x86-64 says that it is i686; and programs of 32 bits are told that of 64 which runs them."""
    shutil.copytree(place / "repo", repo := place / tmp_path.name, symlinks=True)
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(place / "ext"))
    status, line = ATTACKS[attack]
    traced = ("strace", "-f", "-qqq", "-e", "trace=seccomp", "-e", "signal=none", "-o", tmp_path / "calls")
    done = run("linux32", *traced, CFSCTL, "--repo", repo, "hostile", "attack", attack, "--port=1", status=status)
    assert re.fullmatch(line + "\n", done.stderr)
    # Without that flag older kernels slow an extension down.
    assert "SECCOMP_FILTER_FLAG_SPEC_ALLOW" in (tmp_path / "calls").read_text()
    shutil.rmtree(repo)


def test_another_user_s_processes_are_bounded(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's own are not, as root's other programs count with them."""
    assert os.geteuid() == 0, "only root can test --ext-user"
    shutil.copytree(place / "repo", repo := place / tmp_path.name, symlinks=True)
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(place / "ext"))
    command = ("hostile", "attack", "have-more-processes", "--port=1")
    done = cfsctl("--repo", repo, "--ext-user", OTHER_USER, *command, status=7)
    assert done.stderr == "cfsctl: refused: not allowed to raise maximum limit\n"
    shutil.rmtree(repo)


@pytest.fixture
def alone() -> Iterator[None]:
    """Have no other run of these tests, of another checkout, at the same meanwhile."""
    lock = os.open(Path(CACHE).parents[1], os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
    os.close(lock)


@pytest.mark.usefixtures("alone")
def test_another_user_s_way_whatever_the_umask(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many systems give root 077: the other user still gets through to staging and cache, and makes nothing there."""
    assert os.geteuid() == 0, "only root can test --ext-user"
    user = "daemon"  # tests that run at the same time make, and remove, what belongs to the other one
    cache = Path(CACHE, str(pwd.getpwnam(user).pw_uid))
    shutil.copytree(place / "repo", repo := place / tmp_path.name, symlinks=True)
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(place / "ext"))
    for mask in (0o077, 0):
        shutil.rmtree(cache, ignore_errors=True)
        before = os.umask(mask)
        try:
            command = ("hostile", "attack", "remove-others-refs")
            done = cfsctl("--repo", repo, "--ext-user", user, *command, status=7)
        finally:
            os.umask(before)
        assert "other/kept" in done.stderr  # it was started, and got an answer
        [key] = (cache / "ext/hostile").iterdir()
        assert (key.stat().st_mode & 0o777, key.owner()) == (0o700, user)
        for parent in (cache, cache / "ext", key.parent):
            assert (parent.stat().st_mode & 0o777, parent.owner()) == (0o711, "root")
    shutil.rmtree(cache)
    shutil.rmtree(repo)


@pytest.mark.root
def test_it_has_nothing_mounted_where_it_puts_a_link(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody types a path that is not there, so that the extension may write to the directory that it would be in."""
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(place / "ext"))
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (tmp_path / "typed").mkdir()
    for path in ("typed/mnt", "typed" + "/long" * 60 + "/mnt"):
        typed = tmp_path / path
        typed.parent.mkdir(parents=True, exist_ok=True)
        done = cfsctl("--repo", place / "repo", "hostile", "mount", "--moved=path", elsewhere, typed, status=7)
        assert done.stderr == f"cfsctl: refused: {typed} is not what it was before extension hostile started\n"
        assert typed.readlink() == elsewhere
        assert not os.path.ismount(elsewhere)


@pytest.mark.root
@pytest.mark.parametrize("moved", [None, "path", "upperdir"])
def test_it_has_nothing_mounted_at_a_link_instead_of_what_was_typed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str | None
) -> None:
    """Nor with its upper directory there; but links that the user typed are followed."""
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(place / "ext"))
    for name in ("elsewhere", "typed/mnt", "typed/upper", "typed/work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to("typed")
    typed = tmp_path / "link"
    command = ["--repo", place / "repo", "hostile", "mount", *([f"--moved={moved}"] if moved else [])]
    command += [
        f"--spare={typed}/spare",
        f"--upperdir={typed}/upper",
        f"--workdir={typed}/work",
        tmp_path / "elsewhere",
        typed / "mnt",
    ]
    if moved is not None:
        what = typed / {"path": "mnt"}.get(moved, "upper")
        told = f"cfsctl: refused: {what} is not what it was before extension hostile started\n"
        assert cfsctl(*command, status=7).stderr == told
        assert not os.path.ismount(typed / "mnt")
        return
    assert cfsctl(*command).stderr == ""
    try:
        (typed / "mnt/new").touch()
        assert os.listdir(tmp_path / "typed/upper") == ["new"]
        upper, work = (shown_by_descriptor(tmp_path / "typed" / name) for name in ("upper", "work"))
        assert f",upperdir={upper},workdir={work}," in list_of_mounts()
    finally:
        run("umount", tmp_path / "typed/mnt")


def test_it_has_no_other_repository_read_than_what_was_typed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(place / "ext"))
    typed, spare = tmp_path / "typed/repo", tmp_path / "typed/spare"
    typed.parent.mkdir()
    for each in (tmp_path / "elsewhere", typed):
        cfsctl("init", "--insecure", each)
    command = ("--repo", place / "repo", "hostile", "read", f"--spare={spare}")
    assert cfsctl(*command, tmp_path / "elsewhere", typed).stderr == ""
    refused = cfsctl(*command, "--moved=path", tmp_path / "elsewhere", typed, status=7)
    assert refused.stderr == f"cfsctl: refused: {typed} is not what it was before extension hostile started\n"
