"""``prepare-boot``: kernel, initramfs and boot loader entry of an image onto a boot partition.

Looked for are entries of the Boot Loader Specification in ``/boot/loader/entries`` (type 1), unified kernel images in
``/boot/EFI/Linux`` and ``/usr/lib/modules/VERSION`` (type 2), and kernels in ``/usr/lib/modules/VERSION``; the first is
taken.  The core has checked them when it made the bootable image (docs/formats/boot.md).
"""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, BinaryIO, NamedTuple

from composefs_ext import Core, Request
from composefs_ext.errors import CorruptError, FormatError, NotFoundError, UnsupportedError, UsageError
from composefs_ext.files import Naming, sync_file_system
from composefs_ext.fsverity import Hasher
from composefs_oci.filesystem import Directory, Node
from composefs_oci.formats.uki import command_line
from composefs_oci.held import find_config
from composefs_oci.image import layers_of, merge_layers
from composefs_oci.variants import mountable

__all__ = ["prepare_boot"]

_ENTRY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,200}")
_FILE_KEYS = ("linux", "initrd", "efi")
_MAX_ENTRY = 64 << 10
_PIECE = 1 << 20


class _Entry(NamedTuple):
    """An entry of type 1 (``lines``), or a unified image (no lines); ``files`` by path on the boot partition."""

    name: str
    lines: list[str]
    files: dict[str, Node]


def prepare_boot(request: Request, core: Core) -> dict[str, Any]:
    """Write what the boot loader needs to boot the image that the request names; make its directories for state."""
    os.umask(os.umask(0o077) | 0o022)  # nobody else may write what is booted
    name, bootdir = request.arguments["image"], request.arguments["bootdir"]
    arguments = [word for each in request.get("cmdline", []) for word in each.split()]
    config = find_config(core, name, request.get("verity"))
    keys = [key for key in mountable(core.repo, bootable=True) if key in config.images]
    if not keys:
        raise NotFoundError(f"{name} has no bootable image here", hint="pull it again with --bootable", subject=name)
    image = config.images[keys[0]]
    karg = _karg(core, image, is_format_2=".v1" not in keys[0])
    root = merge_layers(layers_of(core, config))
    found = next(_entries(core, root), None)
    if found is None:
        raise NotFoundError(f"{name} has nothing to boot: no kernel, unified image or boot entry", subject=name)
    entry = _renamed(found, request.get("entry_id"))
    if not os.path.isdir(bootdir):
        raise NotFoundError(f"{bootdir} is not a directory", hint="mount the boot partition first", subject=bootdir)
    if entry.lines:
        _add_options(entry.lines, [karg, *arguments])
    else:
        _check_unified(core, entry, karg, arguments)
    with ExitStack() as stack:
        # All before any is written: one that is damaged must not leave a new kernel beside an initrd of before.
        sources = {path: stack.enter_context(_open(core, node)) for path, node in entry.files.items()}
        if statedir := request.get("statedir"):
            _make_state(f"{statedir}/{image}")
            _sync(statedir)
        written = [_write(bootdir, path, source) for path, source in sources.items()]
    _sync(bootdir)
    if entry.lines:
        text = "\n".join(entry.lines) + "\n"
        written.append(_write(bootdir, f"loader/entries/{entry.name}.conf", io.BytesIO(text.encode())))
        _sync(bootdir)
    return {"image": image, "karg": karg, "entry": entry.name, "files": written}


def _karg(core: Core, image: str, *, is_format_2: bool) -> str:
    """Return the kernel argument that names an image (docs/formats/boot.md)."""
    repository = core.repo
    optional = "" if repository.secure else "?"
    if is_format_2:
        return f"composefs={optional}{image}"
    return f"composefs.digest={optional}v1-{repository.algorithm}-{repository.block_size.bit_length() - 1}:{image}"


# Finding


def _entries(core: Core, root: Directory) -> Iterator[_Entry]:
    """Yield what can be booted."""
    for name, node in _directory(root, "boot/loader/entries"):
        if name.endswith(".conf"):
            yield _type1(core, root, name.removesuffix(".conf"), node)
    modules = [(version, node) for version, node in _directory(root, "usr/lib/modules") if isinstance(node, Directory)]
    for place in ("boot/EFI/Linux", *(f"usr/lib/modules/{version}" for version, _ in modules)):
        for name, node in _directory(root, place):
            if name.endswith(".efi"):
                yield _Entry(name.removesuffix(".efi"), [], {f"EFI/Linux/{name}": node})
    for version, node in modules:
        children = node.children
        if b"vmlinuz" in children:
            files = {
                f"{version}/{each}": children[each.encode()]
                for each in ("vmlinuz", "initramfs.img")
                if each.encode() in children
            }
            lines = [f"title {_title(core, root) or version}", f"version {version}", f"linux /{version}/vmlinuz"]
            if f"{version}/initramfs.img" in files:
                lines.append(f"initrd /{version}/initramfs.img")
            yield _Entry(version, lines, files)


def _type1(core: Core, root: Directory, name: str, node: Node) -> _Entry:
    with _open(core, node) as file:
        lines = file.read(_MAX_ENTRY).decode().rstrip("\n").split("\n")
    files = {}
    for line in lines:
        key, value = _split(line)
        if key in _FILE_KEYS and value:
            found = _find(root, value)
            if found is None:
                raise NotFoundError(f"the boot entry {name} names {value}, which is not in the image", subject=value)
            files[value.lstrip("/")] = found
    return _Entry(name, lines, files)


def _split(line: str) -> tuple[str, str]:
    key, _, value = line.strip().replace("\t", " ").partition(" ")
    return key, value.strip()


def _find(root: Directory, path: str) -> Node | None:
    """Return the inode at a path; no symlink is followed, and ``..`` leads nowhere."""
    node: Node | None = root
    for part in path.encode().split(b"/"):
        if part in (b"", b"."):
            continue
        node = node.children.get(part) if isinstance(node, Directory) else None
    return node


def _directory(root: Directory, path: str) -> list[tuple[str, Node]]:
    node = _find(root, path)
    names = sorted(node.children.items()) if isinstance(node, Directory) else []
    return [(name.decode(errors="replace"), each) for name, each in names]


def _title(core: Core, root: Directory) -> str | None:
    """Return the system's name for people, from its os-release(5)."""
    node = _find(root, "usr/lib/os-release")
    if node is None or not stat.S_ISREG(node.mode):
        return None
    with _open(core, node) as file:
        text = file.read(_MAX_ENTRY).decode(errors="replace")
    found = re.search(r"^PRETTY_NAME=(['\"]?)([^'\"\n]+)\1$", text, re.MULTILINE)
    return found[2].strip() if found else None


# Changing


def _renamed(entry: _Entry, name: str | None) -> _Entry:
    """Return the entry under another name: its files in a directory of that name, or a unified image called so.

    Files of one name from several directories are told apart by a number, from the second on.
    """
    if name is None:
        return entry
    if not _ENTRY_ID.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a boot entry", hint="use letters, digits and . _ + -")
    if not entry.lines:
        return _Entry(name, [], {f"EFI/Linux/{name}.efi": node for node in entry.files.values()})
    lines: list[str] = []
    files: dict[str, Node] = {}
    for line in entry.lines:
        key, value = _split(line)
        if key in _FILE_KEYS and value:
            node, path, number = entry.files[value.lstrip("/")], f"{name}/{os.path.basename(value)}", 1
            while files.get(path, node) is not node:
                number += 1
                path = f"{name}/{number}-{os.path.basename(value)}"
            files[path] = node
            line = f"{key} /{path}"
        lines.append(line)
    return _Entry(name, lines, files)


def _add_options(lines: list[str], words: list[str]) -> None:
    """Add kernel arguments; those that name another image go."""
    for number, line in enumerate(lines):
        key, value = _split(line)
        if key == "options":
            kept = [word for word in value.split() if not word.startswith(("composefs=", "composefs.digest="))]
            lines[number] = " ".join(["options", *kept, *words])
            return
    lines.append(" ".join(["options", *words]))


def _check_unified(core: Core, entry: _Entry, karg: str, arguments: list[str]) -> None:
    """Raise unless a unified kernel image boots this image: its command line is part of it, and cannot be changed."""
    if arguments:
        raise UnsupportedError(
            f"{entry.name} is a unified kernel image, to which no arguments can be added", hint="leave --cmdline out"
        )
    [node] = entry.files.values()
    with _open(core, node) as file:
        words = command_line(file, entry.name).split()
    named = [word for word in words if word.startswith(("composefs=", "composefs.digest="))]
    if karg.replace("?", "") not in [word.replace("?", "") for word in named]:
        raise CorruptError(
            f"the unified kernel image {entry.name} boots {' '.join(named) or 'no composefs image'}, not {karg}",
            hint="it was sealed for another image, format or algorithm: cfsctl oci pull --expected-digest finds it",
            subject=entry.name,
        )


# Writing


def _open(core: Core, node: Node) -> BinaryIO:
    """Open a file of the image, its digest checked: nothing else would notice what is damaged before it boots."""
    if not stat.S_ISREG(node.mode):
        raise FormatError("what a boot entry needs is not a regular file")
    if not isinstance(node.content, str):
        return io.BytesIO(node.content)
    fd = core.repo.open(node.content)
    hasher, done = Hasher(core.repo.algorithm), 0
    with Naming(f"object {node.content}"):
        while piece := os.pread(fd, _PIECE, done):
            hasher.update(piece)
            done += len(piece)
    if hasher.hexdigest() != node.content:
        os.close(fd)
        raise CorruptError(
            f"object {node.content} is damaged", hint="cfsctl oci pull --repair fetches it again", subject=node.content
        )
    return open(fd, "rb")


def _make_state(directory: str) -> None:
    """Make an image's directories for state.

    The system's /etc gets the mode of its upper directory: with root's umask, often 077, nobody else could enter it.
    """
    umask = os.umask(0o022)
    for each in ("var", "etc/upper", "etc/work"):
        os.makedirs(f"{directory}/{each}", exist_ok=True)
    os.umask(umask)


def _sync(directory: str) -> None:
    """Wait until the names in a directory and below are durable: no entry may be there without what it names."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Naming(directory):
            sync_file_system(fd)
    finally:
        os.close(fd)


def _write(directory: str, path: str, source: BinaryIO) -> str:
    """Write a file of the image below a directory, whole or not at all; return its path.

    Its content is durable before it has its name, which :func:`_sync` waits for.
    """
    target = f"{directory}/{path}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    temporary = f"{target}.new"
    try:
        with open(temporary, "wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return target
