"""Whose signatures are wanted: a remote's settings and the options of a command, by ostree's rules."""

from __future__ import annotations

import pytest

from composefs_ext.errors import ExtError, UnsupportedError, UsageError
from composefs_ostree.signatures import checking
from composefs_ostree.signatures.policy import GpgPolicy, Options, Policy, SignKeys, policy_of

OFF = Policy()
GLOBAL = GpgPolicy(with_global=True)
KEY = {"verification-ed25519-key": "AAAA"}


@pytest.mark.parametrize(
    ("settings", "commit", "summary"),
    [
        ({}, Policy(GLOBAL), OFF),
        ({"gpg-verify": "true"}, Policy(GLOBAL), OFF),
        ({"gpg-verify": "false"}, OFF, OFF),
        ({"gpg-verify": "0", "gpg-verify-summary": "1"}, OFF, Policy(GLOBAL)),
        ({"gpgkeypath": "/a;/b, /c;"}, Policy(GpgPolicy(None, ("/a", "/b", "/c"), with_global=True)), OFF),
        ({"gpgkeypath": "keys"}, Policy(GpgPolicy(None, ("/repo/keys",), with_global=True)), OFF),
        ({"gpg-verify": "false", "sign-verify": "false"}, OFF, OFF),
        (
            {"gpg-verify": "false", "sign-verify": "true"},
            Policy(sign=(SignKeys("ed25519"), SignKeys("spki"))),
            OFF,
        ),
        ({"gpg-verify": "false", "sign-verify": "1", **KEY}, Policy(sign=(SignKeys("ed25519", ("AAAA",)),)), OFF),
        (
            {"sign-verify": "spki", "verification-spki-file": "keys.pem"},
            Policy(GLOBAL, (SignKeys("spki", (), ("/repo/keys.pem",)),)),
            OFF,
        ),
        (
            {"gpg-verify": "false", "sign-verify-summary": "ed25519;", **KEY},
            OFF,
            Policy(sign=(SignKeys("ed25519", ("AAAA",)),)),
        ),
    ],
)
def test_a_remotes_settings_say_what_must_be_signed(settings: dict[str, str], commit: Policy, summary: Policy) -> None:
    assert policy_of(settings, directory="/repo") == commit
    assert policy_of(settings, directory="/repo", summary=True) == summary


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"gpg-verify": "yes"}, UsageError),
        ({"gpg-verify": ""}, UsageError),
        ({"gpg-verify": "True"}, UsageError),
        ({"sign-verify": "dummy"}, UnsupportedError),
        ({"sign-verify": "yes"}, UnsupportedError),
        ({"sign-verify": ";"}, UsageError),
        ({"sign-verify": "ed25519"}, UsageError),
        ({"sign-verify": "ed25519,spki", **KEY}, UsageError),
        ({"gpgkeypath": "relative"}, UsageError),
    ],
)
def test_settings_that_nobody_understands_do_not_turn_verification_off(
    settings: dict[str, str], error: type[ExtError]
) -> None:
    with pytest.raises(error):
        policy_of(settings)


def test_a_remotes_keyring_is_trusted_alone() -> None:
    assert policy_of({}, keyring=b"ring") == Policy(GpgPolicy(b"ring"))
    assert policy_of({"gpgkeypath": "/a"}, keyring=b"ring") == Policy(GpgPolicy(b"ring", ("/a",)))


def test_a_url_alone_asks_for_nothing_unless_keys_are_given() -> None:
    assert policy_of({}, is_remote=False) == OFF
    assert not OFF.is_on
    given = Options(gpg_keys=("/k",))
    assert policy_of({}, is_remote=False, options=given) == Policy(GpgPolicy(paths=("/k",)))
    assert policy_of({}, is_remote=False, options=given, summary=True) == OFF
    both = given._replace(gpg_verify_summary=True)
    assert policy_of({}, is_remote=False, options=both, summary=True) == Policy(GpgPolicy(paths=("/k",)))
    keys = Options(sign_keys=("ed25519=file:/a", "spki=file:b", "ed25519=inline:AAAA"), directory="/d")
    wanted = Policy(sign=(SignKeys("ed25519", ("AAAA",), ("/a",)), SignKeys("spki", (), ("/d/b",))))
    assert policy_of({}, is_remote=False, options=keys) == wanted
    assert policy_of({}, is_remote=False, options=keys, summary=True) == OFF
    assert wanted.is_on


def test_options_go_before_a_remotes_settings() -> None:
    settings = {"sign-verify": "true", "sign-verify-summary": "true", "gpgkeypath": "/a", **KEY}
    given = Options(gpg_keys=("/k",), sign_keys=("spki=file:/s",))
    spki = (SignKeys("spki", (), ("/s",)),)
    assert policy_of(settings, keyring=b"ring", options=given) == Policy(GpgPolicy(paths=("/k",)), spki)
    assert policy_of(settings, options=given, summary=True) == Policy(None, spki)
    assert policy_of(settings, options=Options(no_gpg_verify=True)).gpg is None
    assert policy_of(settings, options=Options(no_gpg_verify=True)).sign is not None
    assert policy_of(settings, options=Options(no_sign_verify=True)) == Policy(policy_of(settings).gpg)
    assert policy_of(settings, options=Options(no_gpg_verify=True, no_sign_verify=True)) == OFF


@pytest.mark.parametrize(
    "options",
    [
        Options(gpg_keys=("/k",), no_gpg_verify=True),
        Options(sign_keys=("spki=file:/k",), no_sign_verify=True),
        Options(sign_keys=("dsa=file:/k",)),
        Options(sign_keys=("spki",)),
        Options(sign_keys=("spki=/k",)),
        Options(sign_keys=("spki=other:/k",)),
        Options(sign_keys=("spki=inline:",)),
        Options(sign_keys=("spki=file:relative",)),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: Options) -> None:
    with pytest.raises(UsageError):
        policy_of({}, is_remote=False, options=options)


def test_what_nobody_wants_signed_is_not_looked_at() -> None:
    assert checking.verify(b"x", {}, OFF, "commit 1234") == []
