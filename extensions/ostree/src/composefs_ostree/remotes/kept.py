"""Summaries that an earlier run fetched, in the extension's cache directory: a file for each, named by its URL.

The first line is JSON: the URL, ETag and Last-Modified, and the CRC-32 of the bytes that follow.  A file that is not
what it should be does not count; one that is written has its name only when it is whole.  Nothing here is a matter of
trust, for which hashlib would be too slow to load: 4 ms of a run that finds nothing new.
"""

from __future__ import annotations

import os
from zlib import crc32

from composefs_ext.errors import ProtocolError
from composefs_ext.files import read_up_to
from composefs_ext.tuples import NamedTuple
from composefs_ext.wire import decode, to_json
from composefs_ostree.fetching.conditional import Conditions
from composefs_ostree.formats.names import MAX_METADATA

__all__ = ["Kept", "keep", "load"]

_PREFIX = "summary-"
_MAX_FILES = 64
_MAX_HEADER = 16 << 10


class Kept(NamedTuple):
    """The bytes, and what a server is asked with whether it has others by now."""

    data: bytes
    etag: str = ""
    last_modified: str = ""

    @property
    def conditions(self) -> Conditions:
        """What to ask with."""
        return Conditions(self.etag, self.last_modified)


def load(directory: str | None, url: str) -> Kept | None:
    """Return what is kept of a URL, None if nothing that can be used."""
    if directory is None:
        return None
    try:
        with open(_path(directory, url), "rb") as file:
            header = decode(file.readline(_MAX_HEADER))
            data = read_up_to(file, MAX_METADATA + 1)
        if header["url"] != url or header["crc32"] != crc32(data):
            return None
        return Kept(data, str(header["etag"]), str(header["last_modified"]))
    except (OSError, ProtocolError, KeyError):
        return None  # a cache is never worth an error


def keep(directory: str | None, url: str, kept: Kept) -> None:
    """Keep what came from a URL, in place of what was kept before."""
    if directory is None:
        return
    header = {
        "url": url,
        "etag": kept.etag,
        "last_modified": kept.last_modified,
        "crc32": crc32(kept.data),
    }
    path = _path(directory, url)
    temporary = f"{path}.{os.getpid()}"
    try:
        _remove_oldest(directory)
        try:
            with open(temporary, "xb") as file:
                file.write(to_json(header) + b"\n" + kept.data)
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
    except OSError:
        return


def _remove_oldest(directory: str) -> None:
    paths = [f"{directory}/{name}" for name in os.listdir(directory) if name.startswith(_PREFIX)]
    if len(paths) >= _MAX_FILES:
        paths.sort(key=lambda path: os.stat(path).st_mtime)
        for path in paths[: -_MAX_FILES + 1]:
            os.unlink(path)


def _path(directory: str, url: str) -> str:
    return f"{directory}/{_PREFIX}{crc32(url.encode()):08x}"
