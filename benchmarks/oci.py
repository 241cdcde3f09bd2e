"""Pulls of images, from a layout and from a registry on loopback, beside skopeo with umoci, and podman.

``podman pull`` runs on storage of its own, with the driver overlay where the kernel lets it, else with vfs.  ``skopeo
copy`` and ``umoci unpack`` are one job, with gzip alone as umoci knows nothing else.  Unlike those, ``cfsctl oci pull``
makes a mountable image, and checks what comes from a layout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from measure import Sample, measure
from oci_image import LARGE, SMALL, Image, image
from registry import registry
from rows import CFSCTL, Bench, Job, Row, alternate, quietly

_INSECURE = "--tls-verify=false"


def oci_jobs(bench: Bench) -> Iterator[Row]:
    """Run the pulls of the small image and, at full size, of the large one too."""
    for size in (SMALL, LARGE) if bench.scale >= 1 else (SMALL,):
        yield from _pulls(bench.work / size[0], image(bench.keep, *size), size[0], bench.rounds)


def _pulls(work: Path, made: Image, size: str, rounds: int) -> Iterator[Row]:
    work.mkdir()
    ours, podman = _Composefs(work / "composefs"), _Podman(work / "podman")
    with registry(work / "registry") as host:
        for how in ("gzip", "zstd"):
            served = f"docker://{host}/bench:{how}"
            local = f"oci:{made.layout}:{how}"
            quietly(["skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", local, served])
            for place, source in (("layout", local), ("registry", served)):
                jobs: list[Job] = [
                    ("cfsctl", partial(ours.first, source)),
                    (podman.name, partial(podman.first, source)),
                ]
                if how == "gzip":
                    jobs.insert(1, ("skopeo + umoci", partial(_unpack, work / "umoci", source)))
                yield alternate(f"{size} image, {how}, {place}", jobs, rounds)
        again: list[Job] = [
            ("cfsctl", _prepared(ours.first, ours.pull, served)),
            (podman.name, _prepared(podman.first, podman.pull, served)),
        ]
        yield alternate(f"{size} image, unchanged tag", again, 3 * rounds)
    shutil.rmtree(work)


def _prepared(first: Callable[[str], Sample], pull: Callable[[str], Sample], source: str) -> Callable[[], Sample]:
    """Return what pulls again an image that is there."""
    first(source)
    return partial(pull, source)


class _Composefs:
    """Our side of a pull: a sha512 repository without fs-verity, and the cache that belongs to it."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def first(self, source: str) -> Sample:
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        quietly([CFSCTL, "init", "--insecure", self.home / "repo"])
        return self.pull(source)

    def pull(self, source: str) -> Sample:
        argv: list[str | Path] = [CFSCTL, "--repo", self.home / "repo", "oci", "pull", _INSECURE, source, "bench"]
        return measure(argv, env={"XDG_CACHE_HOME": str(self.home / "cache")})


class _Podman:
    """podman's side: storage that begins empty."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._driver = "overlay" if self._can_overlay() else "vfs"
        self.name = f"podman, {self._driver}"

    def first(self, source: str) -> Sample:
        self._clear()
        return self.pull(source)

    def pull(self, source: str) -> Sample:
        insecure = [_INSECURE] if source.startswith("docker:") else []
        argv = [*self._podman(), "pull", "--quiet", *insecure, source]
        return measure(argv, env=self._env())

    def _podman(self) -> list[str | Path]:
        places = [f"--root={self.home}/root", f"--runroot={self.home}/run"]
        return ["podman", *places, f"--storage-driver={self._driver}"]

    def _env(self) -> dict[str, str]:
        return {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home / "run"), "STORAGE_DRIVER": self._driver}

    def _clear(self) -> None:
        # What is mounted there hides what is to be removed.
        subprocess.run(["umount", "--quiet", self.home / "root/overlay"], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()

    def _can_overlay(self) -> bool:
        self._driver = "overlay"
        self._clear()
        argv = list(map(str, [*self._podman(), "info"]))
        done = subprocess.run(argv, env=os.environ | self._env(), capture_output=True, check=False)
        return done.returncode == 0


def _unpack(home: Path, source: str) -> Sample:
    """Copy the image into a layout and unpack it."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    script = (
        'skopeo copy --quiet --src-tls-verify=false "$1" "oci:$2/layout:x"'
        ' && umoci unpack --image "$2/layout:x" "$2/bundle"'
    )
    return measure(["sh", "-c", script, "sh", source, home])
