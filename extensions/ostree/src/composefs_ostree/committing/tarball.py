"""A tar archive as a tree to commit, as ``ostree commit --tree=tar=FILE`` takes it.

The archive's headers are read once, then workers read the contents where they lie; a compressed archive is therefore
unpacked into staging first.  Names lead from the commit's root, with or without a slash before them, and nowhere else.
"""

from __future__ import annotations

import os
import stat

from composefs_ext.aside import open_aside
from composefs_ext.errors import CorruptError, FormatError, TooLargeError, UnsupportedError
from composefs_ostree.committing.inodes import Inode, Meta
from composefs_ostree.committing.listed import Listed, TreeBuilder
from composefs_ostree.committing.members import read_members
from composefs_ostree.held.dumptext import dump_limit
from composefs_ostree.held.links import too_large

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, BinaryIO

    from composefs_ext import Core
    from composefs_ostree.committing.layers import Layers
    from composefs_ostree.formats.objects import Xattrs

__all__ = ["TAR_REMEDY", "tar_listing"]

_PIECE = 1 << 20
_MAX_ID = 0xFFFFFFFF
_XZ_MEMORY = 256 << 20
_XATTR = "SCHILY.xattr."
_CODED_XATTR = "LIBARCHIVE.xattr."
_LABEL = "RHT.security.selinux"
_ACL = "SCHILY.acl.access"
_PUMP_EVERY = 256
_MAX_PIECES = 1 << 21
"""Of all sparse files of an archive, with the holes.

Some 150 bytes of memory each, and in a compressed archive next to nothing.
"""
_DIRECTORY = stat.S_IFDIR | 0o755
"""The mode of directories that are not in the archive; they belong to whom the file belongs that needs them.

As ostree has it, those above a missing one change hands with it, and a root that nothing needs is root's.
"""

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def tar_listing(
    core: Core, path: str, layers: Layers, *, autocreate: bool, rename: Callable[[str], str] | None = None
) -> Listed:
    """Lay an archive over the trees; ``autocreate`` makes directories that neither it nor they have.

    ``rename`` gives other names to members, directories' with a slash behind them.

    Raises FormatError, CorruptError, UnsupportedError, TooLargeError or OSError.
    """
    plain = path
    with open_aside(core, path) as file:
        start = file.peek(8)[:8]
        kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
        if kind is not None or not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            plain = core.staging.path_of(_unpack(core, file, kind, path))
    with open(plain, "rb") as archive, core.progress("archive") as progress:
        tree = TreeBuilder(layers, TAR_REMEDY)
        kept = _Kept(dump_limit(core), with_xattrs=layers.changes.keep_xattrs)
        try:
            for number, member in enumerate(read_members(archive)):
                kept.count(len(member.name) + len(member.linkname))
                _add_member(tree, member, kept, autocreate=autocreate, rename=rename)
                progress.advance()
                if number % _PUMP_EVERY == 0:
                    core.pump(0)
            if tree.root.meta is None and autocreate:
                tree.directory(b"", Meta(0, 0, _DIRECTORY, ()))
        except (FormatError, CorruptError, TooLargeError, UnsupportedError) as error:
            raise type(error).at(path, error.message, hint=error.hint) from None
    return Listed(core, tree, plain)


TAR_REMEDY = "add --tar-autocreate-parents, or pack the directory as . with all that is above the files"


def _unpack(core: Core, file: BinaryIO, kind: str | None, path: str) -> str:
    """Stage an archive that is compressed, or cannot be read twice; return the name."""
    name = core.staging.new_name("tar")
    with core.staging.create(name) as unpacked, core.progress("unpacking", unit="bytes") as progress:
        for piece in _pieces_of(file, kind, path):
            unpacked.write(piece)
            progress.advance(len(piece))
            core.pump(0)
    return name


def _pieces_of(file: BinaryIO, kind: str | None, path: str) -> Iterator[bytes]:
    """Yield the unpacked archive."""
    if kind == "zstd":
        raise UnsupportedError(f"{path} is compressed by zstd", hint="unpack it first: zstd -d", subject=path)
    broken: tuple[type[Exception], ...] = (EOFError, OSError)
    try:
        if kind == "xz":
            yield from _unpack_xz(file, path)
            return
        source: Any = file
        if kind == "gzip":
            from composefs_ostree.inflate import InflateError, open_gzip

            broken += (InflateError,)
            source = open_gzip(file)
        elif kind == "bzip2":
            import bz2

            source = bz2.BZ2File(file)
        while piece := source.read(_PIECE):
            yield piece
    except broken as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CorruptError(f"{path} is damaged: {error}", subject=path) from None


def _unpack_xz(file: BinaryIO, path: str) -> Iterator[bytes]:
    import lzma

    data = file.read(_PIECE)
    while data:
        inflater = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        try:
            while not inflater.eof:
                yield inflater.decompress(data, _PIECE)
                data = file.read(_PIECE) if inflater.needs_input else b""
                if inflater.needs_input and not data:
                    raise EOFError("it ends too early")
        except lzma.LZMAError as error:
            if "limit" in str(error):
                message = f"to unpack it takes more than {_XZ_MEMORY >> 20} MiB of memory"
                raise TooLargeError.at(path, message, hint="unpack it first: xz -d") from None
            raise EOFError(str(error)) from None
        data = inflater.unused_data or file.read(_PIECE)


class _Kept:
    """What is kept of an archive's members: no more than the text of a tree may have.

    It all stands in that but for what is replaced or left out.  Long names and attributes are next to nothing in a
    compressed archive.
    """

    def __init__(self, limit: int, *, with_xattrs: bool) -> None:
        self._limit = self._left = limit
        self._with_xattrs = with_xattrs
        self._pieces = 0
        self._xattrs: dict[Xattrs, Xattrs] = {}

    def count(self, size: int) -> None:
        """Count characters; raise TooLargeError when there are too many."""
        self._left -= size
        if self._left < 0:
            raise too_large(self._limit)

    def pieces(self, found: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        """Return the pieces of a file, counted."""
        self._pieces += max(len(found) - 1, 0)  # one has every file
        if self._pieces > _MAX_PIECES:
            raise TooLargeError(f"sparse files have more than {_MAX_PIECES} pieces", hint="pack them without --sparse")
        return found

    def xattrs(self, headers: Mapping[str, str]) -> Xattrs:
        """Return the extended attributes that are committed, or the same ones of an earlier member."""
        found = _xattrs(headers) if self._with_xattrs else ()
        if found not in self._xattrs:
            self.count(sum(len(name) + len(value) for name, value in found))
        return self._xattrs.setdefault(found, found)


def _add_member(
    tree: TreeBuilder, member: tarfile.TarInfo, kept: _Kept, *, autocreate: bool, rename: Callable[[str], str] | None
) -> None:
    """Put one member into the tree."""
    path = _path(member.name, rename, is_directory=member.isdir())
    if autocreate:
        tree.parents(path, Meta(member.uid, member.gid, _DIRECTORY, ()))
    if member.islnk():
        tree.link(path, _path(member.linkname, rename))
        return
    meta = _meta(member, kept)
    if member.isdir():
        tree.directory(path, meta)
    elif member.issym():
        tree.file(path, Inode(meta, 0, _bytes(member.linkname), b""))
    elif member.isreg():
        tree.file(path, Inode(meta, member.size, pieces=kept.pieces(_pieces(member))))
    else:
        tree.no_file(path)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _path(name: str, rename: Callable[[str], str] | None, *, is_directory: bool = False) -> bytes:
    """Return a member's path from the root, b"" for the root itself."""
    path = _normal(name)
    if rename is None:
        return path
    plain = path.decode("utf-8", "surrogateescape")
    return _normal(rename(f"{plain}/" if is_directory and plain else plain))


def _normal(name: str) -> bytes:
    parts = [part for part in _bytes(name).split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise FormatError(f"the name {name[:200]!a} leads out of the archive")
    if any(b"\0" in part for part in parts):
        raise FormatError(f"the name {name[:200]!a} has a NUL in it")
    return b"/".join(parts)


def _meta(member: tarfile.TarInfo, kept: _Kept) -> Meta:
    if not (0 <= member.uid <= _MAX_ID and 0 <= member.gid <= _MAX_ID):
        raise FormatError(f"{member.name[:200]!a} has the owner {member.uid}:{member.gid}")
    kind = stat.S_IFDIR if member.isdir() else stat.S_IFLNK if member.issym() else stat.S_IFREG
    # Archives differ in the mode of symlinks, which have none; ostree's are 0777.
    mode = kind | (0o777 if member.issym() else member.mode & 0o7777)
    if _ACL in member.pax_headers:
        mode = _without_acl(mode, member.pax_headers[_ACL])
    return Meta(member.uid, member.gid, mode, kept.xattrs(member.pax_headers))


def _without_acl(mode: int, acl: str) -> int:
    """Return the mode of a file whose ACL is left out, as no format of attributes has it.

    Beside an ACL the bits of the group are its mask: they would give the group what the ACL gave others.
    """
    for entry in acl.replace("\n", ",").split(","):
        kind, *whom, permissions = entry.strip().split(":")[:3] if ":" in entry else ("", "")
        shift = {"user": 6, "group": 3, "other": 0}.get(kind)
        if shift is not None and not any(whom):
            bits = sum(bit for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if letter in permissions)
            mode = mode & ~(7 << shift) | bits << shift
    return mode


def _xattrs(headers: Mapping[str, str]) -> Xattrs:
    """Return the extended attributes, sorted.

    bsdtar writes each twice, the names quoted as in a URL: plainly, as GNU tar does unquoted, and in base64.  The label
    of SELinux has a key of its own in what ``tar --selinux`` writes.
    """
    found = {_bytes(key[len(_XATTR) :]): _bytes(value) for key, value in headers.items() if key.startswith(_XATTR)}
    for key, value in headers.items():
        if key.startswith(_CODED_XATTR):
            quoted = _bytes(key[len(_CODED_XATTR) :])
            found.pop(quoted, None)
            found[_unquoted(quoted)] = _decoded(value)
    if _LABEL in headers:
        found.setdefault(b"security.selinux", _bytes(headers[_LABEL]))
    return tuple(sorted(found.items()))


def _unquoted(name: bytes) -> bytes:
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(name)


def _decoded(text: str) -> bytes:
    import binascii

    bare = text.rstrip("=")
    try:
        return binascii.a2b_base64(bare + "=" * (-len(bare) % 4))
    except ValueError:
        raise FormatError(f"{text[:80]!a} is no base64, as an extended attribute should be") from None


def _pieces(member: tarfile.TarInfo) -> tuple[tuple[int, int], ...]:
    """Return where the content lies; -1 is a hole of a sparse file."""
    segments: Any = getattr(member, "sparse", None)
    if segments is None:
        return ((member.offset_data, member.size),)
    pieces = []
    position = 0
    source = member.offset_data
    for start, size in segments:
        if not size:
            continue  # the rest of a table that is not full
        if start < position or size < 0 or start + size > member.size:
            raise FormatError(f"{member.name[:200]!a} is a sparse file with a damaged map")
        pieces += [(-1, start - position), (source, size)]
        source += size
        position = start + size
    pieces.append((-1, member.size - position))
    return tuple([piece for piece in pieces if piece[1]])
