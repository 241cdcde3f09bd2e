"""The samples in C and Go: built by their Makefiles, run by the installed cfsctl, checked by the conformance kit."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import pytest

from support.commands import cfsctl, run
from support.hosting import SAMPLES
from support.mounts import mounted
from support.peers import require
from support.server import serve

LONG = 1200


def tar_archive(path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:

        def add(name: str, type_: bytes, data: bytes = b"", target: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname, info.mode, info.mtime = type_, len(data), target, 0o755, 1
            archive.addfile(info, io.BytesIO(data))

        add("./", tarfile.DIRTYPE)
        add("dir", tarfile.DIRTYPE)
        add("dir/hello", tarfile.REGTYPE, b"hello\n")
        add("dir/" + "long" * 40, tarfile.REGTYPE, b"content of one with a long name\n")
        add("empty file", tarfile.REGTYPE)
        add("link", tarfile.SYMTYPE, target="dir/hello")
        add("same", tarfile.LNKTYPE, target="dir/hello")


def zip_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dir/hello", "hello\n")
        archive.writestr("dir/" + "long" * 40, "content of one with a long name\n")
        archive.writestr("empty file", "")
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "dir/hello")


def make_large(path: Path, name: str) -> None:
    """An archive of what no small file system has room for."""
    if name == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", bytes(3_000_000))
    else:
        with tarfile.open(path, "w") as tar:
            info = tarfile.TarInfo("zeros")
            info.size = 3_000_000
            tar.addfile(info, io.BytesIO(bytes(info.size)))


CASES = {"c": ("tar", "gcc", tar_archive), "go": ("zip", "go", zip_archive)}
FILES = {"/dir/hello": 6, "/dir/" + "long" * 40: 32, "/empty file": 0, "/link": 9}


def build(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, compiler, _ = CASES[language]
    require(compiler)
    source = shutil.copytree(SAMPLES / language, tmp_path / "source")
    (source / name).unlink(missing_ok=True)
    # What Go compiles of its own library is kept for the next time.
    cache = os.environ.get("COMPOSEFS_TESTS_CACHE") or Path("~root").expanduser() / ".cache/composefs-tests"
    monkeypatch.setenv("GOCACHE", f"{cache}/go")
    run("make", "install", f"DESTDIR={tmp_path}", "PREFIX=/usr", cwd=source, timeout=LONG)
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(tmp_path / "usr/libexec/composefs/ext"))


@pytest.mark.parametrize("language", CASES)
def test_a_sample_is_built_run_and_checked(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, make_archive = CASES[language]
    build(language, tmp_path, monkeypatch)
    (tmp_path / "www").mkdir()
    make_archive(tmp_path / "www/good")
    (tmp_path / "www/bad").write_bytes(b"no archive at all" * 100)
    repo = ("--repo", tmp_path / "repo")
    cfsctl("init", "--insecure", tmp_path / "repo")
    with serve(tmp_path / "www") as server:
        url = server.url
        image = cfsctl(*repo, name, "pull", f"{url}/good", "site").stdout.strip()
        assert json.loads(cfsctl(*repo, name, "pull", f"{url}/good", "again", "--json").stdout)["image"] == image
        expected = FILES | ({"/same": 6} if name == "tar" else {})
        lines = [line.split(" ") for line in cfsctl(*repo, "dump-files", f"{name}/site", *expected).stdout.splitlines()]
        assert {line[0].replace(r"\x20", " "): int(line[1]) for line in lines} == expected
        cfsctl(*repo, "fsck")
        for path in (tmp_path / "repo/objects").glob("*/*"):
            path.chmod(0o600)
            path.write_bytes(b"damage")
        cfsctl(*repo, name, "pull", f"{url}/good", "site", *(["--repair"] if name == "zip" else []))
        cfsctl(*repo, "fsck")
        assert "404" in cfsctl(*repo, name, "pull", f"{url}/none", "site", status=3).stderr
        assert "archive" in cfsctl(*repo, name, "pull", f"{url}/bad", "site", status=5).stderr
        if name == "zip":  # what cannot be written is not the fault of what it is read from
            with zipfile.ZipFile(tmp_path / "www/large", "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("zeros", bytes(1 << 20))
            for size in (1 << 16, 100):
                limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
                told = cfsctl(*repo, name, "pull", f"{url}/large", "large", status=1, preexec_fn=limit).stderr
                assert told.endswith(": file too large\n")
        cfsctl("ext", "check", name, "--strict", "--", "pull", f"{url}/good", "site", timeout=LONG)


@pytest.mark.root
@pytest.mark.parametrize("language", CASES)
def test_a_full_disk_is_told_as_one(language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = CASES[language][0]
    build(language, tmp_path, monkeypatch)
    full = tmp_path / "full"
    for directory in (full, tmp_path / "www"):
        directory.mkdir()
    make_large(tmp_path / "www/large", name)
    with mounted(full, "-t", "tmpfs", "-o", "size=1500k", "tmpfs"), serve(tmp_path / "www") as server:
        cfsctl("init", "--insecure", full / "repo")
        told = cfsctl("--repo", full / "repo", name, "pull", f"{server.url}/large", "large", status=8).stderr
        assert ": no space left on device (" in told.lower()
