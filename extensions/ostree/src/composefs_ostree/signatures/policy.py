"""Whose signatures are wanted: from a remote's settings and the options of a command.

The rules are ostree's: GPG verification of commits is on for a remote unless it says ``gpg-verify=false``, that of
summaries is off unless it says ``gpg-verify-summary=true``; ``sign-verify`` and ``sign-verify-summary`` are a boolean
or a list of kinds.  If both GPG and the other kinds are wanted, both must be there; of each, one good signature is
enough.  Nothing is read here but the settings.

Source: ostree.repo-config(5), ostree-remote(1).
"""

from __future__ import annotations

from collections.abc import Mapping

from composefs_ext import Request
from composefs_ext.errors import FormatError, UnsupportedError, UsageError
from composefs_ext.tuples import NamedTuple
from composefs_ostree.formats.keyfile import as_boolean, as_list

__all__ = [
    "NO_OPTIONS",
    "SIGN_KINDS",
    "GpgPolicy",
    "Options",
    "Policy",
    "SignKeys",
    "options_of",
    "parse_sign_key",
    "policy_of",
]

SIGN_KINDS = ("ed25519", "spki")
"""The kinds of signatures beside GPG's."""


class Options(NamedTuple):
    """What the command line says about verification.

    ``gpg_keys`` are files or directories with OpenPGP certificates, ``sign_keys`` such as
    ``ed25519=inline:BASE64`` or ``spki=file:PATH``.  They are trusted instead of the keys that a remote has.
    ``directory`` is where relative paths begin.
    """

    gpg_keys: tuple[str, ...] = ()
    sign_keys: tuple[str, ...] = ()
    no_gpg_verify: bool = False
    no_sign_verify: bool = False
    gpg_verify_summary: bool = False
    directory: str | None = None


NO_OPTIONS = Options()


class GpgPolicy(NamedTuple):
    """The OpenPGP certificates to trust: ``keyring`` itself, and those in files and directories.

    ``with_global`` adds those in ostree's directory for the whole system.
    """

    keyring: bytes | None = None
    paths: tuple[str, ...] = ()
    with_global: bool = False


class SignKeys(NamedTuple):
    """The public keys of one kind to trust; with neither ``inline`` (base64) nor ``files``, those of the system."""

    kind: str
    inline: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Policy(NamedTuple):
    """What must be signed by whom; None: signatures of that kind are not wanted."""

    gpg: GpgPolicy | None = None
    sign: tuple[SignKeys, ...] | None = None

    @property
    def is_on(self) -> bool:
        """Tell whether anything must be signed."""
        return self.gpg is not None or self.sign is not None


def options_of(request: Request) -> Options:
    """Return the options of a command."""
    return Options(
        tuple(request.get("gpg_key", ())),
        tuple(request.get("sign_key", ())),
        bool(request.get("no_gpg_verify")),
        bool(request.get("no_sign_verify")),
        bool(request.get("gpg_verify_summary")),
        request.directory,
    )


def policy_of(
    settings: Mapping[str, str],
    *,
    summary: bool = False,
    is_remote: bool = True,
    keyring: bytes | None = None,
    directory: str | None = None,
    options: Options = NO_OPTIONS,
) -> Policy:
    """Return what commits, or with ``summary`` summaries, must be signed by; raise UsageError or UnsupportedError.

    ``settings`` are those of a remote; ``is_remote`` tells that there is one, and not just a URL.  ``keyring`` is the
    content of its ``REMOTE.trustedkeys.gpg``; relative paths in the settings begin at ``directory``.
    """
    if options.gpg_keys and options.no_gpg_verify:
        raise UsageError("--gpg-key says whose signature is wanted, --no-gpg-verify that none is", hint="give one")
    if options.sign_keys and options.no_sign_verify:
        raise UsageError("--sign-key says whose signature is wanted, --no-sign-verify that none is", hint="give one")
    suffix = "-summary" if summary else ""
    gpg = None
    if not options.no_gpg_verify:
        is_on = _truth(settings, f"gpg-verify{suffix}", default=is_remote and not summary)
        is_on = is_on or (options.gpg_verify_summary if summary else bool(options.gpg_keys))
        if is_on:
            gpg = _gpg_policy(settings, keyring, directory, options)
    sign = None
    if not options.no_sign_verify:
        sign = _sign_policy(settings, f"sign-verify{suffix}", directory)
        if options.sign_keys and (sign is not None or not summary):
            sign = _given_keys(options)
    return Policy(gpg, sign)


def _gpg_policy(
    settings: Mapping[str, str], keyring: bytes | None, directory: str | None, options: Options
) -> GpgPolicy:
    if options.gpg_keys:
        return GpgPolicy(paths=options.gpg_keys)
    paths = tuple(_path("gpgkeypath", path, directory) for path in _list(settings.get("gpgkeypath", "")))
    return GpgPolicy(keyring, paths, with_global=keyring is None)


def _sign_policy(settings: Mapping[str, str], name: str, directory: str | None) -> tuple[SignKeys, ...] | None:
    """Return the keys that a remote wants signatures by."""
    value = settings.get(name, "")  # to the letter, as ostree takes it: with a blank behind it, it is none of these
    if value in ("", "false", "0"):
        return None
    if value in ("true", "1"):
        configured = [keys for kind in SIGN_KINDS if (keys := _configured(settings, kind, directory)) != SignKeys(kind)]
        return tuple(configured or (SignKeys(kind) for kind in SIGN_KINDS))
    wanted = []
    for kind in _list(value):
        if kind not in SIGN_KINDS:
            raise UnsupportedError(
                f"{name}={value[:80]}: signatures of kind {kind[:40]!r} cannot be checked",
                hint=f"give true, false, or a list of {' and '.join(SIGN_KINDS)}",
            )
        keys = _configured(settings, kind, directory)
        if keys == SignKeys(kind):
            raise UsageError(
                f"{name}={value[:80]}, but the remote has no {kind} key",
                hint=f"set verification-{kind}-key or verification-{kind}-file, or {name}=true for the system's keys",
            )
        wanted.append(keys)
    if not wanted:
        raise UsageError(f"{name}={value[:80]!r} is neither a boolean nor a list of kinds")
    return tuple(wanted)


def _configured(settings: Mapping[str, str], kind: str, directory: str | None) -> SignKeys:
    key, file = settings.get(f"verification-{kind}-key"), settings.get(f"verification-{kind}-file")
    return SignKeys(
        kind,
        (key,) if key else (),
        (_path(f"verification-{kind}-file", file, directory),) if file else (),
    )


def _given_keys(options: Options) -> tuple[SignKeys, ...]:
    """Return the keys that --sign-key gives."""
    by_kind: dict[str, SignKeys] = {}
    for specification in options.sign_keys:
        kind, where, value = parse_sign_key("--sign-key", specification)
        keys = by_kind.get(kind, SignKeys(kind))
        if where == "inline":
            by_kind[kind] = keys._replace(inline=(*keys.inline, value))
        else:
            by_kind[kind] = keys._replace(files=(*keys.files, _path("--sign-key", value, options.directory)))
    return tuple(by_kind.values())


def parse_sign_key(option: str, specification: str) -> tuple[str, str, str]:
    """Return kind, ``inline`` or ``file``, and key or path, as an option gives a key; raise UsageError."""
    kind, _, place = specification.partition("=")
    where, _, value = place.partition(":")
    if kind not in SIGN_KINDS or where not in ("inline", "file") or not value:
        raise UsageError(
            f"{option} {specification[:80]!r} is not TYPE=inline:KEY or TYPE=file:PATH",
            hint=f"the types are {' and '.join(SIGN_KINDS)}",
        )
    return kind, where, value


def _truth(settings: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = settings.get(name)
    if value is None:
        return default
    try:
        return as_boolean(value)
    except FormatError:
        raise UsageError(f"{name}={value[:80]!r} is neither true nor false", hint="correct it in the remote") from None


def _list(value: str) -> tuple[str, ...]:
    """Split a list, which has semicolons or commas between its items."""
    return as_list(value.replace(",", ";"))


def _path(name: str, path: str, directory: str | None) -> str:
    if path.startswith("/"):
        return path
    if directory is None:
        raise UsageError(f"{name}: the path {path[:200]!r} is relative", hint="give it beginning with /")
    return f"{directory}/{path}"
