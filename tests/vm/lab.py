"""What a check can do in the machine: run cfsctl, mount, and change the disk behind everybody's back."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from composefs.cli import main as cfsctl_main

__all__ = ["DISK", "MEMORY", "NOBODY", "cfsctl", "flip", "load_module", "mount", "mount_disk", "power_off", "unmounted"]

DISK = Path("/disk")
"""Where the disk is mounted: ext4 with fs-verity."""

MEMORY = Path("/memory")
"""A tmpfs."""

EVERY_FAULT = False
"""Whether every call of a command is made to fail, or a sample."""

NOBODY = 65534
"""The number of a user and a group without any rights."""

_DEVICE = "/dev/nvme0n1"
_BLOCK_SIZE = 4096
_FIBMAP = 1
_SYS_INIT_MODULE = 175  # on x86-64
_POWER_OFF = 0x4321FEDC

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def cfsctl(
    *arguments: str | Path, status: int | None = 0, tracer: Sequence[str] = (), user: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run cfsctl's main function in a child, and check its exit status (None: any).

    To start an interpreter and import everything takes more than a second in an emulated machine; a fork has all that.
    ``tracer`` is a command line of strace, which watches the child from its first step; ``user`` is whom it runs as.
    """
    argv = ["cfsctl", *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        wait, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(wait, 1)
            _become(argv, out.fileno(), err.fileno(), user)
        os.close(wait)
        watcher = _attach(tracer, child) if tracer else None
        os.close(go)
        _, wait_status = os.waitpid(child, 0)
        if watcher is not None:
            watcher.wait()
        out.seek(0)
        err.seek(0)
        done = subprocess.CompletedProcess(argv, os.waitstatus_to_exitcode(wait_status), out.read(), err.read())
    if status is not None and done.returncode != status:
        raise AssertionError(f"{argv}: exit status {done.returncode}, expected {status}\n{done.stdout}{done.stderr}")
    return done


def _attach(tracer: Sequence[str], child: int) -> subprocess.Popen[bytes]:
    """Start a tracer, and wait until the child has it."""
    watcher = subprocess.Popen([*tracer, "-p", str(child)])
    while "TracerPid:\t0\n" in Path(f"/proc/{child}/status").read_text():
        if watcher.poll() is not None:
            raise AssertionError(f"{tracer[0]} ends with {watcher.returncode}")
        time.sleep(0.01)
    return watcher


def _become(argv: list[str], out: int, err: int, user: int) -> NoReturn:
    """Be cfsctl in the child, and end there whatever happens."""
    status = 70
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        if user:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        sys.argv = argv
        status = cfsctl_main.main()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - a child must not go on as the checks
        traceback.print_exc()
    finally:
        os._exit(status)


def load_module(path: Path) -> None:
    """Load a kernel module; those that it needs must be loaded."""
    image = path.read_bytes()
    _checked(_libc.syscall(_SYS_INIT_MODULE, image, ctypes.c_ulong(len(image)), b""), f"loading {path}")


def mount(source: str, path: str | Path, kind: str, options: str = "") -> None:
    """Mount by mount(2)."""
    words = [word.encode() for word in (source, str(path), kind)]
    _checked(_libc.mount(*words, ctypes.c_ulong(0), options.encode()), f"mounting {path}")


def mount_disk() -> None:
    """Mount the disk."""
    mount(_DEVICE, DISK, "ext4")


@contextlib.contextmanager
def unmounted(path: Path) -> Iterator[None]:
    """Have what is mounted at ``path`` unmounted in the end, which fails while anybody uses it."""
    try:
        yield
    finally:
        _checked(_libc.umount2(str(path).encode(), 0), f"unmounting {path}")


def flip(path: Path, offset: int) -> None:
    """Change a byte of a file on the disk itself, as a failing disk would; nobody may have a file open there."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        block = int.from_bytes(fcntl.ioctl(file, _FIBMAP, (offset // _BLOCK_SIZE).to_bytes(4, "little")), "little")
    with unmounted(DISK):
        pass
    fd = os.open(_DEVICE, os.O_RDWR)
    try:
        at = block * _BLOCK_SIZE + offset % _BLOCK_SIZE
        (byte,) = os.pread(fd, 1, at)
        os.pwrite(fd, bytes([byte ^ 0xFF]), at)
        os.fsync(fd)
    finally:
        os.close(fd)
    mount_disk()


def power_off() -> None:
    """Switch the machine off."""
    os.sync()
    _libc.reboot(ctypes.c_int(_POWER_OFF))
