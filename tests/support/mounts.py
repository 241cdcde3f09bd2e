"""Mounts that last as long as a test needs them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from composefs.linux import mountapi
from composefs.linux.closing import Descriptor

NO_PATH = "/proc/self/fd/N"
"""What ``list_of_mounts`` has of a layer that an overlay was given as an O_PATH descriptor, before Linux 6.14."""


@contextlib.contextmanager
def mounted(path: Path, *arguments: str) -> Iterator[None]:
    """Mount something at ``path`` as mount(8) does with these arguments before it; needs root."""
    subprocess.run(["mount", *arguments, str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def list_of_mounts() -> str:
    """Return the text of it, with N for every descriptor's number."""
    return re.sub(r"/proc/self/fd/[0-9]+", NO_PATH, Path("/proc/self/mountinfo").read_text())


def shown_by_descriptor(directory: Path) -> str:
    """Return what this kernel shows of a layer that an overlay was given as an O_PATH descriptor; needs root."""
    with mountapi.Context("overlay") as context, Descriptor(os.open(directory, os.O_PATH)) as fd:
        try:
            context.descriptor("lowerdir+", fd)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.EINVAL):
                raise
            return NO_PATH
    return str(directory)
