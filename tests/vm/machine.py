"""Boot the machine once, and bring its results home.

QEMU emulates the processor.  It would be faster with /dev/kvm, which many build machines lack and where nested
virtualisation is not always sound; emulation is the same everywhere.  QEMU's exit status tells nothing, not even
whether the kernel panicked: only results count, which the guest writes to a virtio port, a line of JSON each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import peers
from vm import initramfs
from vm.guest import PORT
from vm.kernel import MODULES, kernel

__all__ = ["Outcome", "run"]

TIME_LIMIT = 1800
"""Seconds after which a machine that hangs is switched off."""

_DISK_SIZE = "256M"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``results`` by the name of the check: {"error": text or None, "found": what it returned, "seconds": number};
    ``console`` is for people."""

    results: dict[str, dict[str, Any]]
    finished: bool
    console: str


def run(directory: Path, disk_content: Path, *words: str, time_limit: int = TIME_LIMIT) -> Outcome:
    """Boot, run the checks, and switch off; ``directory`` takes the files, ``disk_content`` is what the disk holds.

    ``words`` are for the guest: the names of checks, all if there are none, and how to run them.  The disk is ext4 with
    fs-verity enabled.
    """
    qemu = peers.require("qemu-system-x86_64")
    linux = kernel()
    disk, results, console = (directory / name for name in ("disk", "results", "console"))
    # Small file systems would have blocks of 1 KiB, with which files of 4 KiB pages get no fs-verity.
    make = [peers.require("mkfs.ext4"), "-q", "-b", "4096", "-O", "verity", "-d", disk_content]
    subprocess.run([*make, disk, _DISK_SIZE], check=True)
    with (directory / "initramfs").open("wb") as out:
        initramfs.write(out, [linux.modules / f"{name}.ko" for name in MODULES])
    guest = Path(__file__).with_name("guest.py")
    init = " ".join(["-I", str(guest), *words])
    # Linux panics if less than five ticks of the timer come in the time of ten (timer_irq_works), as happens when the
    # machine has other things to do than to emulate: it is not to look.
    settings = "console=ttyS0 quiet panic=-1 mitigations=off norandmaps no_timer_check"
    command = [
        *(qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-M", "q35", "-accel", "tcg,tb-size=256", "-cpu", "max", "-m", "1024"),
        *("-kernel", linux.image, "-initrd", directory / "initramfs", "-serial", f"file:{console}"),
        *("-drive", f"if=none,id=disk,format=raw,cache=unsafe,file={disk}", "-device", "nvme,serial=1,drive=disk"),
        *("-chardev", f"file,id=results,path={results}"),
        *("-device", "virtio-serial", "-device", f"virtserialport,chardev=results,name={PORT}"),
        *("-append", f"{settings} rdinit={sys.executable} -- {init}"),
    ]
    try:
        done = subprocess.run(command, timeout=time_limit, capture_output=True, text=True, check=False)
        said = done.stderr
    except subprocess.TimeoutExpired:
        said = f"the machine was switched off after {time_limit} seconds"
    return _read(results, console, said)


def _read(results: Path, console: Path, said: str) -> Outcome:
    found: dict[str, dict[str, Any]] = {}
    finished = False
    for line in results.read_text().splitlines() if results.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # cut off in the middle
            break
        if "finished" in row:
            finished = True
        else:
            found[row.pop("name")] = row
    text = console.read_text(errors="replace") if console.exists() else ""
    return Outcome(found, finished, f"{text}\n{said}")
