"""Landlock: a process gives up, for good, the right to change files and to use TCP.

Documentation/userspace-api/landlock.rst describes it.  Only rights that change something are handled here; reading
stays as it is.  What the running kernel does not know is left out, as the kernel's documentation advises: an older
kernel confines less.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

__all__ = ["abi", "restrict"]

# The same numbers on every architecture, as all newer system calls have.
_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE = 1 << 1
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR to MAKE_SYM
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_NET = 1 << 0 | 1 << 1  # BIND_TCP, CONNECT_TCP

# The version of the ABI that brought a right.
_REFER_ABI = 2
_TRUNCATE_ABI = 3
_NET_ABI = 4


# struct landlock_ruleset_attr: handled_access_fs and, from _NET_ABI on, handled_access_net.
_RULESET = struct.Struct("=QQ")
_OLD_RULESET_SIZE = 8
_PATH_BENEATH = struct.Struct("=Qi")  # struct landlock_path_beneath_attr: allowed_access, parent_fd

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def _call(number: int, *arguments: object) -> int:
    result: int = _syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def abi() -> int:
    """Return the version of Landlock that the kernel has, 0 if it has none or it is turned off."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION))
    except OSError:
        return 0


def restrict(writable: Iterable[str], *, network: bool) -> bool:
    """Let this process, and all that it starts, change nothing but what is beneath ``writable``; say whether it worked.

    Paths that do not exist are passed over.  Without ``network`` TCP is refused, from ABI 4 on.  The process must have
    given up new privileges before.  False means that the kernel has no Landlock, and nothing is confined.
    """
    version = abi()
    if not version:
        return False
    on_files = _WRITE_FILE | (_TRUNCATE if version >= _TRUNCATE_ABI else 0)
    on_directories = on_files | _REMOVE_AND_MAKE | (_REFER if version >= _REFER_ABI else 0)
    attributes = _RULESET.pack(on_directories, 0 if network else _NET)
    size = _RULESET.size if version >= _NET_ABI else _OLD_RULESET_SIZE
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path in writable:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                rule = _PATH_BENEATH.pack(on_directories if os.path.isdir(path) else on_files, fd)
                _call(_ADD_RULE, ruleset, ctypes.c_int(_RULE_PATH_BENEATH), rule, ctypes.c_uint32(0))
            finally:
                os.close(fd)
        _call(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return True
