"""``remote add``, ``list``, ``show``, ``gpg-import``, ``delete`` and ``refs``, and ``list-refs``."""

from __future__ import annotations

from composefs_ext.errors import ExistsError, NotFoundError, UsageError
from composefs_ext.text import table
from composefs_ostree.remotes.limits import limits_of
from composefs_ostree.remotes.record import KEYRING, Remote, check_remote_name, remote_file
from composefs_ostree.remotes.store import (
    delete_remote,
    find_remote,
    list_remotes,
    machine_remotes,
    own_remote,
    save_remote,
)
from composefs_ostree.signatures.policy import options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request
    from composefs_ostree.sources.source import Source

__all__ = ["add", "delete", "gpg_import", "list_all", "list_refs", "refs", "show"]


def add(request: Request, core: Core) -> dict[str, Any]:
    """Keep a remote in the repository."""
    from composefs_ostree.remotes.adding import remote_of

    if request.get("force") and request.get("if_not_exists"):
        raise UsageError("give one of --force and --if-not-exists")
    remote = remote_of(request)
    if request.get("force") and not request.get("gpg_import"):
        replaced = own_remote(core, remote.name)
        remote = remote._replace(keyring=b"" if replaced is None else replaced.keyring)
    is_added = save_remote(core, remote, replace=bool(request.get("force")))
    if not is_added and not request.get("if_not_exists"):
        raise ExistsError(
            f"there is a remote {remote.name!r} already",
            hint="--force replaces it, --if-not-exists leaves it as it is",
            subject=remote.name,
        )
    return {"name": remote.name, "added": is_added}


def delete(request: Request, core: Core) -> dict[str, Any]:
    """Remove a remote from the repository."""
    name = request.arguments["name"]
    is_deleted = delete_remote(core, name)
    if not is_deleted and not request.get("if_exists"):
        raise _not_ours(name)
    return {"name": name, "deleted": is_deleted}


def gpg_import(request: Request, core: Core) -> dict[str, Any]:
    """Have a remote of the repository trust more GPG keys, and take what is new of those that it trusts."""
    from composefs_ostree.remotes.adding import keyring_of

    name = check_remote_name(request.arguments["name"])
    remote = own_remote(core, name)
    if remote is None:
        raise _not_ours(name)
    remote = remote._replace(keyring=keyring_of(request.arguments["files"], remote))
    save_remote(core, remote, replace=True)
    keys = _keys(remote)
    core.output("".join(f"{each}\n" for each in _key_lines(keys)))
    return {"name": name, "keys": keys}


def _not_ours(name: str) -> NotFoundError:
    other = next((remote for remote in machine_remotes() if remote.name == name), None)
    return NotFoundError(
        f"there is no remote {name!r} in the repository",
        hint=f"it is configured in {other.origin}, which cfsctl only reads"
        if other
        else "cfsctl ostree remote list shows the remotes",
        subject=name,
    )


def list_all(request: Request, core: Core) -> dict[str, Any]:
    """List the remotes that can be used, those of the machine too."""
    remotes = list_remotes(core)
    if request.get("show_urls"):
        width = max((len(remote.name) for remote in remotes), default=0)
        core.output("".join(f"{remote.name:<{width}}  {_place(remote)}\n" for remote in remotes))
    else:
        core.output("".join(f"{remote.name}\n" for remote in remotes))
    return {"remotes": [{"name": remote.name, "url": _place(remote), "origin": remote.origin} for remote in remotes]}


def show(request: Request, core: Core) -> dict[str, Any]:
    """Show the settings of a remote as they stand in a key file, and the keys in its keyring."""
    remote = find_remote(core, request.arguments["name"])
    settings = {key: _shown(key, value) for key, value in remote.settings.items()}
    text = remote_file(remote._replace(settings=settings, keyring=b"")).decode()
    keys = _keys(remote)
    core.output(f"# {remote.origin}\n{text}" + "".join(f"# {KEYRING}: {line}\n" for line in _key_lines(keys)))
    return {"name": remote.name, "origin": remote.origin, "settings": settings, "keys": keys}


def _shown(key: str, value: str) -> str:
    """Return a value without what may be a password in it."""
    from composefs_ostree.remotes.urls import without_password

    return without_password(value) if key in ("url", "contenturl", "metalink", "proxy") else value


def _place(remote: Remote) -> str:
    return _shown("url", remote.place or "")


def _keys(remote: Remote) -> list[dict[str, Any]]:
    if not remote.keyring:
        return []
    from composefs_ostree.signatures.keyring import read_certificates

    certificates = read_certificates(remote.keyring, f"the keyring of remote {remote.name!r}")
    return [
        {"fingerprint": str(each.fingerprint).upper(), "user_ids": [str(user) for user in each.user_ids]}
        for each in certificates
    ]


def _key_lines(keys: list[dict[str, Any]]) -> list[str]:
    return [f"{key['fingerprint']} {', '.join(key['user_ids'])}".rstrip() for key in keys]


def refs(request: Request, core: Core) -> dict[str, Any]:
    """List the refs of a remote as ``REMOTE:REF``."""
    from composefs_ostree.sources.refs import listed_refs
    from composefs_ostree.sources.source import open_source

    name = request.arguments["name"]
    with core.progress("refs"):
        rows = listed_refs(
            request, core, open_source(None, find_remote(core, name), limits_of(request), options_of(request))
        )
    lines = [
        f"{name}:{row['name']}\t{row['commit']}\n" if request.get("revision") else f"{name}:{row['name']}\n"
        for row in rows
    ]
    core.output("".join(lines))
    return {"remote": name, "refs": rows}


def list_refs(request: Request, core: Core) -> dict[str, Any]:
    """List the refs of a repository at a URL, in a directory, or of a remote of the machine."""
    from composefs_ostree.sources.refs import listed_refs
    from composefs_ostree.sources.source import DirectorySource, open_source

    place, path = request.get("url"), request.get("path")
    if (place is None) == (path is None):
        raise UsageError("give either a URL or --path", hint="what is here already cfsctl ostree images lists")
    if path is not None:
        source: Source = DirectorySource(path)
    elif ":" in place or "/" in place:  # which no remote has in its name
        source = open_source(place, None, limits_of(request), options_of(request))
    else:
        source = open_source(None, find_remote(core, place), limits_of(request), options_of(request))
    with core.progress("refs"):
        rows = listed_refs(request, core, source)
    core.output(_ref_table(rows) if rows else "No refs found\n")
    return {"refs": rows}


def _ref_table(rows: list[dict[str, str]]) -> str:
    """Lay out names, commits, and collections if there are any."""
    columns = ["name", "commit", *(["collection"] if any("collection" in row for row in rows) else [])]
    head = ["REF", "COMMIT", "COLLECTION"][: len(columns)]
    return table(head, ([row.get(key, "") for key in columns] for row in rows))
