"""System calls of a command: recorded, and made to fail, with strace(1).

A call is addressed by its name and how many calls of that name its process has made with it, which is how ``strace -e
inject=NAME:…:when=N`` counts.  A command is deterministic enough for that: the same one does the same calls on an equal
repository.  Where several processes are followed each has a count of its own, so there only the calls that concern one
file (``-P``) are counted.  Whether a fault hit what it was meant for is read from strace's own log all the same.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from support.peers import require

CHANGING = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,truncate,ftruncate,fallocate,"
    "mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,unlink,unlinkat,rename,renameat,renameat2,"
    "chmod,fchmod,fchmodat,chown,fchown,fchownat,setxattr,fsetxattr,removexattr,fremovexattr,utimensat,"
    "fsync,fdatasync,syncfs,sync,sync_file_range,ioctl"
)
"""Every call with which these programs could change a file system or wait for it; io_uring and mmap they do not use."""

_LINE = re.compile(r"(?P<process>\d+) +(?P<call>\w+)\((?P<arguments>.*?)(?:\) += (?P<result>.*)| <unfinished \.\.\.>)")
_RESUMED = re.compile(r"(?P<process>\d+) +<\.\.\. \w+ resumed>(?P<arguments>.*)\) += (?P<result>.*)")
# A shared copy, and fs-verity; strace has one number for BTRFS_IOC_CLONE and FICLONE.
_IOCTLS = ("FICLONE", "FS_IOC_ENABLE_VERITY")
_ADDS = ("O_CREAT", "O_TMPFILE", "O_TRUNC")


class Fault(enum.Enum):
    """What happens instead of the call."""

    KILL = "signal=KILL"
    ENOSPC = "error=ENOSPC"
    EIO = "error=EIO"


@dataclass(frozen=True)
class Call:
    """A system call: the ``nth`` of its ``name`` in its process (on its ``file``, where that is counted), from 1.

    ``result`` is "?" when the process was killed in it.
    """

    name: str
    nth: int
    arguments: str
    result: str

    def changes(self, roots: Iterable[Path]) -> bool:
        """Tell whether it writes, makes, removes, renames, modifies or syncs something at or below one of ``roots``."""
        if self.name in ("openat", "open") and not any(flag in self.arguments for flag in _ADDS):
            return False
        if self.name == "ioctl" and not any(request in self.arguments for request in _IOCTLS):
            return False
        arguments = self.naming
        if '"/' in arguments:
            # The directory that an absolute name does not start from stands in the arguments all the same.
            arguments = re.sub(r'AT_FDCWD<[^>]*>, (?=")', "", arguments)
        return any(re.search(rf'[<"]{re.escape(str(root))}[/>"]', arguments) for root in roots)

    @property
    def naming(self) -> str:
        """The arguments that name files: what is written may look like a name."""
        return self.arguments.partition(",")[0] if "write" in self.name else self.arguments

    @property
    def file(self) -> str:
        """The name, without directories, of the file that the call opens, names or has open."""
        by_name = self.name.endswith("at") or not self.arguments[0].isdigit()
        match = re.match(r'(?:\w+<[^>]*>, )?"([^"]*)"' if by_name else r"\d+<([^>]*)>", self.arguments)
        return "" if match is None else match[1].rpartition("/")[2]

    @property
    def injected(self) -> bool:
        """Whether a fault hit it."""
        return self.result == "?" or "(INJECTED)" in self.result


def recorder(log: Path, *, children: bool) -> list[str]:
    """Return the beginning of a command line that records the calls of the rest; ``children`` are followed too."""
    return [*_strace(log, children), "-e", f"trace={CHANGING}"]


def injector(log: Path, name: str, nth: int, fault: Fault, *, children: bool) -> list[str]:
    """Return the beginning of a command line in which the ``nth`` call ``name`` of every process has a fault."""
    return [*_strace(log, children), "-e", f"trace={name}", "-e", f"inject={name}:{fault.value}:when={nth}"]


def _strace(log: Path, children: bool) -> list[str]:
    # -y shows the path of each descriptor.  Signals are no calls.
    options = ["-qqq", "-y", "-s", "512", "-e", "signal=none", "-o", str(log)]
    return [require("strace"), *(["-f"] if children else []), *options]


def read(log: Path, *, by_file: bool = False) -> list[Call]:
    """Read a log of strace; ``by_file`` counts the calls on each file by themselves."""
    counts: dict[tuple[str, ...], int] = {}
    calls: list[Call] = []
    unfinished: dict[str, int] = {}
    for line in log.read_text(errors="replace").splitlines():
        line = line if line[:1].isdigit() else "0 " + line
        if match := _LINE.match(line):
            call = Call(match["call"], 0, match["arguments"], match["result"] or "?")
            key = match["process"], call.name, call.file if by_file else ""
            counts[key] = counts.get(key, 0) + 1
            if match["result"] is None:
                unfinished[match["process"]] = len(calls)
            calls.append(replace(call, nth=counts[key]))
        elif match := _RESUMED.match(line):
            number = unfinished.pop(match["process"])
            call = calls[number]
            calls[number] = replace(call, arguments=call.arguments + match["arguments"], result=match["result"])
    return calls


def paths(call: Call, root: Path) -> list[str]:
    """Return the places below ``root`` that a call names by descriptors, relative to it ("" is ``root`` itself)."""
    found = re.findall(rf'<{re.escape(str(root))}((?:/[^>]*)?)>(?:\(deleted\))?(?:, "([^"]*)")?', call.naming)
    return ["/".join(part for part in (at.strip("/"), name) if part) for at, name in found]
