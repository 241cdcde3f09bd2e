"""The two sides of a pull: a repository of cfsctl's and one of ostree's, made anew or as they were before."""

from __future__ import annotations

import shutil
from pathlib import Path

from measure import Sample, measure
from rows import CFSCTL, quietly


class Composefs:
    """Our side: a sha512 repository without fs-verity, and the cache that belongs to it."""

    name = "cfsctl"

    def __init__(self, home: Path, *pull: str | Path) -> None:
        """``pull`` is the command behind ``cfsctl ostree``."""
        self.home, self.saved = home, home.with_suffix(".saved")
        self._pull = pull

    def new(self) -> None:
        """Make the repository anew, empty."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        quietly([CFSCTL, "init", "--insecure", self.home / "repo"])

    def pull(self) -> Sample:
        argv = [CFSCTL, "--repo", self.home / "repo", "ostree", *self._pull]
        return measure(argv, env={"XDG_CACHE_HOME": str(self.home / "cache")})

    def first_pull(self) -> Sample:
        self.new()
        return self.pull()

    def save(self) -> None:
        """Keep the repository as it is for :meth:`pull_from_saved`."""
        shutil.rmtree(self.saved, ignore_errors=True)
        self.home.rename(self.saved)

    def pull_from_saved(self) -> Sample:
        """Bring back what was saved and pull.  Hard links do: programs replace files and never write into them."""
        shutil.rmtree(self.home, ignore_errors=True)
        quietly(["cp", "-al", self.saved, self.home])
        return self.pull()


class Ostree(Composefs):
    """ostree's side: a bare-user repository."""

    name = "ostree"

    def __init__(self, home: Path, *pull: str | Path, url: str | None = None) -> None:
        """``pull`` is the command behind ``ostree``; ``url`` that of the remote ``bench``."""
        super().__init__(home, *pull)
        self._url = url

    def new(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        quietly(["ostree", "init", f"--repo={self.home}/repo", "--mode=bare-user"])
        if self._url is not None:
            quietly(["ostree", "remote", "add", f"--repo={self.home}/repo", "--no-gpg-verify", "bench", self._url])

    def pull(self) -> Sample:
        command, *rest = self._pull
        return measure(["ostree", command, f"--repo={self.home}/repo", *rest])
