"""What the pulls are measured on: an ostree archive repository like a Flatpak runtime.

At scale 1: 16,305 files in 2,700 directories, 1.1 GB plain and 0.67 GB compressed, a median of 2.5 kB, a 99th
percentile of 330 kB and a largest file of 118 MB.  A second commit changes 3 % of the files.  Everything follows from
one seed; the repository is made once and kept.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

BRANCH = "bench/main"

_VERSION = 2  # of this generator: a kept repository made by another one is made anew
_SEED = 2026
_FILES = 16_288
_DIRECTORIES = 2_700
_BYTES = 1_100_000_000
_MEDIAN = 2_500
_SIGMA = 2.098  # of the logarithm of sizes, for the 99th percentile
_LARGEST = 118_000_000
_CHANGED = 0.03
_POOL = 1 << 24


class Workload(NamedTuple):
    """The repository, and the commits before and after the change."""

    repo: Path
    first: str
    second: str
    files: int
    bytes: int

    def publish(self, commit: str) -> None:
        """Point the branch to a commit."""
        (self.repo / "refs" / "heads" / BRANCH).write_text(commit + "\n")
        if (self.repo / "summary").exists():
            subprocess.run(["ostree", "summary", "-u", f"--repo={self.repo}"], check=True)


def workload(directory: Path, scale: float) -> Workload:
    """Return the workload of this scale from the directory, after making it if it is not there."""
    home = directory / f"runtime-{scale:g}"
    note = home / "workload.json"
    if note.is_file() and (kept := json.loads(note.read_text()))["version"] == _VERSION:
        return Workload(home / "repo", kept["first"], kept["second"], kept["files"], kept["bytes"])
    print(f"making a runtime of scale {scale:g} in {home}/ …", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    tree = home / "tree"
    tree.mkdir(parents=True)
    sizes = _sizes(scale)
    chooser = random.Random(_SEED)
    content = pool(chooser)
    paths = _paths(tree, len(sizes), scale, chooser)
    for path, size in zip(paths, sizes, strict=True):
        _write(path, size, content, chooser)
    repo = home / "repo"
    subprocess.run(["ostree", "init", f"--repo={repo}", "--mode=archive"], check=True)
    first = _commit(repo, tree)
    for path in chooser.sample(paths[: int(len(paths) * 0.99)], round(len(paths) * _CHANGED)):
        _write(path, path.stat().st_size, content, chooser)
    second = _commit(repo, tree)
    shutil.rmtree(tree)
    made = Workload(repo, first, second, len(sizes), sum(sizes))
    note.write_text(json.dumps({**made._asdict(), "repo": "repo", "version": _VERSION}))
    return made


def with_deltas(made: Workload) -> Workload:
    """Return the workload as a repository with the same objects and static deltas, made as ostree does by default.

    One delta makes the first commit of nothing, one the second of the first.
    """
    home = made.repo.with_name("deltas")
    repo = made._replace(repo=home)
    if (home / "summary").is_file():
        return repo
    print(f"making static deltas in {home}/, which takes some minutes …", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run(["ostree", "init", f"--repo={home}", "--mode=archive"], check=True)
    (home / "objects").rmdir()
    (home / "objects").symlink_to("../repo/objects")
    (home / "refs" / "heads" / BRANCH).parent.mkdir(parents=True, exist_ok=True)
    repo.publish(made.first)
    for origin, to in (("--empty", made.first), (f"--from={made.first}", made.second)):
        argv = ["ostree", "static-delta", "generate", f"--repo={home}", origin, f"--to={to}"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run(["ostree", "summary", "-u", f"--repo={home}"], check=True)
    return repo


def _sizes(scale: float) -> list[int]:
    """Log-normal sizes, ascending, and the few large files that hold most of a runtime's bytes."""
    count = round(_FILES * scale)
    total = _BYTES * scale
    normal = NormalDist(math.log(_MEDIAN), _SIGMA)
    sizes = [round(math.exp(normal.inv_cdf((i + 0.5) / count))) for i in range(count)]
    large = min(_LARGEST, 0.16 * (total - sum(sizes)))
    while sum(sizes) + large < total:
        sizes.append(round(large))
        large *= 0.85
    return sizes


def pool(chooser: random.Random) -> bytes:
    """Bytes that deflate to three fifths, as programs do: often-used sequences among bytes that nothing predicts."""
    words = [chooser.randbytes(chooser.randint(2, 9)) for _ in range(3000)]
    weights = [1 / (rank + 8) for rank in range(len(words))]
    parts: list[bytes] = []
    for word in chooser.choices(words, weights, k=_POOL // 7):
        parts.append(word)
        if chooser.random() < 0.3:
            parts.append(chooser.randbytes(4))
    return b"".join(parts)


def _paths(tree: Path, count: int, scale: float, chooser: random.Random) -> list[Path]:
    """Make the directories, most of them small and none deeper than nine, and choose a place for each file."""
    directories = [tree]
    for number in range(round(_DIRECTORIES * scale)):
        parent = chooser.choice(directories)
        while len(parent.parts) - len(tree.parts) > 8:
            parent = chooser.choice(directories)
        directories.append(parent / f"directory-{number}")
        directories[-1].mkdir()
    return [chooser.choice(directories) / f"file-{number}.so" for number in range(count)]


def _write(path: Path, size: int, content: bytes, chooser: random.Random) -> None:
    with path.open("wb") as file:
        while size > 0:
            start = chooser.randrange(len(content) - 1)
            piece = content[start : start + min(size, 1 << 20)]
            file.write(piece)
            size -= len(piece)


def _commit(repo: Path, tree: Path) -> str:
    how = [f"--branch={BRANCH}", "--timestamp=@1700000000", "--owner-uid=0", "--owner-gid=0", "--subject=bench"]
    how.append("--generate-sizes")  # as flatpak does
    argv = ["ostree", "commit", f"--repo={repo}", *how, str(tree)]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()
