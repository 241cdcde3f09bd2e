"""A repository and a stream, as the core describes them."""

from __future__ import annotations

import os

from composefs_ext.errors import CorruptError
from composefs_ext.files import open_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Repository", "Stream"]


class Repository:
    """What an extension may know of the open repository: all strings and flags as ``initialize`` gave them.

    ``algorithm`` is ``sha256`` or ``sha512``; ``objects`` is the directory of the objects, where they may be read
    directly, or None; ``erofs_default`` is the EROFS format of images unless a call names another one, and
    ``erofs_extra`` the further ones that the repository wants of every image.
    """

    def __init__(self, members: dict[str, Any]) -> None:
        formats = members.get("erofs_formats") or {}
        self.algorithm: str = members["algorithm"]
        self.block_size: int = members.get("block_size", 4096)
        self.erofs_default: int = formats.get("default", 1)
        self.erofs_extra: tuple[int, ...] = tuple(formats.get("extra", ()))
        self.secure: bool = members.get("secure", False)
        self.writable: bool = members.get("writable", False)
        self.path: str | None = members.get("path")
        self.objects: str | None = members.get("objects")

    def path_of(self, object_id: str) -> str:
        """Return the path of an object, for reading; where ``objects`` is None there is none."""
        return f"{self.objects}/{object_id[:2]}/{object_id[2:]}"

    def open(self, object_id: str, size: int | None = None) -> int:
        """Open an object for reading and return the descriptor.

        Raises OSError as opening any file does, and CorruptError for what nobody should read: what is no regular file,
        such as a named pipe, or has another ``size`` than it should have.
        """
        try:
            fd = open_regular(self.path_of(object_id), follow=False)
        except CorruptError as error:
            raise _damaged(object_id, error.message) from None
        if size is not None and (actual := os.fstat(fd).st_size) != size:
            os.close(fd)
            raise _damaged(object_id, f"it has {actual} bytes, not {size}")
        return fd


def _damaged(object_id: str, reason: str) -> CorruptError:
    return CorruptError(
        f"object {object_id} is damaged: {reason}",
        hint="put it back with cfsctl fsck --repair --from REPO, or pull what names it again with --repair",
        subject=object_id,
    )


class Stream:
    """A stream's parts, as far as ``stream_get`` asked for them.

    ``chunks`` are the splitstream's numbers: ``-n`` for the next n bytes of the inline data, ``i`` ≥ 0 for the object
    ``object_refs[i]``.  ``inline`` is the name of a staged file, which is yours to remove.  ``sizes`` are those of the
    objects, in the order of ``object_refs``, None for one that is not in the repository.
    """

    __slots__ = ("chunks", "content_type", "id", "inline", "name", "named_refs", "object_refs", "size", "sizes")

    def __init__(self, answer: dict[str, Any]) -> None:
        self.id: str = answer["id"]
        self.content_type: str = answer["content_type"]
        self.size: int = answer["size"]
        self.name: str | None = answer.get("name")
        self.named_refs: list[tuple[str, str]] = [(name, ref) for name, ref in answer.get("named_refs", ())]
        self.inline: str | None = answer.get("inline")
        self.chunks: list[int] = answer.get("chunks", [])
        self.object_refs: list[str] = answer.get("object_refs", [])
        self.sizes: list[int | None] = answer.get("sizes", [])
