"""Images shown by FUSE: the same tree as the kernel shows, to those who may not mount EROFS too."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from composefs.digest import SHA512
from composefs.dumpfile import parse
from composefs.erofs import write
from composefs.errors import NotFoundError
from composefs.mount.fuse import FuseImage
from composefs.repository import Repository
from composefs.repository.publication import ImageName, Publication, RefUpdate, StreamName
from composefs.splitstream import Parts
from composefs.splitstream.layout import IMAGE_PREFIX
from support import peers
from support.commands import CFSCTL, TIMEOUT, cfsctl, run
from support.verity import kernel_verity

pytestmark = pytest.mark.root

CONTENT = bytes(range(256)) * 5000
NOBODY = 65534


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "usr/sub").mkdir(parents=True)
    (tree / "usr/big").write_bytes(CONTENT)
    (tree / "usr/small").write_bytes(b"small")
    (tree / "usr/empty").touch()
    (tree / "usr/link").symlink_to("big")
    (tree / os.fsdecode(b"usr/\xff \n")).write_bytes(b"odd")
    os.link(tree / "usr/small", tree / "usr/twin")
    os.mkfifo(tree / "usr/fifo")
    os.setxattr(tree / "usr/big", "user.mine", b"\0yes")
    os.chown(tree / "usr/small", 7, 8)
    os.chmod(tree / "usr/small", 0o4640)
    os.utime(tree / "usr/big", ns=(1, 1_700_000_000_123_456_789))
    os.utime(tree / "usr/sub", ns=(1, 12_000_000_000))
    cfsctl("init", "--insecure", tmp_path / "repo")
    cfsctl("--repo", tmp_path / "repo", "create-image", "--xattrs", "keep-user-xattrs", tree, "it")
    return tmp_path / "repo"


@pytest.fixture
def mountpoints(tmp_path: Path):
    paths = [tmp_path / "mnt, 1", tmp_path / "mnt2"]
    for path in paths:
        path.mkdir()
    yield paths
    for path in paths:
        subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)


def shown(root: Path) -> dict[str, tuple[object, ...]]:
    """All that can be seen of a tree but sizes and links of directories."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        size, links = (0, 0) if path.is_dir() else (status.st_size, status.st_nlink)
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        names = sorted(os.listxattr(path, follow_symlinks=False))
        xattrs = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
        key = str(path.relative_to(root))
        times = (status.st_mtime_ns, status.st_atime_ns, status.st_ctime_ns)
        found[key] = (status.st_mode, links, status.st_uid, status.st_gid, times, size, content, xattrs)
    return found


def test_the_same_as_the_kernel_shows(repository: Path, mountpoints: list[Path]) -> None:
    kernel, fuse = mountpoints
    cfsctl("--repo", repository, "mount", "--fuse", "no", "refs/it", kernel)
    cfsctl("--repo", repository, "mount", "--fuse", "yes", "refs/it", fuse)
    assert shown(fuse) == shown(kernel)
    ours, theirs = (os.statvfs(path) for path in (fuse, kernel))
    names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_namemax")
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]
    assert (fuse / "usr/big").stat().st_blocks * 512 == len(CONTENT)
    assert (fuse / "usr/small").samefile(fuse / "usr/twin")
    assert not (fuse / "usr/small").samefile(fuse / "usr/empty")
    with (fuse / "usr/big").open("rb") as file:
        file.seek(700_001)
        assert file.read(3) == CONTENT[700_001:700_004]
    with pytest.raises(OSError, match="Read-only"):
        (fuse / "new").touch()
    with pytest.raises(FileNotFoundError):
        (fuse / "usr/missing").stat()
    cfsctl("umount", fuse)
    assert not os.path.ismount(fuse)


def test_what_a_directory_lists_has_the_number_of_its_file(repository: Path, mountpoints: list[Path]) -> None:
    """Bash takes a name with number 0 for one that was removed."""
    mountpoint = mountpoints[0]
    cfsctl("--repo", repository, "mount", "--fuse", "yes", "refs/it", mountpoint)
    usr = mountpoint / "usr"
    with os.scandir(usr) as entries:
        listed = {entry.name: (entry.inode(), entry.is_dir(), entry.is_symlink()) for entry in entries}
    assert listed == {path.name: (path.lstat().st_ino, path.is_dir(), path.is_symlink()) for path in usr.iterdir()}
    words = run("ls", "-fi1", usr / "sub").stdout.split()
    dots = dict(zip(words[1::2], map(int, words[::2]), strict=True))
    assert dots == {name: (usr / "sub" / name).stat().st_ino for name in (".", "..")}
    assert run("bash", "-c", "echo s*", cwd=usr).stdout.split() == ["small", "sub"]


def test_what_a_stream_names_is_mounted_by_the_streams_ref(repository: Path, mountpoints: list[Path]) -> None:
    """As what was pulled is, and with the image's digest checked just the same."""
    with Repository.open(repository, writable=True) as opened:
        image = opened.images.read_ref("it")
        assert image is not None
        stream = opened.streams.put(Parts(1, b"", [], named_refs=[(IMAGE_PREFIX, image)]))
        names = [StreamName("pulled", stream.id)], [RefUpdate("ostree/os/it", "pulled", "flat")]
        opened.publish(Publication(streams=names[0], refs=names[1]))
        path = opened.objects.path(image)
    for mountpoint, fuse in zip(mountpoints, ("no", "yes"), strict=True):
        cfsctl("--repo", repository, "mount", "--fuse", fuse, "ostree/os/it", mountpoint)
        assert (mountpoint / "usr/big").read_bytes() == CONTENT
        cfsctl("umount", mountpoint)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(2000)
        file.write(b"X")
    for fuse in ("no", "yes"):
        told = cfsctl("--repo", repository, "mount", "--fuse", fuse, "ostree/os/it", mountpoints[0], status=5).stderr
        assert image in told
        assert not os.path.ismount(mountpoints[0])


def test_the_lock_is_not_kept_and_the_daemon_ends(repository: Path, mountpoints: list[Path]) -> None:
    server = subprocess.Popen(
        [CFSCTL, "--repo", repository, "mount", "--fuse=yes", "--foreground", "refs/it", mountpoints[0]],
        stderr=subprocess.PIPE,
    )
    try:
        while not os.path.ismount(mountpoints[0]):
            assert server.poll() is None, server.stderr
            time.sleep(0.02)
        cfsctl("--repo", repository, "gc")
        assert (mountpoints[0] / "usr/big").read_bytes() == CONTENT
        cfsctl("umount", mountpoints[0])
        assert server.wait(timeout=TIMEOUT) == 0
    finally:
        server.kill()
        server.communicate()


def test_the_daemon_keeps_nothing_of_whoever_mounts(repository: Path, mountpoints: list[Path], tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    run("flock", lock, CFSCTL, "--repo", repository, "mount", "--fuse=yes", "refs/it", mountpoints[0])
    run("flock", "--nonblock", lock, "true")
    assert (mountpoints[0] / "usr/big").read_bytes() == CONTENT


def test_as_many_open_files_as_the_hard_limit_allows(repository: Path, mountpoints: list[Path]) -> None:
    """They are the daemon's, whose soft limit is low for select(2), which it does not use."""
    script = 'ulimit -Sn 64 && "$1" --repo "$2" mount --fuse=yes refs/it "$3"'
    run("sh", "-c", script, "sh", CFSCTL, repository, mountpoints[0])
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context((mountpoints[0] / "usr/big").open("rb")) for _ in range(100)]
        assert files[-1].read() == CONTENT


def test_roots_mount_has_devices_and_setuid_programs(tmp_path: Path, mountpoints: list[Path]) -> None:
    """As the kernel's mount has them."""
    (tmp_path / "tree").mkdir()
    program = Path(shutil.copy(shutil.which("id") or "", tmp_path / "tree/whoever"))
    program.chmod(0o4755)
    os.mknod(tmp_path / "tree/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    repository = tmp_path / "repo"
    cfsctl("init", "--insecure", repository)
    cfsctl("--repo", repository, "create-image", "--no-propagate-usr-to-root", tmp_path / "tree", "it")
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    for mountpoint, fuse in zip(mountpoints, ("no", "yes"), strict=True):
        cfsctl("--repo", repository, "mount", "--fuse", fuse, "refs/it", mountpoint)
        assert (mountpoint / "null").read_bytes() == b""
        assert run("./whoever", "-u", cwd=mountpoint, **nobody).stdout == "0\n"


def test_a_mount_point_that_a_descriptor_leads_to(repository: Path, mountpoints: list[Path]) -> None:
    script = 'exec 9< "$3" && "$1" --repo "$2" mount --fuse=yes refs/it /proc/self/fd/9'
    run("sh", "-c", script, "sh", CFSCTL, repository, mountpoints[0])
    assert (mountpoints[0] / "usr/big").read_bytes() == CONTENT


@pytest.mark.parametrize("signal", ["TERM", "HUP", "INT"])
def test_a_signal_unmounts(repository: Path, mountpoints: list[Path], signal: str) -> None:
    server = subprocess.Popen(
        [CFSCTL, "--repo", repository, "mount", "--fuse=yes", "--foreground", "refs/it", mountpoints[0]],
        stderr=subprocess.PIPE,
    )
    try:
        while not os.path.ismount(mountpoints[0]):
            assert server.poll() is None
            time.sleep(0.02)
        subprocess.run(["kill", f"-{signal}", str(server.pid)], check=True)
        _, told = server.communicate(timeout=TIMEOUT)
        assert (told, server.returncode) == (b"", 0)
        assert not os.path.ismount(mountpoints[0])
    finally:
        server.kill()
        server.wait()


def test_where_the_daemon_was_killed_is_unmounted_first(repository: Path, mountpoints: list[Path]) -> None:
    server = subprocess.Popen(
        [CFSCTL, "--repo", repository, "mount", "--fuse=yes", "--foreground", "refs/it", mountpoints[1]]
    )
    try:
        while f"{mountpoints[1]} " not in Path("/proc/self/mountinfo").read_text():  # what stat(2) shows is kept
            assert server.poll() is None
            time.sleep(0.02)
    finally:
        server.kill()
        server.wait()
    for fuse in ("no", "yes"):
        told = cfsctl("--repo", repository, "mount", "--fuse", fuse, "refs/it", mountpoints[1], status=3).stderr
        assert told.endswith(f"(unmount what was there: cfsctl umount {mountpoints[1]})\n")
    cfsctl("umount", mountpoints[1])
    cfsctl("--repo", repository, "mount", "--fuse=yes", "refs/it", mountpoints[1])
    assert (mountpoints[1] / "usr/small").read_bytes() == b"small"


def test_who_may_not_mount_erofs_gets_fuse(repository: Path, mountpoints: list[Path]) -> None:
    """As root of a user namespace; the daemon ends with the mount namespace."""
    command = f'{CFSCTL} --repo {repository} mount refs/it "$1" && wc -c <"$1/usr/big" && {CFSCTL} umount "$1"'
    done = run("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command, "sh", mountpoints[0])
    assert int(done.stdout) == len(CONTENT)
    assert "trying FUSE" in done.stderr
    quietly = command.replace(" --repo", " -q --repo", 1)
    done = run("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", quietly, "sh", mountpoints[0])
    assert (int(done.stdout), done.stderr) == (len(CONTENT), "")
    refused = f'{CFSCTL} --repo {repository} mount --fuse no refs/it "$1"'
    done = run("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", refused, "sh", mountpoints[0], status=7)
    assert "run as root, or let `cfsctl mount` serve the image by FUSE" in done.stderr


def test_who_has_no_loop_devices_gets_fuse(repository: Path, mountpoints: list[Path], tmp_path: Path) -> None:
    """A kernel before 6.12 wants a block device, which it says with ENOTBLK, and a container has none."""
    strace = (
        f"{peers.require('strace')} -qqq -o {tmp_path}/log -e trace=fsconfig -e inject=fsconfig:error=ENOTBLK:when=4"
    )
    script = f"""set -e
        mkdir {tmp_path}/dev
        mount -t tmpfs none {tmp_path}/dev
        for name in fuse null; do
            touch {tmp_path}/dev/$name
            mount --bind /dev/$name {tmp_path}/dev/$name
        done
        mount --move {tmp_path}/dev /dev
        {strace} {CFSCTL} --repo {repository} mount refs/it "$1"
        wc -c <"$1/usr/big"
        {CFSCTL} umount "$1"
        ! {strace} {CFSCTL} --repo {repository} mount --fuse no refs/it "$1"
    """
    done = run("unshare", "--mount", "sh", "-c", script, "sh", mountpoints[0])
    assert int(done.stdout) == len(CONTENT)
    assert "trying FUSE" in done.stderr
    assert done.stderr.endswith("(there are no loop devices in /dev; a container must be given them)\n")


def test_what_fuse_cannot_do_is_not_left_out(repository: Path, mountpoints: list[Path], tmp_path: Path) -> None:
    """Where the kernel does not mount the image, as in a container that forbids it."""
    lacking = ("-qqq", "-o", tmp_path / "log", "-e", "trace=fsopen", "-e", "inject=fsopen:error=ENOSYS")
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    with subprocess.Popen(["unshare", "--user", "sleep", "1h"]) as sleeper:
        namespace = Path(f"/proc/{sleeper.pid}/ns/user")
        try:
            while namespace.readlink() == Path("/proc/self/ns/user").readlink():
                assert sleeper.poll() is None
            for options in (("--upperdir", tmp_path / "upper", "--workdir", tmp_path / "work"), ("--idmap", namespace)):
                command = (CFSCTL, "--repo", repository, "mount", *options, "refs/it", mountpoints[0])
                told = run(peers.require("strace"), *lacking, *command, status=9).stderr
                assert "trying FUSE" not in told
                assert not os.path.ismount(mountpoints[0])
        finally:
            sleeper.kill()


def test_others_read_what_the_modes_let_them(repository: Path, mountpoints: list[Path]) -> None:
    cfsctl("--repo", repository, "mount", "--fuse", "yes", "refs/it", mountpoints[0])
    # From a working directory, as the way there is root's alone.
    nobody = {"cwd": mountpoints[0] / "usr", "user": NOBODY, "group": NOBODY, "extra_groups": []}
    assert run("wc", "-c", "big", **nobody).stdout == f"{len(CONTENT)} big\n"
    assert "Permission denied" in run("cat", "small", status=1, **nobody).stderr


def test_a_user_mounts_with_fusermount3(tmp_path: Path) -> None:
    """Somebody without any rights, as most users are: what they mount they see, and nobody else, root included."""
    peers.require("fusermount3")
    # Not below TMPDIR, which is root's alone here.
    with tempfile.TemporaryDirectory(prefix="composefs-user-", dir="/tmp") as name:
        home = Path(name)
        for part in ("tree", "mnt", "theirs"):
            (home / part).mkdir()
        (home / "tree/big").write_bytes(CONTENT)
        for path in (home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        os.chown(home / "theirs", 0, 0)
        # Where no udev is at work, users may not open /dev/fuse.  In a mount namespace of its own they may.
        for device, mode in (("fuse", 0o666), ("closed", 0o600)):
            os.mknod(tmp_path / device, stat.S_IFCHR | mode, os.makedev(10, 229))
            os.chmod(tmp_path / device, mode)
        script = f"""set -e
            user() {{ HOME={name} TMPDIR={name} setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "$@"; }}
            user {CFSCTL} init --insecure repo
            user {CFSCTL} --repo repo create-image --no-propagate-usr-to-root tree it
            mount --bind {tmp_path}/closed /dev/fuse
            ! user {CFSCTL} --repo repo mount refs/it mnt
            mount --bind {tmp_path}/fuse /dev/fuse
            ! user {CFSCTL} --repo repo mount --fuse no refs/it mnt
            ! user {CFSCTL} --repo repo mount refs/it theirs
            user {CFSCTL} --repo repo mount refs/it mnt
            user cmp mnt/big tree/big
            grep {name} /proc/self/mountinfo
            ! cat mnt/big
            mkfifo --mode=666 opened closing
            user sh -c 'exec 3<mnt/big 4<closing; echo >opened; read -r _ <&4; cmp - tree/big <&3' &
            exec 9>closing  # which ends with us, however we end
            read -r _ <opened
            ! user {CFSCTL} umount mnt
            user {CFSCTL} umount --lazy mnt
            ! grep {name} /proc/self/mountinfo
            exec 9>&-
            wait $!
            user {CFSCTL} --repo repo mount refs/it mnt
            user {CFSCTL} umount mnt
            ! grep {name} /proc/self/mountinfo
            [ ! -e mnt/big ]
            {CFSCTL} --repo repo mount refs/it theirs
            ! user {CFSCTL} umount theirs
            {CFSCTL} umount theirs
        """
        done = run("unshare", "--mount", "sh", "-c", script, cwd=home)
        for words in (
            *("run as root", "trying FUSE", "of /dev/fuse", "mode of theirs", "mnt/big: Permission denied"),
            "unmounting mnt: it is in use (",
            "unmounting theirs: not permitted (it needs CAP_SYS_ADMIN",
        ):
            assert words in done.stderr
        (line,) = [line for line in done.stdout.splitlines() if " - " in line]
        assert " ro,nosuid,nodev," in line
        assert " fuse.composefs composefs " in line


def test_objects_that_are_gone_or_not_objects(repository: Path, mountpoints: list[Path]) -> None:
    cfsctl("--repo", repository, "mount", "--fuse", "yes", "refs/it", mountpoints[0])
    (big,) = [path for path in repository.glob("objects/*/*") if path.stat().st_size == len(CONTENT)]
    moved = big.with_name("moved")
    big.rename(moved)
    with pytest.raises(FileNotFoundError):
        (mountpoints[0] / "usr/big").read_bytes()
    big.symlink_to(moved)
    with pytest.raises(OSError, match=r"Input/output|symbolic links"):
        (mountpoints[0] / "usr/big").read_bytes()
    assert (mountpoints[0] / "usr/small").read_bytes() == b"small"


def test_an_object_of_another_size_is_an_error_until_it_is_mended(
    repository: Path, mountpoints: list[Path], tmp_path: Path
) -> None:
    """A read that ends early tells the kernel that the file is that short, which it believes for a day."""
    cfsctl("--repo", repository, "mount", "--fuse", "yes", "refs/it", mountpoints[0])
    (big,) = [path for path in repository.glob("objects/*/*") if path.stat().st_size == len(CONTENT)]
    big.rename(tmp_path / "good")
    for content in (b"", CONTENT[:-1], CONTENT + b"more"):
        big.write_bytes(content)
        with pytest.raises(OSError, match="Input/output"):
            (mountpoints[0] / "usr/big").read_bytes()
    (tmp_path / "good").replace(big)
    assert (mountpoints[0] / "usr/big").read_bytes() == CONTENT


def test_fuse_that_does_not_work_is_said(repository: Path, mountpoints: list[Path]) -> None:
    hide = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /dev/fuse && exec "$@"', "sh"]
    done = run(*hide, CFSCTL, "--repo", repository, "mount", "--fuse", "yes", "refs/it", mountpoints[0], status=9)
    told = done.stderr.splitlines()[-1]  # before it are libfuse's own words
    assert told.startswith(f"cfsctl: mounting at {mountpoints[0]} with FUSE failed (")


def test_what_cannot_be_had(repository: Path, mountpoints: list[Path]) -> None:
    cfsctl("--repo", repository, "mount", "--fuse", "yes", "refs/it", mountpoints[0])
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(mountpoints[0] / "usr/small", "user.none")
    with pytest.raises(OSError, match="Read-only"):
        (mountpoints[0] / "usr/small").write_text("other")


def test_what_does_not_go_together(repository: Path, mountpoints: list[Path], tmp_path: Path) -> None:
    cfsctl("--repo", repository, "mount", "--fuse", "yes", "refs/it", tmp_path / "none", status=3)
    cfsctl("--repo", repository, "mount", "--fuse", "yes", "refs/missing", mountpoints[0], status=3)
    paths = ("--upperdir", tmp_path, "--workdir", tmp_path)
    cfsctl("--repo", repository, "mount", "--fuse", "yes", *paths, "refs/it", mountpoints[0], status=2)
    refused = cfsctl("--repo", repository, "mount", *paths, "--read-write", "refs/it", tmp_path / "none", status=3)
    assert "FUSE" not in refused.stderr


def test_a_secure_repository_demands_verity_at_every_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kernel_verity(monkeypatch) as kernel:
        Repository.init(tmp_path, algorithm=SHA512)
        with Repository.open(tmp_path, writable=True) as repository:
            name = repository.objects.store_parts([CONTENT]).id
            text = (
                "/ 0 40755 2 0 0 0 0.0 - - -\n"
                f"/big {len(CONTENT)} 100644 1 0 0 0 0.0 {name[:2]}/{name[2:]} - {name}\n"
                "/small 5 100644 1 0 0 0 0.0 - small -\n"
            )
            stored = repository.images.put(write(parse(text.encode(), SHA512), version=1))
            with pytest.raises(NotFoundError, match="there is no image"):  # but an object that looks like one
                FuseImage(repository, stored.id)
            repository.publish(Publication(images=[ImageName(stored.id)]))
            path = repository.objects.path(name)
            image = FuseImage(repository, stored.id)
        fd = image.open("/big", os.O_RDONLY)
        assert image.read("/big", 10, 256, fd) == CONTENT[256:266]
        image.release("/big", fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        assert image.read("/small", 3, 1, image.open("/small", os.O_RDONLY)) == b"mal"
        status = path.stat()
        number, digest = kernel.digests.pop((status.st_dev, status.st_ino))
        with pytest.raises(OSError, match="fs-verity"):
            image.open("/big", os.O_RDONLY)
        kernel.digests[status.st_dev, status.st_ino] = number, digest[::-1]
        with pytest.raises(OSError, match="fs-verity"):
            image.open("/big", os.O_RDONLY)
        descriptors = len(os.listdir("/proc/self/fd"))
        kernel.digests[status.st_dev, status.st_ino] = 9, digest
        with pytest.raises(OSError, match="hash algorithm 9"):
            image.open("/big", os.O_RDONLY)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        with pytest.raises(OSError, match="Read-only"):
            image.open("/small", os.O_RDWR)
        image.close()
