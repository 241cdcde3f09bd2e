"""What can be booted in an image: found in its tree, and changed into what a boot loader is given.

Looked for are, in this order, entries of the Boot Loader Specification in ``/boot/loader/entries`` (type 1), unified
kernel images in ``/boot/EFI/Linux`` and ``/usr/lib/modules/VERSION`` (type 2), and kernels in
``/usr/lib/modules/VERSION``.  The core has checked them when it made the bootable image (docs/formats/boot.md).
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, NamedTuple

from composefs_ext import Core
from composefs_ext.errors import CorruptError, FormatError, NotFoundError, UnsupportedError, UsageError
from composefs_ext.files import Naming
from composefs_ext.fsverity import Hasher
from composefs_oci.filesystem import Directory, Node
from composefs_oci.formats.uki import command_line

__all__ = ["BootEntry", "add_options", "check_unified", "find_entry", "open_file", "renamed"]

_ENTRY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,200}")
_FILE_KEYS = ("linux", "initrd", "efi")
_KARGS = ("composefs=", "composefs.digest=")
"""How the kernel arguments begin that name an image (docs/formats/boot.md)."""
_MODULES = "usr/lib/modules"
_MAX_ENTRY = 64 << 10
_PIECE = 1 << 20


class BootEntry(NamedTuple):
    """An entry of type 1 (``lines``), or a unified image (no lines); ``files`` by path on the boot partition."""

    name: str
    lines: list[str]
    files: dict[str, Node]


# Finding


def find_entry(core: Core, root: Directory) -> BootEntry | None:
    """Return the first entry in a tree, None if it has nothing to boot.

    Raises NotFoundError for an entry that names a file which is not there, and as :func:`open_file` does.
    """
    return next(chain(_written_entries(core, root), _unified_images(root), _kernels(core, root)), None)


def _written_entries(core: Core, root: Directory) -> Iterator[BootEntry]:
    """Yield the entries of type 1."""
    for name, node in _children(root, "boot/loader/entries"):
        if not name.endswith(".conf"):
            continue
        name = name.removesuffix(".conf")
        with open_file(core, node) as file:
            lines = file.read(_MAX_ENTRY).decode().rstrip("\n").split("\n")
        files = {}
        for line in lines:
            key, value = _split(line)
            if key in _FILE_KEYS and value:
                found = _find(root, value)
                if found is None:
                    raise NotFoundError(
                        f"the boot entry {name} names {value}, which is not in the image", subject=value
                    )
                files[value.lstrip("/")] = found
        yield BootEntry(name, lines, files)


def _unified_images(root: Directory) -> Iterator[BootEntry]:
    for place in ("boot/EFI/Linux", *(f"{_MODULES}/{version}" for version, _ in _versions(root))):
        for name, node in _children(root, place):
            if name.endswith(".efi"):
                yield BootEntry(name.removesuffix(".efi"), [], {f"EFI/Linux/{name}": node})


def _kernels(core: Core, root: Directory) -> Iterator[BootEntry]:
    """Yield entries of our own for kernels that have none."""
    for version, directory in _versions(root):
        children = directory.children
        if b"vmlinuz" not in children:
            continue
        files = {f"{version}/vmlinuz": children[b"vmlinuz"]}
        lines = [f"title {_title(core, root) or version}", f"version {version}", f"linux /{version}/vmlinuz"]
        if b"initramfs.img" in children:
            files[f"{version}/initramfs.img"] = children[b"initramfs.img"]
            lines.append(f"initrd /{version}/initramfs.img")
        yield BootEntry(version, lines, files)


def _versions(root: Directory) -> list[tuple[str, Directory]]:
    """Return the kernels' directories, by their versions."""
    return [(version, node) for version, node in _children(root, _MODULES) if isinstance(node, Directory)]


def _split(line: str) -> tuple[str, str]:
    """Return key and value of a line of an entry."""
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


def _children(root: Directory, path: str) -> list[tuple[str, Node]]:
    """Return what is in a directory, sorted by name; nothing if it is not there."""
    node = _find(root, path)
    names = sorted(node.children.items()) if isinstance(node, Directory) else []
    return [(name.decode(errors="replace"), each) for name, each in names]


def _title(core: Core, root: Directory) -> str | None:
    """Return the system's name for people, from its os-release(5)."""
    node = _find(root, "usr/lib/os-release")
    if node is None or not stat.S_ISREG(node.mode):
        return None
    with open_file(core, node) as file:
        text = file.read(_MAX_ENTRY).decode(errors="replace")
    found = re.search(r"^PRETTY_NAME=(['\"]?)([^'\"\n]+)\1$", text, re.MULTILINE)
    return found[2].strip() if found else None


def open_file(core: Core, node: Node) -> BinaryIO:
    """Open a file of the image, its digest checked: nothing else would notice what is damaged before it boots.

    Raises FormatError for what is no regular file, CorruptError for a damaged object.
    """
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


# Changing


def renamed(entry: BootEntry, name: str | None) -> BootEntry:
    """Return the entry under another name: its files in a directory of that name, or a unified image called so.

    Files of one name from several directories are told apart by a number, from the second on.  Raises UsageError for
    what cannot be a name.
    """
    if name is None:
        return entry
    if not _ENTRY_ID.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a boot entry", hint="use letters, digits and . _ + -")
    if not entry.lines:
        return BootEntry(name, [], {f"EFI/Linux/{name}.efi": node for node in entry.files.values()})
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
    return BootEntry(name, lines, files)


def add_options(lines: list[str], words: list[str]) -> None:
    """Add kernel arguments to the first line of an entry's that has some; those that name another image go from all."""
    added, changed = words, []
    for line in lines:
        key, value = _split(line)
        if key == "options":
            kept = [word for word in value.split() if not word.startswith(_KARGS)]
            kept += added
            added = []
            if not kept:  # GRUB stops reading at a line without a value
                continue
            line = " ".join(["options", *kept])
        changed.append(line)
    if added:
        changed.append(" ".join(["options", *added]))
    lines[:] = changed


def check_unified(core: Core, entry: BootEntry, karg: str, arguments: list[str]) -> None:
    """Raise unless a unified kernel image boots this image: its command line is part of it, and cannot be changed.

    ``karg`` is the argument that names the image.  Raises UnsupportedError where there are further ``arguments``,
    CorruptError for a kernel image that boots another image.
    """
    if arguments:
        raise UnsupportedError(
            f"{entry.name} is a unified kernel image, to which no arguments can be added", hint="leave --cmdline out"
        )
    [node] = entry.files.values()
    with open_file(core, node) as file:
        words = command_line(file, entry.name).split()
    named = [word for word in words if word.startswith(_KARGS)]
    if karg.replace("?", "") not in [word.replace("?", "") for word in named]:
        raise CorruptError(
            f"the unified kernel image {entry.name} boots {' '.join(named) or 'no composefs image'}, not {karg}",
            hint="it was sealed for another image, format or algorithm: cfsctl oci pull --expected-digest finds it",
            subject=entry.name,
        )
