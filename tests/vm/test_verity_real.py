"""With a kernel that has fs-verity: secure repositories are secure, and nothing else is mounted or read."""

from __future__ import annotations

import pytest

from support import vm
from support.vm_guest import CHECKS

pytestmark = pytest.mark.vm


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What the virtual machine found, once for all tests."""
    return vm.run(tmp_path_factory.mktemp("vm"))


@pytest.mark.parametrize("check", CHECKS)
def test_in_the_machine(results: dict[str, str | None], check: str) -> None:
    problem = results.get("prepare") or results.get(check, "the check did not run")
    assert problem is None, problem
