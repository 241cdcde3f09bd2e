"""The second step: an overlay of the EROFS image and the objects, at the mountpoint."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import Literal

from composefs.linux import mountapi
from composefs.mount.failure import failure

__all__ = ["Overlay", "mount_overlay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """The parameters of an overlay; absolute paths, and the mount's attributes as mountapi names them."""

    lower: str
    objects: tuple[str, ...]
    upper: str | None
    work: str | None
    verity: Literal["off", "try", "require"]
    attributes: frozenset[str]


def mount_overlay(overlay: Overlay, mountpoint: str, what: str) -> None:
    """Mount an overlay; ``what`` begins the messages of errors."""
    try:
        context = mountapi.Context("overlay")
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise failure(error, what, "overlayfs", "overlay") from error
        _mount_legacy(overlay, mountpoint, what)
        return
    with context:
        if not _configure(context, overlay, what):
            _mount_legacy(overlay, mountpoint, what)
            return
        try:
            context.create()
            mountapi.attach_new(context, mountpoint, overlay.attributes)
        except OSError as error:
            raise failure(error, what, f"overlayfs at {mountpoint}", "overlay", context.messages()) from error


def _configure(context: mountapi.Context, overlay: Overlay, what: str) -> bool:
    """Set all parameters; False if this kernel does not know them in the mount API."""
    try:
        context.string("composefs-probe", "1")
    except OSError:
        context.messages()  # the complaint about it must not be taken for the reason of a later failure
    else:
        return False  # a kernel where overlayfs takes anything now, and parses it as one string later
    parameters = [("source", "composefs"), ("metacopy", "on"), ("redirect_dir", "on")]
    if overlay.verity != "off":
        parameters.append(("verity", "require"))
    parameters.append(("lowerdir+", overlay.lower))
    parameters += [("datadir+", directory) for directory in overlay.objects]
    if overlay.upper is not None and overlay.work is not None:
        parameters += [("upperdir", overlay.upper), ("workdir", overlay.work)]
    for name, value in parameters:
        try:
            context.string(name, value)
        except OSError as error:
            if error.errno == errno.EINVAL and name in ("lowerdir+", "datadir+"):
                return False
            messages = context.messages()
            if error.errno == errno.EINVAL and name == "verity" and overlay.verity == "try":
                continue
            raise failure(error, what, f"overlayfs parameter {name}={value}", "overlay", messages) from error
    return True


def _mount_legacy(overlay: Overlay, mountpoint: str, what: str) -> None:
    """Mount by mount(2), where parameters are one string; paths of descriptors need no escapes in it."""
    with contextlib.ExitStack() as stack:

        def path_of(directory: str) -> str:
            try:
                fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise failure(error, what, f"overlayfs layer {directory}", "overlay") from error
            stack.callback(os.close, fd)
            return f"/proc/self/fd/{fd}"

        options = ["metacopy=on", "redirect_dir=on"]
        if overlay.upper is not None and overlay.work is not None:
            options += [f"upperdir={path_of(overlay.upper)}", f"workdir={path_of(overlay.work)}"]
        lower, objects = path_of(overlay.lower), [path_of(directory) for directory in overlay.objects]
        with_verity = [*options, "verity=require"]
        choices = {"off": [options], "try": [with_verity, options], "require": [with_verity]}[overlay.verity]
        # Data-only layers are known since Linux 6.5; before, the objects are lower layers like any other.
        tries = [(chosen, separator) for chosen in choices for separator in ("::", ":")]
        for chosen, separator in tries:
            text = ",".join([*chosen, f"lowerdir={separator.join([lower, *objects])}"])
            try:
                mountapi.mount("composefs", mountpoint, "overlay", overlay.attributes, text)
            except OSError as error:
                if error.errno == errno.EINVAL and (chosen, separator) != tries[-1]:
                    continue
                raise failure(error, what, f"overlayfs at {mountpoint} ({text})", "overlay") from error
            return
