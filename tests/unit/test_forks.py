"""Copies of this process: none goes on with its work, and none is left, whatever signal comes when."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from composefs.linux.forks import Forks


@pytest.mark.parametrize("where", ["copy", "parent"])
def test_a_signal_right_after_the_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Ctrl-C reaches all processes of a terminal."""
    us, fork = os.getpid(), os.fork
    pids = []

    def fork_and_ask() -> int:
        pid = fork()
        pids.append(pid)
        if (pid == 0) == (where == "copy"):
            signal.raise_signal(signal.SIGINT)
        return pid

    monkeypatch.setattr(os, "fork", fork_and_ask)
    told, tell = os.pipe()
    try:
        with Forks() as forks:
            forks.start(1, lambda: os.write(tell, b"at work"))
            os.close(tell)
            assert os.read(told, 100) == b"at work"
    except KeyboardInterrupt:
        if os.getpid() != us:
            (tmp_path / "stray").touch()
            os._exit(1)
        assert where == "parent"
        os.close(tell)
    else:
        assert where == "copy"
    assert not (tmp_path / "stray").exists()
    os.close(told)
    with pytest.raises(ChildProcessError):
        os.waitpid(pids[0], os.WNOHANG)
