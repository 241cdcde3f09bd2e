"""From blocks to entries: the state machine of an archive.

What stands before a member's own header changes it: pax records (``x``), GNU's long names (``L``, ``K``), GNU's maps of
sparse files.  Global records (``g``) are passed over, as every container tool does.

Names are brought to one form here, and refused here if they could lead out of the tree.
"""

from __future__ import annotations

import re
import stat
from typing import Any, NamedTuple

from composefs_ext.errors import FormatError, TooLargeError
from composefs_oci.formats.tar.header import BLOCK, ZERO, Header, padding, parse_header
from composefs_oci.formats.tar.pax import parse_decimal, parse_records, parse_time
from composefs_oci.formats.tar.sparse import Sparse, extend_old_map, old_map, pax_sparse

__all__ = ["INLINE_LIMIT", "MAX_NAME", "WHITEOUT", "Entry", "Kind", "Parser", "shown"]

MAX_EXTENSION = 1 << 20
"""Bytes of all extension headers of one entry; a global header may have as many."""
MAX_PATH = 4095
"""Bytes of a path or a symlink's target (PATH_MAX counts a NUL): what is longer cannot be opened by anybody."""
MAX_NAME = 255
MAX_XATTR_VALUE = 65535
"""Linux' limits; an image's format has the same."""
WHITEOUT = b".wh."
"""What a marker's name begins with.  No file gets that name, so what is behind may be as long as any."""
_MAX_SIZE = 2**53 - 1
_MAX_MAJOR, _MAX_MINOR = 2**12 - 1, 2**20 - 1
_MASK32 = 2**32 - 1

_XATTR = b"SCHILY.xattr."
_UNCLEAN = re.compile(rb"(?:^|/)\.{0,2}(?:/|$)")
"""A component that is empty, ``.`` or ``..``."""


class Kind:
    """What an entry is: an inode's type as in ``st_mode``, or another name of an inode that exists.

    Plain integers: comparing members of an enumeration takes three times as long.
    """

    HARDLINK = 0
    FIFO = stat.S_IFIFO
    CHARACTER = stat.S_IFCHR
    DIRECTORY = stat.S_IFDIR
    BLOCK = stat.S_IFBLK
    FILE = stat.S_IFREG
    SYMLINK = stat.S_IFLNK


class Entry(NamedTuple):
    """A member of the archive.

    ``path`` has no slash at either end and no ``.`` in it; the root is empty.  ``kind`` is one of Kind, ``mode`` the
    permissions alone.  ``size`` is how many bytes of content follow in the archive.  ``link`` is a hard link's target
    (a path like ``path``) or a symlink's, as it stands.  ``xattrs`` are (name, value), each name once.

    ``external``: the content of a regular file over 64 bytes, which is kept as an object of its own.  ``sparse``: the
    content is not the file's, but the pieces of it that are no holes.
    """

    path: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: tuple[int, int]
    link: bytes
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    external: bool
    sparse: Sparse | None


INLINE_LIMIT = 64
"""Bytes of a regular file that stay among the headers, whatever the repository's digest."""

_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}
_DEVICES = (Kind.CHARACTER, Kind.BLOCK)
_EXTENSIONS = {b"x": "pax header", b"L": "GNU long name", b"K": "GNU long link", b"g": "global pax header"}
_LONG_NAMES = {b"L": "name", b"K": "link"}
_TEXTS = {b"path": "name", b"linkpath": "link"}
_NUMBERS = {b"size": "size", b"uid": "uid", b"gid": "gid"}
"""GNU's headers and the records of pax that take the place of a header's field, and which that is."""
_NO_DEVICE = (0, 0)


class Parser:
    """Takes an archive's headers and gives its entries.

    Give :meth:`header` a block.  It returns an entry, whose content (``size`` bytes) and padding come next and are not
    for the parser; or None, and then ``wanted`` bytes come next, which are for :meth:`extension`, or, if ``wanted`` is
    0, another header.  With ``ended`` the archive's end has been seen: what follows belongs to no entry.

    ``upstream`` reads as composefs-rs 0.9.0 does where that is wrong: of several pax times the seconds of the last
    and the fraction of the first, and a name that ends in a slash is never a directory's.
    """

    def __init__(self, *, upstream: bool = False) -> None:
        self.wanted = 0
        self.ended = False
        self._upstream = upstream
        self._zeros = 0
        self._extension = b""  # the type of the header whose content is wanted; S for more of a sparse map
        self._extension_size = 0
        self._total = 0
        self._seen: dict[bytes, bytes] = {}
        self._sparse: tuple[Header, list[tuple[int, int]], int] | None = None  # with the map so far, and the size

    def header(self, block: bytes) -> Entry | None:
        """Take the next block, 512 bytes.  Raises FormatError or TooLargeError, naming the entry if it can."""
        if block == ZERO:
            self._zeros += 1
            self.ended = self._zeros == 2
            return None
        if self._zeros:
            raise FormatError("a single zero block is not followed by another one, as at an archive's end")
        header = parse_header(block)
        if header.kind not in _KINDS:
            return self._other(header, block)
        return self._extended(header) if self._seen else self._entry(header, (header.mtime, 0))

    def extension(self, data: bytes) -> Entry | None:
        """Take the ``wanted`` bytes; returns what :meth:`header` returns."""
        kind, self.wanted = self._extension, 0
        if kind == b"S":
            assert self._sparse is not None
            return self._sparse_entry(extend_old_map(data, self._sparse[1]))
        if kind != b"g":
            self._seen[kind] = data[: self._extension_size]
        return None

    def finish(self) -> None:
        """Say that there is no more data.  Raises FormatError if the archive may not end here.

        Zero blocks may be missing: an archive that is known by its digest is known to be whole.
        """
        if self.wanted or self._seen:
            raise FormatError("the archive ends after a header that announces another one")

    def _other(self, header: Header, block: bytes) -> Entry | None:
        """Take a header that is not of an entry of a usual type."""
        kind, size = header.kind, header.size
        if kind == b"S":
            pieces, more, realsize = old_map(block)
            self._sparse = header, pieces, realsize
            return self._sparse_entry(more)
        what = _EXTENSIONS.get(kind)
        if what is None:
            raise FormatError(f"{shown(header.name)}: entries of type {ascii(kind)[2:-1]} are not known")
        if kind in self._seen or (kind == b"g" and self._seen):
            raise FormatError(f"a {what} stands where its entry should be")
        self._total = self._total + size if self._seen else size
        if size < 0 or self._total > MAX_EXTENSION:
            raise TooLargeError(f"a {what} has {size} bytes, more than {MAX_EXTENSION} for one entry")
        self._extension_size = size
        self._extension, self.wanted = kind, size + padding(size)
        return self.extension(b"") if size == 0 else None

    def _sparse_entry(self, more: bool) -> Entry | None:
        """Make an entry of an old GNU header, unless there is more of its map."""
        if more:
            self._extension, self.wanted = b"S", BLOCK
            return None
        assert self._sparse is not None
        (header, pieces, realsize), self._sparse = self._sparse, None
        return self._extended(header, Sparse.of(pieces, realsize, shown(header.name)))

    def _extended(self, header: Header, sparse: Sparse | None = None) -> Entry:
        """Make an entry of a header and what was announced before it."""
        seen, self._seen = self._seen, {}
        fields: dict[str, Any] = {field: _long_name(seen[kind]) for kind, field in _LONG_NAMES.items() if kind in seen}
        xattrs: dict[bytes, bytes] = {}
        special: list[tuple[bytes, bytes]] = []
        times: list[bytes] = []
        mtime = header.mtime, 0
        try:
            for key, value in parse_records(seen.get(b"x", b"")):
                if key.startswith(_XATTR):
                    xattrs[_xattr_name(key[len(_XATTR) :])] = value
                elif key.startswith(b"GNU.sparse."):
                    special.append((key, value))
                elif not value:
                    continue  # nothing: what the header says counts
                elif key == b"mtime":
                    times.append(value)
                elif key in _TEXTS:
                    fields[_TEXTS[key]] = value
                elif key in _NUMBERS:
                    fields[_NUMBERS[key]] = parse_decimal(value, _NUMBERS[key])
            if times:
                mtime = parse_time(times[-1])
                if self._upstream:
                    mtime = mtime[0], parse_time(times[0])[1]
            if special and _KINDS.get(header.kind, Kind.FILE) == Kind.FILE:
                if sparse is not None:
                    raise FormatError("it is sparse in two ways")
                fields["name"], sparse = pax_sparse(special, fields.get("name", header.name))
            if fields:
                header = header._replace(**fields)
            for key, value in xattrs.items():
                if len(value) > MAX_XATTR_VALUE:
                    size = f"{len(value)} bytes, more than {MAX_XATTR_VALUE}"
                    raise FormatError(f"extended attribute {shown(key)} has {size}")
        except FormatError as error:
            raise FormatError(f"{shown(fields.get('name', header.name))}: {error.message}") from None
        return self._entry(header, mtime, tuple(xattrs.items()), sparse)

    def _entry(
        self,
        header: Header,
        mtime: tuple[int, int],
        xattrs: tuple[tuple[bytes, bytes], ...] = (),
        sparse: Sparse | None = None,
    ) -> Entry:
        """Make an entry of a header that has what was announced before it; raise FormatError for what is impossible."""
        name, size = header.name, header.size
        kind = _KINDS.get(header.kind, Kind.FILE)  # of type S, too
        if header.kind == b"\0" and name.endswith(b"/") and size == 0 and not self._upstream:
            kind = Kind.DIRECTORY
        path = _clean(name)
        link, device = b"", _NO_DEVICE
        if kind == Kind.FILE:
            if not 0 <= size <= _MAX_SIZE:
                raise FormatError(f"{shown(path)}: {size} is no size")
        elif size:
            # Whether content follows then, programs do not agree on.
            raise FormatError(f"{shown(path)}: it has a size of {size}, but entries of its type have no content")
        elif kind == Kind.HARDLINK:
            link = _clean(header.link, "the target of the hard link ")
        elif kind == Kind.SYMLINK:
            link = header.link
            if not link or len(link) > MAX_PATH or b"\0" in link:
                raise FormatError(f"{shown(path)}: a symlink's target is 1 to {MAX_PATH} bytes without NUL")
        elif kind in _DEVICES:
            device = header.major, header.minor
            if not 0 <= header.major <= _MAX_MAJOR or not 0 <= header.minor <= _MAX_MINOR:
                raise FormatError(f"{shown(path)}: {header.major}:{header.minor} is no device number of Linux")
        if not path and kind != Kind.DIRECTORY:
            raise FormatError("the root of the archive must be a directory")
        return Entry(
            path,
            kind,
            header.mode & 0o7777,
            header.uid & _MASK32,
            header.gid & _MASK32,
            size,
            mtime,
            link,
            device,
            xattrs,
            # Old GNU's type of sparse files is not a regular file's, so their pieces stay among the headers.
            kind == Kind.FILE and size > INLINE_LIMIT and header.kind != b"S",
            sparse,
        )


def _clean(name: bytes, what: str = "") -> bytes:
    """Return a path without what says nothing.  Raises FormatError for one that is not below the root."""
    path = name[2:] if name.startswith(b"./") else name
    if path.endswith(b"/"):
        path = path[:-1]
    if _UNCLEAN.search(path) is not None:
        if not name:
            raise FormatError(f"{what or 'an entry '}has an empty path")
        names = [each for each in path.split(b"/") if each not in (b"", b".")]
        if b".." in names:
            raise FormatError(f"{what}{shown(name)} has .. in its path")
        path = b"/".join(names)
    if len(path) > MAX_NAME and (
        len(path) > MAX_PATH or any(len(each.removeprefix(WHITEOUT)) > MAX_NAME for each in path.split(b"/"))
    ):
        raise FormatError(f"{what}{shown(name)} is too long: at most {MAX_NAME} bytes a name, {MAX_PATH} in all")
    if b"\0" in path:
        raise FormatError(f"{what}{shown(name)} has a NUL in its path")
    return path


def _long_name(data: bytes) -> bytes:
    return data[:-1] if data.endswith(b"\0") else data


def _xattr_name(name: bytes) -> bytes:
    if not 1 <= len(name) <= MAX_NAME or b"\0" in name:
        raise FormatError(f"the name of an extended attribute is 1 to {MAX_NAME} bytes without NUL")
    return name


def shown(path: bytes) -> str:
    """Return a path for a message to people: escaped, and not endless."""
    return ascii(path if len(path) <= 200 else path[:200] + b"...")[2:-1] or "/"
