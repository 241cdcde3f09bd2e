"""A kernel with fs-verity: Debian's for clouds, out of its package.

The package is downloaded and unpacked, not installed: a test must not give the machine another kernel to boot.
"""

from __future__ import annotations

import lzma
import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
import zstandard

from vm.cache import cached

__all__ = ["MODULES", "PACKAGE", "Kernel", "kernel"]

PACKAGE = "linux-image-cloud-amd64"
MODULES = ("libcrc32c", "erofs", "overlay", "loop", "xor", "raid6_pq", "btrfs")
"""What is not built in, each after those that it needs."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Kernel(NamedTuple):
    """An ELF image that QEMU boots, and the directory of the modules, NAME.ko."""

    image: Path
    modules: Path


def kernel() -> Kernel:
    """Return the kernel, from the cache if it is there; fail the test with the package's name if it cannot be had."""
    if platform.machine() != "x86_64":
        pytest.fail(f"the virtual machine is an x86-64 one, this is {platform.machine()}: set COMPOSEFS_NO_VM=1")
    directory = cached("kernel", "-".join((PACKAGE, *MODULES)), _make)
    return Kernel(directory / "vmlinux", directory)


def _make(directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as work:
        root = Path(work)
        package = _download(root)
        subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
        (boot,) = root.glob("boot/vmlinuz-*")
        (directory / "vmlinux").write_bytes(_unwrap(boot.read_bytes()))
        for name in MODULES:
            (module,) = root.glob(f"**/kernel/**/{name}.ko.xz")
            (directory / f"{name}.ko").write_bytes(lzma.decompress(module.read_bytes()))


def _download(directory: Path) -> Path:
    """Download the package that the kernel's metapackage stands for today."""
    for refresh in (False, True):
        if refresh and os.geteuid() == 0:  # the lists of packages may be absent, or older than the mirror
            _run("apt-get", "-qq", "update", directory=directory)
        depends = _run("apt-cache", "depends", PACKAGE, directory=directory).stdout
        found = re.search(r"Depends: (linux-image-\S+)", depends)
        if found and _run("apt-get", "-qq", "download", found[1], directory=directory).returncode == 0:
            return next(directory.glob("*.deb"))
    return pytest.fail(
        f"the kernel of the virtual machine cannot be had: `apt-get download` finds no package {PACKAGE}; "
        "run `apt-get update`, or set COMPOSEFS_NO_VM=1 to leave these tests out",
        pytrace=False,
    )


def _run(*command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", "")


def _unwrap(image: bytes) -> bytes:
    """Return the ELF file that is compressed inside a bzImage: it boots a second sooner in an emulated machine."""
    at = image.index(_ZSTD_MAGIC)
    elf = zstandard.ZstdDecompressor().decompressobj().decompress(image[at:])
    assert elf.startswith(b"\x7fELF")
    return elf
