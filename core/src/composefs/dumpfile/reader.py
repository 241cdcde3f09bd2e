"""Reading composefs-dump(5): from the text to a tree.

The reader takes what the C library's ``mkcomposefs --from-file`` takes, but where C guesses, it refuses: signs, white
space and numbers that do not fit (C saturates or truncates), digests that are not exactly the algorithm's length, NUL
bytes hidden in names, illegal escapes in the ignored fields of hard link lines, and hard links to directories.

A text that repeats is parsed once: owners, link counts, modes and times are the same on nearly every line, and so are
whole sets of extended attributes.  That, and leaving the garbage collector off, is three quarters of the speed.
"""

from __future__ import annotations

import binascii
import math
import re
import stat
from collections.abc import Mapping

from composefs.digest import Algorithm
from composefs.dumpfile.escape import BACKSLASH, find_bad_escape, unescape
from composefs.errors import FormatError, TooLargeError
from composefs.tree import (
    C_MAX_XATTRS,
    MAX_CONTENT,
    MAX_NAME,
    MAX_TARGET,
    MAX_XATTR_VALUE,
    NO_XATTRS,
    TYPE_MASK,
    Node,
    Tree,
    c_xattrs_size,
    collection_paused,
    sort_children,
)

__all__ = ["Parser", "parse"]

C_MAX_XATTR_TEXT = 65535
"""libcomposefs' limit of a node's attributes as text, in bytes."""

_MAX_U32 = 2**32 - 1
_MAX_U64 = 2**64 - 1
_TYPES = frozenset((stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK))
_DEVICES = (stat.S_IFBLK, stat.S_IFCHR)
_MTIME = re.compile(rb"(-?)([0-9]{1,19})\.([0-9]{1,19})")
_OCTAL = re.compile(rb"[0-7]{1,22}")
_DOTS = (b".", b"..")
_NONE = (b"-", b"")  # C takes lines that end early.
_BLANK = r" (a blank in a path is written \x20)"
"""Said of a wrong MODE: a blank in the path moves all fields by one, and MODE is the first of them to be parsed."""
_TYPE = " (as in 100644 for a file, 40755 for a directory)"
"""Said of a MODE as chmod(1) takes it, which has no file type."""
_LINK = 0
"""The mode of a placeholder: the line was a hard link, whose target may be on a later line."""

_SHOWN = 200
"""Bytes of a line that are kept for a message, which shows the beginning of its path."""

_Head = tuple[int, int, int, int, int]
"""The mode, number of links, owner, group and device of a node."""

_Link = tuple[int, bytes, Node, bytes, Node]
"""A hard link's line number, the beginning of the line, and directory, name and placeholder."""


def parse(
    text: bytes, algorithm: Algorithm, *, c_limits: bool = False, strict: bool = False, max_entries: float = math.inf
) -> Tree:
    """Parse a whole dump; the options and errors are those of :class:`Parser`."""
    parser = Parser(algorithm, c_limits=c_limits, strict=strict)
    parser.feed(text, max_entries)
    return parser.finish()


class _BadLineError(Exception):
    """What is wrong with the line at hand; the caller knows its number."""


def _error(number: int, line: bytes, message: str) -> FormatError:
    path = line[:_SHOWN].split(b" ", 1)[0].decode("utf-8", "backslashreplace")
    return FormatError(f"dump line {number}: {path[:100] or '(no path)'}: {message}", offset=number)


class Parser:
    """A dump that comes in one or more parts: what has been read so far, and the values of texts that repeat.

    ``feed`` it, then ``finish``.  Both raise FormatError, whose ``offset`` is the number of the line, counted from 1
    through all parts; after an error the parser is of no more use.

    ``entries`` counts what takes memory: the lines, and the attributes of each set of them that was not met before.
    """

    def __init__(self, algorithm: Algorithm, *, c_limits: bool = False, strict: bool = False) -> None:
        """``algorithm`` says how long digests are.

        ``c_limits`` adds libcomposefs' limits on the attributes of a node (no NUL in names, and how many bytes they
        have as text and in all), which no image format needs; ``strict`` the four checks of ``CFS_PARSE_STRICT``.
        """
        self._algorithm = algorithm
        self._c_limits = c_limits
        self._strict = strict
        self.entries = 0
        self._max_entries = math.inf
        self._line_number = 0
        self._first_line = b""
        self._above_root = Node(stat.S_IFDIR, children={})  # Holds the root under the empty name.
        self._directories: dict[bytes, Node] = {}  # By path without a slash at the end: the root is b"".
        self._links: list[_Link] = []
        self._heads: dict[tuple[bytes, ...], _Head] = {}
        self._mtimes: dict[bytes, tuple[int, int]] = {}
        self._xattrs: dict[bytes, Mapping[bytes, bytes]] = {b"": NO_XATTRS}

    def feed(self, text: bytes, max_entries: float = math.inf) -> None:
        """Add whole lines to the tree; only the very last one of all may lack its newline.

        Raises TooLargeError if all parts have more than ``max_entries`` by then.
        """
        self._max_entries = max_entries
        self._count(text.count(b"\n") + (text[-1:] not in (b"", b"\n")))
        before = self._line_number
        bad = find_bad_escape(text)
        if bad is not None:
            what = "NUL byte" if text[bad] == 0 else f"illegal escape {_quoted(text[bad : bad + 4])}"
            start = text.rfind(b"\n", 0, bad) + 1
            raise _error(before + text.count(b"\n", 0, bad) + 1, text[start : start + _SHOWN], what)
        lines = text.split(b"\n")
        if not lines[-1]:
            lines.pop()
        elif self._strict:
            raise _error(before + len(lines), lines[-1], "missing newline at the end")
        if not before and lines:
            self._first_line = lines[0][:_SHOWN]
        try:
            with collection_paused():
                self._read(lines)
        except _BadLineError as error:
            raise _error(self._line_number, lines[self._line_number - before - 1], str(error)) from None

    def finish(self) -> Tree:
        """Return the tree of all lines."""
        if not self._line_number:
            raise FormatError("no files in the dump", offset=1)
        if b"" not in self._directories:
            raise _error(1, self._first_line, "the root is not a directory")
        with collection_paused():
            resolved: dict[Node, tuple[Node, bytes, Node]] = {}
            for number, line, directory, name, placeholder in self._links:
                assert directory.children is not None
                try:
                    directory.children[name] = self._resolve(placeholder, resolved)
                except _BadLineError as error:
                    raise _error(number, line, str(error)) from None
            for directory in self._directories.values():
                assert directory.children is not None
                sort_children(directory, directory.children)
        return Tree(self._directories[b""], self._algorithm)

    def _count(self, entries: int) -> None:
        """Count entries before room is made for them."""
        self.entries += entries
        if self.entries > self._max_entries:
            raise TooLargeError(f"a dump has more than {self._max_entries} lines and different extended attributes")

    def _read(self, lines: list[bytes]) -> None:
        """Add lines to the tree.

        One long loop, because at 2 µs a line every call shows.
        """
        directories, heads, mtimes, xattr_sets = self._directories, self._heads, self._mtimes, self._xattrs
        first = self._line_number + 1
        for self._line_number, line in enumerate(lines, first):
            fields = line.split(b" ", 11)
            if len(fields) < 12:
                fields += [b""] * (12 - len(fields))
            path, size, mode, nlink, uid, gid, rdev, time, payload, content, digest, attributes = fields

            if BACKSLASH in path:
                path = _unescape_string(path)
            parent, _, name = path.rpartition(b"/")
            directory = directories.get(parent)
            if directory is None or not 2 < len(name) <= MAX_NAME:  # So . and .. are among the unusual ones.
                directory, parent, name = self._locate(path)
            children = directory.children
            assert children is not None
            if name in children:
                raise _BadLineError("the path occurs twice")

            texts = mode, nlink, uid, gid, rdev
            head = heads.get(texts)
            if head is None:
                head = heads[texts] = self._head(*texts)
            kind = head[0] & TYPE_MASK
            if kind == _LINK:
                if payload in _NONE:
                    raise _BadLineError("a hard link needs the path of its target as PAYLOAD")
                children[name] = placeholder = Node(_LINK, payload=_unescape_string(payload))
                self._links.append((self._line_number, line[:_SHOWN], directory, name, placeholder))
                continue

            length = int(size) if len(size) < 20 and size.isdigit() else _number(size, "SIZE", _MAX_U64)
            mtime = mtimes.get(time)
            if mtime is None:
                mtime = mtimes[time] = _mtime(time)
            xattrs = xattr_sets.get(attributes)
            if xattrs is None:
                xattrs = xattr_sets[attributes] = self._parse_xattrs(attributes)
            node = Node(*head, mtime, length, None, None, None, xattrs)
            if payload != b"-":
                node.payload = payload if BACKSLASH not in payload else _unescape_string(payload)
                if len(node.payload) > MAX_TARGET:
                    raise _BadLineError(f"PAYLOAD has {len(node.payload)} bytes, more than {MAX_TARGET}")
            if content != b"-":
                node.content = content = unescape(content)
                if len(content) != length:
                    raise _BadLineError(f"SIZE is {length}, but CONTENT has {len(content)} bytes")
            if digest not in _NONE:
                node.digest = self._digest(digest)
            if kind == stat.S_IFDIR:
                node.children = {}
                node.payload = node.content = node.digest = None
                directories[parent + b"/" + name if name else b""] = node
            elif kind != stat.S_IFREG or node.content is not None:
                self._check_kind(node, kind)
            children[name] = node

    def _head(self, mode_text: bytes, nlink: bytes, uid: bytes, gid: bytes, rdev: bytes) -> _Head:
        """Parse the fields MODE to RDEV."""
        mode = _mode(mode_text)
        if mode == _LINK:
            return mode, 0, 0, 0, 0
        device = _number(rdev, "RDEV")
        if device and mode & TYPE_MASK not in _DEVICES:
            if self._strict:
                raise _BadLineError("only a device has an RDEV")
            device = 0
        return mode, _number(nlink, "NLINK"), _number(uid, "UID"), _number(gid, "GID"), device

    def _check_kind(self, node: Node, kind: int) -> None:
        """Check and adjust what only some types of file may have."""
        if kind == stat.S_IFLNK:
            if not node.payload:
                raise _BadLineError("a symlink needs a target as PAYLOAD")
            if self._strict and node.size != len(node.payload):
                raise _BadLineError(f"SIZE is {node.size}, but the symlink's target has {len(node.payload)} bytes")
            if self._strict and node.content:
                raise _BadLineError("a symlink has no CONTENT")
            node.size = len(node.payload)
        elif node.content is not None and len(node.content) > MAX_CONTENT:
            raise _BadLineError(f"CONTENT has {len(node.content)} bytes, more than {MAX_CONTENT}")
        if kind != stat.S_IFREG:
            node.content = node.digest = None

    def _locate(self, path: bytes) -> tuple[Node, bytes, bytes]:
        """Find the directory of an unusual path; return it with its path and the name in it."""
        if path == b"/":
            return self._above_root, b"", b""
        names = [name for name in path.split(b"/") if name]
        if not names or path.endswith(b"/"):
            raise _BadLineError("the path is empty or ends in a slash")
        name = names.pop()
        if name in _DOTS or len(name) > MAX_NAME:
            raise _BadLineError(f"a file name is 1 to {MAX_NAME} bytes and not . or ..")
        head = b"".join([b"/" + parent for parent in names])
        directory = self._directories.get(head)
        if directory is None:
            raise _BadLineError("no earlier line gives its directory")
        return directory, head, name

    def _resolve(self, placeholder: Node, resolved: dict[Node, tuple[Node, bytes, Node]]) -> Node:
        """Follow a hard link, which may name another one, to the real node.

        ``resolved`` keeps (directory, name, node) of every placeholder met, so that a long chain is followed once.
        """
        trail: dict[Node, None] = {}  # An ordered set.
        node = placeholder
        while node.mode == _LINK and node not in resolved:
            if node in trail:
                raise _BadLineError("a loop of hard links")
            trail[node] = None
            assert node.payload is not None
            names = [name for name in node.payload.split(b"/") if name]
            name = names.pop() if names else b""
            directory = self._directories.get(b"".join([b"/" + parent for parent in names]))
            if directory is None or directory.children is None or name not in directory.children:
                raise _BadLineError("the target of the hard link is not in the dump")
            found = directory, name, directory.children[name]
            node = found[2]
        if node.mode == _LINK:
            found = resolved[node]
        directory, name, node = found
        if node.children is not None:
            raise _BadLineError("a hard link to a directory")
        # A name that stands for the node by now may have been a link itself; the first one that was resolved was not.
        if node.home is None:
            node.home = directory, name
        for link in trail:
            resolved[link] = found
        return node

    def _digest(self, text: bytes) -> bytes:
        """Parse a DIGEST that is set."""
        try:
            digest = binascii.unhexlify(text)
        except ValueError:
            digest = b""
        if len(digest) != self._algorithm.size:
            raise _BadLineError(f"DIGEST is not {self._algorithm.hex_size} hexadecimal digits ({self._algorithm})")
        return digest

    def _parse_xattrs(self, text: bytes) -> Mapping[bytes, bytes]:
        """Parse the attributes of a line; the last of equal names wins."""
        if self._c_limits and len(text) > C_MAX_XATTR_TEXT:
            raise _BadLineError(f"the extended attributes are {len(text)} bytes of text, more than {C_MAX_XATTR_TEXT}")
        self._count(text.count(b" ") + 1)
        xattrs = {}
        # One space at the end of the line is tolerated.
        for part in text.removesuffix(b" ").split(b" "):
            key, equals, value = part.partition(b"=")
            if not equals:
                raise _BadLineError(f"extended attribute {_quoted(part)} has no '='")
            # composefs-rs 0.9.0 keeps the NUL at the end of names from ostree; in C a string would end there.
            key = _unescape_string(key) if self._c_limits else unescape(key)
            value = unescape(value)
            if not 1 <= len(key) <= MAX_NAME:
                raise _BadLineError(f"the name of an extended attribute has {len(key)} bytes, not 1 to {MAX_NAME}")
            if len(value) > MAX_XATTR_VALUE:
                raise _BadLineError(
                    f"extended attribute {_quoted(key)} has {len(value)} bytes, more than {MAX_XATTR_VALUE}"
                )
            xattrs[key] = value
        if self._c_limits and c_xattrs_size(xattrs) > C_MAX_XATTRS:
            raise _BadLineError(f"the extended attributes take more than {C_MAX_XATTRS} bytes")
        return xattrs


def _unescape_string(field: bytes) -> bytes:
    raw = unescape(field)
    if 0 in raw:
        raise _BadLineError("NUL byte in a path or name")
    return raw


def _quoted(text: bytes) -> str:
    """What a field holds, for a message."""
    return repr(text[:40]).removeprefix("b")


def _number(text: bytes, field: str, limit: int = _MAX_U32) -> int:
    # Python's int() would take signs, underscores and white space, and is slow for millions of digits.
    if not text.isdigit():
        raise _BadLineError(f"{field} {_quoted(text)} is not a number")
    digits = text.lstrip(b"0") or b"0"
    if len(digits) > 20 or int(digits) > limit:
        raise _BadLineError(f"{field} {_quoted(text)} is larger than {limit}")
    return int(digits)


def _mode(text: bytes) -> int:
    digits = text.removeprefix(b"@")
    if not _OCTAL.fullmatch(digits):
        raise _BadLineError(f"MODE {_quoted(text)} is not an octal number{_BLANK}")
    mode = int(digits, 8)
    if mode & TYPE_MASK not in _TYPES or mode > _MAX_U32:
        hint = _TYPE if len(digits) in (3, 4) else _BLANK
        raise _BadLineError(f"MODE {_quoted(text)} has no known file type{hint}")
    if len(digits) == len(text):
        return mode
    if mode & TYPE_MASK == stat.S_IFDIR:
        raise _BadLineError("a directory cannot be a hard link")
    return _LINK


def _mtime(text: bytes) -> tuple[int, int]:
    match = _MTIME.fullmatch(text)
    if match is None:
        raise _BadLineError(f"MTIME {_quoted(text)} is not SECONDS.NANOSECONDS")
    seconds, nanoseconds = int(match[1] + match[2]), int(match[3])
    if not -(2**63) <= seconds < 2**63 or nanoseconds >= 10**9:
        raise _BadLineError(f"MTIME {_quoted(text)} does not fit 64-bit seconds and nanoseconds below 10^9")
    return seconds, nanoseconds
