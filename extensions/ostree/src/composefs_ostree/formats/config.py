"""The file ``config`` of an ostree repository: in which mode its objects are, and where those are that it lacks.

A key file; of interest is ``[core]``: ``repo_version`` 1, ``mode`` (``bare`` if missing), ``parent``, the path of
another repository on this machine.  Source: ostree.repo-config(5).
"""

from __future__ import annotations

from composefs_ext.errors import NotFoundError, UnsupportedError
from composefs_ext.tuples import NamedTuple

__all__ = ["ARCHIVE_MODES", "MAX_CONFIG", "Config", "parse_config"]

MAX_CONFIG = 1 << 20
"""Bytes of the largest config that is read."""

ARCHIVE_MODES = frozenset({"archive", "archive-z2"})
_BARE_MODES = frozenset({"bare", "bare-user", "bare-user-only", "bare-split-xattrs"})


class Config(NamedTuple):
    """What a repository says about itself; ``parent`` is None if it stands alone."""

    mode: str
    parent: str | None

    @property
    def is_archive(self) -> bool:
        """Only archives keep content compressed, and only they can be pulled from over HTTP."""
        return self.mode in ARCHIVE_MODES


def parse_config(data: bytes, where: str) -> Config:
    """Read a config, which ``where`` names in errors.

    Raises NotFoundError for what is the config of something else, such as the page that a server has for every path,
    UnsupportedError for a repository that nobody knows how to read.
    """
    settings = _core_settings(data.decode("utf-8", "replace"))
    if not settings.keys() & {"mode", "repo_version"}:
        raise NotFoundError(
            f"{where}: it says neither mode nor repo_version, so this is not an ostree repository",
            hint="check the URL or path",
            subject=where,
        )
    mode = settings.get("mode", "bare")
    version = settings.get("repo_version", "1")
    if version != "1":
        raise UnsupportedError(f"{where}: repository version {version[:40]!r} is unknown", subject=where)
    if mode not in ARCHIVE_MODES | _BARE_MODES:
        raise UnsupportedError(f"{where}: the mode {mode[:40]!r} of the repository is unknown", subject=where)
    return Config(mode, settings.get("parent") or None)


def _core_settings(config: str) -> dict[str, str]:
    """Return the keys of the section ``[core]`` of a key file."""
    settings = {}
    section = ""
    for line in config.splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[core]" and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings[key.strip()] = value.strip()
    return settings
