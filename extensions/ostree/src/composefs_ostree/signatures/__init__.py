"""Signatures of commits and summaries: whose are wanted, whether they are there, and making them.

A signature is detached: it stands beside what it signs, under a key of an ``a{sv}`` (``.commitmeta``, ``summary.sig``),
and signs the bytes as they are.  There are three kinds: OpenPGP (``ostree.gpgsigs``), and ed25519 and SPKI
(``ostree.sign.ed25519``, ``ostree.sign.spki``).  The libraries that check them are loaded only when there is something
to check; without them nothing passes.

Source: ostree(1), ostree-sign(1), ostree.repo-config(5).
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ostree.signatures.checking import verify
    from composefs_ostree.signatures.detached import MAX_DETACHED, describe, parse_detached
    from composefs_ostree.signatures.policy import NO_OPTIONS, Options, Policy, options_of, policy_of
    from composefs_ostree.signatures.record import Signature, facts_of, lines_of
    from composefs_ostree.signatures.signing import sign, sign_options_of

__all__ = [
    "MAX_DETACHED",
    "NO_OPTIONS",
    "Options",
    "Policy",
    "Signature",
    "describe",
    "facts_of",
    "lines_of",
    "options_of",
    "parse_detached",
    "policy_of",
    "sign",
    "sign_options_of",
    "verify",
]

_PLACES = {
    "checking": ("verify",),
    "detached": ("MAX_DETACHED", "describe", "parse_detached"),
    "policy": ("NO_OPTIONS", "Options", "Policy", "options_of", "policy_of"),
    "record": ("Signature", "facts_of", "lines_of"),
    "signing": ("sign", "sign_options_of"),
}


def __getattr__(name: str) -> object:
    """Import what is asked for: a pull that need not check a signature takes the policy alone (PEP 562)."""
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
