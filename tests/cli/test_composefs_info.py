"""The installed composefs-info: output of each command, options in any order, one line for each error."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from composefs.cli import composefs_info
from composefs.digest import SHA256, SHA512
from composefs.fsverity import digest_bytes
from composefs.linux import verity
from support.commands import BIN, run
from support.images import make_image
from support.terminal import on_terminal
from support.verity import kernel_verity

INFO = BIN / "composefs-info"
A, B = "ab" * 32, "cd" * 32
LINES = (
    "/dir 0 40755 2 0 0 0 1.2 - - - user.z=1 user.a=2",
    f"/dir/file 99 100644 2 1 2 0 3.4 {A[:2]}/{A[2:]} - {A} user.k=v\\x20w trusted.overlay.x=y",
    "/dir/with\\x20space\\n 0 100600 1 0 0 0 0.0 - - -",
    "/hard 0 @100644 - - - - - /dir/file - -",
    f"/other 5 100644 1 0 0 0 0.0 {B[:2]}/{B[2:]} - {B}",
    "/small 1 100644 1 0 0 0 0.0 - \\x2d -",
    "/sym 12 120777 1 0 0 0 0.0 some\\x20target - -",
    "/dev 0 20666 1 0 0 259 0.0 - - -",
    "/white 0 20644 1 0 0 0 0.0 - - -",
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.cfs"
    path.write_bytes(make_image(*LINES, version=1, compat="c"))
    return path


def output(*arguments: str | Path) -> str:
    return run(INFO, *arguments).stdout


def test_dump(image: Path) -> None:
    # A directory's size is that of its entries, 12 bytes and the name for each; the root has those of 256 stubs too,
    # and one block for them.  Its whiteout makes it opaque.
    external = f"{A[:2]}/{A[2:]} - {A}"
    assert output("dump", image).splitlines() == [
        "/ 4096 40755 3 0 0 0 0.0 - - - trusted.overlay.opaque=x user.overlay.opaque=x",
        "/dev 0 20666 1 0 0 259 0.0 - - -",
        "/dir 66 40755 2 0 0 0 1.2 - - - user.a=2 user.z=1",
        f"/dir/file 99 100644 2 1 2 0 3.4 {external} trusted.overlay.x=y user.k=v\\x20w",
        "/dir/with\\x20space\\n 0 100600 1 0 0 0 0.0 - - -",
        f"/hard 99 @100644 2 1 2 0 3.4 /dir/file - {A} trusted.overlay.x=y user.k=v\\x20w",
        f"/other 5 100644 1 0 0 0 0.0 {B[:2]}/{B[2:]} - {B}",
        "/small 1 100644 1 0 0 0 0.0 - \\x2d -",
        "/sym 11 120777 1 0 0 0 0.0 some\\x20target - -",
        "/white 0 20644 1 0 0 0 0.0 - - -",
    ]


def test_ls(image: Path) -> None:
    assert output("ls", image).splitlines() == [
        "/dev",
        "/dir/\t",
        f"/dir/file\t@ {A[:2]}/{A[2:]}",
        "/dir/with space\\n",
        "/hard",
        f"/other\t@ {B[:2]}/{B[2:]}",
        "/small",
        "/sym\t-> some\\x20target",
        "/white",
    ]


def test_filter(image: Path) -> None:
    expected = ["/dir/\t", f"/dir/file\t@ {A[:2]}/{A[2:]}", "/dir/with space\\n", "/white"]
    for arguments in (
        ("--filter=dir", "--filter", "white", "ls", image),
        ("ls", "--filter=dir", "--filter=white", image),
        ("ls", image, "--filter=dir", "--filter=white"),
    ):
        assert output(*arguments).splitlines() == expected
    lines = output("--filter=hard", "dump", image).splitlines()
    assert [line.split()[0] for line in lines] == ["/", "/hard"]
    assert lines[1].split()[2] == "100644"  # Its other name is not there, so it is no link.
    assert output("--filter=other", "objects", image) == f"{B[:2]}/{B[2:]}\n"
    assert len(output("--filter=none", "dump", image).splitlines()) == 1


def test_objects_of_several_images(image: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    third = "00" * 32
    second.write_bytes(make_image(f"/x 5 100644 1 0 0 0 0.0 - - {third}", LINES[4]))
    paths = [f"{each[:2]}/{each[2:]}" for each in sorted((A, B, third))]
    assert output("objects", image, second).splitlines() == paths
    store = tmp_path / "objects"
    (store / A[:2]).mkdir(parents=True)
    assert output("missing-objects", "--basedir", store, image, second).splitlines() == paths
    (store / A[:2] / A[2:]).touch()
    (store / B[:2]).symlink_to(A[:2])
    assert output(f"--basedir={store}", "missing-objects", image, second).splitlines() == [paths[0], paths[2]]
    (store / A[:2] / B[2:]).touch()
    assert output(f"--basedir={store}", "missing-objects", image).splitlines() == []


def test_measure_file(tmp_path: Path) -> None:
    contents = [b"", b"x", bytes(4096), bytes(range(256)) * 1000]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    files = [tmp_path / str(number) for number in range(len(contents))]
    assert output("measure-file", *files).splitlines() == [digest_bytes(each, SHA256).hex() for each in contents]


def test_what_has_another_fs_verity_is_measured_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The kernel's digest is by SHA-512 there, and nobody asks for that."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    with kernel_verity(monkeypatch), path.open("rb") as file:
        assert verity.enable(file.fileno(), SHA512)
        monkeypatch.setattr(sys, "argv", ["composefs-info", "measure-file", str(path)])
        composefs_info._run()
    assert capsysbinary.readouterr().out.decode() == digest_bytes(b"x" * 5000, SHA256).hex() + "\n"


@pytest.mark.parametrize(("command", "told"), [("measure-file", "measuring"), ("ls", "reading the image")])
def test_what_lasts_is_shown_on_a_terminal(tmp_path: Path, command: str, told: str) -> None:
    os.mkfifo(tmp_path / "fifo")

    def let_go(shown: bytes) -> None:
        if told.encode() in shown and not (tmp_path / "written").exists():
            (tmp_path / "written").touch()
            (tmp_path / "fifo").write_bytes(b"")

    on_terminal(command, tmp_path / "fifo", program=BIN / "composefs-info", look=let_go)
    assert (tmp_path / "written").exists()


def test_a_sha512_image_shows_its_digests(tmp_path: Path) -> None:
    digest = "ef" * 64
    path = tmp_path / "image"
    path.write_bytes(make_image(f"/x 5 100644 1 0 0 0 0.0 - - {digest}", version=1, algorithm=SHA512))
    assert output("dump", path).splitlines()[1].endswith(f" {digest[:2]}/{digest[2:]} - {digest}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "COMMAND"),
        (("dump",), "no image given"),
        (("frobnicate", "IMAGE"), "unknown command 'frobnicate'"),
        (("--wrong", "dump", "IMAGE"), "--wrong"),
        (("missing-objects", "IMAGE"), "needs --basedir"),
        (
            ("--basedir=/none", "missing-objects", "IMAGE"),
            "opening /none: No such file or directory (check the path after --b",
        ),
        (("--basedir=/dev/null", "missing-objects", "IMAGE"), "/dev/null is not a directory (give a directory)"),
        (("dump", "/none"), "opening /none: No such file"),
        (("dump", "LINK"), "Too many levels of symbolic links (a symlink is not followed here, or leads to itself)"),
        (("measure-file", "/"), "reading /: Is a directory"),
        (("dump", "/"), "regular file (give an image that mkcomposefs has made; "),
        (("ls", "TEXT"), "malformed image: no EROFS superblock (at byte 1024) (give an image that mkcomposefs has"),
        (("objects", "IMAGE", "TEXT"), "malformed image"),
    ],
)
def test_errors_are_one_line_and_status_1(
    arguments: tuple[str, ...], message: str, image: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no image at all\n" * 200)
    (tmp_path / "link").symlink_to("link")
    places = {"IMAGE": str(image), "TEXT": str(tmp_path / "text"), "LINK": str(tmp_path / "link")}
    done = run(INFO, *(places.get(each, each) for each in arguments), status=1)
    assert message in done.stderr
    assert done.stderr.startswith("composefs-info: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_error_in_the_second_image_comes_after_the_first(image: Path) -> None:
    done = run(INFO, "dump", image, "/none", status=1)
    assert done.stdout == output("dump", image)


def test_a_reader_that_leaves_is_no_error_message(image: Path) -> None:
    with subprocess.Popen([INFO, "dump", *[image] * 200], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.parametrize("command", ["ls", "dump", "measure-file"])
def test_many_files_are_one_work_that_makes_room_for_each(
    command: str, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A work of its own for each file would cost ten times what the file does."""
    events: list[str] = []

    class Report:
        def __call__(self, _done: int) -> None:
            events.append("told")

        def make_room(self) -> None:
            events.append("room")

    @contextmanager
    def at_work(_label: str) -> Iterator[Report]:
        events.append("started")
        yield Report()

    def write(data: bytes) -> None:
        if data and events[-1] != "written":
            events.append("written")

    monkeypatch.setattr(composefs_info, "at_work", at_work)
    monkeypatch.setattr(composefs_info, "write", write)
    monkeypatch.setattr(composefs_info, "write_piece", write)
    monkeypatch.setattr(sys, "argv", ["composefs-info", command, str(image), str(image)])
    composefs_info._run()  # not main(), after which a signal ends the process
    assert events == ["started", *["told", "room", "written"] * 2]


def test_a_full_disk_is_told(image: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([INFO, "dump", image], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    remedy = b"free some space and run the command again"
    assert done.stderr == b"composefs-info: writing to standard output: No space left on device (%b)\n" % remedy


def test_an_error_is_told_where_what_was_printed_before_cannot_be_written(image: Path, tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    with open("/dev/full", "wb") as full:
        command = [INFO, "ls", image, tmp_path / "none"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"composefs-info: {tmp_path}/none: ")
    assert done.stderr.count("\n") == 1


def test_a_closed_standard_output_is_told(image: Path) -> None:
    done = run("sh", "-c", f"exec {INFO} dump {image} >&-", status=1)
    assert done.stderr == "composefs-info: standard output is closed\n"


def test_help() -> None:
    text = output("--help")
    for command in ("ls", "dump", "objects", "missing-objects", "measure-file"):
        assert f"\n  {command} " in text


def test_large_images_are_the_same_through_a_pipe_and_a_file(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(make_image(*(f"/{number:05} 0 100644 1 0 0 0 0.0 - - -" for number in range(9000))))
    text = output("dump", image)
    assert text.count("\n") == 9001
    with (tmp_path / "text").open("wb") as file:
        subprocess.run([INFO, "dump", image], stdout=file, check=True)
    assert hashlib.sha256((tmp_path / "text").read_bytes()).digest() == hashlib.sha256(text.encode()).digest()
