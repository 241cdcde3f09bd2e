"""The installed mkcomposefs, as scripts call it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import re
import signal
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.fsverity import digest_bytes
from support import peers
from support.commands import BIN, MKCOMPOSEFS, cfsctl, mkcomposefs, run
from support.terminal import on_terminal

DUMP = "/ 0 40755 2 0 0 0 0.0 - - -\n/f 3 100644 1 0 0 0 0.0 - abc -\n"
WHITEOUT = DUMP + "/w 0 20644 1 0 0 0 0.0 - - -\n"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "dump"
    path.write_text(DUMP)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with one of each that an option is about."""
    path = tmp_path / "source"
    path.mkdir()
    (path / "large").write_bytes(b"l" * 5000)
    (path / "small").write_bytes(b"small")
    os.link(path / "large", path / "linked")
    os.setxattr(path / "large", "user.x", b"y")
    return path


def format_of(image: Path) -> int:
    return int(struct.unpack_from("<I", image.read_bytes(), 12)[0])


def test_help_has_an_example_and_costs_nothing() -> None:
    done = mkcomposefs("--help")
    assert "mkcomposefs --from-file rootfs.dump rootfs.cfs" in done.stdout
    assert done.stderr == ""


def test_standard_input_and_output(dump: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    mkcomposefs("--from-file", dump, image)
    with dump.open("rb") as text:
        piped = subprocess.run([MKCOMPOSEFS, "--from-file", "-", "-"], stdin=text, capture_output=True, check=True)
    assert piped.stdout == image.read_bytes()
    assert piped.stderr == b""


def test_what_becomes_of_an_image_that_nobody_takes(dump: Path) -> None:
    command = [MKCOMPOSEFS, "--from-file", dump, "-"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"mkcomposefs: writing to standard output: No space left on device (")


def test_a_terminal_gets_no_image(dump: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [MKCOMPOSEFS, "--from-file", dump, "-"], stdout=theirs, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            check=False, text=True,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 2
    assert "terminal" in done.stderr


def test_what_lasts_is_shown_on_a_terminal(tmp_path: Path) -> None:
    source = tmp_path / "dump"
    os.mkfifo(source)

    def write(shown: bytes) -> None:
        if b"making the image" in shown and not (tmp_path / "written").exists():
            (tmp_path / "written").touch()
            source.write_text(DUMP)

    status, _ = on_terminal("--from-file", source, tmp_path / "image", program=MKCOMPOSEFS, look=write)
    assert status == 0
    assert (tmp_path / "image").stat().st_size > 0


def test_ctrl_c_is_never_taken_by_the_thread_of_the_bar(tmp_path: Path) -> None:
    """There it would be lost, while the main thread waits."""
    source = tmp_path / "dump"
    os.mkfifo(source)
    blocked = []

    def look(shown: bytes) -> None:
        if b"making the image" in shown and not blocked:
            [pid] = Path("/proc/thread-self/children").read_text().split()
            for thread in Path(f"/proc/{pid}/task").iterdir():
                if thread.name != pid:
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                        [mask] = re.findall(r"SigBlk:\t([0-9a-f]+)", (thread / "status").read_text())
                        blocked.append(bool(int(mask, 16) & 1 << signal.SIGINT - 1))
            source.write_text(DUMP)

    on_terminal("--from-file", source, tmp_path / "image", program=MKCOMPOSEFS, look=look)
    assert blocked
    assert all(blocked)


def test_digests_are_the_images(dump: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    printed = mkcomposefs("--from-file", "--print-digest", dump, image).stdout
    assert printed == digest_bytes(image.read_bytes(), SHA256).hex() + "\n"
    assert mkcomposefs("--from-file", "--print-digest-only", dump).stdout == printed


@pytest.mark.parametrize(
    ("options", "plain", "whiteout"),
    [
        ((), 0, 1),
        (("--min-version=0",), 0, 0),
        (("--max-version=1",), 0, 1),
        (("--min-version=1",), 1, 1),
        (("--max-version=0",), 0, 0),
        (("--min-version=1", "--max-version=0"), 1, 1),
        (("--min-version", "0", "--max-version", "1"), 0, 1),
    ],
)
def test_the_format_that_version_options_choose(
    options: tuple[str, ...], plain: int, whiteout: int, dump: Path
) -> None:
    image = dump.parent / "image"
    for text, expected in ((DUMP, plain), (WHITEOUT, whiteout)):
        dump.write_text(text)
        mkcomposefs(*options, "--from-file", dump, image)
        assert format_of(image) == expected


def test_directory_options(source: Path, tmp_path: Path) -> None:
    peers.require("fsck.erofs")

    def made(*options: str) -> bytes:
        image = tmp_path / "image"
        mkcomposefs(*options, source, image)
        run("fsck.erofs", image)
        return image.read_bytes()

    plain = made()
    assert made() == plain
    assert b"small" in plain
    images = [plain, made("--use-epoch"), made("--hardlinks"), made("--skip-xattrs")]
    assert len(set(images)) == 4
    assert b"l" * 65 not in plain
    # Two files of one content, and their two names of one inode.
    inodes = [struct.unpack_from("<Q", image, 1024 + 16)[0] for image in images]
    assert inodes == [260, 260, 259, 260]
    os.setxattr(source / "small", "user.z", b"1")
    assert made("--user-xattrs") != made("--skip-xattrs")
    assert made("--threads", "4") == made()


def test_a_time_of_more_than_64_bits_of_nanoseconds(source: Path, tmp_path: Path) -> None:
    os.utime(source / "large", ns=(0, 12_000_000_000 * 10**9 + 12))  # in 2350
    mkcomposefs(source, tmp_path / "image")
    assert " 12000000000.12 " in run(BIN / "composefs-info", "dump", tmp_path / "image").stdout


@pytest.mark.root
def test_devices_are_skipped_on_request(source: Path, tmp_path: Path) -> None:
    assert os.geteuid() == 0, "only root can make device nodes"
    without = mkcomposefs("--print-digest-only", "--use-epoch", source).stdout
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert mkcomposefs("--print-digest-only", "--use-epoch", source).stdout != without
    assert mkcomposefs("--print-digest-only", "--use-epoch", "--skip-devices", source).stdout == without


def test_the_digest_store(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "new" / "store"
    digest = digest_bytes(b"l" * 5000, SHA256).hex()
    name = store / digest[:2] / digest[2:]
    for _ in range(2):
        mkcomposefs(f"--digest-store={store}", source, tmp_path / "image")
        assert [path for path in store.rglob("*") if path.is_file()] == [name]
        assert name.read_bytes() == b"l" * 5000
    before = (tmp_path / "image").read_bytes()
    mkcomposefs(source, tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == before
    # An object that a crash cut short is replaced.
    name.unlink()
    name.write_bytes(b"l")
    mkcomposefs("--digest-store", store, source, tmp_path / "image")
    assert name.read_bytes() == b"l" * 5000


def test_a_failure_leaves_the_target_as_it_was(dump: Path, tmp_path: Path) -> None:
    target = tmp_path / "image"
    dump.write_text(DUMP + "/g x 100644 1 0 0 0 0.0 - - -\n")
    for _ in range(2):
        done = mkcomposefs("--from-file", dump, target, status=1)
        assert done.stderr == f"mkcomposefs: {dump}: dump line 3: /g: SIZE 'x' is not a number\n"
        assert sorted(os.listdir(tmp_path)) == (["dump", "image"] if target.exists() else ["dump"])
        target.write_text("precious")
    assert target.read_text() == "precious"


def test_a_target_is_replaced_through_links_and_keeps_no_odd_mode(dump: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "image").write_text("old")
    os.symlink("real/image", tmp_path / "link")
    mkcomposefs("--from-file", dump, tmp_path / "link", umask=0o027)
    assert (tmp_path / "link").is_symlink()
    assert format_of(real / "image") == 0
    assert stat.S_IMODE((real / "image").stat().st_mode) == 0o640
    assert os.listdir(real) == ["image"]


def test_devices_and_missing_directories_as_targets(dump: Path, tmp_path: Path) -> None:
    mkcomposefs("--from-file", dump, "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    for target in (tmp_path / "gone" / "image", tmp_path):
        done = mkcomposefs("--from-file", dump, target, status=1)
        assert done.stderr.startswith(f"mkcomposefs: writing {target}: ")
        assert done.stderr.count("\n") == 1
    full = mkcomposefs("--from-file", dump, "/dev/full", status=1)
    assert full.stderr.startswith("mkcomposefs: writing /dev/full: No space left on device (")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: SOURCE"),
        (("SOURCE",), "IMAGE is missing"),
        (("SOURCE", "IMAGE", "more"), "unrecognized arguments: more"),
        (("--print-digest-only", "SOURCE", "IMAGE"), "no IMAGE to write"),
        (("--print-digest", "SOURCE", "-"), "standard output"),
        (("--min-version=2", "SOURCE", "IMAGE"), "image formats are 0 and 1"),
        (("--max-version=-1", "SOURCE", "IMAGE"), "image formats are 0 and 1"),
        (("--max-version=x", "SOURCE", "IMAGE"), "invalid int value"),
        (("--threads=0", "SOURCE", "IMAGE"), "positive number"),
        (("", "IMAGE"), "argument SOURCE: an empty path"),
        (("--digest-store=", "SOURCE", "IMAGE"), "argument --digest-store: an empty path"),
        (("--from-file", "--digest-store=x", "SOURCE", "IMAGE"), "wants a directory"),
        (("--frobnicate", "SOURCE", "IMAGE"), "unrecognized arguments: --frobnicate"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = mkcomposefs(*arguments, status=2, cwd=tmp_path)
    assert done.stderr.startswith("mkcomposefs: ")
    assert done.stderr.endswith("(see mkcomposefs --help)\n")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_failures_name_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.symlink(".", tmp_path / "link")
    for arguments, told in (
        (["gone"], "gone does not exist (check the path)"),
        (["file/gone"], "file/gone does not exist (check the path)"),
        (["file"], "file is not a directory (give a directory)"),
        (["link"], "link is a symlink, not a directory (say link/ to follow it)"),
        (["--from-file", "gone"], "gone does not exist (check the path)"),
    ):
        assert mkcomposefs(*arguments, "image", status=1, cwd=tmp_path).stderr == f"mkcomposefs: {told}\n"
    mkcomposefs("link/", "/dev/null", cwd=tmp_path)
    written = mkcomposefs("link/", "gone/image", status=1, cwd=tmp_path).stderr
    assert written == "mkcomposefs: writing gone/image: No such file or directory (make its directory first)\n"
    for store in ("file", "file/below"):
        told = mkcomposefs(f"--digest-store={store}", "link/", "image", status=1, cwd=tmp_path).stderr
        assert told.startswith(f"mkcomposefs: opening {store}: Not a directory (it must be a directory")
    os.symlink("nowhere", tmp_path / "dangling")
    for store in ("dangling", "dangling/below"):
        told = mkcomposefs(f"--digest-store={store}", "link/", "image", status=1, cwd=tmp_path).stderr
        assert told.endswith("(it cannot be made; see whether a symlink in the path leads to nothing)\n")


def test_strict_mode_comes_from_the_environment(dump: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump.write_text(DUMP.rstrip("\n"))
    mkcomposefs("--from-file", dump, "/dev/null")
    monkeypatch.setenv("CFS_PARSE_STRICT", "")
    assert "newline" in mkcomposefs("--from-file", dump, "/dev/null", status=1).stderr


def test_what_the_c_tool_refuses_is_refused_and_cfsctl_takes_it(dump: Path) -> None:
    """More attributes than it makes room for; and the last line of a dump need not end."""
    dump.write_text(f"{DUMP}/x 0 100644 1 0 0 0 0.0 - - - user.k={'v' * 32743}")
    told = mkcomposefs("--from-file", dump, "/dev/null", status=1).stderr
    assert told == f"mkcomposefs: {dump}: dump line 3: /x: the extended attributes take more than 32767 bytes\n"
    assert len(cfsctl("--no-repo", "compute-id", "--from-dump", dump).stdout) == 129


def test_a_hostile_name_cannot_write_to_the_terminal(dump: Path) -> None:
    dump.write_bytes(DUMP.encode() + b"/\x1b[2J\rx x 100644 1 0 0 0 0.0 - - -\n")
    error = mkcomposefs("--from-file", dump, "/dev/null", status=1).stderr
    assert "\x1b" not in error
    assert "\r" not in error
    assert error.count("\n") == 1


def test_an_image_is_a_function_of_its_source(source: Path, tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        image = tmp_path / f"image{number}"
        mkcomposefs(source, image, env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": str(number), "LC_ALL": "C"})
        digests.add(hashlib.sha256(image.read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("--from-file dump - >&-", "standard output is closed"),
        ("--from-file --print-digest dump image >&-", "standard output is closed"),
        ("--from-file - image <&-", "standard input is closed"),
        ("--from-file gone - 2>&-", ""),
    ],
)
def test_closed_descriptors(command: str, message: str, dump: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{MKCOMPOSEFS} {command}"], cwd=dump.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert done.stdout == ""
    assert os.listdir(dump.parent) == ["dump"]


def test_a_dump_is_a_file_and_an_image_may_be_written_without_stdout(dump: Path) -> None:
    told = mkcomposefs("--from-file", dump.parent, "/dev/null", status=1).stderr
    assert told.startswith(f"mkcomposefs: reading {dump.parent}: Is a directory")
    assert told.count("\n") == 1
    subprocess.run(["sh", "-c", f"{MKCOMPOSEFS} --from-file dump image <&- >&- 2>&-"], cwd=dump.parent, check=True)
    assert format_of(dump.parent / "image") == 0
