"""What a tree has to boot from, checked: kernels, unified kernel images and boot loader entries.

Three places are looked at: entries of the Boot Loader Specification in ``/boot/loader/entries/*.conf`` (type 1),
unified kernel images in ``/boot/EFI/Linux/*.efi`` (type 2), and kernels in ``/usr/lib/modules/VERSION``.  An image
whose entries are malformed would be found out at the next boot, too late, so it is refused when it is made.

The rules are those of composefs-rs 0.9.0, which takes the paths in type 1 entries from the image's root, where the
specification takes them from the boot partition.
"""

from __future__ import annotations

import stat

from composefs.boot.lookup import Files, decoded
from composefs.errors import ComposefsError, FormatError, NotFoundError
from composefs.paths import shown
from composefs.tree import TYPE_MASK

__all__ = ["check_entries"]

ENTRIES = b"/boot/loader/entries"
UNIFIED = b"/boot/EFI/Linux"
MODULES = b"/usr/lib/modules"

MAX_ENTRY = 64 << 10
"""Bytes of a type 1 entry."""
_FILE_KEYS = ("linux", "initrd", "efi")
_ROOT = "paths in entries begin at the image's root: /boot/vmlinuz, not /vmlinuz"


def check_entries(files: Files) -> None:
    """Check the boot entries of a tree, by place and name.

    Raises FormatError for an entry of a wrong type or not in UTF-8, NotFoundError for one whose kernel, initrd or EFI
    program is missing.  Kernels and images themselves are not read.
    """
    _check_type1(files)
    _check_type2(files, UNIFIED)
    _check_modules(files)


def _check_type1(files: Files) -> None:
    for name in files.directory(ENTRIES) or ():
        if name.endswith(b".conf"):
            path = ENTRIES + b"/" + name
            for each in _files_of(files.read(path, MAX_ENTRY) or b"", path):
                _require(files, each, path)


def _files_of(data: bytes, path: bytes) -> list[bytes]:
    """Return the values of the keys that name files; a line is a key, white space, and a value."""
    found = []
    for line in decoded(data, f"the boot entry {shown(path)}").split("\n"):
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key in _FILE_KEYS and value.strip():
            found.append(value.strip().encode())
    return found


def _check_type2(files: Files, place: bytes) -> None:
    for name in files.directory(place) or ():
        if name.endswith(b".efi"):
            path = place + b"/" + name
            _require(files, path, path)


def _check_modules(files: Files) -> None:
    for version, node in (files.directory(MODULES) or {}).items():
        if node.children is None:
            continue
        place = MODULES + b"/" + version
        _check_type2(files, place)
        if b"vmlinuz" not in node.children:
            continue
        decoded(version, f"the kernel version {shown(version)}")
        kernel, initramfs = place + b"/vmlinuz", place + b"/initramfs.img"
        _require(files, kernel, kernel)
        if b"initramfs.img" in node.children:
            _require(files, initramfs, kernel)


def _require(files: Files, path: bytes, entry: bytes) -> None:
    """Raise unless there is a regular file at a path."""
    what = f"the boot entry {shown(entry)}"
    hint = _ROOT if entry.startswith(ENTRIES) else None
    try:
        found = files.find(path)
    except ComposefsError as error:
        raise FormatError(f"{what}: {error.message}", hint=hint) from error
    if found is None:
        raise NotFoundError(f"{what} names {shown(path)}, which does not exist", subject=shown(path), hint=hint)
    if found[1].mode & TYPE_MASK != stat.S_IFREG:
        raise FormatError(f"{what} needs {shown(path)}, which is not a regular file", hint=hint)
