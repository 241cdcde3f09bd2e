"""--wait: commands that find a repository locked, also one that they only read from, go on when it is free."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from composefs.linux.locks import try_lock
from support.commands import CFSCTL, TIMEOUT, cfsctl, the_error, wait_until_open
from support.oci_images import init, pull
from support.oci_layout import simple


class Waiting:
    """A command that is to wait for the lock of a repository, which is held as while garbage is collected."""

    def __init__(self, locked: Path, *arguments: str | Path) -> None:
        self._locked = os.open(locked, os.O_RDONLY | os.O_DIRECTORY)
        assert try_lock(self._locked, exclusive=True)
        assert "in use by another process" in the_error(*arguments, status=4)
        self._process = subprocess.Popen(
            [CFSCTL, "--wait", "3600", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_until_open(self._process, locked)  # what it opens it goes on to lock

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def unlock(self) -> None:
        os.close(self._locked)

    def end(self) -> tuple[int, str]:
        """Wait for its end; return the exit status and what it said on standard error."""
        _, stderr = self._process.communicate(timeout=TIMEOUT)
        return self._process.returncode, stderr


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository with an image."""
    repo = init(tmp_path / "source")
    pull(repo, f"oci:{simple().write(tmp_path / 'layout')}:latest", "app")
    return repo


@pytest.fixture
def commands(tmp_path: Path, source: Path) -> dict[str, list[str | Path]]:
    """Commands that read from the source."""
    target = init(tmp_path / "target")
    damaged = tmp_path / "damaged"
    shutil.copytree(source, damaged, symlinks=True)
    next((damaged / "objects").glob("*/*")).unlink()
    return {
        "init": ["init", "--insecure", "--json", "--algorithm=fsverity-sha256-12", source],
        "copy": ["--repo", target, "copy", "--from", source, "oci/app"],
        "oci copy": ["--repo", target, "oci", "copy", "--from", source, "app"],
        "fsck --repair": ["--repo", damaged, "fsck", "--repair", "--from", source],
    }


@pytest.mark.parametrize("name", ["init", "copy", "oci copy", "fsck --repair"])
def test_it_goes_on_when_nobody_collects_garbage_any_more(
    source: Path, commands: dict[str, list[str | Path]], name: str
) -> None:
    waiting = Waiting(source, *commands[name])
    waiting.unlock()
    assert waiting.end() == (0, "")
    cfsctl("--repo", source, "fsck")


def test_it_can_be_interrupted_also_where_an_extension_waits_for_the_core(
    source: Path, commands: dict[str, list[str | Path]]
) -> None:
    waiting = Waiting(source, *commands["oci copy"])
    waiting.interrupt()
    assert waiting.end() == (130, "cfsctl: extension oci was interrupted\n")
    waiting.unlock()
