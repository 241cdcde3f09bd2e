"""What a failed step of mounting tells the user: which step it was, and what the kernel lacks or says."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from composefs.errors import ComposefsError, PermissionDeniedError, UnsupportedError
from composefs.systemerrors import from_os_error, without_proc

__all__ = ["failure"]

_BY_ROOT = "mounting needs CAP_SYS_ADMIN: run as root, or let `cfsctl mount` serve the image by FUSE"


def failure(error: OSError, what: str, step: str, module: str, messages: Sequence[str] = ()) -> ComposefsError:
    """Return the error of ours for a failed ``step`` of ``what``.

    ``module`` is the kernel module that the step needs, ``messages`` what the kernel said about it.
    """
    message = ": ".join([what, step, os.strerror(error.errno or 0), *messages])
    match error.errno:
        case errno.ENOENT if not os.path.exists("/proc/self"):  # by which files go to the kernel
            return without_proc(f"{what}: {step}")
        case errno.ENOENT if module == "loop":
            return UnsupportedError(message, hint="there are no loop devices in /dev; a container must be given them")
        case errno.ENODEV:
            return UnsupportedError(message, hint=f"the kernel has no {module}; try `modprobe {module}`")
        case errno.EPERM | errno.EACCES:
            return PermissionDeniedError(message, hint=_BY_ROOT)
        case errno.EINVAL if "verity=" in step:
            return UnsupportedError(message, hint="overlayfs checks fs-verity since Linux 6.6")
        case errno.ENOSYS:  # as a container's seccomp says too
            return UnsupportedError(message, hint=from_os_error(error, what).hint)
        case errno.EINVAL | errno.EOPNOTSUPP:
            return UnsupportedError(message, hint=None if messages else "the kernel's log, dmesg, says why")
    made = from_os_error(error, f"{what}: {step}")
    made.message = message
    return made
