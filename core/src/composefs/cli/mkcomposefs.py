"""``mkcomposefs``: an image from a directory or a dump, as libcomposefs' tool of this name makes it, byte for byte.

It knows no repository: files go, if anywhere, to a flat store of objects named XX/REST by their fs-verity digest.
Everything is imported when it is needed.
"""

from __future__ import annotations

import argparse
import gc
import os
import stat
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from composefs.cli.standalone import Parser, at_work, given_path, run
from composefs.errors import UsageError
from composefs.linux.closing import Descriptor
from composefs.systemerrors import Doing, from_os_error

if TYPE_CHECKING:
    from composefs.tree import Tree

__all__ = ["main", "parser"]

PROGRAM = "mkcomposefs"
WRONG_USAGE = 2

DEFAULT_VERSIONS = (0, 1)
_EPILOG = """\
examples:
  mkcomposefs --digest-store=objects rootfs rootfs.cfs
  mkcomposefs --from-file rootfs.dump rootfs.cfs
  mkcomposefs --print-digest-only rootfs

The dump format is described in composefs-dump(5).
"""


def main() -> int:
    """Run the command line of this process and return its exit status."""
    status = run(PROGRAM, lambda: _run(parser().parse_args()), wrong_usage=WRONG_USAGE)
    # The interpreter's last act would be to search the whole tree for garbage: 50 ms of half a second for 40,000 files.
    # The process ends anyway.
    gc.freeze()
    return status


def parser() -> Parser:
    """Return the parser of the command line."""
    made = Parser(
        prog=PROGRAM,
        usage="mkcomposefs [OPTIONS] SOURCE [IMAGE]",
        description="Make a composefs image of the directory SOURCE.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add(
        "source",
        metavar="SOURCE",
        type=given_path,
        help="a directory, or with --from-file a dump (- is standard input)",
    )
    add("image", metavar="IMAGE", type=given_path, nargs="?", help="the image to write (- is standard output)")
    add("--from-file", action="store_true", help="SOURCE is a dump file, not a directory")
    add("--digest-store", metavar="DIR", type=given_path, help="copy the files of SOURCE to this directory of objects")
    add("--print-digest", action="store_true", help="print the image's fs-verity digest as well")
    add("--print-digest-only", action="store_true", help="print the image's fs-verity digest and write no image")
    add("--use-epoch", action="store_true", help="make all modification times zero")
    add("--skip-devices", action="store_true", help="leave out device nodes")
    add("--skip-xattrs", action="store_true", help="leave out extended attributes")
    add("--user-xattrs", action="store_true", help="of the extended attributes keep user.* only")
    add("--hardlinks", action="store_true", help="keep hard links; else each name becomes a file of its own")
    add("--min-version", metavar="N", type=int, help="lowest image format to use, 0 or 1")
    add("--max-version", metavar="N", type=int, help="highest image format to use, 0 or 1")
    add("--threads", metavar="N", type=int, help="read files in so many processes (default: one for each processor)")
    return made


def _run(arguments: argparse.Namespace) -> None:
    _check(arguments)
    image = arguments.image
    version, max_version = _versions(arguments)
    with at_work("making the image") as report:
        tree = (_dump if arguments.from_file else _directory)(arguments, report)

        from composefs import erofs

        pieces = list(erofs.write(tree, version=version, max_version=max_version, compat="c"))
    digest = None
    if arguments.print_digest or arguments.print_digest_only:
        from composefs.digest import SHA256
        from composefs.fsverity import digest_parts

        digest = digest_parts(pieces, SHA256).hex()
    if image == "-":
        from composefs.cli.output import write, write_piece

        for piece in pieces:
            write_piece(piece)
        write(b"")
    elif image is not None:
        with Doing(f"writing {image}", partial(from_os_error, absent="make its directory first")):
            _write(image, pieces)
    if digest is not None:
        from composefs.cli.output import write

        write(digest.encode() + b"\n")


def _check(arguments: argparse.Namespace) -> None:
    """Raise UsageError for arguments that do not go together, and for output that goes nowhere."""
    image = arguments.image
    if arguments.print_digest_only:
        if image is not None:
            raise UsageError("with --print-digest-only there is no IMAGE to write")
    elif image is None:
        raise UsageError("IMAGE is missing")
    elif image == "-" and arguments.print_digest:
        raise UsageError("--print-digest and the image cannot both go to standard output")
    if sys.stdout is None and (image == "-" or arguments.print_digest or arguments.print_digest_only):
        raise UsageError("standard output is closed")
    if image == "-" and sys.stdout.isatty():
        raise UsageError("standard output is a terminal; redirect it, or name a file")
    if arguments.threads is not None and arguments.threads < 1:
        raise UsageError("--threads wants a positive number")


def _versions(arguments: argparse.Namespace) -> tuple[int, int]:
    """The lowest and highest format; the tool's rule is that one option alone makes 0 of the other."""
    version, highest = arguments.min_version, arguments.max_version
    if version is None and highest is None:
        return DEFAULT_VERSIONS
    version, highest = version or 0, highest or 0
    if not 0 <= version <= DEFAULT_VERSIONS[1] or not 0 <= highest <= DEFAULT_VERSIONS[1]:
        raise UsageError("image formats are 0 and 1")
    return version, max(version, highest)


def _dump(arguments: argparse.Namespace, report: Callable[[int], object] | None) -> Tree:
    if arguments.digest_store is not None:
        raise UsageError("--digest-store wants a directory as SOURCE: a dump has no files to copy")
    if arguments.source == "-" and sys.stdin is None:
        raise UsageError("standard input is closed")
    from composefs.cli.dumps import read_dump
    from composefs.digest import SHA256

    if report is not None:
        report(0)
    return read_dump(arguments.source, SHA256, c_limits=True, strict="CFS_PARSE_STRICT" in os.environ)


def _directory(arguments: argparse.Namespace, report: Callable[[int], object] | None) -> Tree:
    from composefs.digest import SHA256
    from composefs.scan import ScanOptions, scan_directory

    options = ScanOptions(
        hardlinks=arguments.hardlinks,
        use_epoch=arguments.use_epoch,
        devices=not arguments.skip_devices,
        xattrs="none" if arguments.skip_xattrs else "user" if arguments.user_xattrs else "all",
        follow_root=False,
    )

    def scan(store: Callable[[int], str] | None) -> Tree:
        return scan_directory(
            arguments.source, SHA256, store=store, options=options, processes=arguments.threads, report=report
        )

    return scan(None) if arguments.digest_store is None else _into_store(arguments.digest_store, scan)


def _into_store(path: str, scan: Callable[[Callable[[int], str]], Tree]) -> Tree:
    """Scan a directory and copy its files to PATH/XX/REST, if they are not there yet; they are durable then."""
    from composefs.cli.flatstore import FlatStore

    remedy = "it cannot be made; see whether a symlink in the path leads to nothing"
    with Doing(f"opening {path}", partial(from_os_error, absent=remedy)):
        objects = FlatStore(path)
    tree = scan(objects.store)
    with Doing(f"writing {path}"):
        objects.sync()
    return tree


def _write(image: str, pieces: list[bytes]) -> None:
    """Write the image; a regular file gets its name when it is whole."""
    image = os.path.realpath(image)
    try:
        mode = os.stat(image).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode):  # A device or FIFO; and a directory fails here as it should.
        with Descriptor(os.open(image, os.O_WRONLY | os.O_CLOEXEC)) as fd:
            _write_all(fd, pieces)
        return
    from composefs.linux.files import NewFile, sync_directory

    umask = os.umask(0)
    os.umask(umask)
    place = os.open(os.path.dirname(image), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with Descriptor(place) as directory, NewFile(directory, 0o666 & ~umask) as new:
        _write_all(new.fd, pieces)
        # Or a power cut might leave neither this image nor the one that it replaces.
        new.replace(directory, os.path.basename(image), durable=True)
        sync_directory(directory)


def _write_all(fd: int, pieces: list[bytes]) -> None:
    from composefs.linux.files import write_all

    for piece in pieces:
        write_all(fd, piece)
