"""``composefs-info``: what is in images, as libcomposefs' tool of this name prints it.

It knows no repository, only image files.  Everything is imported when it is needed.
"""

from __future__ import annotations

import argparse
import gc
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from composefs.cli.output import write, write_piece
from composefs.cli.standalone import Parser, at_work, fail, given_path, run
from composefs.errors import ComposefsError, UsageError
from composefs.linux.closing import Descriptor
from composefs.systemerrors import Doing, from_os_error

if TYPE_CHECKING:
    from composefs.cli.progress import Reporting
    from composefs.tree import Tree

__all__ = ["main", "parser"]

PROGRAM = "composefs-info"

_OTHER_IMAGE = "give an image that mkcomposefs has made; a damaged one has to be made again"
_EPILOG = """\
commands:
  ls               list the files of IMAGE
  dump             print IMAGE as composefs-dump(5) text
  objects          print the paths of all objects that IMAGE refers to, relative to the object directory
  missing-objects  print those that are not in --basedir
  measure-file     print the fs-verity digest of any FILE

examples:
  composefs-info dump rootfs.cfs | grep /etc/passwd
  composefs-info --basedir=objects missing-objects rootfs.cfs
"""


def main() -> int:
    """Run the command line of this process and return its exit status, 1 for every error."""
    if sys.stdout is None:  # What Python makes of a closed descriptor.
        return fail(PROGRAM, "standard output is closed")
    gc.disable()  # A tree is one large heap without garbage, and the process ends soon.
    status = run(PROGRAM, _run)
    gc.freeze()
    return status


def _run() -> None:
    arguments = _arguments()
    _COMMANDS[arguments.command](arguments)
    write(b"")


def parser() -> Parser:
    """Return the parser of the command line."""
    made = Parser(
        prog=PROGRAM,
        usage="composefs-info [--filter=NAME]... [--basedir=DIR] COMMAND FILE...",
        description="Print what is in composefs images.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("command", metavar="COMMAND", help="one of those below")
    add("files", metavar="FILE", type=given_path, nargs="*", help="images; for measure-file any files")
    add("--filter", metavar="NAME", action="append", help="of an image only this entry of its root (repeatable)")
    add("--basedir", metavar="DIR", type=given_path, help="missing-objects: the object directory")
    return made


def _arguments() -> argparse.Namespace:
    arguments = parser().parse_intermixed_args()
    if arguments.command not in _COMMANDS:
        raise UsageError(f"unknown command {arguments.command!r}")
    if not arguments.files:
        raise UsageError("no image given")
    return arguments


def _ls(arguments: argparse.Namespace) -> None:
    from composefs.dumpfile.escape import escape
    from composefs.tree import walk

    for tree in _trees(arguments):
        lines = []
        shown = set()
        for path, _, _, node in walk(tree.root):
            # The spaces of a path stay as they are, those of what comes behind it do not.
            line = escape(path) if b" " not in path else b" ".join(map(escape, path.split(b" ")))
            if node.children is not None:
                line += b"/\t"
            elif node.payload is not None and node not in shown:
                line += (b"\t-> " if stat.S_ISLNK(node.mode) else b"\t@ ") + escape(node.payload)
                if node.home is not None:
                    shown.add(node)  # C tells of a file once, at the first of its names.
            lines.append(line + b"\n")
        write_piece(b"".join(lines))


def _dump(arguments: argparse.Namespace) -> None:
    from composefs import dumpfile

    for tree in _trees(arguments):
        dumpfile.write(tree, write_piece, style="c")


def _objects(arguments: argparse.Namespace) -> None:
    _print_paths(_object_paths(arguments))


def _missing_objects(arguments: argparse.Namespace) -> None:
    if arguments.basedir is None:
        raise UsageError("missing-objects needs --basedir=DIR")
    try:
        directory = os.open(arguments.basedir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError as error:
        from composefs.scan import no_such_directory

        raise no_such_directory(arguments.basedir) from error
    except OSError as error:
        raise from_os_error(error, f"opening {arguments.basedir}", absent="check the path after --basedir") from error
    with Descriptor(directory):
        _print_paths([path for path in _object_paths(arguments) if not _exists(path, directory)])


def _exists(path: bytes, directory: int) -> bool:
    try:
        os.stat(path.lstrip(b"/"), dir_fd=directory)
    except OSError:
        return False
    return True


def _object_paths(arguments: argparse.Namespace) -> list[bytes]:
    """Return the paths of the objects of all images, sorted."""
    from composefs.tree import walk

    paths = set()
    for tree in _trees(arguments):
        paths |= {node.payload for _, _, _, node in walk(tree.root) if node.payload and stat.S_ISREG(node.mode)}
    return sorted(paths)


def _print_paths(paths: list[bytes]) -> None:
    from composefs.dumpfile.escape import escape

    write_piece(b"".join([escape(path) + b"\n" for path in paths]))


def _trees(arguments: argparse.Namespace) -> Iterator[Tree]:
    """Read the images, one after the other; with --filter, no more of the root than these entries."""
    from composefs.erofs.reader import Image, ReadRules, read_tree

    only = None if arguments.filter is None else {os.fsencode(name) for name in arguments.filter}
    with at_work("reading the image") as report:
        for path in arguments.files:
            with _reading(path, report) as fd:
                try:
                    image = Image.open(fd)
                    tree = read_tree(image, ReadRules("c"))
                except ComposefsError as error:
                    error.message = f"{path}: {error.message}"
                    error.hint = error.hint or _OTHER_IMAGE
                    raise
            if only is not None:
                tree.root.children = {name: node for name, node in (tree.root.children or {}).items() if name in only}
            yield tree


def _measure_file(arguments: argparse.Namespace) -> None:
    """Print what the kernel says, or what it would say if the file had fs-verity."""
    from composefs.digest import SHA256
    from composefs.fsverity import digest_fd
    from composefs.linux.verity import measure

    with at_work("measuring") as report:
        for path in arguments.files:
            with _reading(path, report) as fd, Doing(f"reading {path}"):
                measured = measure(fd)
                digest = measured[1] if measured and measured[0] is SHA256 else digest_fd(fd, SHA256)
            write(digest.hex().encode() + b"\n")


@contextmanager
def _reading(path: str, report: Reporting | None) -> Iterator[int]:
    """Open a file, and report while it is read; what comes next writes what was found, and has room for it."""
    from composefs.linux.files import opened

    if report is not None:
        report(0)
    with opened(path, f"opening {path}") as fd:
        yield fd
    if report is not None:
        report.make_room()


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "ls": _ls,
    "dump": _dump,
    "objects": _objects,
    "missing-objects": _missing_objects,
    "measure-file": _measure_file,
}
