"""``cfsctl oci prepare-boot``: against what composefs-rs says of the same trees, and with unified kernel images."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.commands import cfsctl, the_error
from support.oci_images import init, pull
from support.oci_layers import run_generator
from support.oci_layout import Layout
from support.vectors import DATA

TREES: list[dict[str, Any]] = json.loads((DATA / "tree-options.json").read_text())["trees"]
RECORDED = [
    (row, key)
    for row in TREES
    for key in row
    if key.startswith("sha") and (row["seed"] == 1 or key == f"sha256-v{row['seed'] % 3}")
]
"""One tree in each hash and format, the others in one of them."""


@pytest.mark.parametrize(("row", "key"), RECORDED, ids=[f"{row['seed']}-{key}" for row, key in RECORDED])
def test_the_argument_is_what_composefs_rs_computes(tmp_path: Path, row: dict[str, Any], key: str) -> None:
    """Of the unpacked tree; it boots the image whose id is recorded for the layers."""
    algorithm, _, version = key.partition("-v")
    repo = init(tmp_path / "repo", algorithm, int(version))
    run_generator("make_boot_layout.py", row["seed"], tmp_path / "layout")
    facts = pull(repo, f"oci:{tmp_path / 'layout'}", "os", "--bootable")
    assert facts["boot_image"] == row[key]["compute-id --bootable"]
    boot = tmp_path / "boot"
    boot.mkdir()
    done = cfsctl("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot)
    assert done.stdout == ""
    [entry] = (boot / "loader/entries").iterdir()
    assert entry.name == f"t{row['seed']}.conf"
    lines = entry.read_text().splitlines()
    assert lines[0] == "title T"
    assert lines[-1] == f"options quiet {row[key]['--insecure compute-karg']}"
    for line in lines[1:-1]:
        word, path = line.split()
        assert word in ("linux", "initrd")
        kept = cfsctl("--repo", repo, "dump-files", facts["image"], path).stdout
        assert kept.split()[1] == str((boot / path.lstrip("/")).stat().st_size)


# Unified kernel images: PE files that gcc and objcopy make, as ukify does, with the command line in a section.


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("code")
    (directory / "stub.c").write_text("int stub(void) { return 1; }\n")
    subprocess.run(["gcc", "-c", "stub.c", "-o", "stub.o"], cwd=directory, check=True)
    return directory / "stub.o"


def unified(code: Path, command_line: str | None) -> bytes:
    """Make an image; without a command line there is no section for one."""
    made, text = code.with_name("made.efi"), code.with_name("cmdline")
    sections = [".osrel=/etc/os-release"]
    if command_line is not None:
        text.write_text(command_line + "\0")
        sections.append(f".cmdline={text}")
    options = [f"--add-section={each}" for each in sections]
    options += [f"--set-section-flags={each.partition('=')[0]}=alloc,load,readonly,data" for each in sections]
    options += [f"--change-section-vma={each.partition('=')[0]}={0x20000 * i:#x}" for i, each in enumerate(sections, 1)]
    subprocess.run(["objcopy", "-O", "pei-x86-64", *options, code, made], check=True)
    return made.read_bytes()


DIRECTORIES = [
    *("usr", "usr/lib", "usr/lib/modules", "usr/lib/modules/6.1"),
    *("boot", "boot/EFI", "boot/EFI/Linux", "sysroot"),
]


def system(files: Mapping[str, bytes | str]) -> bytes:
    """A layer with what a system has that boots, and these files; a text is where a symlink leads."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in DIRECTORIES:
            info = tarfile.TarInfo(path)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def pulled(repo: Path, directory: Path, files: Mapping[str, bytes | str]) -> str:
    """Pull an image of such a system under the name os; return the id of the bootable one."""
    layout = Layout()
    layout.add(layout.image(system(files)))
    name = len(list(directory.glob("layout*")))
    image: str = pull(repo, f"oci:{layout.write(directory / f'layout{name}')}", "os", "--bootable")["boot_image"]
    return image


@pytest.mark.parametrize(
    ("algorithm", "erofs_format", "argument"),
    [
        ("sha256", 1, "composefs.digest=v1-sha256-12:"),
        ("sha512", 1, "composefs.digest=?v1-sha512-12:"),
        ("sha256", 2, "composefs=?"),
    ],
)
def test_a_unified_image_that_boots_its_own_image(
    tmp_path: Path, code: Path, algorithm: str, erofs_format: int, argument: str
) -> None:
    """What is in /boot does not count for the image's id, so that it can be in the command line of what lies there."""
    repo = init(tmp_path / "repo", algorithm, erofs_format)
    image = pulled(repo, tmp_path, {"boot/EFI/Linux/os-1.efi": b"not yet"})
    efi = unified(code, f"quiet {argument}{image} rw")
    assert pulled(repo, tmp_path, {"boot/EFI/Linux/os-1.efi": efi}) == image
    boot = tmp_path / "boot"
    boot.mkdir()
    command = ["--repo", str(repo), "oci", "prepare-boot", "os", "--bootdir", str(boot)]
    facts = json.loads(cfsctl(*command, "--json").stdout)
    assert facts["entry"] == "os-1"
    assert facts["files"] == [f"{boot}/EFI/Linux/os-1.efi"]
    assert {path: path.read_bytes() for path in boot.rglob("*") if path.is_file()} == {boot / "EFI/Linux/os-1.efi": efi}
    cfsctl(*command, "--entry-id", "other")
    assert (boot / "EFI/Linux/other.efi").read_bytes() == efi
    assert not (boot / "loader").exists()
    assert "no arguments can be added" in the_error(*command, "--cmdline=debug", status=9)


def test_a_unified_image_among_the_modules(tmp_path: Path, code: Path) -> None:
    """There it is part of the image, whose id it can therefore not have."""
    repo = init(tmp_path / "repo")
    pulled(repo, tmp_path, {"usr/lib/modules/6.1/uki.efi": unified(code, "composefs.digest=v1-sha256-12:" + "a" * 64)})
    boot = tmp_path / "boot"
    boot.mkdir()
    told = the_error("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot, status=5)
    assert "uki boots composefs.digest=v1-sha256-12:aaaa" in told
    assert not list(boot.iterdir())


def damaged(efi: bytes, offset: int, data: bytes) -> bytes:
    return efi[:offset] + data + efi[offset + len(data) :]


def test_unified_images_that_do_not_boot_this_image(tmp_path: Path, code: Path) -> None:
    repo = init(tmp_path / "repo")
    boot = tmp_path / "boot"
    boot.mkdir()
    good = unified(code, "composefs.digest=v1-sha256-12:" + "b" * 64)
    header = int.from_bytes(good[0x3C:0x40], "little")
    table = header + 24 + int.from_bytes(good[header + 20 : header + 22], "little")
    section = good.index(b".cmdline", table)
    cases = {
        "boots composefs.digest=v1-sha256-12:bbbb": good,
        "boots no composefs image": unified(code, None),
        "is not a PE file": b"MZ" + bytes(4000),
        "is not a PE file that can be read": b"MZ",
        "is not a PE file that can": damaged(good, 0x3C, b"\xff\xff\xff\xff"),
        "is not a PE": damaged(good, header + 6, b"\xff\xff"),  # so many sections
        "boots no composefs": damaged(good, section + 20, b"\xff\xff\xff\x7f"),  # a section behind the end
        "is not a PE file that": unified(code, "x")[:table] + b".cmdline",  # a table that is cut off
    }
    for words, efi in cases.items():
        pulled(repo, tmp_path, {"boot/EFI/Linux/os-1.efi": efi})
        told = the_error("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot, status=5)
        assert f"os-1 {words}" in told
        assert not list(boot.iterdir())


def test_an_entry_that_leads_out_of_the_boot_partition(tmp_path: Path) -> None:
    """And in again: to the core, for which it is a path of the image, it is right."""
    repo = init(tmp_path / "repo")
    entry = b"title T\nlinux /../usr/lib/modules/6.1/vmlinuz\n"
    pulled(repo, tmp_path, {"boot/loader/entries/e.conf": entry, "usr/lib/modules/6.1/vmlinuz": b"kernel"})
    boot = tmp_path / "boot"
    boot.mkdir()
    told = the_error("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot, status=3)
    assert "the boot entry e names /../usr/lib/modules/6.1/vmlinuz, which is not in the image" in told
    assert not list(boot.iterdir())


def test_files_of_one_name_in_several_directories(tmp_path: Path) -> None:
    """Under another name of the entry they are in one directory."""
    repo = init(tmp_path / "repo")
    initrds = ["cpu/initrd", "cpu/2-initrd", "os/initrd", "cpu/initrd", "os/initrd"]
    lines = ["linux /boot/os/vmlinuz", *(f"initrd /boot/{each}" for each in initrds)]
    files = {each: each.encode() for each in ("os/vmlinuz", *initrds)}
    kept = {f"boot/{path}": data for path, data in files.items()}
    pulled(repo, tmp_path, {"boot/loader/entries/e.conf": "\n".join(lines).encode(), **kept})
    boot = tmp_path / "boot"
    boot.mkdir()
    cfsctl("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot, "--entry-id", "x")
    written = (boot / "loader/entries/x.conf").read_text().splitlines()[: len(lines)]
    paths = [line.split()[1].lstrip("/") for line in written]
    assert [(boot / path).read_text() for path in paths] == ["os/vmlinuz", *initrds]
    assert len(list((boot / "x").iterdir())) == len(files)
    assert paths[1] == paths[4] == "x/initrd"


def test_an_entry_boots_no_other_image_that_it_named(tmp_path: Path) -> None:
    """Where two arguments name images, the initramfs may take the wrong one; options may be on several lines."""
    repo = init(tmp_path / "repo")
    others = [f"composefs=?{'a' * 64}", f"composefs.digest=v1-sha256-12:{'b' * 64}"]
    lines = ["linux /boot/vmlinuz", "efi /boot/shell.efi", f"options rw {others[0]} ro", f"options {others[1]} s"]
    lines += [f"options\t{others[0]}", "options", "version 1"]  # GRUB stops reading at a line without a value
    entries = {"e.conf": "\n".join(lines), "a.conf.bak": "linux /boot/none"}
    files = {f"boot/loader/entries/{name}": text.encode() for name, text in entries.items()}
    programs = {"boot/vmlinuz": b"kernel", "boot/shell.efi": b"shell"}
    image = pulled(repo, tmp_path, {**files, **programs})
    boot = tmp_path / "boot"
    boot.mkdir()
    cfsctl("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot)
    written = (boot / "loader/entries/e.conf").read_text().splitlines()
    assert written == [*lines[:2], f"options rw ro composefs.digest=?v1-sha256-12:{image}", "options s", "version 1"]
    assert {path: (boot / path).read_bytes() for path in programs} == programs


@pytest.mark.parametrize("victim", ["vmlinuz", "initramfs.img"])
def test_what_is_damaged_is_not_booted(tmp_path: Path, victim: str) -> None:
    """Nobody else would notice: the boot loader checks no digests."""
    repo = init(tmp_path / "repo")
    files = {"vmlinuz": b"kernel" * 5000, "initramfs.img": b"initramfs" * 5000}
    pulled(repo, tmp_path, {f"usr/lib/modules/6.1/{name}": data for name, data in files.items()})
    boot = tmp_path / "boot"
    boot.mkdir()
    [place] = [path for path in (repo / "objects").glob("*/*") if path.read_bytes() == files[victim]]
    place.unlink()
    place.write_bytes(files[victim][::-1])
    told = the_error("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot, status=5)
    assert f"object {place.parent.name}{place.name} is damaged (cfsctl oci pull --repair" in told
    assert not list(boot.iterdir())


def test_a_kernel_with_its_initramfs_gets_an_entry_for_both(tmp_path: Path) -> None:
    repo = init(tmp_path / "repo")
    files = {"vmlinuz": b"kernel", "initramfs.img": b"initramfs"}
    pulled(repo, tmp_path, {f"usr/lib/modules/6.1/{name}": data for name, data in files.items()})
    boot = tmp_path / "boot"
    boot.mkdir()
    cfsctl("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot)
    lines = (boot / "loader/entries/6.1.conf").read_text().splitlines()
    assert lines[:-1] == ["title 6.1", "version 6.1", "linux /6.1/vmlinuz", "initrd /6.1/initramfs.img"]
    assert {path.name: path.read_bytes() for path in (boot / "6.1").iterdir()} == files


@pytest.mark.parametrize("text", ["PRETTY_NAME=Sample\n", 'A="b"\nPRETTY_NAME="Sample"\nC=d', "PRETTY_NAME='Sample'"])
def test_a_kernel_is_called_as_its_system_is(tmp_path: Path, text: str) -> None:
    repo = init(tmp_path / "repo")
    pulled(repo, tmp_path, {"usr/lib/os-release": text.encode(), "usr/lib/modules/6.1/vmlinuz": b"kernel"})
    boot = tmp_path / "boot"
    boot.mkdir()
    cfsctl("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot)
    assert (boot / "loader/entries/6.1.conf").read_text().startswith("title Sample\nversion 6.1\n")


def test_a_kernel_is_called_by_its_version_where_the_name_of_its_system_is_elsewhere(tmp_path: Path) -> None:
    repo = init(tmp_path / "repo")
    pulled(repo, tmp_path, {"usr/lib/os-release": "os.release.d/sample", "usr/lib/modules/6.1/vmlinuz": b"kernel"})
    boot = tmp_path / "boot"
    boot.mkdir()
    cfsctl("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot)
    assert (boot / "loader/entries/6.1.conf").read_text().startswith("title 6.1\nversion 6.1\n")


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o700), (0, 0o755)])
def test_what_is_prepared_may_be_written_by_nobody_else_and_all_enter_its_state(
    tmp_path: Path, umask: int, mode: int
) -> None:
    repo = init(tmp_path / "repo")
    pulled(repo, tmp_path, {"usr/lib/modules/6.1/vmlinuz": b"kernel"})
    boot, state = tmp_path / "boot", tmp_path / "state"
    boot.mkdir()
    state.mkdir()
    cfsctl("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot, "--statedir", state, umask=umask)
    assert {path.stat().st_mode & 0o777 for path in state.rglob("*")} == {0o755}
    # An initramfs may hold keys: who may read it is for the umask to say.
    assert {path.stat().st_mode & 0o777 for path in boot.rglob("*")} == {mode, mode & 0o666}


def test_nothing_is_left_of_a_file_that_cannot_be_put_in_its_place(tmp_path: Path) -> None:
    repo = init(tmp_path / "repo")
    pulled(repo, tmp_path, {"usr/lib/modules/6.1/vmlinuz": b"kernel"})
    boot = tmp_path / "boot"
    (boot / "6.1/vmlinuz").mkdir(parents=True)
    told = the_error("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", boot, status=1)
    assert told == f"cfsctl: {boot}/6.1/vmlinuz is a directory (move it away)\n"
    assert [path.name for path in boot.rglob("*")] == ["6.1", "vmlinuz"]


def test_what_cannot_be_prepared(tmp_path: Path) -> None:
    repo = init(tmp_path / "repo")
    boot = tmp_path / "boot"
    command = ["--repo", str(repo), "oci", "prepare-boot", "os", "--bootdir", str(boot)]
    layout = Layout()
    layout.add(layout.image(system({})))
    pull(repo, f"oci:{layout.write(tmp_path / 'plain')}", "os")
    assert "os has no bootable image here (pull it again with --bootable)" in the_error(*command, status=3)
    pulled(repo, tmp_path, {})
    assert "os has nothing to boot: no kernel, unified image or boot entry" in the_error(*command, status=3)
    pulled(repo, tmp_path, {"usr/lib/modules/6.1/vmlinuz": b"kernel"})
    assert f"{boot} is not a directory (mount the boot partition first)" in the_error(*command, status=3)
    assert not boot.exists()
