"""Real fs-verity: the checks of checks.py, each a test here, run in one virtual machine."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict

import pytest

from support.made_repo import make_repository
from vm import machine
from vm.checks import CHECKS


@pytest.fixture(scope="session")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> machine.Outcome:
    """What came of the checks in the machine, which has the sample ostree repository on its disk.

    The processes of pytest-xdist share it: the first one that wants it boots the machine, and the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    found = shared / "vm.json"
    with (shared / "vm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            directory = tmp_path_factory.mktemp("vm")
            content = directory / "content"
            content.mkdir()
            make_repository(directory, content / "ostree")
            found.write_text(json.dumps(asdict(machine.run(directory, content))))
    return machine.Outcome(**json.loads(found.read_text()))


@pytest.mark.parametrize("name", CHECKS)
def test_in_the_machine(outcome: machine.Outcome, name: str) -> None:
    if name not in outcome.results:
        pytest.fail(f"the machine did not come to this check:\n{outcome.console[-10000:]}", pytrace=False)
    if error := outcome.results[name]["error"]:
        pytest.fail(error, pytrace=False)


def test_the_machine_came_to_its_end(outcome: machine.Outcome) -> None:
    assert outcome.finished, outcome.console
    assert outcome.results.keys() == CHECKS.keys()
