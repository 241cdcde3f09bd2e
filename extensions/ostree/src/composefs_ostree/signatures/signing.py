"""Making signatures: OpenPGP ones by the user's gpg, ed25519 and SPKI ones with keys in files.

GnuPG keeps secret keys in its agent or on a card and asks for passphrases itself, so it is run, and no secret OpenPGP
key is ever read here.  Source: ostree-commit(1), ostree-sign(1); gpg(1).
"""

from __future__ import annotations

from composefs_ext.errors import ExtError, FormatError, UnsupportedError, UsageError
from composefs_ext.tuples import NamedTuple
from composefs_ostree.signatures.detached import KEYS, signatures_in
from composefs_ostree.signatures.keyfiles import read_keys
from composefs_ostree.signatures.libraries import primitive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from subprocess import CompletedProcess
    from typing import Any

    from composefs_ext import Core, Request
    from composefs_ostree.formats.gvariant import Variant

__all__ = ["SignOptions", "make_signatures", "sign", "sign_options_of", "with_signatures"]

_SEED = 32  # an ed25519 secret key is a seed of 32 bytes and the public key


class SignOptions(NamedTuple):
    """By whom to sign: ids of GPG keys, and files with secret keys of the kind ``sign_type``."""

    gpg_keys: tuple[str, ...] = ()
    gpg_homedir: str | None = None
    sign_type: str = "ed25519"
    key_files: tuple[str, ...] = ()

    @property
    def is_on(self) -> bool:
        """Tell whether anything is to be signed."""
        return bool(self.gpg_keys or self.key_files)


def sign_options_of(request: Request) -> SignOptions:
    """Return the options of a command that signs; raise UsageError for those without effect."""
    options = SignOptions(
        tuple(request.get("gpg_sign", ())),
        request.get("gpg_homedir"),
        request.get("sign_type", "ed25519"),
        tuple(request.get("sign_from_file", ())),
    )
    if options.gpg_homedir and not options.gpg_keys:
        raise UsageError("--gpg-homedir says where the GPG key is, but none is named", hint="add --gpg-sign KEY-ID")
    return options


def sign(core: Core, data: bytes, metadata: Mapping[str, Variant], options: SignOptions) -> dict[str, Variant]:
    """Return ``metadata`` with signatures of ``data`` added; raise an ExtError if a key cannot be used."""
    return with_signatures(metadata, make_signatures(core, data, options))


def make_signatures(core: Core, data: bytes, options: SignOptions) -> dict[str, list[bytes]]:
    """Return signatures of ``data``, by kind; raise an ExtError if a key cannot be used."""
    made = {"gpg": [_gpg(core, data, key, options.gpg_homedir) for key in options.gpg_keys]}
    made[options.sign_type] = [
        signature(data)
        for file in options.key_files
        for signature in _secret_keys(options.sign_type, read_keys(file), file)
    ]
    return made


def with_signatures(metadata: Mapping[str, Variant], made: Mapping[str, list[bytes]]) -> dict[str, Variant]:
    """Return ``metadata`` with signatures added.

    A GPG signature takes the place of one by the same key, and no signature is there twice: who signs again and again
    does not make signatures more than anybody reads.
    """
    from composefs_ostree.formats.gvariant import Variant

    signed = dict(metadata)
    for kind, signatures in made.items():
        if signatures:
            kept = [each for each in signatures_in(metadata, kind) if each not in signatures]
            if kind == "gpg" and kept:
                kept = _by_others(kept, signatures)
            signed[KEYS[kind]] = Variant("aay", [*kept, *signatures])
    return signed


def _by_others(signatures: list[bytes], made: list[bytes]) -> list[bytes]:
    """Return the GPG signatures but for those that say that they are by the keys of ``made`` alone."""
    from composefs_ostree.signatures.openpgp import claims

    keys = {each.key for each in claims(made)} - {None}
    return [blob for blob in signatures if not {each.key for each in claims([blob])} <= keys]


def _gpg(core: Core, data: bytes, key: str, homedir: str | None) -> bytes:
    """Have gpg sign; its agent, which has the secret keys, asks for the passphrase.

    An extension may write nowhere but to the directories given to it, so gpg is told to, and without ``homedir`` the
    agent must run already.
    """
    where = [f"--homedir={homedir}"] if homedir else []
    starts_agent = homedir is not None and not _agent_runs(core, where)
    quiet = ["--lock-never", "--no-random-seed-file", "--trust-model=always", "--no-auto-check-trustdb"]
    if not homedir:
        quiet.append("--no-autostart")
    words = ["gpg", "--batch", "--quiet", *where, *quiet, f"--local-user={key}", "--no-armor", "--detach-sign"]
    try:
        done = _run(core, [*words, "--output=-"], data)
    finally:
        if starts_agent:
            _run(core, ["gpgconf", *where, "--kill", "gpg-agent"])
    if done.returncode or not done.stdout:
        lines = [line.removeprefix("gpg: ") for line in done.stderr.decode("utf-8", "replace").splitlines()]
        raise ExtError(
            f"gpg cannot sign with the key {key!r}: {'; '.join(lines[-3:])[:1000] or done.returncode}",
            hint="gpg --list-secret-keys shows the keys; gpgconf --launch gpg-agent starts the agent that keeps them",
            subject=key,
        )
    return done.stdout


def _agent_runs(core: Core, where: list[str]) -> bool:
    """Tell whether somebody listens at the agent's socket."""
    import socket

    path = _run(core, ["gpgconf", *where, "--list-dirs", "agent-socket"]).stdout.rstrip(b"\n")
    with socket.socket(socket.AF_UNIX) as agent:
        try:
            agent.connect(path)
        except OSError:
            return False
    return True


def _run(core: Core, words: list[str], data: bytes = b"") -> CompletedProcess[bytes]:
    """Run a program, which may wait for the user to give a passphrase; what is cancelled the core ends."""
    import subprocess

    from composefs_ext.aside import Aside

    try:
        return Aside(core).run(subprocess.run, words, input=data, capture_output=True, check=False)
    except FileNotFoundError:
        raise UnsupportedError(
            f"signing by GPG needs the program {words[0]}, which is not installed",
            hint="install GnuPG",
            subject=words[0],
        ) from None


def _secret_keys(kind: str, data: bytes, where: str) -> Iterator[Callable[[bytes], bytes]]:
    """Yield what signs by each key in a file; raise FormatError, which tells nothing of the key."""
    from composefs_ostree.signatures.publickeys import ed25519_keys, pem_blocks

    try:
        if kind == "spki":
            keys = [_spki(block) for block in pem_blocks(data, b"PRIVATE KEY")]
        else:
            keys = [_ed25519(key) for key in ed25519_keys(data)]
    except FormatError as error:
        raise FormatError.at(where, error.message, hint=error.hint) from None
    if not keys:
        raise FormatError.at(where, f"there is no secret {kind} key in it")
    yield from keys


def _ed25519(key: bytes) -> Callable[[bytes], bytes]:
    if len(key) != 2 * _SEED:
        raise FormatError(f"a secret ed25519 key has {2 * _SEED} bytes, and this {len(key)}")
    secret = primitive("asymmetric.ed25519").Ed25519PrivateKey.from_private_bytes(key[:_SEED])
    if secret.public_key().public_bytes_raw() != key[_SEED:]:
        raise FormatError("the second half of the secret ed25519 key is not the public key of the first")
    made: Callable[[bytes], bytes] = secret.sign
    return made


def _spki(key: bytes) -> Callable[[bytes], bytes]:
    """Return what signs by a PKCS #8 key, with SHA-256 where a digest is needed."""
    serialization = primitive("serialization")
    try:
        secret: Any = serialization.load_der_private_key(key, None)
    except Exception:  # noqa: BLE001  what it says may be of the key
        raise FormatError("it is no secret key that can be used, or it has a passphrase") from None
    rsa, ec = primitive("asymmetric.rsa"), primitive("asymmetric.ec")
    digest = primitive("hashes").SHA256()
    if isinstance(secret, rsa.RSAPrivateKey):
        padding = primitive("asymmetric.padding").PKCS1v15()
        return lambda data: bytes(secret.sign(data, padding, digest))
    if isinstance(secret, ec.EllipticCurvePrivateKey):
        return lambda data: bytes(secret.sign(data, ec.ECDSA(digest)))
    if not hasattr(secret, "sign"):
        raise FormatError("its algorithm cannot sign")
    return lambda data: bytes(secret.sign(data))
