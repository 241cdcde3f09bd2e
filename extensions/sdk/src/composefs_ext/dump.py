r"""Lines of composefs-dump(5): the text that an image is made from.

A line is eleven fields and any number of extended attributes, separated by single spaces::

    PATH SIZE MODE NLINK UID GID RDEV MTIME PAYLOAD CONTENT DIGEST [KEY=VALUE]...

Paths, contents and attributes are bytes.  Everything outside ``!`` to ``~`` and the backslash is escaped, ``=`` too in
attributes, and a PAYLOAD or CONTENT that really is one minus sign, since ``-`` alone means "not set".

The core reads any legal spelling; this is the one that ``composefs-info dump`` writes.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["entry", "escape", "hardlink", "object_path", "optional", "xattrs"]

_UNSAFE = re.compile(rb"[^!-\[\]-~]")
_ESCAPES = {byte: f"\\x{byte:02x}" for byte in (*range(0x21), *range(0x7F, 0x100))}
_ESCAPES |= {ord("\\"): r"\\", ord("\n"): r"\n", ord("\r"): r"\r", ord("\t"): r"\t"}
_ESCAPES_XATTR = _ESCAPES | {ord("="): r"\x3d"}


def escape(data: bytes) -> bytes:
    """Escape a path, or any other field that is always set."""
    if _UNSAFE.search(data) is None:  # most names need nothing, and finding that out is the whole cost then
        return data
    return data.decode("latin-1").translate(_ESCAPES).encode("ascii")


def optional(data: bytes | None) -> bytes:
    """Escape a PAYLOAD or CONTENT; None is "not set"."""
    if data is None:
        return b"-"
    return rb"\x2d" if data == b"-" else escape(data)


def xattrs(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the attributes' part of a line, each with a space before it; names without a trailing NUL.

    Trees have few distinct sets of attributes: keep the result by set.
    """
    return b"".join(b" %b=%b" % (_escape_xattr(name), _escape_xattr(value)) for name, value in pairs)


def _escape_xattr(data: bytes) -> bytes:
    return data.decode("latin-1").translate(_ESCAPES_XATTR).encode("ascii")


def object_path(digest: str) -> str:
    """Return the PAYLOAD of a file whose content is the object with this id."""
    return f"{digest[:2]}/{digest[2:]}"


def entry(
    path: bytes,
    mode: int,
    *,
    size: int = 0,
    nlink: int = 1,
    uid: int = 0,
    gid: int = 0,
    rdev: int = 0,
    mtime: tuple[int, int] = (0, 0),
    payload: bytes | None = None,
    content: bytes | None = None,
    digest: str | None = None,
    xattrs: bytes = b"",
) -> bytes:
    """Return the line for one inode.

    ``mode`` is the full st_mode; ``mtime`` seconds and nanoseconds.  A symbolic link has its target as ``payload`` and
    the target's length as ``size``.  A regular file has its bytes as ``content``, or the id of its object as
    ``digest``, which gives the payload too.  ``xattrs`` is what :func:`xattrs` returned.
    """
    field = object_path(digest).encode() if digest is not None and payload is None else optional(payload)
    return b"%b %d %o %d %d %d %d %d.%d %b %b %b%b\n" % (
        escape(path),
        size,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        mtime[0],
        mtime[1],
        field,
        optional(content),
        b"-" if digest is None else digest.encode(),
        xattrs,
    )


def hardlink(path: bytes, target: bytes, mode: int = 0o100644) -> bytes:
    """Return the line for one more name of the inode whose line has the path ``target``; both paths are absolute."""
    return b"%b 0 @%o 1 0 0 0 0.0 %b - -\n" % (escape(path), mode, optional(target))
