"""What the core does by itself: images of directories and dumps, checking, collecting, mounting.

The directory is the runtime of the pulls, checked out; the peers are ``fsverity digest`` of its files, ``mkfs.erofs``,
whose image has their content in it, ``ostree fsck`` of a bare-user repository with the same content, the plain
directory, and C's tools where they are installed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from measure import Sample, measure
from os_tree_dump import os_tree_dump
from rows import BIN, CFSCTL, Bench, Row, alternate, quietly

DUMP_ENTRIES = 40_000
_READ = "find {} -type f -exec cat {{}} + >/dev/null"


def core_jobs(bench: Bench) -> Iterator[Row]:
    """Run the jobs of the core."""
    work, made, rounds = bench.work, bench.workload(), bench.rounds
    yield from _dumps(work, rounds)
    tree = work / "tree"
    quietly(["ostree", "checkout", "-U", f"--repo={made.repo}", made.first, tree])
    names = work / "names"
    names.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in tree.rglob("*") if path.is_file()))
    fsverity = (
        "fsverity digest",
        partial(measure, ["xargs", "-0", "-a", names, "fsverity", "digest", "--hash-alg=sha512"]),
    )
    repo = work / "repo"

    def create() -> Sample:
        shutil.rmtree(repo, ignore_errors=True)
        quietly([CFSCTL, "init", "--insecure", repo])
        return measure([CFSCTL, "--repo", repo, "create-image", "--no-propagate-usr-to-root", tree, "bench"])

    erofs = ("mkfs.erofs", partial(measure, ["mkfs.erofs", "--quiet", work / "erofs", tree]))
    compute: partial[Sample] = partial(measure, [CFSCTL, "--no-repo", "compute-id", "--no-propagate-usr-to-root", tree])
    yield alternate("create-image", [("cfsctl", create), fsverity, erofs], rounds)
    (work / "erofs").unlink()
    yield alternate("compute-id", [("cfsctl", compute), fsverity], rounds)
    theirs = work / "bare-user"
    quietly(["ostree", "init", f"--repo={theirs}", "--mode=bare-user"])
    quietly(["ostree", "pull-local", f"--repo={theirs}", made.repo, made.first])
    checks: list[tuple[str, list[str | Path]]] = [
        ("cfsctl", [CFSCTL, "--repo", repo, "fsck"]),
        ("ostree", ["ostree", "fsck", f"--repo={theirs}", "--quiet"]),
    ]
    yield alternate("fsck", [(name, partial(measure, argv)) for name, argv in checks], rounds)
    if os.geteuid() == 0:
        yield alternate("read every file", list(_reading(work, repo, tree)), rounds)
    yield alternate("gc, nothing to do", [("cfsctl", partial(measure, [CFSCTL, "--repo", repo, "gc"]))], rounds)

    def collect() -> Sample:
        create()
        quietly([CFSCTL, "--repo", repo, "ref", "remove", "--image", "bench"])
        return measure([CFSCTL, "--repo", repo, "gc"])

    yield alternate("gc, everything to do", [("cfsctl", collect)], max(rounds // 2, 1))


def _dumps(work: Path, rounds: int) -> Iterator[Row]:
    """Make an image of a dump, and a dump of the image."""
    dump, image = work / "dump", work / "image"
    dump.write_text(os_tree_dump(DUMP_ENTRIES))
    tools: tuple[tuple[str, str, list[str | Path]], ...] = (
        (f"image of {DUMP_ENTRIES} entries", "mkcomposefs", ["--from-file", dump, image]),
        (f"dump of {DUMP_ENTRIES} entries", "composefs-info", ["dump", image]),
    )
    for title, command, arguments in tools:
        programs = {"cfsctl": str(BIN / command)}
        if other := shutil.which(command, path="/usr/local/bin:/usr/bin"):
            programs[f"C {command}"] = other
        yield alternate(
            title, [(name, partial(measure, [program, *arguments])) for name, program in programs.items()], rounds
        )

    yield from _looking_up(work, dump, rounds)


def _looking_up(work: Path, dump: Path, rounds: int) -> Iterator[Row]:
    """Look at the last path of a large image."""
    repo, image = work / "large", work / "large.cfs"
    # Without hard links: their link counts in the dump are not true, and a repository takes no such image.
    lines = [line for line in dump.read_text().splitlines() if " @" not in line]
    (work / "large.dump").write_text("\n".join(lines) + "\n")
    quietly([BIN / "mkcomposefs", "--from-file", work / "large.dump", image])
    quietly([CFSCTL, "init", "--insecure", "--algorithm", "fsverity-sha256-12", repo])
    with image.open("rb") as file:
        quietly([CFSCTL, "--repo", repo, "import-image", "--allow-missing", "large"], stdin=file)
    path = lines[-1].split()[0]
    for command in ("ls", "dump-files"):
        argv: list[str | Path] = [CFSCTL, "--repo", repo, command, "refs/large", path]
        quietly(argv)
        yield alternate(f"{command} of one path", [("cfsctl", partial(measure, argv))], 3 * rounds)


def _reading(work: Path, repo: Path, tree: Path) -> Iterator[tuple[str, partial[Sample]]]:
    """Mount the image and read all files; and the same of the plain directory."""
    mounted = work / "mounted"
    mounted.mkdir()
    script = f"{CFSCTL} --repo {repo} mount bench {mounted} && {_READ.format(mounted)}; umount {mounted}"
    yield "cfsctl mount", partial(measure, ["sh", "-c", script])
    yield "directory", partial(measure, ["sh", "-c", _READ.format(tree)])
