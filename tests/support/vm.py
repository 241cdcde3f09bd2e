"""A virtual machine whose kernel has fs-verity: Debian's cloud kernel under QEMU, with Python as init.

The root disk holds the interpreter that runs the tests, its standard library, zstandard, composefs and ``vm_guest``; a
second disk is an ext4 file system with fs-verity and blocks of 4 KiB, which FS_IOC_ENABLE_VERITY needs.  No KVM, no
network, nothing of the host is visible.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import zstandard

import composefs
from support import peers, vm_guest

ROOT = Path(os.environ.get("COMPOSEFS_VM_KERNEL", "/"))
"""Where the package linux-image-cloud-amd64 is unpacked: it has boot/vmlinuz-* and usr/lib/modules/*."""

_MODULES = ("libcrc32c", "netfs", "erofs", "overlay", "loop")  # in the order of loading
_OMITTED = shutil.ignore_patterns(
    "test", "tests", "site-packages", "dist-packages", "idlelib", "tkinter", "ensurepip", "config-*", "lib2to3", "*.a"
)
_TIME_LIMIT = 300


def kernel() -> Path | None:
    """Return Debian's cloud kernel, or None."""
    found = sorted((ROOT / "boot").glob("vmlinuz-*cloud*"))
    return found[-1] if found else None


def _modules(image: Path) -> dict[str, bytes]:
    """Return the modules that this kernel has not built in, by name."""
    release = image.name.removeprefix("vmlinuz-")
    found = {}
    for top in ("usr/lib/modules", "lib/modules"):
        for name in _MODULES:
            for path in (ROOT / top / release).rglob(f"{name}.ko*"):
                found[name] = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    return {name: found[name] for name in _MODULES if name in found}


def _libraries(binary: Path) -> set[Path]:
    """Return the shared libraries that a binary needs, by the names they are looked for."""
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    words = (word for line in listed.splitlines() for word in line.split())
    return {Path(word) for word in words if word.startswith("/")}


def _make_root(stage: Path, image: Path) -> Path:
    """Fill the root disk's directory; return the interpreter's path in it."""
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    for directory in ("proc", "sys", "dev", "run", "tmp", "modules.d"):
        (stage / directory).mkdir(parents=True)

    def put(path: Path) -> None:
        target = stage / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)

    put(python)
    shutil.copytree(library, stage / library.relative_to("/"), ignore=_OMITTED, symlinks=True)
    shutil.copytree(Path(zstandard.__file__).parent, stage / "app/zstandard")
    shutil.copytree(Path(composefs.__file__).parent, stage / "app/composefs")
    shutil.copy2(vm_guest.__file__, stage / "guest.py")
    for binary in (python, *stage.rglob("*.so")):
        for needed in _libraries(binary):
            put(needed)
    names = []
    for name, data in _modules(image).items():
        (stage / "modules.d" / name).write_bytes(data)
        names.append(f"/modules.d/{name}")
    (stage / "modules").write_text("\n".join(names))
    return python


def run(directory: Path) -> dict[str, str | None]:
    """Run all checks of ``vm_guest`` and return, by name, None or a traceback.  Fails when no result comes."""
    image = kernel()
    assert image is not None, "apt-get install linux-image-cloud-amd64, or unpack it where COMPOSEFS_VM_KERNEL says"
    qemu, mkfs = peers.require("qemu-system-x86_64"), peers.require("mkfs.ext4")
    stage = directory / "stage"
    stage.mkdir()
    python = _make_root(stage, image)
    disks = []
    for name, options, size in (("root", "^has_journal", "300M"), ("verity", "verity", "64M")):
        disks.append(directory / f"{name}.img")
        content = ["-d", str(stage)] if name == "root" else []
        subprocess.run([mkfs, "-q", "-b", "4096", "-O", options, *content, disks[-1], size], check=True)
    result, console = directory / "result", directory / "console"
    command = [qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-M", "q35", "-accel", "tcg,tb-size=256", "-cpu", "max", "-m", "512", "-kernel", str(image)]
    command += ["-serial", f"file:{console}", "-device", "virtio-serial"]
    command += ["-chardev", f"file,id=result,path={result}", "-device", "virtserialport,chardev=result,name=result"]
    for disk, options in zip(disks, (",readonly=on", ""), strict=True):
        command += ["-drive", f"file={disk},format=raw,if=none,id={disk.stem}{options}"]
        command += ["-device", f"nvme,drive={disk.stem},serial={disk.stem}"]
    arguments = f"console=ttyS0 panic=-1 quiet root=/dev/nvme0n1 rootfstype=ext4 ro init={python} -- -I /guest.py"
    subprocess.run([*command, "-append", arguments], check=True, timeout=_TIME_LIMIT)
    # QEMU ends with 0 after a panic too: only a result counts.
    text = result.read_text() if result.exists() else ""
    assert text.endswith("\n"), f"no result from the machine; its console said:\n{console.read_text(errors='replace')}"
    found: dict[str, str | None] = json.loads(text)
    return found
