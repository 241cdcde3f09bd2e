"""``cfsctl ls``: a directory of an image."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click

from composefs.cli.complete import ImageName
from composefs.cli.frame import Command, Example, Path, json_option
from composefs.cli.named import hinting, named_image
from composefs.cli.output import line, print_json_rows, table
from composefs.cli.settings import Settings, pass_settings
from composefs.errors import NotFoundError
from composefs.paths import shown
from composefs.tree import Node, walk

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl ls refs/os/42 /etc"),
        Example("cfsctl ls -lR refs/os/42 /usr"),
        Example("cfsctl ls --json ostree/os/stable / | jq -r '.entries[].name'", "What was pulled, by its ref."),
    ],
)
@click.argument("name", type=ImageName())
@click.argument("path", default=b"/", type=Path(path_type=bytes))
@click.option("-l", "--long", "as_table", is_flag=True, help="Show mode, links, owner, size and time too.")
@click.option("-R", "--recursive", is_flag=True, help="List what is below too, by its path from PATH on.")
@json_option("Print all facts as JSON.")
@pass_settings
def command(settings: Settings, name: str, path: bytes, as_table: bool, recursive: bool, as_json: bool) -> None:
    """List what is at PATH in an image, the entries of a directory or else the file itself.

    Symlinks on the way are followed inside of the image, one at its end if a slash is behind it.

    NAME is an image's id, refs/ and its name, or a ref of a stream that names one image, as `cfsctl ref list` shows it.
    Names that cannot be shown are escaped as composefs-dump(5) does.
    """
    from composefs.erofs.reader import Lookup

    with settings.open_repository() as repository:
        image_id = named_image(repository, name)
        with repository.images.load(image_id) as image:
            lookup = Lookup(image, repository.images.rules)
            with hinting(NotFoundError, f"`cfsctl ls {shlex.quote(name)}` lists what is at the top of the image"):
                place, node = lookup.follow(path, last=False)
            entries: Iterable[tuple[bytes, Node]]
            if node.children is None:
                entries = [(path.rpartition(b"/")[2], node)]
            elif recursive:
                # Read as a whole: where a damaged image has a directory in itself, one by one there is no end.
                with settings.reporting("ls", "reading the image") as report:
                    report(0)
                    below = lookup.below(place)
                entries = ((each[1:], node) for each, _, _, node in walk(below))
            else:
                entries = lookup.children(place).items()
    if as_json:
        document: dict[str, object] = {"image": image_id, "path": os.fsdecode(path)}
        print_json_rows(document, "entries", (_facts(*entry) for entry in entries))
    elif as_table:
        table(("MODE", "LINKS", "UID", "GID", "SIZE", "MODIFIED", "NAME"), [_row(*entry) for entry in entries])
    else:
        for each, _ in entries:
            line(shown(each))


def _row(name: bytes, node: Node) -> list[str]:
    device = stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode)
    size = f"{os.major(node.rdev)},{os.minor(node.rdev)}" if device else str(node.size)
    target = f" -> {shown(node.payload or b'')}" if stat.S_ISLNK(node.mode) else ""
    numbers = (str(number) for number in (node.nlink, node.uid, node.gid))
    return [stat.filemode(node.mode), *numbers, size, _time(node.mtime[0]), shown(name) + target]


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):  # A year that no calendar has.
        return str(seconds)


def _facts(name: bytes, node: Node) -> dict[str, Any]:
    seconds, nanoseconds = node.mtime
    facts: dict[str, Any] = {
        "name": os.fsdecode(name),
        "type": _TYPES[stat.S_IFMT(node.mode)],
        "mode": f"{stat.S_IMODE(node.mode):04o}",
        "links": node.nlink,
        "uid": node.uid,
        "gid": node.gid,
        "size": node.size,
        "mtime": {"seconds": seconds, "nanoseconds": nanoseconds},
        "xattrs": sorted(os.fsdecode(key) for key in node.xattrs),
    }
    if stat.S_ISLNK(node.mode):
        facts["target"] = os.fsdecode(node.payload or b"")
    elif stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
        facts["device"] = {"major": os.major(node.rdev), "minor": os.minor(node.rdev)}
    elif stat.S_ISREG(node.mode):
        facts["object"] = node.digest.hex() if node.digest is not None and node.external else None
    return facts


_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
