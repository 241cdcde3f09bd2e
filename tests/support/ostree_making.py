"""Commits by both programs, what is in a checkout, and trees and archives to commit."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from support.commands import run
from support.made_repo import make_system
from support.ostree_pull import Target
from support.ostree_repo import make_repo
from support.peers import require

BRANCH = "made/main"
MODES = ("archive", "bare", "bare-user")


def ostree(repo: Path, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return run(require("ostree"), f"--repo={repo}", *arguments, **options)


def commit_both(
    tmp_path: Path, tree: str, *options: str, env: dict[str, str] | None = None
) -> tuple[Target, Path, str, str]:
    """Commit the same by both; return the repositories and the ids, ours first."""
    target = Target(tmp_path / "ours")
    theirs = make_repo(tmp_path / "theirs")
    arguments = ("commit", f"--branch={BRANCH}", f"--tree={tree}", *options)
    environment = {**os.environ, **(env or {})}
    made = json.loads(target.ostree(*arguments, "--json", env=environment).stdout)["commit"]
    return target, theirs, made, ostree(theirs, *arguments, env=environment).stdout.strip()


def facts(root: Path) -> dict[str, Any]:
    """Everything that a checkout has, by path."""
    found: dict[str, Any] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        names = [name for name in os.listxattr(path, follow_symlinks=False) if name != "security.selinux"]
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
        content: Any = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        owner = (status.st_mode, status.st_uid, status.st_gid)
        found[str(path.relative_to(root))] = (*owner, {k: v for k, v in xattrs.items() if v}, content)
    return found


def make_bootable(path: Path, *versions: str) -> Path:
    """Make a system with these kernels, and with what looks like one and is none."""
    tree = make_system(path)
    for version in versions:
        (tree / "usr/lib/modules" / version).mkdir(parents=True)
        (tree / "usr/lib/modules" / version / "vmlinuz").write_text(f"kernel {version}")
    (tree / "usr/lib/modules/5.0-removed").mkdir(parents=True)
    (tree / "usr/lib/modules/5.0-removed/modules.dep").touch()
    (tree / "usr/lib/modules/vmlinuz").touch()
    (tree / "boot").mkdir()
    (tree / "boot/vmlinuz").touch()
    return tree


def write_archive(path: Path, *members: tuple[str, bytes, int]) -> None:
    """Write an archive of members: name (and -> where it leads), type, user."""
    with tarfile.open(path, "w") as archive:
        for words, kind, uid in members:
            member = tarfile.TarInfo(words.partition(" -> ")[0])
            member.linkname = words.partition(" -> ")[2]
            member.type, member.uid, member.mode = kind, uid, 0o777 if kind == tarfile.SYMTYPE else 0o700 + uid % 8
            archive.addfile(member)


def make_layers(path: Path) -> None:
    """Make directories and archives to be laid over one another, as root, for nobody to own what another does."""
    for number, tree in enumerate(("a", "b", "file", "link", "directory", "over-link", "empty")):
        (path / tree).mkdir()
        os.chown(path / tree, number, 100 + number)
        (path / tree).chmod(0o700 + number)
    (path / "a/d/e").mkdir(parents=True)
    (path / "b/d").mkdir()
    os.chown(path / "b/d", 13, 14)
    os.setxattr(path / "a/d", "user.of", b"a")
    os.setxattr(path / "b/d", "user.of", b"b")
    for name in ("a/f", "a/d/g", "b/f", "b/d/h", "file/d", "over-link/s"):
        (path / name).write_text(name * 100)
    os.link(path / "a/f", path / "a/hard link")
    (path / "a/s").symlink_to("f")
    (path / "link/d").symlink_to("/etc")
    (path / "link/f").symlink_to("d/g")
    (path / "directory/f").mkdir()
    directory, file, link, symlink = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
    write_archive(path / "nothing.tar")
    write_archive(path / "root.tar", ("./", directory, 21))
    write_archive(path / "top.tar", ("top", file, 22), ("s", file, 23), ("f -> to", symlink, 24))
    write_archive(path / "in-d.tar", ("d/new", file, 25), ("d/g", file, 26))
    write_archive(path / "below-d.tar", ("d/n/n/new", file, 27))
    write_archive(path / "apart.tar", ("apart/new", file, 28), ("apart/n/new", file, 29))
    write_archive(path / "d.tar", ("d/", directory, 30))
    write_archive(path / "links.tar", ("ln -> f", link, 31), ("d/ln -> s", link, 0), ("f -> d/g", link, 0))
    write_archive(path / "itself.tar", ("f -> f", link, 0))
    write_archive(path / "replaced.tar", ("f", file, 32), ("ln -> f", link, 0))
    write_archive(path / "dangling.tar", ("ln -> nothing", link, 0))
    write_archive(path / "to-d.tar", ("ln -> d", link, 0))
    write_archive(path / "file-d.tar", ("d", file, 33))
    write_archive(path / "link-d.tar", ("d -> f", link, 0))
    write_archive(path / "symlink-d.tar", ("d -> f", symlink, 0))
    write_archive(path / "d-f.tar", ("f/", directory, 0))
    write_archive(path / "in-f.tar", ("f/new", file, 0))
    write_archive(path / "through.tar", ("s/new", file, 0))


def layers(path: Path, case: str) -> list[str]:
    """Return the arguments for the trees that a case names; + makes directories that they lack."""
    return [
        "--tar-autocreate-parents"
        if name == "+"
        else f"--tree={'tar' if name.endswith('.tar') else 'dir'}={path / name}"
        for name in case.split()
    ]


def random_layer(path: Path, chooser: random.Random) -> str:
    """Make a directory or an archive of it; return the word for --tree."""
    names = "abc"
    path.mkdir()
    for _ in range(chooser.randrange(6)):
        entry = path.joinpath(*chooser.choices(names, k=chooser.randrange(1, 4)))
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            match chooser.randrange(4):
                case 0:
                    entry.mkdir()
                case 1:
                    entry.symlink_to(chooser.choice(names))
                case _:
                    entry.write_text(f"{path.name} {entry.name}" * chooser.choice((1, 500)))
        except OSError:
            continue  # the name is taken
        os.chown(entry, chooser.randrange(3), 0, follow_symlinks=False)
    path.chmod(0o755 - chooser.randrange(2))
    if chooser.random() < 0.5:
        return f"dir={path}"
    members = [each.relative_to(path) for each in sorted(path.rglob("*"))]
    root = ["."] if chooser.random() < 0.7 else []
    run(
        "tar",
        "--no-recursion",
        "-C",
        path,
        "-cf",
        f"{path}.tar",
        "-T",
        "-",
        input="\n".join([*root, *map(str, members)]),
    )
    return f"tar={path}.tar"
