"""ostree repositories in the modes that the ostree command makes, and in the one that it only reads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from composefs_ostree.formats import gvariant
from support.commands import run
from support.ostree_repo import make_repo
from support.peers import require


def copy_repo(source: Path, path: Path, mode: str, ref: str) -> Path:
    """Make a repository of another mode with the same commit."""
    if mode == "bare-split-xattrs":
        return split_xattrs(copy_repo(source, path.with_name(f"{path.name}-bare"), "bare", ref), path)
    make_repo(path, mode)
    run(require("ostree"), f"--repo={path}", "pull-local", source, ref)
    return path


def split_xattrs(bare: Path, path: Path) -> Path:
    """Lay out a bare-split-xattrs repository, which ostree itself does not write, from a bare one."""
    shutil.copytree(bare / "refs", path / "refs")
    (path / "config").write_text("[core]\nrepo_version=1\nmode=bare-split-xattrs\n")
    for source in (bare / "objects").rglob("*.*"):
        target = path / source.relative_to(bare)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            os.symlink(os.readlink(source), target)  # Path would tidy the target up
        else:
            shutil.copyfile(source, target)
            target.chmod(source.stat().st_mode & 0o7777)
        if source.suffix != ".file":
            continue
        status = source.lstat()
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
        if not source.is_symlink():
            target.chmod(status.st_mode & 0o7777)  # a change of owner drops setuid
        names = sorted(os.listxattr(source, follow_symlinks=False))
        pairs = [(os.fsencode(name) + b"\0", os.getxattr(source, name, follow_symlinks=False)) for name in names]
        xattrs = gvariant.encode("a(ayay)", pairs)
        link = target.with_name(f"{target.name}-xattrs-link")
        link.write_bytes(xattrs)
    return path
