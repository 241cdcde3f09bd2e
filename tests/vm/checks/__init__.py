"""The checks that need a kernel with fs-verity: functions that get an empty directory on the disk.

They run in the virtual machine in the order of ``CHECKS``, and a failed assertion there is a failed test outside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vm.checks import commands, digests, faults, mounts, objects, power

__all__ = ["CHECKS"]

CHECKS: dict[str, Callable[[Path], object]] = {
    name: function
    for module in (digests, objects, mounts, commands, power, faults)
    for name, function in vars(module).items()
    if getattr(function, "__module__", None) == module.__name__ and name.startswith("check_")
}
"""The checks by name: every function ``check_…`` of the modules here; what they return goes into the results."""
