"""The global options of cfsctl, as every command receives them, and what follows from them.

The default places of a repository are those of composefs-rs 0.9.0: ``/sysroot/composefs`` for root and
``~/.var/lib/composefs`` for everybody else.  The environment may name another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from composefs.digest import ALGORITHMS, DEFAULT_ALGORITHM, Algorithm
from composefs.errors import NotFoundError, UsageError
from composefs.imageformats import DEFAULT_EROFS_FORMAT
from composefs.tuples import NamedTuple

if TYPE_CHECKING:
    from composefs.cli.progress import Reporting
    from composefs.observe import Observers
    from composefs.repository import Repository

__all__ = ["Settings", "may_color", "pass_settings", "settings_of"]

REPOSITORY_VARIABLE = "CFSCTL_REPO"
SYSTEM_REPOSITORY = "/sysroot/composefs"
USER_REPOSITORY = "~/.var/lib/composefs"


class Settings(NamedTuple):
    """The global options; None means that the option was not given.

    ``ext_user`` is whom extensions run as, and ``ext_read`` are absolute paths that they may read besides.
    ``algorithm`` is what --hash asserts, ``wait`` seconds, ``verbosity`` the number of -v minus the number of -q.
    """

    repo: str | None = None
    user: bool = False
    system: bool = False
    algorithm: Algorithm | None = None
    erofs_version: int | None = None
    require_verity: bool = False
    no_repo: bool = False
    insecure: bool = False
    verbosity: int = 0
    color: bool | None = None
    wait: float = 0.0
    trace: bool = False
    progress: str = "auto"
    ext_user: str | None = None
    ext_read: tuple[str, ...] = ()

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> Settings:
        """Make settings of the parsed global options."""
        colors = {"always": True, "never": False, "auto": None if may_color() else False}
        algorithm, version = options["algorithm"], options["erofs_version"]
        meant = {
            "algorithm": ALGORITHMS[algorithm] if algorithm else None,
            "erofs_version": None if version is None else int(version),
            "verbosity": options["verbose"] - options["quiet"],
            "color": colors[options["color"]],
            "ext_read": _absolute(*options["ext_read"]) if options["ext_read"] else (),
        }
        as_given = {name: options[name] for name in cls._fields if name not in meant}
        return cls(**as_given, **meant)

    def repository_path(self) -> str:
        """Return where the repository is, by the options, the environment, or the user's default."""
        if self.repo is not None:
            return self.repo
        if not self.user and not self.system and (path := os.environ.get(REPOSITORY_VARIABLE)):
            return _absolute(path)[0]
        if self.system or (not self.user and os.geteuid() == 0):
            return SYSTEM_REPOSITORY
        path = os.path.expanduser(USER_REPOSITORY)
        # Else it would be made wherever one happens to be, or, with an empty HOME, at the root of the file system.
        if not path.startswith("/") or os.environ.get("HOME") == "":
            raise NotFoundError(
                f"user {os.geteuid()} has no home directory, where the repository would be",
                hint="name one with --repo PATH, or set HOME to an absolute path",
            )
        return path

    def open_repository(self, *, writable: bool = False, exclusive: bool = False) -> Repository:
        """Open the repository, as a context manager; raise what Repository.open raises, UsageError with --no-repo."""
        if self.no_repo:
            raise UsageError("this command needs a repository", hint="leave out --no-repo")
        from composefs.repository import Repository

        path = self.repository_path()
        try:
            return Repository.open(
                path,
                algorithm=self.algorithm,
                require_verity=self.require_verity,
                writable=writable,
                exclusive=exclusive,
                wait=self.wait,
            )
        except NotFoundError as error:
            if self.repo is None and error.subject == path:  # other programs look in the working directory first
                error.hint = f"{error.hint}, or name another with --repo PATH"
            raise

    def image_format(self, repository: Repository | None = None) -> tuple[Algorithm, int]:
        """Return the algorithm and EROFS format of images, after --hash and --erofs-version.

        Without an open ``repository``, one is opened for the moment, or the defaults hold with --no-repo.
        """
        if repository is not None:
            algorithm, default = repository.algorithm, repository.meta.erofs_default
        elif self.no_repo:
            algorithm, default = self.algorithm or DEFAULT_ALGORITHM, DEFAULT_EROFS_FORMAT
        else:
            with self.open_repository() as opened:
                return self.image_format(opened)
        return algorithm, default if self.erofs_version is None else self.erofs_version

    def observers(self, *, json: bool = False) -> Observers:
        """Return the observers that the options ask for; ``json``: the output of an extension is not to be shown."""
        from composefs.cli.sinks import sinks_for
        from composefs.observe import Observers

        return Observers(*sinks_for(self.progress, self.verbosity, trace=self.trace, json=json))

    @contextmanager
    def reporting(self, name: str, label: str) -> Iterator[Reporting]:
        """Yield a callback (done, total) by which progress is shown as the options ask; the label is for people."""
        from composefs.cli.progress import Reporting

        with self.observers() as observers, Reporting(observers, name, label) as report:
            yield report


def _absolute(*paths: str) -> tuple[str, ...]:
    from composefs.linux.files import absolute

    return tuple(map(absolute, paths))


def may_color() -> bool:
    """Tell whether a terminal is shown colours where --color is ``auto``: NO_COLOR (no-color.org) and TERM say no."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def settings_of(root: click.Context) -> Settings:
    """Return the settings of the outermost context; while a line is completed, nothing has made them yet."""
    if isinstance(root.obj, Settings):
        return root.obj
    return Settings.of_options(root.params)


pass_settings = click.make_pass_decorator(Settings)
