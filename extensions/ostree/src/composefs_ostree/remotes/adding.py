"""From the arguments of ``remote add`` to a remote.  The words are those of ostree-remote(1).

What the user types is seen by everybody on the machine, so that no secret is taken from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from composefs_ext import Request
from composefs_ext.errors import CorruptError, FormatError, UsageError
from composefs_ostree.formats.keyfile import as_boolean, as_list, is_key
from composefs_ostree.formats.names import check_collection, check_ref
from composefs_ostree.remotes.record import KEYRING, Remote, check_remote_name
from composefs_ostree.remotes.urls import check_proxy, check_url, without_password
from composefs_ostree.signatures.policy import Policy, parse_sign_key, policy_of

__all__ = ["keyring_of", "remote_of"]

_MAX_KEYRING = 4 << 20
_MAX_VALUE = 64 << 10
_BOOLEANS = frozenset({"gpg-verify", "gpg-verify-summary", "http2", "tls-permissive"})
_FILES = frozenset(
    {
        "http-basic-auth-file",
        "http-bearer-token-file",
        "http-headers-file",
        "tls-ca-path",
        "tls-client-cert-path",
        "tls-client-key-path",
    }
)


def remote_of(request: Request) -> Remote:
    """Return the remote that a request describes; raise UsageError for what cannot be one's setting."""
    name = check_remote_name(request.arguments["name"])
    settings: dict[str, str] = {}
    url = request.get("url")
    if url is not None:
        key, value = ("metalink", url.removeprefix("metalink=")) if url.startswith("metalink=") else ("url", url)
        settings[key] = value
    for key in ("contenturl", "custom_backend"):
        if (value := request.get(key)) is not None:
            settings[key.replace("_", "-")] = value
    if branches := request.get("branches"):
        settings["branches"] = "".join(f"{branch};" for branch in branches)
    settings |= _given(request.get("set", ()))
    settings |= _verification(request.get("sign_verify", ()))
    if request.get("no_gpg_verify"):
        settings["gpg-verify"] = "false"
    if request.get("no_sign_verify"):
        settings["sign-verify"] = "false"
    if (collection := request.get("collection_id")) is not None:
        settings["collection-id"] = collection
    _check(settings)
    return Remote(name, settings, keyring_of(request.get("gpg_import", ())))


def _given(pairs: Sequence[str]) -> dict[str, str]:
    settings = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not is_key(key) or len(key) > 200:
            raise UsageError("--set takes KEY=VALUE", hint=f"the key was {key[:40]!r}")
        if key == KEYRING:
            raise UsageError(f"{KEYRING} is set by --gpg-import FILE")
        settings[key] = value
    return settings


def _verification(specifications: Sequence[str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for specification in specifications:
        kind, where, value = parse_sign_key("--sign-verify", specification)
        key = f"verification-{kind}-{'key' if where == 'inline' else 'file'}"
        if key in settings:
            raise UsageError(f"--sign-verify gives {key} twice", hint="a file may hold several keys")
        if where == "file" and not value.startswith("/"):
            raise UsageError(f"{value[:200]!r} is not an absolute path", hint="it is read wherever cfsctl is run")
        settings[key] = value
        kinds = [*settings.get("sign-verify", "").split(";"), kind]
        settings["sign-verify"] = ";".join(dict.fromkeys(filter(None, kinds)))
    return settings


def _check(settings: dict[str, str]) -> None:
    """Refuse what no pull could use, while the user who typed it is there."""
    for key, value in settings.items():
        _check_value(key, value)
    if bool(settings.get("tls-client-cert-path")) != bool(settings.get("tls-client-key-path")):
        raise UsageError(
            "a remote has both tls-client-cert-path and tls-client-key-path, or neither",
            hint="if one file holds certificate and key, name it twice",
        )
    for is_summary in (False, True):
        _check_keys(policy_of(settings, summary=is_summary))
    if not {"url", "metalink", "custom-backend"}.intersection(settings):
        raise UsageError("a remote needs a URL", hint="cfsctl ostree remote add NAME URL")
    collection = settings.get("collection-id")
    if collection is not None:
        check_collection(collection)


def _check_value(key: str, value: str) -> None:
    if len(value) > _MAX_VALUE or "\0" in value:
        raise UsageError(f"the value of {key} is too long, or has a NUL")
    if key in _BOOLEANS:
        try:
            as_boolean(value)
        except FormatError as error:
            raise UsageError(f"{key}: {error.message}") from None
    elif key in _FILES and not value.startswith("/"):
        raise UsageError(f"{key}={value[:200]!r} is not an absolute path", hint="give the whole path")
    elif key == "branches":
        for branch in as_list(value):
            check_ref(branch)
    elif key in ("url", "contenturl", "metalink", "proxy"):
        _check_place(key, value)


def _check_keys(policy: Policy) -> None:
    """Refuse keys that are none; those in files may come later."""
    for keys in policy.sign or ():
        if keys.inline:
            from composefs_ostree.signatures.publickeys import load_keys

            try:
                load_keys(keys._replace(files=()))
            except FormatError as error:
                raise UsageError(error.message) from None


def _check_place(key: str, value: str) -> None:
    is_list = key != "proxy" and value.startswith("mirrorlist=")
    url = value.removeprefix("mirrorlist=") if is_list else value
    if not url.isprintable():
        raise UsageError(f"the {key} has control characters in it")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        has_password = parts.password is not None
    except ValueError:
        has_password = False  # check_url says what is wrong with it
    if has_password:
        raise UsageError(
            f"the {key} {without_password(url).partition('?')[0]!r} has a password in it, which everybody could read",
            hint="leave it out here, and give it with its login in https_proxy, http_proxy or all_proxy at each pull"
            if key == "proxy"
            else "use a netrc file, or --set=http-basic-auth-file=FILE",
        )
    if key == "proxy":
        if url:  # nothing: that of the environment
            check_proxy(url)
    elif is_list or key != "url" or not url.lower().startswith("file://"):
        check_url(url, query=is_list or key == "metalink")


def keyring_of(paths: Sequence[str], remote: Remote | None = None) -> bytes:
    """Return the OpenPGP certificates in files, and those that a remote has, as one binary keyring."""
    old = b"" if remote is None else remote.keyring
    if not paths:
        return old
    from composefs_ext.files import read_regular
    from composefs_ostree.signatures.keyring import merged, read_certificates

    certificates = read_certificates(old, "the keyring of the remote") if old else []
    for path in paths:
        try:
            data = read_regular(path, _MAX_KEYRING)
        except CorruptError as error:
            raise UsageError.at(path, error.message) from None
        certificates += read_certificates(data, path)
        # As they are written here they have no secret keys, whatever somebody exported.
        keyring = b"".join(map(bytes, merged(certificates).values()))
        if len(keyring) > _MAX_KEYRING:
            raise UsageError.at(path, f"the keyring has more than {_MAX_KEYRING} bytes")
    return keyring
