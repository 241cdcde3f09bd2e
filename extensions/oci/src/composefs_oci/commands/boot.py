"""``prepare-boot``: kernel, initramfs and boot loader entry of an image onto a boot partition."""

from __future__ import annotations

import io
import os
import shutil
from contextlib import ExitStack, suppress
from typing import Any, BinaryIO

from composefs_ext import Core, Request
from composefs_ext.errors import InputOutputError, NotFoundError
from composefs_ext.files import Naming, sync_file_system
from composefs_oci.bootentries import add_options, check_unified, find_entry, open_file, renamed
from composefs_oci.held import HeldConfig, find_config
from composefs_oci.image import layers_of, merge_layers
from composefs_oci.variants import mountable

__all__ = ["prepare_boot"]


def prepare_boot(request: Request, core: Core) -> dict[str, Any]:
    """Write what the boot loader needs to boot the image that the request names; make its directories for state."""
    os.umask(os.umask(0o077) | 0o022)  # nobody else may write what is booted
    name, bootdir = request.arguments["image"], request.arguments["bootdir"]
    arguments = [word for each in request.get("cmdline", []) for word in each.split()]
    config = find_config(core, name, request.get("verity"))
    image, karg = _bootable(core, config, name)
    found = find_entry(core, merge_layers(layers_of(core, config)))
    if found is None:
        raise NotFoundError(f"{name} has nothing to boot: no kernel, unified image or boot entry", subject=name)
    entry = renamed(found, request.get("entry_id"))
    if not os.path.isdir(bootdir):
        raise NotFoundError(f"{bootdir} is not a directory", hint="mount the boot partition first", subject=bootdir)
    if entry.lines:
        add_options(entry.lines, [karg, *arguments])
    else:
        check_unified(core, entry, karg, arguments)
    with ExitStack() as stack:
        # All before any is written: one that is damaged must not leave a new kernel beside an initrd of before.
        sources = {path: stack.enter_context(open_file(core, node)) for path, node in entry.files.items()}
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


def _bootable(core: Core, config: HeldConfig, name: str) -> tuple[str, str]:
    """Return the id of the bootable image to take, and the kernel argument that names it (docs/formats/boot.md)."""
    key = next((key for key in mountable(core.repo, bootable=True) if key in config.images), None)
    if key is None:
        raise NotFoundError(f"{name} has no bootable image here", hint="pull it again with --bootable", subject=name)
    image, repository = config.images[key], core.repo
    optional = "" if repository.secure else "?"
    if ".v1" not in key:
        return image, f"composefs={optional}{image}"
    log2_block_size = repository.block_size.bit_length() - 1
    return image, f"composefs.digest={optional}v1-{repository.algorithm}-{log2_block_size}:{image}"


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
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, IsADirectoryError):
            there = error.filename2 or error.filename
            raise InputOutputError(f"{there} is a directory", hint="move it away", subject=there) from None
        raise
    return target
