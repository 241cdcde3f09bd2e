"""The installed mount.composefs: called by hand and by mount(8), with real mounts."""

from __future__ import annotations

import os
import resource
import subprocess
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from composefs.linux import mountapi
from composefs.linux.closing import Descriptor
from support import peers
from support.commands import BIN, CFSCTL, cfsctl, mkcomposefs, run
from support.mounts import NO_PATH, list_of_mounts, mounted, shown_by_descriptor

pytestmark = pytest.mark.root

HELPER = BIN / "mount.composefs"
CONTENT = b"content that is too long to be inline, as it has more than sixty-four bytes\n"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of a tree with two objects, which are in two directories: a, and one with an odd name."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "one").write_bytes(CONTENT * 10)
    (tree / "two").write_bytes(CONTENT * 20)
    (tree / "small").write_bytes(b"small")
    (tree / "sub").mkdir()
    (tree / "sub/link").symlink_to("../small")
    os.chown(tree / "small", 5, 6)
    mkcomposefs("--digest-store", tmp_path / "a", tree, tmp_path / "image, 1")
    (second,) = [path for path in (tmp_path / "a").glob("*/*") if path.stat().st_size == len(CONTENT) * 20]
    other = tmp_path / "b, c:d"
    (other / second.parent.name).mkdir(parents=True)
    second.rename(other / second.parent.name / second.name)
    return tmp_path / "image, 1"


@pytest.fixture
def mountpoint(tmp_path: Path):
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    subprocess.run(["umount", path], check=False, capture_output=True)


def without(directory: Path, *calls: str) -> list[str | Path]:
    """The command as on a kernel that refuses these calls, each CALL:when=WHICH, with EINVAL."""
    faults = [word for call in calls for word in ("-e", f"inject={call.replace(':', ':error=EINVAL:')}")]
    return [peers.require("strace"), "-qqq", "-o", directory / "log", "-e", "trace=fsconfig,mount", *faults, HELPER]


def by_loop_device(directory: Path) -> list[str | Path]:
    """The command as on a kernel before 6.12, which says ENOTBLK of an image in a file."""
    injected = ("-e", "trace=fsconfig,ioctl", "-e", "inject=fsconfig:error=ENOTBLK:when=4")
    return [peers.require("strace"), "-qqq", "-o", directory / "log", *injected, HELPER]


@pytest.fixture(params=["fsconfig", "mount"])
def helper(request: pytest.FixtureRequest, tmp_path: Path) -> list[str | Path]:
    """The command, as it is and as on a kernel before 6.8, which lacks the ninth parameter that is set, lowerdir+."""
    return [HELPER] if request.param == "fsconfig" else without(tmp_path, "fsconfig:when=9")


def both(directory: Path) -> str:
    return f"basedir={directory}/a:{directory}" + r"/b\, c\:d"


def repository_of(image: Path, directory: Path) -> Path:
    """A repository that has the image under the name os/1."""
    repo = directory / "repo"
    cfsctl("init", "--insecure", "--algorithm", "sha256", repo)
    with image.open("rb") as file:
        cfsctl("--repo", repo, "import-image", "--allow-missing", "os/1", stdin=file)
    return repo


def test_several_directories_of_objects(
    helper: list[str | Path], image: Path, mountpoint: Path, tmp_path: Path
) -> None:
    run(*helper, "-o", both(tmp_path), image, mountpoint)
    assert (mountpoint / "one").read_bytes() == CONTENT * 10
    assert (mountpoint / "two").read_bytes() == CONTENT * 20
    with pytest.raises(OSError, match="Read-only"):
        (mountpoint / "new").touch()
    cfsctl("umount", mountpoint)
    run(*helper, image, mountpoint, "-o", f"basedir={tmp_path}/a", "-o", "ro")
    with pytest.raises(FileNotFoundError):
        (mountpoint / "two").read_bytes()


def test_paths_lead_where_the_kernel_goes(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    """From a symlink to a directory .. leads to what is above that."""
    for path in ("elsewhere/mnt", "elsewhere/b", "elsewhere/below"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "link").symlink_to("elsewhere/below")
    (tmp_path / "a").rename(tmp_path / "elsewhere/a")
    for target, place in (("link", "elsewhere/below"), ("link/../mnt", "elsewhere/mnt"), ("mnt/", "mnt")):
        run(HELPER, "-o", "basedir=link/../a", image, target, cwd=tmp_path)
        assert (tmp_path / place / "one").read_bytes() == CONTENT * 10
        assert f",datadir+={tmp_path}/link/../a," in Path("/proc/self/mountinfo").read_text()
        cfsctl("umount", target, cwd=tmp_path)
        assert not os.path.ismount(tmp_path / place)


@pytest.mark.parametrize("kernel", ["this", "before 6.14"])
def test_directories_by_descriptors(image: Path, mountpoint: Path, tmp_path: Path, kernel: str) -> None:
    """They are those that were opened, whatever is mounted over them since, and show with their own paths.

    A kernel before Linux 6.14, which refuses the descriptors, shows their numbers.
    """
    names = ("a", "upper", "work", "mnt")
    for name in names[1:3]:
        (tmp_path / name).mkdir()
    helper: list[str | Path] = [HELPER]
    shown = [shown_by_descriptor(tmp_path / name) for name in names]
    if kernel != "this":
        refused = ("-e", "trace=fsconfig", "-e", "inject=fsconfig:error=EBADF:when=10..14+2")
        helper = [peers.require("strace"), "-qqq", "-o", tmp_path / "log", *refused, HELPER]
        shown = [NO_PATH] * 4
    with ExitStack() as stack:
        fds = [stack.enter_context(Descriptor(os.open(tmp_path / name, os.O_PATH))) for name in names]
        stack.enter_context(mounted(tmp_path / "a", "-t", "tmpfs", "tmpfs"))
        paths = [f"/proc/self/fd/{fd}" for fd in fds]
        options = "basedir={},upperdir={},workdir={}".format(*paths)
        run(*helper, "-o", options, image, paths[-1], pass_fds=fds)
        assert (mountpoint / "one").read_bytes() == CONTENT * 10
        (mountpoint / "new").touch()
    assert (tmp_path / "upper/new").exists()
    assert ",datadir+={},upperdir={},workdir={},".format(*shown) in list_of_mounts()


def test_verity_is_demanded_of_every_kernel(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    """No object has it here, so that only what the image itself holds can be read."""
    before_6_8 = "fsconfig:when=10"
    options = ("-o", f"verity,{both(tmp_path)}", image, mountpoint)
    for helper in ([HELPER], without(tmp_path, before_6_8), without(tmp_path, before_6_8, "mount:when=1")):
        run(*helper, *options)
        assert (mountpoint / "small").read_bytes() == b"small"
        with pytest.raises(OSError, match="Input/output error"):
            (mountpoint / "one").read_bytes()
        cfsctl("umount", mountpoint)
    for calls in (["fsconfig:when=9"], [before_6_8, "mount:when=1..2"]):
        refused = run(*without(tmp_path, *calls), *options, status=1).stderr
        assert "verity=require" in refused
        assert refused.endswith(" (overlayfs checks fs-verity since Linux 6.6)\n")
        assert not os.path.ismount(mountpoint)


def test_changes_go_to_the_upper_directory(
    helper: list[str | Path], image: Path, mountpoint: Path, tmp_path: Path
) -> None:
    for name in ("up, per", "work"):
        (tmp_path / name).mkdir()
    options = rf"{both(tmp_path)},upperdir={tmp_path}/up\, per,workdir={tmp_path}/work"
    run(*helper, "-t", "composefs", "-o", options, image, mountpoint)
    with (mountpoint / "two").open("ab") as file:
        file.write(b"more")
    (mountpoint / "sub").rename(mountpoint / "moved")
    cfsctl("umount", mountpoint)
    assert (tmp_path / "up, per/two").read_bytes() == CONTENT * 20 + b"more"
    run(*helper, "-o", f"{options},ro", image, mountpoint)
    assert (mountpoint / "two").read_bytes().endswith(b"more")
    assert (mountpoint / "moved/link").read_bytes() == b"small"
    with pytest.raises(OSError, match="Read-only"):
        (mountpoint / "new").touch()


def test_owners_as_a_user_namespace_sees_them(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["unshare", "--user", "sleep", "1h"])
    try:
        mine = Path("/proc/self/ns/user").readlink()
        while Path(f"/proc/{sleeper.pid}/ns/user").readlink() == mine:
            assert sleeper.poll() is None
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{sleeper.pid}/{name}").write_text("0 100000 1000")
        namespace = f"/proc/{sleeper.pid}/ns/user"
        repo = repository_of(image, tmp_path)
        for command in (
            [HELPER, "-o", f"{both(tmp_path)},idmap={namespace}", image, mountpoint],
            [*by_loop_device(tmp_path), "-o", f"{both(tmp_path)},idmap={namespace}", image, mountpoint],
            [CFSCTL, "--repo", repo, "mount", "--idmap", namespace, "refs/os/1", mountpoint],
        ):
            run(*command)
            status = (mountpoint / "small").stat()
            assert (status.st_uid, status.st_gid) == (100005, 100006)
            cfsctl("umount", mountpoint)
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_loop_device_that_somebody_else_takes_first(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    *strace, helper = by_loop_device(tmp_path)
    command = (helper, "-o", both(tmp_path), image, mountpoint)
    for _ in range(2):  # once Python has compiled all of it, each run makes the same calls
        run(*strace, *command)
        cfsctl("umount", mountpoint)
    ioctls = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("ioctl(")]
    [which] = [number for number, line in enumerate(ioctls, 1) if "LOOP_CONFIGURE" in line]
    run(*strace, "-e", f"inject=ioctl:error=EBUSY:when={which}", *command)
    results = [line.rpartition(" = ")[2] for line in (tmp_path / "log").read_text().splitlines() if "LOOP_CONF" in line]
    assert results == ["-1 EBUSY (Device or resource busy) (INJECTED)", "0"]
    assert (mountpoint / "one").read_bytes() == CONTENT * 10


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("ENODEV:when=1", "No such device (the kernel has no erofs; try `modprobe erofs`)"),
        ("ENODEV:when=2", "No such device (the kernel has no overlay; try `modprobe overlay`)"),
        ("ENOSYS", "Function not implemented (the kernel lacks this system call, or a container forbids it)"),
    ],
)
def test_what_the_kernel_lacks(
    image: Path, mountpoint: Path, tmp_path: Path, environment: Path, error: str, told: str
) -> None:
    lacking = ("-qqq", "-o", tmp_path / "log", "-e", "trace=fsopen", "-e", f"inject=fsopen:error={error}")
    refused = run(peers.require("strace"), *lacking, HELPER, "-o", both(tmp_path), image, mountpoint, status=1)
    assert refused.stderr.endswith(f": {told}\n")
    assert os.listdir(environment / "tmp") == []


def test_what_the_kernel_says_of_a_failure_is_told(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    upper = tmp_path / "upper"
    step = f"mount.composefs: mounting {image}: overlayfs parameter upperdir={upper}: Invalid argument: "
    with mounted(upper, "--bind", "-o", "ro", str(upper)), Descriptor(os.open(upper, os.O_PATH)) as fd:
        for path in (upper, f"/proc/self/fd/{fd}"):
            options = f"tryverity,{both(tmp_path)},upperdir={path},workdir={tmp_path}/work"
            refused = run(HELPER, "-o", options, image, mountpoint, status=1, pass_fds=[fd])
            assert refused.stderr.startswith(step)
            said = refused.stderr.removeprefix(step)
            assert "read-only" in said
            assert str(upper) in said


@pytest.mark.parametrize("name", ["short", "long/" * 60], ids=["short", "long"])
def test_a_failure_has_nothing_to_do_with_how_long_paths_are(
    image: Path, mountpoint: Path, tmp_path: Path, name: str
) -> None:
    """fsconfig(2) takes 255 bytes at most."""
    place = tmp_path / name
    (place / "upper/work").mkdir(parents=True)
    options = f"{both(tmp_path)},verity,upperdir={place}/upper,workdir={place}/upper/work"
    refused = run(HELPER, "-o", options, image, mountpoint, status=1)
    step = f"mount.composefs: mounting {image}: overlayfs at {mountpoint}: Invalid argument"
    assert refused.stderr == f"{step} (the kernel's log, dmesg, says why)\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("basedir=a,digest=" + "ab" * 32, "Image has no fs-verity"),
        ("digest=12,basedir=a", "not an fs-verity digest"),
        ("ro", "basedir= is missing"),
        ("basedir=a,unknown", "unknown option 'unknown'"),
        ("basedir=missing", "datadir+"),
        ("basedir=a,idmap=missing", "opening the user namespace missing: No such file or directory (check the path)"),
        ("basedir=a,idmap=/dev/null", "/dev/null is not a user namespace"),
        ("basedir=a,idmap=/proc/self/ns/net", "/proc/self/ns/net is not a user namespace"),
        ("basedir=a,idmap=/proc/self/ns/user", "the user namespace that we are in: leave out the idmap"),
    ],
)
def test_what_is_refused(image: Path, mountpoint: Path, tmp_path: Path, options: str, message: str) -> None:
    refused = run(HELPER, "-o", options, image, mountpoint, status=1, cwd=tmp_path)
    assert refused.stderr.startswith("mount.composefs: ")
    assert message in refused.stderr
    assert not os.path.ismount(mountpoint)


def test_options_are_checked_without_a_mount(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    """As mount(8) has it done for its -f, and -s lets what is unknown pass."""
    options = ("-nv", "-o", f"basedir={tmp_path}/a,unknown", image, mountpoint)
    assert "unknown option 'unknown'" in run(HELPER, "-f", *options, status=1).stderr
    run(HELPER, "-fs", *options)
    assert not os.path.ismount(mountpoint)
    run(HELPER, "-s", *options)
    assert os.path.ismount(mountpoint)


def test_another_type_is_refused(image: Path, mountpoint: Path) -> None:
    refused = run(HELPER, "-t", "erofs", "-o", "basedir=a", image, mountpoint, status=1)
    assert refused.stderr == "mount.composefs: -t erofs is not composefs (see mount.composefs --help)\n"


def test_what_is_no_image_or_no_directory(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(CONTENT)
    for source, target, message in (
        (tmp_path / "text", mountpoint, "is not a composefs image (mkcomposefs and `cfsctl create-image` make such"),
        (tmp_path / "missing", mountpoint, "No such file"),
        (tmp_path, mountpoint, "Is a directory"),
        (image, image, "is not a directory"),
    ):
        refused = run(HELPER, "-o", f"basedir={tmp_path}/a", source, target, status=1)
        assert refused.stderr.startswith("mount.composefs: ")
        assert refused.stderr.count("\n") == 1
        assert message in refused.stderr
    assert not os.path.ismount(mountpoint)


def test_a_file_that_cannot_be_asked_for_its_digest(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    failing = ("-qqq", "-o", tmp_path / "log", "-P", image, "-e", "trace=ioctl", "-e", "inject=ioctl:error=EIO")
    options = f"basedir={tmp_path}/a,digest={'ab' * 32}"
    refused = run(peers.require("strace"), *failing, HELPER, "-o", options, image, mountpoint, status=1)
    assert refused.stderr.startswith(f"mount.composefs: measuring the fs-verity of {image}: Input/output error (")
    refused = run(HELPER, "-o", options, "/dev/random", mountpoint, status=1)
    assert refused.stderr == "mount.composefs: Image has no fs-verity\n"


@pytest.mark.parametrize("call", ["fsopen", "fsmount", "move_mount", "umount2"])
def test_who_is_ended_leaves_no_image_in_a_temporary_place(
    image: Path, mountpoint: Path, tmp_path: Path, environment: Path, call: str
) -> None:
    ended = ("-qqq", "-o", tmp_path / "log", "-e", f"trace={call}", "-e", f"inject={call}:signal=TERM:when=1")
    done = run(peers.require("strace"), *ended, HELPER, "-o", both(tmp_path), image, mountpoint, status=143)
    assert done.stderr == "mount.composefs: terminated\n"
    assert str(environment) not in Path("/proc/self/mountinfo").read_text().replace(f"lowerdir+={environment}", "")
    assert os.listdir(environment / "tmp") == []
    assert os.path.ismount(mountpoint) == (call == "umount2")


@pytest.mark.parametrize("name", ["mount.composefs", "cfsctl"])
def test_who_is_ended_before_it_is_unmounted_leaves_none_either(
    image: Path, mountpoint: Path, tmp_path: Path, environment: Path, name: str
) -> None:
    """In the last of all calls before that: nothing may be asked of the kernel in between."""
    log = tmp_path / "log"
    strace = (peers.require("strace"), "-qqq", "-o", log)
    command: list[object] = [HELPER, "-o", both(tmp_path), image, mountpoint]
    if name == "cfsctl":
        repo = repository_of(image, tmp_path)
        command = [CFSCTL, "--repo", repo, "mount", "--fuse", "no", "refs/os/1", mountpoint]
    for _ in range(2):  # once Python has compiled all of it, each run makes the same calls
        run(*strace, *command)
        cfsctl("umount", mountpoint)
    before = [line.partition("(")[0] for line in log.read_text().partition("umount2(")[0].splitlines()]
    which = f"{before[-1]}:signal=TERM:when={before.count(before[-1])}"
    run(*strace, "-e", f"inject={which}", *command, status=143)
    assert log.read_text().partition("--- SIGTERM ")[0].count("move_mount(") == 2
    assert str(environment) not in Path("/proc/self/mountinfo").read_text().replace(f"lowerdir+={environment}", "")
    assert os.listdir(environment / "tmp") == []


def test_no_room_in_the_temporary_place(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    failing = ("-qqq", "-o", tmp_path / "log", "-e", "inject=?mkdir,mkdirat:error=ENOSPC")
    refused = run(peers.require("strace"), *failing, HELPER, "-o", both(tmp_path), image, mountpoint, status=1)
    step = "making a directory to mount at: No space left on device (free some space and run the command again)"
    assert refused.stderr == f"mount.composefs: mounting {image}: {step}\n"


def test_an_image_that_stays_in_a_temporary_place_is_told(
    image: Path, mountpoint: Path, tmp_path: Path, environment: Path
) -> None:
    failing = ("-qqq", "-o", tmp_path / "log", "-e", "trace=umount2", "-e", "inject=umount2:error=EINVAL")
    refused = run(peers.require("strace"), *failing, HELPER, "-o", both(tmp_path), image, mountpoint, status=1)
    [place] = (environment / "tmp").iterdir()
    run("umount", place)
    told = f"mount.composefs: mounting {image}: unmounting the EROFS image at {place}: Invalid argument\n"
    assert refused.stderr == told


@pytest.mark.parametrize("name", ["mount.composefs", "cfsctl"])
def test_no_place_for_temporary_files(image: Path, mountpoint: Path, tmp_path: Path, name: str) -> None:
    """The EROFS image needs a directory to be mounted at, and here nothing can be written."""
    argv: list[object] = [HELPER, "-o", both(tmp_path), image, mountpoint]
    status = 1
    if name == "cfsctl":
        repo = repository_of(image, tmp_path)
        argv = [CFSCTL, "--repo", repo, "mount", "--fuse", "no", "refs/os/1", mountpoint]
        status = 3
    no_files = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (0, 0))
    told = run(*argv, status=status, preexec_fn=no_files).stderr
    assert told == f"{name}: there is no directory for temporary files that can be written to (name one in TMPDIR)\n"
    assert not os.path.ismount(mountpoint)


def test_by_mount_8(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    """mount(8) looks for helpers in /sbin only, so this one shows there in a mount namespace of the test.

    Nobody else sees the mounts there, which have a name that is no text.
    """
    peers.require("unshare")
    objects = (tmp_path / "a").rename(tmp_path / "\udcff")
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "upper/mount.composefs").symlink_to(HELPER)
    sbin = os.path.realpath("/sbin")
    script = f"""set -e
        mount -t overlay overlay -o lowerdir={sbin},upperdir={tmp_path}/upper,workdir={tmp_path}/work {sbin}
        mount -t composefs -o ro,nofail,basedir={objects} "{image}" {mountpoint}
        cat {mountpoint}/one
        echo '{str(image).replace(" ", chr(92) + "040")} {mountpoint} composefs ro,basedir={objects}' > {tmp_path}/fstab
        for sloppy in '' -s; do ! mount $sloppy -T {tmp_path}/fstab -o remount,noatime {mountpoint}; done
        mount -T {tmp_path}/fstab -o remount,bind,noatime {mountpoint}
        grep -c ' {mountpoint} .*noatime' /proc/self/mountinfo
        umount {mountpoint}
        ! mount -t composefs -o nonsense "{image}" {mountpoint}
    """
    done = run("unshare", "--mount", "sh", "-c", script)
    assert done.stdout.encode() == CONTENT * 10 + b"1\n"
    assert done.stderr.count("keeps its options, but for mount -o remount,bind,ro and its like") == 2
    assert "unknown option 'nonsense'" in done.stderr
    assert not Path(sbin, "mount.composefs").exists()


def test_attributes_of_the_mount(helper: list[str | Path], image: Path, mountpoint: Path, tmp_path: Path) -> None:
    def attributes() -> set[str]:
        (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {mountpoint} " in line]
        return set(line.split()[5].split(","))

    for options, expected in (
        ("defaults", {"ro", "relatime"}),
        ("nosuid,nodev,noexec,noatime,nodiratime", {"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"}),
        ("rw,users,exec", {"ro", "nosuid", "nodev", "relatime"}),
        ("strictatime,nosymfollow", {"ro", "nosymfollow"}),
    ):
        run(*helper, "-o", f"{options},basedir={tmp_path}/a", image, mountpoint)
        assert attributes() == expected
        cfsctl("umount", mountpoint)


def test_a_link_that_takes_the_place_of_a_mountpoint_is_not_followed(mountpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mountpoint)
    with mounted(mountpoint, "-t", "tmpfs", "none"):
        with pytest.raises(OSError, match="Invalid argument"):
            mountapi.unmount(str(tmp_path / "link"), lazy=False)
        assert os.path.ismount(mountpoint)


def test_umount_leaves_other_mounts_alone(image: Path, mountpoint: Path, tmp_path: Path) -> None:
    for path in (mountpoint, "/proc"):
        told = cfsctl("umount", path, status=3).stderr
        assert told == f"cfsctl: no image is mounted at {path} (umount(8) unmounts the rest)\n"
    with mounted(mountpoint, "-t", "tmpfs", "none"):
        run(HELPER, "-o", f"basedir={tmp_path}/a", image, mountpoint)
        with mounted(mountpoint, "-t", "tmpfs", "none"):
            assert "no image is mounted" in cfsctl("umount", mountpoint, status=3).stderr
        cfsctl("umount", mountpoint)
    run(HELPER, "-o", f"basedir={tmp_path}/a", image, mountpoint)
    with (mountpoint / "one").open("rb"):
        told = cfsctl("umount", mountpoint, status=4).stderr
        remedy = "`fuser -vm` shows by whom; --lazy does not wait for them"
        assert told == f"cfsctl: unmounting {mountpoint}: it is in use ({remedy})\n"
        cfsctl("umount", "--lazy", mountpoint)
    assert not os.path.ismount(mountpoint)
