"""A composefs dump as a tree to commit: one that the user has, or that of an image of the repository.

The text comes from the core, which has checked it and writes it in one form (docs/formats/dumpfile.md).  What a dump
has and a commit has not is left out: times, which are all 0 in a commit, and numbers of links.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable

from composefs_ext import Core
from composefs_ext.aside import open_aside
from composefs_ext.errors import ExtError, FormatError, NotFoundError, TooLargeError
from composefs_ostree.committing.inodes import Inode, Meta, shown
from composefs_ostree.committing.layers import Layers
from composefs_ostree.committing.listed import Listed, TreeBuilder, require_objects
from composefs_ostree.formats.objects import Xattrs
from composefs_ostree.held.dumptext import dump_limit

__all__ = ["dump_listing", "image_listing"]

_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)")
_LETTERS = {b"\\": b"\\", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_PIECE = 1 << 20


def image_listing(core: Core, image: str, layers: Layers) -> Listed:
    """Lay the tree of an image, given by name or id, over the others."""
    text = core.staging.new_name("dump")
    try:
        core.image_dump(None, text, name=image).result()
        return _listing(core, text, layers)
    except NotFoundError as error:
        error.hint = f"cfsctl images lists them; for a directory: --tree=dir={image}"
        raise
    except ExtError as error:
        error.message = f"image {image!r}: {error.message}"
        raise


def dump_listing(core: Core, path: str, layers: Layers) -> Listed:
    """Lay the tree of a dump file over the others; its objects must be in the repository."""
    raw = core.staging.new_name("dump")
    limit = dump_limit(core)
    with open_aside(core, path) as file, core.staging.create(raw) as copy:
        while piece := file.read(_PIECE):
            copy.write(piece)
            if copy.tell() > limit:
                raise TooLargeError(f"{path} has more than {limit} bytes, too many for a dump", subject=path)
    text = core.staging.new_name("dump")
    try:
        core.image_dump(raw, text).result()
        os.unlink(core.staging.path_of(raw))
        return _listing(core, text, layers)
    except FormatError as error:
        raise FormatError.at(path, error.message, hint=error.hint) from None


def _listing(core: Core, text: str, layers: Layers) -> Listed:
    with open(core.staging.path_of(text), "rb") as file:
        tree = _read_lines(file, layers)
    require_objects(core, tree, "create-image from the directory stores them")
    return Listed(core, tree)


def _read_lines(lines: Iterable[bytes], layers: Layers) -> TreeBuilder:
    """Read a dump in the core's own form; raise FormatError or UnsupportedError."""
    tree = TreeBuilder(layers)
    metas: dict[bytes, Xattrs] = {b"": ()}
    for line in lines:
        fields = line.rstrip(b"\n").split(b" ", 11)
        path = _unescape(fields[0])[1:]
        if fields[2].startswith(b"@"):
            tree.link(path, _unescape(fields[8])[1:])
            continue
        size, mode, uid, gid = int(fields[1]), int(fields[2], 8), int(fields[4]), int(fields[5])
        text = fields[11] if len(fields) > 11 else b""
        xattrs = metas.get(text)
        if xattrs is None:
            xattrs = metas[text] = _xattrs(text)
        meta = Meta(uid, gid, mode, xattrs)
        if stat.S_ISDIR(mode):
            tree.directory(path, meta)
        elif stat.S_ISLNK(mode):
            tree.file(path, Inode(meta, 0, _unescape(fields[8]), b""))
        elif not stat.S_ISREG(mode):
            tree.no_file(path)
        elif fields[10] != b"-":
            tree.file(path, Inode(meta, size, object_id=fields[10].decode()))
        else:
            content = b"" if fields[9] == b"-" else _unescape(fields[9])
            if len(content) != size:
                raise FormatError(f"/{shown(path)} has neither its {size} bytes of content nor a digest")
            tree.file(path, Inode(meta, size, inline=content))
    return tree


def _unescape(field: bytes) -> bytes:
    """Undo the escapes of a field, which the core has checked."""
    if b"\\" not in field:
        return field

    def plain(match: re.Match[bytes]) -> bytes:
        what = match[1]
        return bytes.fromhex(what[1:].decode()) if what[:1] == b"x" else _LETTERS[what]

    return _ESCAPE.sub(plain, field)


def _xattrs(text: bytes) -> Xattrs:
    pairs = []
    for field in text.split(b" "):
        name, _, value = field.partition(b"=")
        # Images of composefs-rs 0.9.0 have the NUL that ostree puts behind a name; no other name has one.
        pairs.append((_unescape(name).removesuffix(b"\0"), _unescape(value)))
    return tuple(sorted(pairs))
