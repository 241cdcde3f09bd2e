"""The file ``config`` of an ostree repository: in which mode its objects are, and where those are that it lacks.

A key file (:mod:`composefs_ostree.formats.keyfile`); of interest is ``[core]``: ``repo_version`` 1, ``mode`` (``bare``
if missing), ``parent``, the path of another repository on this machine.  Source: ostree.repo-config(5).
"""

from __future__ import annotations

from composefs_ext.errors import FormatError, NotFoundError, UnsupportedError
from composefs_ext.tuples import NamedTuple
from composefs_ostree.formats.keyfile import parse_keyfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ostree.formats.keyfile import Sections

__all__ = ["MAX_CONFIG", "Config", "parse_config"]

MAX_CONFIG = 1 << 20
"""Bytes of the largest config that is read."""

_ARCHIVE_MODES = ("archive", "archive-z2")
_MODES = (*_ARCHIVE_MODES, "bare", "bare-user", "bare-user-only", "bare-split-xattrs")


class Config(NamedTuple):
    """What a repository says about itself: ``parent`` is None if it stands alone, ``sections`` are all its settings."""

    mode: str
    parent: str | None
    sections: Sections

    @property
    def is_archive(self) -> bool:
        """Only archives keep content compressed, and only they can be pulled from over HTTP."""
        return self.mode in _ARCHIVE_MODES


def parse_config(data: bytes, where: str) -> Config:
    """Read a config, which ``where`` names in errors.

    Raises NotFoundError for what is the config of something else, such as the page that a server has for every path,
    UnsupportedError for a repository that nobody knows how to read.
    """
    try:
        sections = parse_keyfile(data)
        core = sections.get("core", {})
        if not core.keys() & {"mode", "repo_version"}:
            raise FormatError("it says neither mode nor repo_version")
    except FormatError as error:
        raise NotFoundError.at(
            where, f"{error.message}, so this is not an ostree repository", hint="check the URL or path"
        ) from None
    mode = core.get("mode", "bare")
    version = core.get("repo_version", "1")
    if version != "1":
        what = f"repository version {version[:40]!r} is unknown"
        raise UnsupportedError.at(where, what, hint="check what it says: ostree writes repo_version=1")
    if mode not in _MODES:
        what = f"the mode {mode[:40]!r} of the repository is unknown"
        raise UnsupportedError.at(where, what, hint=f"check what it says: ostree knows {', '.join(_MODES)}")
    return Config(mode, core.get("parent") or None, sections)
