"""What tests of remotes start from: a machine that has none, a repository to pull from, and pulls into nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.commands import cfsctl
from support.nginx import Certificates, make_certificates
from support.ostree_pull import Target
from support.ostree_repo import commit, make_repo, make_tree, update_summary


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without remotes, passwords and caches; the directory of its remotes."""
    directory = tmp_path / "remotes.d"
    directory.mkdir()
    monkeypatch.setenv("COMPOSEFS_OSTREE_REMOTES", str(directory))
    # The files that remotes name are here, and extensions are confined.
    monkeypatch.setenv("COMPOSEFS_EXT_READ", str(tmp_path_factory.getbasetemp()))
    (tmp_path / "netrc").touch(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return directory


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of a server and its clients."""
    return make_certificates(tmp_path_factory.mktemp("tls") / "made")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with one branch and a summary."""
    path = tmp_path_factory.mktemp("source")
    repo = make_repo(path / "repo")
    commit(repo, make_tree(path / "tree", files=8))
    update_summary(repo)
    return repo


def pulls(target: Target, *source: str | Path, status: int = 0, **options: object) -> str:
    """Pull into what is empty again, which takes the workers too; return what was said to the user."""
    done = target.ostree("pull", *source, status=status, **options)
    if status == 0:
        assert target.names()
        for ref in target.json("images")["images"]:
            target.ostree("untag", ref["name"])
        cfsctl("--repo", target.path, "gc")
    return done.stderr


def cache_files(pattern: str) -> list[Path]:
    """What the extension keeps between runs."""
    return list(Path(os.environ["XDG_CACHE_HOME"]).glob(f"composefs/ext/ostree/*/{pattern}"))


def remote(target: Target, url: str, *arguments: str) -> None:
    """Configure the remote ``o``, in place of what it was, without GPG unless the arguments say otherwise."""
    target.ostree("remote", "add", "--force", "--no-gpg-verify", "o", url, *arguments)
