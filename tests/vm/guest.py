"""The first process of the virtual machine: set it up, run the checks, write down what came of them, switch off.

The machine has this Python, the wheels and the checks in memory, and a disk that can have fs-verity.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parents[1]))

from vm import lab

__all__ = ["PORT"]

PORT = "composefs.results"
SECONDS_A_CHECK = 240
SECONDS_A_SWEEP = 3000


def _set_up() -> None:
    for kind, path in (
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", str(lab.MEMORY)),  # not /tmp: this checkout may be below it
    ):
        os.makedirs(path, exist_ok=True)
        lab.mount(kind, path, kind)
    os.makedirs("/run", exist_ok=True)
    console = os.open("/dev/ttyS0", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(console, fd)
    os.environ.update(HOME="/root", PATH="/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C.UTF-8", TMPDIR=str(lab.MEMORY))
    os.makedirs("/root", exist_ok=True)
    # Python looks for libraries with programs that are not here.
    os.environ["FUSE_LIBRARY_PATH"] = str(next(Path("/usr/lib").glob("*/libfuse3.so.*")))
    for module in sorted(Path("/modules").iterdir()):
        lab.load_module(module)
    lab.DISK.mkdir()
    lab.mount_disk()


def _port() -> int:
    for name in os.listdir("/sys/class/virtio-ports"):
        if Path("/sys/class/virtio-ports", name, "name").read_text().strip() == PORT:
            return os.open(f"/dev/{name}", os.O_WRONLY)
    raise FileNotFoundError(f"no virtio port {PORT}")


def _write(port: int, row: dict[str, object]) -> None:
    os.write(port, json.dumps(row).encode() + b"\n")


def _too_long(_number: int, _frame: object) -> NoReturn:
    raise TimeoutError("the check took too long")


def _run(port: int) -> None:
    from vm.checks import CHECKS, faults

    signal.signal(signal.SIGALRM, _too_long)
    lab.EVERY_FAULT = faults.EVERY in sys.argv
    for name in [name for name in CHECKS if name in sys.argv] or CHECKS:
        start = time.monotonic()
        directory = lab.DISK / name
        directory.mkdir()
        error = found = None
        signal.alarm(SECONDS_A_SWEEP if lab.EVERY_FAULT else SECONDS_A_CHECK)
        try:
            found = CHECKS[name](directory)
        except Exception:  # noqa: BLE001 - whatever it is, it is the check's result
            error = traceback.format_exc()
        signal.alarm(0)
        _write(port, {"name": name, "error": error, "found": found, "seconds": round(time.monotonic() - start, 2)})
    _write(port, {"finished": True, "seconds": round(time.monotonic(), 2)})


def main() -> None:
    """Be the machine."""
    try:
        _set_up()
        _run(_port())
    except BaseException:  # noqa: BLE001 - nobody else can tell of it
        traceback.print_exc()  # on the console, for the report
    finally:
        lab.power_off()


if __name__ == "__main__":
    main()
