"""What ``--bootable`` adds to a commit's metadata: that the tree boots, and the version of its kernel."""

from __future__ import annotations

from composefs_ext.errors import FormatError, UsageError
from composefs_ostree.committing.dictorder import dict_order
from composefs_ostree.committing.inodes import Directory, shown
from composefs_ostree.formats.gvariant import Variant

__all__ = ["bootable_metadata"]

_BOOTABLE = "ostree.bootable"
_LINUX = "ostree.linux"
_MODULES = "usr/lib/modules"
_KERNEL = b"vmlinuz"
_SHOWN = 8


def bootable_metadata(metadata: dict[str, Variant], root: Directory) -> dict[str, Variant]:
    """Return the metadata of a bootable commit with this tree, in the order that ostree gives them.

    Raises FormatError for a tree without a kernel, or with several, and UsageError for keys that are there already.
    """
    version = _kernel_version(root)
    added = {_BOOTABLE: Variant("b", True), _LINUX: Variant("s", version)}
    for key in added:
        if key in metadata:
            raise UsageError(f"--bootable adds the metadata key {key!r}, which is given too", hint="leave it out")
    found = {**metadata, **added}
    return {key: found[key] for key in dict_order(found)}


def _kernel_version(root: Directory) -> str:
    """Return the name of the one directory of usr/lib/modules that has a vmlinuz, as ostree looks for it."""
    modules: Directory | None = root
    for name in _MODULES.encode().split(b"/"):
        modules = modules.directories.get(name) if modules is not None else None
    below = {} if modules is None else modules.directories
    versions = [name for name, each in below.items() if _KERNEL in each.files or _KERNEL in each.directories]
    if not versions:
        raise FormatError(
            f"the tree has no kernel: no /{_MODULES}/VERSION/vmlinuz",
            hint="install one there, where ostree looks for it, or leave out --bootable",
            subject=f"/{_MODULES}",
        )
    if len(versions) > 1:
        names = [shown(name) for name in sorted(versions)]
        raise FormatError(
            f"the tree has {len(names)} kernels in /{_MODULES}: {', '.join(names[:_SHOWN])}"
            + (" …" if len(names) > _SHOWN else ""),
            hint="keep the one that is to be booted: ostree boots a tree of a single kernel",
            subject=f"/{_MODULES}",
        )
    return versions[0].decode()
