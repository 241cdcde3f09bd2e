"""Layers, one over the other, as one tree.

Entries are applied in the order of their archive, by the rules of the OCI image specification ("Filesystem Layer"), and
where that says nothing as ``umoci`` does, so that an image here has the files that others unpack:

* ``.wh.NAME`` removes NAME, ``.wh..wh..opq`` all that is in its directory, of lower layers only: what the marker's own
  layer has there stays, whichever comes first.  Markers for what does not exist do nothing.
* A directory over a directory replaces its metadata and keeps what is in it; all else replaces what was there.
* Missing parents are made: mode 0755, owner 0, time 0.
* A symlink on the way to an entry is followed, within the tree: its root is the root for ``..`` and ``/``.
* A hard link is another name of the inode that its target is then, in whatever layer that came.
* The files that AUFS keeps for itself, ``.wh..wh.…``, are left out.

``upstream`` applies whiteouts as composefs-rs 0.9.0 does: to earlier entries of their own layer too.
"""

from __future__ import annotations

import stat

from composefs_ext.dump import xattrs as dump_xattrs
from composefs_ext.errors import FormatError, TooLargeError
from composefs_oci.formats.tar import Entry, Kind
from composefs_oci.formats.tar.entries import MAX_NAME, WHITEOUT, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from composefs_oci.layers.stored import Content

__all__ = ["Directory", "Filesystem", "Node"]

MAX_NAMES = 4_000_000
"""Entries of all layers of an image, and parents that are made.  Those that change nothing count: a manifest may name
one layer a thousand times."""
MAX_TEXT = 512 << 20
"""Bytes of names, targets, attributes and small files that all layers may have together."""
MAX_FOLLOWED = 40
"""Symlinks on one path, as Linux has it."""
MAX_STEPS = 20_000_000
"""Components that are walked for paths with symlinks, and names that whiteouts go through: a bound of time for what is
made to take long."""

_DIRECTORY, _HARDLINK = stat.S_IFDIR, Kind.HARDLINK
_WHITEOUT_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_IMPLICIT_MODE = 0o755
_REMEMBERED = 10_000


class Node:
    """An inode: ``mode`` with the type's bits, ``content`` of a regular file (bytes, or an object's id).

    ``target`` is a symlink's, ``device`` (major, minor), ``xattrs`` the text that a dump has for the attributes.
    """

    __slots__ = ("content", "device", "gid", "mode", "mtime", "size", "target", "uid", "xattrs")

    def __init__(
        self,
        mode: int,
        uid: int = 0,
        gid: int = 0,
        mtime: tuple[int, int] = (0, 0),
        xattrs: bytes = b"",
        size: int = 0,
        content: Content = b"",
        target: bytes = b"",
        device: tuple[int, int] = (0, 0),
    ) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.xattrs = xattrs
        self.size = size
        self.content = content
        self.target = target
        self.device = device


class Directory(Node):
    """A directory; ``above`` is the one that it is in, None for the root, and ``name`` its name there.

    ``own`` has the names in it that are of the layer at hand: True where the layer has an entry for the name itself,
    False where it only has entries below.
    """

    __slots__ = ("above", "children", "name", "own")

    def __init__(self, above: Directory | None = None, name: bytes = b"") -> None:
        super().__init__(_DIRECTORY | _IMPLICIT_MODE)
        self.children: dict[bytes, Node] = {}
        self.above = above
        self.name = name
        self.own: dict[bytes, bool] | None = None


class Filesystem:
    """The tree so far; ``root`` is its root."""

    def __init__(self, *, upstream: bool = False) -> None:
        self.root = Directory()
        self._upstream = upstream
        self._directories: dict[bytes, Directory] = {}  # by path, what has been looked up
        self._touched: list[Directory] = []  # those whose ``own`` is set
        self._is_first = True
        self._layer = ""
        self._names = 0
        self._text = 0
        self._steps = 0
        self._xattrs: dict[tuple[tuple[bytes, bytes], ...], bytes] = {(): b""}

    def apply(self, name: str, entries: Iterable[tuple[Entry, Content]]) -> None:
        """Put the next layer, from bottom to top, over the tree; ``name`` is for messages.

        Raises FormatError for entries that contradict the tree; TooLargeError.  The tree is of no use then.
        """
        place, remove = self._place, self._remove
        self._layer = name
        for entry, content in entries:
            path = entry.path
            if WHITEOUT in path and (path.startswith(WHITEOUT) or b"/" + WHITEOUT in path):
                remove(path)
            else:
                place(entry, path, content)
        for directory in self._touched:
            directory.own = None
        self._touched.clear()
        self._is_first = False

    def _place(self, entry: Entry, path: bytes, content: Content) -> None:
        kind, size = entry.kind, entry.size
        head, _, name = path.rpartition(b"/")
        directory = self._directories.get(head) or self._parent(head, path)
        children = directory.children
        old = children.get(name) if path else self.root
        if kind == _HARDLINK:
            node = self._linked(entry)
        else:
            if entry.sparse is not None:
                size = entry.sparse.size
            xattrs = entry.xattrs
            text = self._xattrs.get(xattrs)
            if text is None:
                text = self._xattrs[xattrs] = dump_xattrs(xattrs)
                self._text += len(text)
            self._text += len(entry.link) + len(content)
            if kind == _DIRECTORY:
                node = old if isinstance(old, Directory) else Directory(directory, name)
                node.mode = _DIRECTORY | entry.mode
                node.uid, node.gid, node.mtime, node.xattrs = entry.uid, entry.gid, entry.mtime, text
            else:
                node = Node(
                    kind | entry.mode, entry.uid, entry.gid, entry.mtime, text, size, content, entry.link, entry.device
                )
        self._count(name)
        if not self._is_first:
            self._own(directory, name)
        if node is old:
            return
        if old is not None:
            self._forget(old)
        children[name] = node

    def _forget(self, old: Node) -> None:
        """Note that an inode is no longer where it was."""
        if isinstance(old, Directory) or old.target:
            self._directories.clear()  # paths may lead elsewhere now

    def _count(self, name: bytes) -> None:
        self._names += 1
        self._text += len(name)
        if self._names > MAX_NAMES or self._text > MAX_TEXT:
            what = f"{MAX_NAMES} files" if self._names > MAX_NAMES else f"{MAX_TEXT} bytes of names and attributes"
            raise TooLargeError(f"the image's layers have more than {what}", subject=self._layer)

    def _error(self, message: str, hint: str | None = None) -> FormatError:
        return FormatError(f"layer {self._layer}: {message}", hint=hint, subject=self._layer)

    def _linked(self, entry: Entry) -> Node:
        """Return the inode that a hard link means."""
        head, _, name = entry.link.rpartition(b"/")
        directory = self._directories.get(head) or self._find(head, entry.path, make=False)
        node = directory.children.get(name) if directory and name else directory
        if node is not None and not isinstance(node, Directory):
            return node
        what = f"{shown(entry.path)}: the target of the hard link, {shown(entry.link)},"
        if node is not None:
            raise self._error(f"{what} is a directory")
        raise self._error(f"{what} does not exist", hint="it must come before the link, in this or a lower layer")

    # The way to an entry

    def _parent(self, head: bytes, path: bytes) -> Directory:
        """Return the directory of an entry; what is missing of it is made."""
        directory = self._find(head, path, make=True)
        assert directory is not None
        if len(self._directories) >= _REMEMBERED:
            self._directories.clear()
        self._directories[head] = directory
        return directory

    def _find(self, head: bytes, path: bytes, *, make: bool) -> Directory | None:
        """Return a directory; symlinks are followed within the tree.

        What is missing is made, or else the answer is None.  Raises FormatError if a component is no directory, or
        there are too many symlinks.
        """
        here = self.root
        names = head.split(b"/")[::-1]
        followed = 0
        while names:
            name = names.pop()
            if followed:
                self._steps += 1
            if name in (b"", b"."):
                continue
            if name == b"..":  # of a symlink's target: an entry's path has none
                here = here.above or here
                continue
            node = here.children.get(name)
            if node is None and make:
                node = self._made(here, name, path)
            if isinstance(node, Directory):
                here = node
            elif node is not None and node.target:
                followed += 1
                if followed > MAX_FOLLOWED or self._steps > MAX_STEPS:
                    raise self._error(f"{shown(path)}: too many symlinks on its way")
                if node.target.startswith(b"/"):
                    here = self.root
                names += node.target.split(b"/")[::-1]
            elif make:
                raise self._error(f"{shown(path)}: {shown(name)} is on its way, but is not a directory")
            else:
                return None
        return here

    def _made(self, above: Directory, name: bytes, path: bytes) -> Directory:
        """Make a directory on the way to an entry."""
        if name.startswith(WHITEOUT) or len(name) > MAX_NAME:
            raise self._error(f"{shown(path)}: {shown(name)} cannot be the name of a directory")
        self._count(name)
        made = above.children[name] = Directory(above, name)
        return made

    # Whiteouts

    def _own(self, directory: Directory, name: bytes) -> None:
        """Note that a name is of the layer at hand, and so that all directories above it are."""
        above: Directory | None = directory
        is_entry = True
        while above is not None:
            own = above.own
            if own is None:
                own = above.own = {}
                self._touched.append(above)
            elif name in own and not is_entry:
                return
            own[name] = is_entry or own.get(name, False)
            is_entry = False
            name, above = above.name, above.above

    def _remove(self, path: bytes) -> None:
        """Do what a path says that has a component which begins with ``.wh.``."""
        head, _, name = path.rpartition(b"/")
        self._count(name)
        above = head.split(b"/")
        if (name.startswith(_WHITEOUT_META) and name != _OPAQUE) or any(
            each.startswith(_WHITEOUT_META) for each in above
        ):
            return  # AUFS's own
        if any(each.startswith(WHITEOUT) for each in above):
            raise self._error(f"{shown(path)}: there is a whiteout on its way, which cannot be a directory")
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise self._error(f"{shown(path)}: a whiteout of nothing")
        directory = self._find(head, path, make=False)
        if directory is None or (self._is_first and not self._upstream):
            return
        children = directory.children
        if name == _OPAQUE:
            self._directories.clear()
            self._hide_below(directory, is_entry=True)
        elif hidden in children:
            self._forget(children[hidden])
            own = None if self._upstream else (directory.own or {}).get(hidden)
            if own is None:
                del children[hidden]
            else:
                self._hide_below(children[hidden], is_entry=own)

    def _hide_below(self, node: Node, *, is_entry: bool) -> None:
        """Remove what is in a directory, but not what is of the layer at hand.

        A directory that is there for that alone has lost its metadata: it is as if it had been made now.
        """
        pending = [(node, is_entry)]
        for each, has_entry in pending:
            if not isinstance(each, Directory):
                continue
            if not has_entry:
                each.mode, each.uid, each.gid = _DIRECTORY | _IMPLICIT_MODE, 0, 0
                each.mtime, each.xattrs = (0, 0), b""
            self._steps += len(each.children)
            if self._steps > MAX_STEPS:
                raise TooLargeError(f"layer {self._layer}: its whiteouts take too long", subject=self._layer)
            own = {} if self._upstream or each.own is None else each.own
            each.children = {name: below for name, below in each.children.items() if name in own}
            pending += [(below, own[name]) for name, below in each.children.items()]
