"""The second step: an overlay of the EROFS image and the objects, at the mountpoint."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from composefs.linux import mountapi
from composefs.linux.closing import Descriptor
from composefs.mount.failure import failure

__all__ = ["Options", "mount_overlay"]

_LAYER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an image is mounted.

    ``objects`` are the directories where contents are looked for, in order.  ``verity``: "require" lets the kernel
    refuse contents without the right fs-verity digest, "try" does so where the kernel knows how to.  Nothing can be
    written without ``upperdir`` and ``workdir``.  ``attributes`` are those of the mount, as mount(8) calls them
    (composefs.linux.mountapi.ATTRIBUTES has all).  ``idmap`` is a descriptor of a user namespace.
    """

    objects: Sequence[str]
    verity: Literal["off", "try", "require"] = "off"
    upperdir: str | os.PathLike[str] | None = None
    workdir: str | os.PathLike[str] | None = None
    attributes: frozenset[str] = frozenset({"ro"})
    idmap: int | None = None


def mount_overlay(lower: str, options: Options, mountpoint: str, what: str) -> None:
    """Mount an overlay of the EROFS image at ``lower``; ``what`` begins the messages of errors."""
    try:
        context = mountapi.Context("overlay")
    except OSError as error:
        raise failure(error, what, "overlayfs", "overlay") from error
    with context:
        if not _configure(context, lower, options, what):
            _mount_legacy(lower, options, mountpoint, what)
            return
        try:
            context.create()
            mountapi.attach_new(context, mountpoint, options.attributes)
        except OSError as error:
            step = f"overlayfs at {os.path.realpath(mountpoint)}"
            raise failure(error, what, step, "overlay", context.messages()) from error


def _configure(context: mountapi.Context, lower: str, options: Options, what: str) -> bool:
    """Set all parameters; False if this kernel does not know them in the mount API."""
    try:
        context.string("composefs-probe", "1")
    except OSError:
        context.messages()  # the complaint about it must not be taken for the reason of a later failure
    else:
        return False  # a kernel where overlayfs takes anything now, and parses it as one string later
    parameters = [("source", "composefs"), ("metacopy", "on"), ("redirect_dir", "on")]
    if options.verity != "off":
        parameters.append(("verity", "require"))
    parameters.append(("lowerdir+", lower))
    parameters += [("datadir+", _absolute(directory)) for directory in options.objects]
    if options.upperdir is not None and options.workdir is not None:
        parameters += [("upperdir", _absolute(options.upperdir)), ("workdir", _absolute(options.workdir))]
    for name, value in parameters:
        try:
            _set(context, name, value)
        except OSError as error:
            if error.errno == errno.EINVAL and name in ("lowerdir+", "datadir+"):
                return False
            shown = os.path.realpath(value) if os.path.isabs(value) else value
            messages = [line.replace(error.filename or shown, shown) for line in context.messages()]
            if error.errno == errno.EINVAL and name == "verity" and options.verity == "try":
                continue
            raise failure(error, what, f"overlayfs parameter {name}={shown}", "overlay", messages) from error
    return True


def _absolute(directory: str | os.PathLike[str]) -> str:
    """Make a path absolute, for the list of mounts; links and .. are left to the kernel, which knows those of /proc."""
    path = os.fspath(directory)
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def _set(context: mountapi.Context, name: str, value: str) -> None:
    """Set a parameter to a value; a path that is too long, or already that of a descriptor, is given as a descriptor.

    Raises ``OSError``, whose ``filename`` is what the kernel calls such a path in its messages.
    """
    # In no other parameter does the kernel take a backslash for an escape.
    text = value.replace("\\", r"\\") if name in ("upperdir", "workdir") else value
    if len(os.fsencode(text)) <= mountapi.LONGEST_STRING and not value.startswith("/proc/self/fd/"):
        context.string(name, text)
        return
    with Descriptor(os.open(value, _LAYER)) as fd:
        try:
            context.descriptor(name, fd)  # the list of mounts has its path then
        except OSError:  # or it says better why not
            context.messages()
            path = f"/proc/self/fd/{fd}"
            # The list of mounts has that before Linux 6.14, as by its own path an extension could put a link there.
            try:
                context.string(name, path)
            except OSError as error:
                error.filename = path
                raise


def _mount_legacy(lower: str, options: Options, mountpoint: str, what: str) -> None:
    """Mount by mount(2), where parameters are one string; paths of descriptors need no escapes in it."""
    with contextlib.ExitStack() as stack:

        def path_of(directory: str | os.PathLike[str]) -> str:
            try:
                fd = os.open(directory, _LAYER)
            except OSError as error:
                raise failure(error, what, f"overlayfs layer {os.path.abspath(directory)}", "overlay") from error
            stack.callback(os.close, fd)
            return f"/proc/self/fd/{fd}"

        common = ["metacopy=on", "redirect_dir=on"]
        if options.upperdir is not None and options.workdir is not None:
            common += [f"upperdir={path_of(options.upperdir)}", f"workdir={path_of(options.workdir)}"]
        layers = [path_of(directory) for directory in (lower, *options.objects)]
        with_verity = [*common, "verity=require"]
        choices = {"off": [common], "try": [with_verity, common], "require": [with_verity]}[options.verity]
        # Data-only layers are known since Linux 6.5; before, the objects are lower layers like any other.
        tries = [(chosen, separator) for chosen in choices for separator in ("::", ":")]
        for chosen, separator in tries:
            text = ",".join([*chosen, f"lowerdir={separator.join(layers)}"])
            try:
                mountapi.mount("composefs", mountpoint, "overlay", options.attributes, text)
            except OSError as error:
                if error.errno == errno.EINVAL and (chosen, separator) != tries[-1]:
                    continue
                step = f"overlayfs at {os.path.realpath(mountpoint)} ({text})"
                raise failure(error, what, step, "overlay") from error
            return
