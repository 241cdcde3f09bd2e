"""``cfsctl init``: create a repository."""

from __future__ import annotations

import contextlib

import click

from composefs.cli.frame import Command, Example, Path, json_option
from composefs.cli.output import line, print_json
from composefs.cli.settings import Settings, pass_settings
from composefs.digest import ALGORITHMS, DEFAULT_ALGORITHM, Algorithm, algorithm_named
from composefs.errors import NotFoundError, UsageError
from composefs.imageformats import DEFAULT_EROFS_FORMAT, EROFS_FORMATS

__all__ = ["command"]


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl init --insecure ~/composefs", "On a file system without fs-verity."),
        Example("cfsctl init --algorithm fsverity-sha256-12 /srv/composefs"),
    ],
)
@click.argument("path", required=False, type=Path())
@click.option(
    "--algorithm",
    metavar="fsverity-HASH-12",
    shell_complete=lambda _context, _parameter, word: [
        each.meta_name for each in ALGORITHMS.values() if each.meta_name.startswith(word)
    ],
    help=f"Digest algorithm.  [default: {DEFAULT_ALGORITHM.meta_name}]",
)
@click.option("--insecure", is_flag=True, help="Do not insist on fs-verity for every object.")
@click.option(
    "--erofs-version",
    type=click.Choice([str(version) for version in EROFS_FORMATS]),
    help=f"EROFS format of the repository's images.  [default: {DEFAULT_EROFS_FORMAT}]",
)
@click.option(
    "--ensure", is_flag=True, help="Write the meta.json that a repository from before composefs-rs 0.7 lacks."
)
@click.option(
    "--reset-metadata", is_flag=True, help="Remove the names of all streams and images, and write a new meta.json."
)
@json_option("Print what was done as JSON.")
@pass_settings
def command(
    settings: Settings,
    path: str | None,
    algorithm: str | None,
    insecure: bool,
    erofs_version: str | None,
    ensure: bool,
    reset_metadata: bool,
    as_json: bool,
) -> None:
    """Create a repository at PATH, or where the global options say.

    Doing it again changes nothing; a repository with other properties than those asked for is an error.  After
    --reset-metadata, which keeps the objects, garbage collection removes what is not named again.
    """
    from composefs.repository import Repository
    from composefs.repository.setup import reset

    if settings.no_repo:
        raise UsageError("init makes a repository", hint="leave out --no-repo")
    if path is not None and (settings.repo is not None or settings.user or settings.system):
        raise UsageError("the repository is named twice", hint="give PATH, or --repo, --user or --system")
    if ensure and reset_metadata:
        raise UsageError("--ensure and --reset-metadata exclude each other", hint="give one of them")
    chosen = _algorithm(settings, algorithm)
    where = path or settings.repository_path()
    version = settings.erofs_version if erofs_version is None else int(erofs_version)
    insecure = insecure or settings.insecure
    default = DEFAULT_EROFS_FORMAT if version is None else version
    if reset_metadata:
        with contextlib.suppress(NotFoundError):
            reset(where, algorithm=chosen, erofs_default=default, insecure=insecure, wait=settings.wait)
    wanted = version if ensure else default  # --ensure takes the format that is there
    done = Repository.init(
        where, algorithm=chosen, erofs_default=wanted, insecure=insecure, upgrade=ensure, wait=settings.wait
    )
    if reset_metadata:
        done = "initialized"
    if as_json:
        with Repository.open(where, wait=settings.wait) as repository:
            print_json(
                {
                    "path": str(repository.path),
                    "created": done == "initialized",
                    "upgraded": done == "upgraded",
                    "algorithm": repository.algorithm.meta_name,
                    "verity_required": repository.secure,
                    "erofs_version": repository.meta.erofs_default,
                }
            )
    elif done == "already":
        line(f"Repository already initialized at {where}")
    elif done == "upgraded":
        line(f"Upgraded legacy repository at {where}")
    else:
        line(f"Initialized composefs repository at {where}")
        line(f"  algorithm: {chosen.meta_name}")
        line(f"  verity:    {'not required (insecure)' if insecure else 'required'}")


def _algorithm(settings: Settings, name: str | None) -> Algorithm:
    """Return the algorithm that --algorithm names, --hash asks for, or that a repository has for which none was."""
    chosen = algorithm_named(name) if name is not None else settings.algorithm or DEFAULT_ALGORITHM
    if settings.algorithm not in (None, chosen):
        raise UsageError(f"--hash {settings.algorithm} contradicts --algorithm {name}", hint="leave one of them out")
    return chosen
