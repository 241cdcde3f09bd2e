"""Where the tree of an image comes from: a directory or a dump, by the options that commands share.

A directory becomes a tree as composefs-rs 0.9.0 makes it: the root's metadata taken from /usr and xattrs filtered, as
for a container image, unless ``--no-propagate-usr-to-root`` asks for the tree as it is; and then made ready to be
booted, if ``--bootable`` asks for that.  A dump is taken as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from composefs.cli.frame import Path
from composefs.cli.progress import Reporting
from composefs.digest import Algorithm
from composefs.errors import FormatError, UsageError
from composefs.linux.files import open_file
from composefs.systemerrors import Doing
from composefs.transform import ALLOWLIST_ONLY, XATTR_MODES, filter_xattrs, no_usr, propagate_usr_to_root

if TYPE_CHECKING:
    from composefs.observe import Observers
    from composefs.tree import Node, Tree

__all__ = ["Source", "TreeOptions", "directory_options", "dump_option", "propagate_option"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """How a directory becomes a tree."""

    no_propagate_usr_to_root: bool = False
    xattrs: str | None = None
    bootable: bool = False


propagate_option = click.option(
    "--no-propagate-usr-to-root",
    is_flag=True,
    help="Take the tree as it is, with its root's own metadata and xattrs.",
)
dump_option = click.option(
    "--from-dump",
    metavar="FILE",
    type=Path(),
    help="Take the tree, as it is, from composefs-dump(5) text; - is standard input.",
)


def directory_options(function: F) -> F:
    """Add the options that say how a directory becomes a tree; a command gets them together, as its ``options``."""

    @wraps(function)
    def command(
        *args: Any, no_propagate_usr_to_root: bool, xattrs: str | None, bootable: bool, **values: Any
    ) -> object:
        return function(*args, options=TreeOptions(no_propagate_usr_to_root, xattrs, bootable), **values)

    command = click.option(
        "--bootable",
        is_flag=True,
        help="Make it an image to boot: empty /boot and /sysroot, and SELinux labels by the tree's own policy.",
    )(command)
    command = click.option(
        "--xattrs",
        type=click.Choice(XATTR_MODES),
        help="Which extended attributes stay: security.capability alone (default), or user.* as well.",
    )(command)
    return cast("F", propagate_option(command))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A directory with its options, or a dump; exactly one of the two paths is set."""

    directory: str | None
    dump: str | None = None
    options: TreeOptions = TreeOptions()

    def __post_init__(self) -> None:
        if (self.directory is None) == (self.dump is None):
            raise UsageError("give either a directory or --from-dump FILE")
        if self.dump is not None and self.options != TreeOptions():
            raise UsageError(
                "a dump is taken as it is", hint="leave out --no-propagate-usr-to-root, --xattrs and --bootable"
            )

    def tree(self, algorithm: Algorithm, observers: Observers, store: Callable[[int], str] | None = None) -> Tree:
        """Read the tree; ``store`` gets each file of a directory, as scan_directory says; else none is stored."""
        if self.dump is not None:
            from composefs.cli.dumps import read_dump

            with Reporting(observers, "dump", "reading the dump") as report:
                report(0)
                return read_dump(self.dump, algorithm)
        assert self.directory is not None
        from composefs.scan import scan_directory

        if not self.options.no_propagate_usr_to_root and _lacks_usr(self.directory):
            raise _with_remedy(no_usr())  # before anything is stored
        with Reporting(observers, "files", self.directory) as report:
            tree = scan_directory(self.directory, algorithm, store=store, report=report)
        if not self.options.no_propagate_usr_to_root:
            try:
                propagate_usr_to_root(tree)
            except FormatError as error:
                raise _with_remedy(error) from None
            filter_xattrs(tree, self.options.xattrs or ALLOWLIST_ONLY)
        if self.options.bootable:
            from composefs.boot import make_bootable

            make_bootable(tree, partial(_read_file, self.directory), stored=store is not None)
        return tree

    def image_id(self, algorithm: Algorithm, version: int, observers: Observers) -> str:
        """Compute the id that the image of the tree has in an EROFS format."""
        from composefs import erofs
        from composefs.fsverity import digest_parts

        tree = self.tree(algorithm, observers)
        with Reporting(observers, "image", "image") as report:
            report(0)
            return digest_parts(erofs.write(tree, version=version), algorithm).hex()


def _with_remedy(error: FormatError) -> FormatError:
    """Give the error for a tree without /usr a hint to the option that takes it all the same."""
    error.hint = "say --no-propagate-usr-to-root to take the tree as it is"
    return error


def _lacks_usr(directory: str) -> bool:
    """Tell whether a directory that can be looked into has no /usr."""
    try:
        os.lstat(os.path.join(directory, "usr"))
    except FileNotFoundError:
        return os.path.isdir(directory)
    except OSError:
        return False
    return False


def _read_file(directory: str, path: bytes, node: Node) -> bytes:
    """Read a file below a directory; the caller compares its digest with that of the file that was scanned."""
    place = os.path.join(directory, os.fsdecode(path[1:]))
    with Doing(f"reading {place}"), open(open_file(place), "rb") as file:
        return file.read(node.size + 1)
