"""Commits and ostree repositories made by our own commands."""

from __future__ import annotations

import os
import random
from pathlib import Path

from support.commands import cfsctl

OPTIONS = ("--timestamp=@1700000000", "--owner-uid=0", "--owner-gid=0", "--subject=made")


def make_system(path: Path) -> Path:
    """Make a directory with what a pull and an image have to cope with: sizes, links, odd names, twins."""
    chooser = random.Random(2026)
    for directory in ("etc", "usr/bin", "usr/lib", "usr/share/doc", "var"):
        (path / directory).mkdir(parents=True)
    (path / "etc/os-release").write_text("NAME=Demo\nVERSION=1\n")
    (path / "etc/empty").touch()
    (path / "usr/bin/hello").write_text("#!/bin/sh\necho Hello from an image\n")
    (path / "usr/bin/hello").chmod(0o755)
    (path / "usr/bin/hi").symlink_to("hello")
    for number in range(12):
        (path / f"usr/lib/lib{number}.so").write_bytes(chooser.randbytes(200_000) + b"text " * 40_000)
        (path / f"usr/share/doc/chapter {number}.txt").write_text("word " * 60 * number)
    (path / "usr/share/grüße=\\").write_text("a name that needs escaping\n")
    for name in ("twin", "twin 2"):
        (path / "usr/share" / name).write_text("same\n" * 100)
    return path


def make_repository(work: Path, repo: Path) -> str:
    """Make an ostree archive repository of such a system, on the branch demo/main; return the id of its commit."""
    kept = work / "maker"
    cfsctl("init", "--insecure", kept)
    tree = make_system(work / "system")
    cfsctl("--repo", kept, "ostree", "commit", f"--tree=dir={tree}", "--branch=demo/main", *OPTIONS)
    cfsctl("--repo", kept, "ostree", "export", "demo/main", repo)
    return (repo / "refs/heads/demo/main").read_text().strip()


def odd_tree(path: Path) -> Path:
    """Make a directory, as root, with everything odd that an ostree commit can hold."""
    path.mkdir()
    (path / "empty directory").mkdir()
    (path / "sticky").mkdir()
    (path / "sticky").chmod(0o1777)
    deep = path / "deep"
    for number in range(60):
        deep = deep / f"level {number}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_bytes(b"b" * 5000)
    for mode in (0o0, 0o400, 0o644, 0o755, 0o4755, 0o2755, 0o1777, 0o7777):
        for size in (3, 3000):
            file = path / f"mode {mode:04o} of {size}"
            file.write_bytes(file.name.encode() * (size // len(file.name) + 1))
            os.chown(file, 1000 + mode, 50)
            file.chmod(mode)
    for size in (0, 1, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097, 131_072, 131_073):
        (path / f"size {size}").write_bytes(bytes([size % 251]) * size)
    os.link(path / "size 4097", path / "hard link")
    os.link(path / "size 1", path / "deep/hard link")
    (path / "link").symlink_to("size 1")
    (path / "broken link").symlink_to("/nowhere/" + "x" * 3000)
    os.chown(path / "link", 7, 8, follow_symlinks=False)
    os.setxattr(path / "size 4096", "user.two", b"2")
    os.setxattr(path / "size 4096", "user.one", b"\0\xff=\\ ")
    os.setxattr(path / "size 4096", "user.empty", b"")
    os.setxattr(path / "size 64", "trusted.deep", b"v" * 1000)
    os.setxattr(path / "sticky", "user.on a directory", b"x")
    os.setxattr(path / "link", "trusted.on a link", b"x", follow_symlinks=False)
    for name in ("ä\n\t\\x\x7f=", "-", "名" * 85, " "):
        (path / name).write_bytes(name.encode() * 2)
    return path
