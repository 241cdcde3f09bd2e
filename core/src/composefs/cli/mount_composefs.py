"""mount.composefs: mount an image file, by hand or as the helper by which mount(8) mounts the type composefs.

It takes what the tool of the same name in the C project composefs takes, and what mount(8) gives its helpers (mount(8),
"EXTERNAL HELPERS").  In the options a backslash takes the meaning from a comma, from a colon in a list of directories,
and from a backslash.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from composefs.cli.standalone import Parser, given_path, run
from composefs.errors import ComposefsError, UsageError
from composefs.systemerrors import Doing

if TYPE_CHECKING:
    from composefs.mount import Options

__all__ = ["main", "parser"]

PROGRAM = "mount.composefs"

# What a line of fstab may say to mount(8) and systemd, and mount(8) hands on (mount(8), "FILESYSTEM-INDEPENDENT MOUNT
# OPTIONS"); and what is so anyhow.
_NOT_FOR_US = frozenset(
    ("_netdev", "async", "auto", "defaults", "loud", "noauto", "nofail", "nolazytime", "nomand", "nouser", "silent")
)

# Attributes of the mount: what each option adds, and what it takes away.
_ATTRIBUTES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ro": (("ro",), ()),
    "rw": ((), ("ro",)),
    "nosuid": (("nosuid",), ()),
    "suid": ((), ("nosuid",)),
    "nodev": (("nodev",), ()),
    "dev": ((), ("nodev",)),
    "noexec": (("noexec",), ()),
    "exec": ((), ("noexec",)),
    "nosymfollow": (("nosymfollow",), ()),
    "symfollow": ((), ("nosymfollow",)),
    "noatime": (("noatime",), ("strictatime",)),
    "strictatime": (("strictatime",), ("noatime",)),
    "relatime": ((), ("noatime", "strictatime")),
    "atime": ((), ("noatime",)),
    "norelatime": ((), ()),
    "nostrictatime": ((), ("strictatime",)),
    "nodiratime": (("nodiratime",), ()),
    "diratime": ((), ("nodiratime",)),
    "user": (("noexec", "nosuid", "nodev"), ()),
    "users": (("noexec", "nosuid", "nodev"), ()),
    "owner": (("nosuid", "nodev"), ()),
    "group": (("nosuid", "nodev"), ()),
}

_EPILOG = """\
options of -o, separated by commas:
  basedir=DIR[:DIR…]     where the contents of files are, as DIR/XX/REST
  digest=HEX             the fs-verity digest that IMAGE must have; implies verity
  verity                 refuse files whose objects lack the right fs-verity digest
  tryverity              the same, if the kernel can
  idmap=FILE             show owners as in this user namespace, /proc/PID/ns/user
  upperdir=DIR           where changes go
  workdir=DIR            overlayfs' own, on the file system of upperdir
  ro, rw                 whether changes are allowed; without upperdir never
  nosuid, nodev, noexec, nosymfollow, noatime, nodiratime, strictatime, and their opposites
                         as mount(8) explains them; user and users mean the first three, owner
                         and group the first two

What else fstab may say to mount(8) and systemd (defaults, nofail, noauto, x-…) does nothing.
The list of mounts has "composefs" for IMAGE, so a second mount -a mounts it once more; systemd does not.

A backslash before a comma, colon or backslash makes it part of the value.

example:
  mount.composefs -o basedir=/srv/objects,digest=5d41… os.cfs /mnt
"""


@dataclass(slots=True)
class Request:
    """What the options ask for."""

    basedir: tuple[str, ...] = ()
    digest: str | None = None
    verity: Literal["off", "try", "require"] = "off"
    idmap: str | None = None
    upperdir: str | None = None
    workdir: str | None = None
    attributes: frozenset[str] = frozenset()

    def options(self, idmap: int | None) -> Options:
        """Return the options of the mount, with the user namespace opened."""
        from composefs.mount import Options

        return Options(
            objects=self.basedir,
            verity=self.verity,
            upperdir=self.upperdir,
            workdir=self.workdir,
            attributes=self.attributes | ({"ro"} if self.upperdir is None else set()),
            idmap=idmap,
        )


def main() -> int:
    """Run the command line of this process and return its exit status."""
    return run(PROGRAM, lambda: _run(parser().parse_args()))


def parser() -> Parser:
    """Return the parser of the command line."""
    made = Parser(
        prog=PROGRAM,
        usage="mount.composefs [-t composefs] [-o OPTIONS] IMAGE DIR",
        description="Mount a composefs image at a directory.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("image", metavar="IMAGE", type=given_path, help="the image file")
    add("mountpoint", metavar="DIR", type=given_path, help="where to mount it")
    add("-o", dest="options", metavar="OPTIONS", action="append", default=[], help="see below; may be repeated")
    add("-t", dest="kind", metavar="TYPE", default="composefs", help="as mount(8) gives it; composefs")
    add("-f", dest="fake", action="store_true", help="check the options and do nothing")
    add("-s", dest="sloppy", action="store_true", help="ignore unknown options")
    add("-n", dest="ignored", action="store_true", help="ignored, as there is no /etc/mtab")
    add("-v", dest="ignored", action="store_true", help="ignored")
    return made


def _run(arguments: argparse.Namespace) -> None:
    if arguments.kind != "composefs":
        raise UsageError(f"-t {arguments.kind} is not composefs")
    request = parse(arguments.options, sloppy=arguments.sloppy)
    if arguments.fake:
        return
    from composefs.linux.files import opened
    from composefs.mount import mount_file
    from composefs.mount.idmap import user_namespace

    with opened(arguments.image, f"opening {arguments.image}") as image:
        if request.digest is not None:
            _check_digest(image, request.digest, arguments.image)
        with user_namespace(request.idmap) as namespace:
            mount_file(image, arguments.mountpoint, request.options(namespace), arguments.image)


def _check_digest(image: int, digest: str, path: str) -> None:
    """Raise ComposefsError, in the words that scripts know, unless the kernel vouches for a digest, in hex."""
    from composefs.linux.verity import measure

    with Doing(f"measuring the fs-verity of {path}"):
        found = measure(image)
    if found is None:
        raise ComposefsError("Image has no fs-verity")
    if found[1].hex() != digest:
        raise ComposefsError("Image has wrong fs-verity")


def parse(texts: Sequence[str], *, sloppy: bool = False) -> Request:
    """Parse the values of -o; with ``sloppy``, unknown options do no harm.  Raises UsageError."""
    request = Request()
    for word in (word for text in texts for word in _split(text, ",")):
        name, assigned, value = word.partition("=")
        if name in _NOT_FOR_US or name.startswith(("x-", "X-", "comment")):
            continue
        if word == "remount":  # else -s would mount the image over itself
            raise UsageError("what is mounted keeps its options, but for mount -o remount,bind,ro and its like")
        if assigned and name in _VALUES:
            setattr(request, name, _VALUES[name](value))
        elif word == "verity":
            request.verity = "require"
        elif word == "tryverity":
            request.verity = "try" if request.verity == "off" else request.verity
        elif word in _ATTRIBUTES or name == "user":  # user=NAME is whose it is
            added, removed = _ATTRIBUTES[name]
            request.attributes = request.attributes.difference(removed).union(added)
        elif not sloppy:
            raise UsageError(f"unknown option {word!r}")
    if not request.basedir:
        raise UsageError("the option basedir= is missing")
    if (request.upperdir is None) != (request.workdir is None):
        raise UsageError("upperdir= and workdir= need each other")
    if request.digest is not None:
        request.verity = "require"
    return request


def _basedir(value: str) -> tuple[str, ...]:
    return tuple(_unescape(part) for part in _split(value, ":"))


def _digest(value: str) -> str:
    """Return a digest in lower case; sha256 and sha512 have the lengths that are allowed."""
    digest = value.lower()
    if len(digest) not in (64, 128) or set(digest) - set("0123456789abcdef"):
        raise UsageError(f"digest={value} is not an fs-verity digest in hex")
    return digest


def _split(text: str, separator: str) -> list[str]:
    """Return what is between separators that no backslash precedes, if it is anything; escapes stay in it."""
    return re.findall(rf"(?:\\.|[^{separator}])+", text)


def _unescape(value: str) -> str:
    """Undo the escapes; a backslash before anything else is a backslash."""
    return re.sub(r"\\([,:\\])", r"\1", value)


_VALUES: dict[str, Callable[[str], object]] = {
    "basedir": _basedir,
    "digest": _digest,
    "idmap": _unescape,
    "upperdir": _unescape,
    "workdir": _unescape,
}
"""Options with a value, and what makes of it that of the Request's field of the same name."""
