"""The second step: an overlay of the EROFS image and the objects, at the mountpoint."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from composefs.linux import mountapi
from composefs.mount.failure import failure

__all__ = ["Options", "mount_overlay"]


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
            raise failure(error, what, f"overlayfs at {mountpoint}", "overlay", context.messages()) from error


def _configure(context: mountapi.Context, lower: str, options: Options, what: str) -> bool:
    """Set all parameters; False if this kernel, or for a path's length any, does not take them in the mount API."""
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
    parameters += [("datadir+", os.path.realpath(directory)) for directory in options.objects]
    if options.upperdir is not None and options.workdir is not None:
        # Of these alone the kernel takes a backslash for an escape.
        for name, directory in (("upperdir", options.upperdir), ("workdir", options.workdir)):
            parameters.append((name, os.path.realpath(directory).replace("\\", r"\\")))
    if any(len(os.fsencode(value)) > mountapi.LONGEST_STRING for _, value in parameters):
        return False
    for name, value in parameters:
        try:
            context.string(name, value)
        except OSError as error:
            if error.errno == errno.EINVAL and name in ("lowerdir+", "datadir+"):
                return False
            messages = context.messages()
            if error.errno == errno.EINVAL and name == "verity" and options.verity == "try":
                continue
            raise failure(error, what, f"overlayfs parameter {name}={value}", "overlay", messages) from error
    return True


def _mount_legacy(lower: str, options: Options, mountpoint: str, what: str) -> None:
    """Mount by mount(2), where parameters are one string; paths of descriptors need no escapes in it."""
    with contextlib.ExitStack() as stack:

        def path_of(directory: str | os.PathLike[str]) -> str:
            try:
                fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
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
                raise failure(error, what, f"overlayfs at {mountpoint} ({text})", "overlay") from error
            return
