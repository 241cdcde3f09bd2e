"""Where remotes are configured: streams of the composefs repository, and what ostree reads on this machine.

A remote of the repository is the stream ``ostree-remote-NAME`` under the ref ``ostree-remotes/NAME``; its bytes are the
key file.  The others are read and never written: the files in ``/etc/ostree/remotes.d`` that end in ``.conf``, and the
config of ``/ostree/repo`` with the keyrings beside it.  The first place that has a name counts, in this order.
"""

from __future__ import annotations

import os

from composefs_ext.errors import UNREADABLE, ConflictError, CorruptError, NotFoundError
from composefs_ext.files import read_regular
from composefs_ostree.fetching.blame import Blaming
from composefs_ostree.remotes.record import Remote, check_remote_name, parse_remotes, remote_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext import Core
    from composefs_ext.rows import RefUpdate, StreamName

__all__ = ["delete_remote", "find_remote", "list_remotes", "machine_remotes", "own_remote", "save_remote"]

REF_DIRECTORY = "ostree-remotes"
STREAM_PREFIX = "ostree-remote-"
CONTENT_TYPE = "6f737472656d6f74"
"""Of our own; composefs-rs keeps no remotes."""

SEARCH_PATH = "COMPOSEFS_OSTREE_REMOTES"
"""The environment variable with the places of the machine's remotes: directories of ``.conf`` files and ostree
repositories, with ``:`` between them."""

_DEFAULT_SEARCH_PATH = "/etc/ostree/remotes.d:/ostree/repo"
_MAX_FILE = 4 << 20
_REMEDY = "correct this file, or move it away if it is not one of ostree's"
_HERE = "the composefs repository"


def find_remote(core: Core, name: str) -> Remote:
    """Return a remote; raise NotFoundError if nobody has configured it, FormatError if its place cannot be read."""
    remote = own_remote(core, check_remote_name(name))
    if remote is not None:
        return remote
    for remote in machine_remotes():
        if remote.name == name:
            return remote
    if core.repository is None:
        raise NotFoundError(
            f"ostree has no remote {name!r} on this machine",
            hint=f"cfsctl ostree remote refs {name} lists those of a remote of the composefs repository, "
            f"cfsctl ostree list-refs --path {name} those of a directory",
            subject=name,
        )
    raise NotFoundError(
        f"there is no remote {name!r}",
        hint="cfsctl ostree remote list shows the remotes; cfsctl ostree remote add NAME URL makes one",
        subject=name,
    )


def list_remotes(core: Core) -> list[Remote]:
    """Return all remotes that can be used by name, sorted."""
    found: dict[str, Remote] = {}
    for row in core.ref_list(f"{REF_DIRECTORY}/").result():
        name = row["name"].partition("/")[2]
        remote = own_remote(core, name)
        if remote is not None:
            found[name] = remote
    for remote in machine_remotes():
        found.setdefault(remote.name, remote)
    return [found[name] for name in sorted(found)]


def machine_remotes() -> list[Remote]:
    """Return the remotes that ostree would read on this machine, in the order in which they count."""
    remotes: list[Remote] = []
    for place in (os.environ.get(SEARCH_PATH) or _DEFAULT_SEARCH_PATH).split(":"):
        if not place:
            continue
        if os.path.exists(f"{place}/config"):
            remotes += _read(f"{place}/config", place)
            continue
        try:
            names = sorted(name for name in os.listdir(place) if name.endswith(".conf"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            remotes += _read(f"{place}/{name}", None)
    return remotes


def save_remote(core: Core, remote: Remote, *, replace: bool) -> bool:
    """Keep a remote in the repository; False if it has one of that name, which is kept unless ``replace``."""
    name = f"{REF_DIRECTORY}/{remote.name}"
    if not replace and own_remote(core, remote.name) is not None:
        return False
    data = remote_file(remote)
    stored = core.stream_put(CONTENT_TYPE, chunks=[-len(data)], inline=core.staging.write(data, "remote")).result()
    stream = f"{STREAM_PREFIX}{remote.name}"
    row: StreamName = {"name": stream, "id": stored["id"], "if_exists": "replace"}
    ref: RefUpdate = {"name": name, "target": stream}
    if replace:
        core.publish(streams=[row], refs=[ref]).result()  # of several at once, the last one counts
        return True
    try:
        core.publish(streams=[row], refs=[{**ref, "expect": None}]).result()
    except ConflictError:
        return False  # somebody has added one of that name in the meantime
    return True


def delete_remote(core: Core, name: str) -> bool:
    """Remove a remote from the repository; False if it has none of that name."""
    return core.publish(remove_refs=[f"{REF_DIRECTORY}/{check_remote_name(name)}"]).found() is not None


def own_remote(core: Core, name: str) -> Remote | None:
    """Return a remote of the repository, None if it has none of that name."""
    if core.repository is None:
        return None
    try:
        stream = core.stream_get(ref=f"{REF_DIRECTORY}/{name}", inline=True).found()
    except UNREADABLE as error:
        raise CorruptError(
            f"remote {name!r} cannot be read: {error.message}",
            hint=f"cfsctl ostree remote delete {name} removes it; then add it again",
            subject=name,
        ) from None
    if stream is None:
        return None
    assert stream.inline is not None
    if stream.content_type != CONTENT_TYPE or stream.size > _MAX_FILE:
        raise CorruptError(
            f"the stream of remote {name!r} does not hold a remote", hint="another program made it; delete the remote"
        )
    for remote in parse_remotes(core.staging.read(stream.inline), _HERE):
        if remote.name == name:
            return remote
    raise CorruptError(f"the stream of remote {name!r} holds another one", hint="delete the remote and add it again")


def _read(path: str, repository: str | None) -> list[Remote]:
    with Blaming(path, _REMEDY):
        remotes = parse_remotes(_read_file(path), path, repository)
    if repository is None:
        return remotes
    return [remote._replace(keyring=_read_file(f"{repository}/{remote.name}.trustedkeys.gpg")) for remote in remotes]


def _read_file(path: str) -> bytes:
    """Return what is in a file, nothing if it is not there."""
    try:
        with Blaming(path, _REMEDY):
            return read_regular(path, _MAX_FILE)
    except FileNotFoundError:
        return b""
