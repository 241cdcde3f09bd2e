"""What the virtual machine boots into: this Python, the wheels with all they need, and the checks, where they are here.

Everything has the path that it has on this machine, so that the virtual environment's launchers work as they are.  One
archive has what seldom changes, the interpreter and other people's packages, and is cached; the project's own files
are a second one, made for each run.  Both hold bytecode: compiling takes seconds in an emulated machine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from support import peers
from vm.cache import cached
from vm.cpio import Archive

__all__ = ["write"]

_ROOT = Path(__file__).resolve().parents[2]
_WHEELS = ("composefs", "composefs-ext", "composefs-ostree")
_PROGRAMS = ("mount", "umount", "strace", "fusermount3", "mkfs.btrfs")
_OPTIONAL = ("mfusepy",)
# Half of the standard library's size, and nothing of it runs in the machine.
_LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "turtledemo", "site-packages"}
_LEFT_OUT |= {"dist-packages", "pydoc_data", "__pycache__"}


def write(out: BinaryIO, kernel_modules: Iterable[Path]) -> None:
    """Write the archives for one run; ``kernel_modules`` come to /modules, numbered in their order."""
    foreign = sorted(_foreign_files())
    directory = cached("python", _key(foreign), lambda new: _write_foreign(new, foreign))
    with (directory / "initramfs").open("rb") as base:
        shutil.copyfileobj(base, out)
    archive = Archive(out)
    _add_all(archive, sorted(_own_files()))
    for number, module in enumerate(kernel_modules):
        archive.file(f"/modules/{number}-{module.name}", module.read_bytes())
    # mount(8) finds its helpers in /sbin and nowhere else.
    archive.link(f"{os.path.realpath('/sbin')}/mount.composefs", f"{sys.prefix}/bin/mount.composefs")
    archive.close()


def _key(files: Iterable[str]) -> str:
    """Name a set of files by their paths, sizes and times, and the way in which they are packed."""
    digest = hashlib.sha256()
    for path in (*files, __file__, str(Path(__file__).with_name("cpio.py"))):
        status = os.stat(path)
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _write_foreign(directory: Path, files: Iterable[str]) -> None:
    with (directory / "initramfs").open("wb") as out:
        archive = Archive(out)
        _add_all(archive, files)
        archive.close()


def _add_all(archive: Archive, files: Iterable[str]) -> None:
    with tempfile.TemporaryDirectory() as work:
        for path in files:
            archive.add(path)
            if path.endswith(".py"):
                compiled = Path(work, "compiled")
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                # What cannot be compiled is data, such as a template.
                if py_compile.compile(path, str(compiled), path, invalidation_mode=mode, quiet=2):
                    name = os.path.splitext(os.path.basename(path))[0]
                    tag = sys.implementation.cache_tag
                    archive.file(f"{os.path.dirname(path)}/__pycache__/{name}.{tag}.pyc", compiled.read_bytes())


def _foreign_files() -> set[str]:
    """The interpreter, its library, other people's packages, a few programs, and the libraries of all of them."""
    # /sbin as well, as it is a link to another directory on many machines.
    files = {sys.executable, f"{sys.prefix}/pyvenv.cfg", "/bin/sh", "/sbin", *map(peers.require, _PROGRAMS)}
    for name in ("stdlib", "platstdlib"):
        library = sysconfig.get_path(name, vars={"base": sys.base_prefix, "platbase": sys.base_exec_prefix})
        files.update(_below(library))
    for name in _closure((*_WHEELS, *_OPTIONAL)) - set(_WHEELS):
        files.update(_distribution(name))
    files.add(_libfuse())
    binaries = [path for path in files if path.endswith(".so") or ".so." in path or "bin/" in path]
    listing = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout
    files.update(re.findall(r"(?:=>|^)\s+(/\S+) \(0x", listing, re.MULTILINE))
    return files


def _libfuse() -> str:
    """Return the path of libfuse, which is loaded by name and so in nobody's list of libraries."""
    listing = subprocess.run([peers.require("ldconfig"), "-p"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"libfuse3\.so\S* .* => (\S+)", listing)
    if found is None:
        raise FileNotFoundError("there is no libfuse3: apt-get install fuse3")
    return found[1]


def _own_files() -> Iterator[str]:
    """The three wheels as installed, launchers and extensions included, what they link to, and the checks."""
    for name in _WHEELS:
        yield from _distribution(name)
    for part in ("core/src", "extensions/sdk/src", "extensions/ostree/src"):
        yield from _below(str(_ROOT / part))
    for part in ("tests/vm", "tests/support"):
        yield from _below(str(_ROOT / part))


def _below(directory: str) -> Iterator[str]:
    for path, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in _LEFT_OUT and not name.startswith("config-")]
        yield from (os.path.join(path, name) for name in names)


def _distribution(name: str) -> Iterator[str]:
    for file in importlib.metadata.files(name) or ():
        path = os.path.normpath(file.locate())
        if "__pycache__" not in path and os.path.isfile(path):
            yield path


def _closure(names: Iterable[str]) -> set[str]:
    """Return the distributions and those that they require, without extras."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another version of Python or another system
        found.add(name)
        pending += [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in requirements if "extra ==" not in text]
    return found
