"""One remote: a repository's address, the way to it and the keys that it signs with.

In a key file it is the section ``[remote "NAME"]``; the keys are ostree's (ostree.repo-config(5)), and these of ours,
for what must not stand in a configuration that anybody may read: ``http-basic-auth-file`` names a file with
USER:PASSWORD, ``http-bearer-token-file`` one with a token, ``http-headers-file`` one with ``NAME: VALUE`` lines.  A
remote that this program keeps has its keyring in the key file, too: ``gpg-keyring``, in base64.
"""

from __future__ import annotations

from composefs_ext.errors import ExtError, FormatError, PermissionDeniedError, UnsupportedError, UsageError
from composefs_ext.tuples import NamedTuple
from composefs_ostree.formats.keyfile import as_boolean, as_list, escape, parse_keyfile, unescape, write_keyfile
from composefs_ostree.formats.names import is_ref
from composefs_ostree.signatures.policy import NO_OPTIONS, Options, Policy, policy_of

__all__ = ["KEYRING", "Remote", "check_remote_name", "parse_remotes", "policy_for", "remote_file"]

_MAX_REMOTES = 1000
KEYRING = "gpg-keyring"

_MAX_NAME = 200
_SECTION = 'remote "'


class Remote(NamedTuple):
    """The settings of a remote.

    ``settings`` are its keys and values, unescaped, and all of them, also those that only others understand.
    ``keyring`` is its OpenPGP keyring, ``origin`` where it is configured, as the user knows it, and ``directory`` the
    ostree repository that it is configured in (None: none).
    """

    name: str
    settings: dict[str, str] = {}  # noqa: RUF012  never changed
    keyring: bytes = b""
    origin: str = ""
    directory: str | None = None

    @property
    def place(self) -> str | None:
        """Where to pull from, as ``remote add`` takes it; None if nothing says it.

        That is a URL, ``mirrorlist=URL`` or ``metalink=URL``, which comes before another.
        """
        metalink = self.settings.get("metalink")
        return f"metalink={metalink}" if metalink else self.settings.get("url") or None

    @property
    def contenturl(self) -> str | None:
        """Where objects and deltas come from, if from elsewhere."""
        return self.settings.get("contenturl") or None

    @property
    def collection_id(self) -> str | None:
        """The collection that its refs belong to."""
        return self.settings.get("collection-id") or None

    @property
    def selection(self) -> str | None:
        """What it is to have of a Flatpak repository, None for everything."""
        return self.settings.get("xa.subset") or None

    @property
    def branches(self) -> tuple[str, ...]:
        """The refs that a pull without refs means."""
        return as_list(self.settings.get("branches", ""))

    def check_pullable(self) -> None:
        """Raise PermissionDeniedError or UnsupportedError for a remote that says that it cannot be pulled from."""
        if (text := self.settings.get("unconfigured-state")) is not None:
            raise PermissionDeniedError(f"remote {self.name!r}: {text[:1000]}", subject=self.name)
        if (backend := self.settings.get("custom-backend")) is not None:
            raise UnsupportedError(
                f"remote {self.name!r} is fetched by another program: {backend[:200]!r}",
                hint=f"cfsctl ostree remote show {self.name} tells where it is configured",
                subject=self.name,
            )

    def boolean(self, key: str, default: bool) -> bool:
        """Return the value of a boolean key; raise FormatError if it is none."""
        value = self.settings.get(key)
        if value is None:
            return default
        try:
            return as_boolean(value)
        except FormatError as error:
            raise FormatError(f"{self.origin}: {key} of remote {self.name!r}: {error.message}") from None


def policy_for(remote: Remote | None, options: Options = NO_OPTIONS, *, summary: bool = False) -> Policy:
    """Return what commits of a remote, or with ``summary`` its summary, must be signed by; None: of no remote's."""
    if remote is None:
        return policy_of({}, summary=summary, is_remote=False, options=options)
    return policy_of(
        remote.settings,
        summary=summary,
        keyring=remote.keyring or None,
        directory=remote.directory,
        options=options,
    )


def check_remote_name(name: str) -> str:
    """Return a remote's name; raise UsageError unless it is one."""
    if not _is_name(name):
        raise UsageError(
            f"{name[:200]!r} cannot be the name of a remote",
            hint="letters, digits, '.', '_' and '-', and neither '.' nor '-' first",
        )
    return name


def _is_name(text: str) -> bool:
    return len(text) <= _MAX_NAME and "/" not in text and is_ref(text)


def parse_remotes(data: bytes, origin: str, directory: str | None = None) -> list[Remote]:
    """Return the remotes in a key file, which ``origin`` names in the FormatError for a malformed one.

    Sections that are not remotes are left alone, and so are names that no remote can have.
    """
    try:
        remotes = []
        for section, values in parse_keyfile(data).items():
            name = section.removeprefix(_SECTION).removesuffix('"')
            if section != f'{_SECTION}{name}"' or not _is_name(name):
                continue
            settings = {key: unescape(value) for key, value in values.items()}
            keyring = _decode_keyring(settings.pop(KEYRING, ""))
            remotes.append(Remote(name, settings, keyring, origin, directory))
        if len(remotes) > _MAX_REMOTES:
            raise FormatError(f"it has more than {_MAX_REMOTES} remotes")
    except ExtError as error:
        raise FormatError.at(origin, error.message) from None
    return remotes


def remote_file(remote: Remote) -> bytes:
    """Return the key file of a remote, with its keyring."""
    from base64 import b64encode

    values = {key: escape(value) for key, value in remote.settings.items()}
    if remote.keyring:
        values[KEYRING] = b64encode(remote.keyring).decode()
    return write_keyfile({f'{_SECTION}{remote.name}"': values})


def _decode_keyring(text: str) -> bytes:
    from base64 import b64decode

    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise FormatError(f"{KEYRING} is not base64") from None
