"""An ostree repository on this machine that is written to.

Whatever is written is made elsewhere (:mod:`composefs_ostree.exporting.unfinished`) and then renamed to where it
belongs: first objects, made durable, then the commit, then refs and the summary.  A run that ends anywhere leaves a
repository without half a file in it.  Nothing of that goes by a path that others could lead elsewhere
(:mod:`composefs_ostree.exporting.directories`).

What a web server must read is readable for everybody: the process's umask has to be ``UMASK``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from composefs_ext.errors import (
    CorruptError,
    FormatError,
    NoSpaceError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from composefs_ext.files import Naming, read_regular, sync_file_system
from composefs_ext.text import human_bytes
from composefs_ostree.exporting.directories import Directories
from composefs_ostree.exporting.layout import TMP, take_away
from composefs_ostree.exporting.lock import Lock
from composefs_ostree.exporting.unfinished import Unfinished, sweep
from composefs_ostree.formats.config import MAX_CONFIG, parse_config

__all__ = ["MODES", "UMASK", "Target"]

MODES = ("archive", "bare", "bare-user", "bare-user-only")

UMASK = 0o022
_DEFAULT_LEVEL = 6
_UNITS = {"MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


class Target:
    """A repository; ``mode`` is one of MODES, ``settings`` the values of its config by section and key.

    ``staging`` is for files on their way.  ``lock`` is to be had alone for refs and the summary; then what was written
    stays, because refs name it.
    """

    def __init__(self, path: str, made: Sequence[str] = (), sleep: Callable[[float], object] = time.sleep) -> None:
        """Open a repository, and share its lock, so that nobody prunes it.

        ``made`` is what :func:`~composefs_ostree.exporting.layout.lay_out` made of it; ``sleep`` waits between attempts
        to have the lock.
        """
        self.path = path
        self._made = made
        try:
            self.directories = Directories(path)
            self._config = self.read("config", MAX_CONFIG)
            config = parse_config(self._config, f"{path}/config")
            self.mode = "archive" if config.is_archive else config.mode
            if self.mode not in MODES:
                raise UnsupportedError.at(path, f"repositories of the mode {config.mode} cannot be written")
            self.settings = config.sections
            self._least_free, self._least_percent = _left_free(self.settings.get("core", {}), f"{path}/config")
            self.lock = Lock(path, self.directories.top, sleep)
            self.lock.share()
            self.read("config", MAX_CONFIG)  # until now, who made it could take it away again
        except FileNotFoundError:
            raise NotFoundError(f"{path} is no ostree repository", hint="run the command again", subject=path) from None
        try:
            with Naming(f"{path}/{TMP}"):
                tmp = self.directories.open(TMP, make=True)
                sweep(tmp)
                self.staging = Unfinished(f"{path}/{TMP}", os.dup(tmp))
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        """Remove what is left on its way, or all that was made if no object has come, and let go of the repository."""
        self.staging.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._made:
            with suppress(OSError, CorruptError):  # it has objects, or others work with it
                self.lock.try_alone()
                if self.read("config", MAX_CONFIG) == self._config:  # else somebody has added a remote
                    take_away(self.path, self._made, self.directories)
        self.lock.close()
        self.directories.close()

    @property
    def zlib_level(self) -> int:
        """The level that an archive's config asks for."""
        text = self.settings.get("archive", {}).get("zlib-level", "").strip()
        return int(text) if len(text) == 1 and text.isdecimal() else _DEFAULT_LEVEL

    def require_space(self, size: int = 0) -> None:
        """Raise NoSpaceError if, with so many bytes more, the disk has less free than the config has ostree leave."""
        if not (self._least_free or self._least_percent):
            return
        status = os.fstatvfs(self.staging.fd)
        free = status.f_frsize * (status.f_bavail if os.geteuid() else status.f_bfree)
        least = self._least_free or status.f_frsize * status.f_blocks * self._least_percent // 100
        if free < least + size and status.f_blocks:  # without blocks it has no limit that we know
            coming = f" with {human_bytes(size)} to come" if size else ""
            raise NoSpaceError.at(
                self.path,
                f"its config has {human_bytes(least)} of its disk left free, and {human_bytes(free)} are{coming}",
                hint="free some space there, or see to min-free-space-size and -percent in its config",
            )

    def read(self, path: str, limit: int) -> bytes:
        """Return a file's content; raise CorruptError unless it is a regular file of at most ``limit`` bytes."""
        above, _, name = path.rpartition("/")
        above_fd = self.directories.open(above)
        try:
            return read_regular(name, limit, follow=False, dir_fd=above_fd)
        except CorruptError as error:
            raise self._bad_file(path, error.message) from None

    def stage(self, name: str, data: bytes) -> None:
        """Make a file on its way, readable for everybody."""
        with Naming(f"{self.staging.path}/{name}"):
            self.staging.write(name, data, durably=False)

    def put(self, path: str, data: bytes) -> None:
        """Write a whole file, durably, in place of one that may be there."""
        above = path.rpartition("/")[0]
        with Naming(f"{self.path}/{path}"):
            above_fd = self.directories.open(above, make=True)
            self.staging.write("one", data)
            self._rename("one", path, above_fd)
            os.fsync(above_fd)

    def put_together(self, files: dict[str, bytes]) -> None:
        """Write whole files at the top, durably, and rename one right behind the other, for they belong together."""
        for name, data in files.items():
            with Naming(f"{self.path}/{name}"):
                self.staging.write(name, data)
        for name in files:
            self._rename(name, name, self.directories.top)
        os.fsync(self.directories.top)

    def remove(self, path: str) -> bool:
        """Remove a file; say whether there was one."""
        above, _, name = path.rpartition("/")
        try:
            above_fd = self.directories.open(above)
            os.unlink(name, dir_fd=above_fd)
        except FileNotFoundError:
            return False
        except IsADirectoryError:
            raise self._bad_file(path, "it is not a regular file") from None
        os.fsync(above_fd)
        return True

    def publish(self, names: Iterable[str], listen: Callable[[], None]) -> None:
        """Make staged objects durable and rename them to where they belong; ``listen`` is called behind each.

        The names are those of objects without their directories: 64 hexadecimal digits, a point and the kind.
        """
        with Naming(self.path):
            sync_file_system(self.staging.fd)
        touched = set()
        for name in names:
            folder = f"objects/{name[:2]}"
            touched.add(folder)
            with Naming(f"{self.path}/{folder}"):
                self._rename(name, f"{folder}/{name[2:]}", self.directories.open(folder, make=True))
            listen()
        for folder in sorted(touched):
            os.fsync(self.directories.open(folder))

    def _rename(self, staged: str, path: str, above_fd: int) -> None:
        try:
            os.rename(staged, path.rpartition("/")[2], src_dir_fd=self.staging.fd, dst_dir_fd=above_fd)
        except IsADirectoryError:
            os.unlink(staged, dir_fd=self.staging.fd)
            if not path.startswith("refs/"):
                raise self._bad_file(path, "it is not a regular file") from None
            raise UsageError(
                f"{self.path}/{path} is a directory, so that no file can be written there",
                hint="one ref's name cannot be the beginning of another's path",
                subject=f"{self.path}/{path}",
            ) from None

    def _bad_file(self, path: str, reason: str) -> CorruptError:
        where = f"{self.path}/{path}"
        return CorruptError.at(where, reason, hint="see what it is, and put it right")


def _left_free(core: Mapping[str, str], where: str) -> tuple[int, int]:
    """Return how many bytes of the disk are not for ostree, and, if that is 0, how much of it in percent."""
    size, percent = core.get("min-free-space-size", "0MB"), core.get("min-free-space-percent", "")
    if (parts := re.fullmatch(r"0*([0-9]{1,9})([MGT]B)", size)) is None:
        raise FormatError.at(where, f"min-free-space-size is {size[:40]!r}", hint="give a size like 500MB, 5GB or 1TB")
    # ostree takes the digits that it begins with, and none for 0.
    digits = re.sub(r"^[+-]?0*([0-9]*).*", r"\1", percent)
    if len(digits) > 2 or (digits and percent.startswith("-")):
        raise FormatError.at(where, f"min-free-space-percent is {percent[:40]!r}", hint="give a number below 100")
    return int(parts[1]) * _UNITS[parts[2]], int(digits or 0)
