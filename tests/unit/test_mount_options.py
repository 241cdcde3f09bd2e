"""mount.composefs' options: escapes, what implies what, what is refused."""

from __future__ import annotations

import pytest

from composefs.cli.mount_composefs import Request, parse
from composefs.errors import UsageError

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("basedir=a", ("a",)),
        ("basedir=a:b:c", ("a", "b", "c")),
        (r"basedir=a\:b:c", ("a:b", "c")),
        (r"basedir=a\,b", ("a,b",)),
        (r"basedir=a\\:b", ("a\\", "b")),
        (r"basedir=a\\\:b", ("a\\:b",)),
        (r"basedir=a\n", ("a\\n",)),
        ("basedir=a\\", ("a\\",)),
        (r"basedir=a\\,ro", ("a\\",)),
        ("basedir=:a::b:", ("a", "b")),
        ("basedir=x=y", ("x=y",)),
    ],
)
def test_directories_and_escapes(text: str, expected: tuple[str, ...]) -> None:
    assert parse([text]).basedir == expected


def test_all_options() -> None:
    text = rf"rw,basedir=o,digest={DIGEST.upper()},idmap=/proc/1/ns/user,upperdir=u\,p:x,workdir=w,,ro"
    assert parse([text]) == Request(
        basedir=("o",),
        digest=DIGEST,
        verity="require",
        idmap="/proc/1/ns/user",
        upperdir="u,p:x",
        workdir="w",
        attributes=frozenset({"ro"}),
    )
    assert parse(["basedir=a,ro", "rw"]) == Request(basedir=("a",))
    assert parse(["defaults,nofail,_netdev,x-systemd.automount,comment=a,basedir=a"]) == Request(basedir=("a",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nosuid,nodev,noexec", "nosuid nodev noexec"),
        ("nosuid,suid,dev", ""),
        ("user", "nosuid nodev noexec"),
        ("user=somebody,exec", "nosuid nodev"),
        ("exec,users", "nosuid nodev noexec"),
        ("group", "nosuid nodev"),
        ("noatime,strictatime,nodiratime", "strictatime nodiratime"),
        ("strictatime,relatime", ""),
        ("nosuid,nodev,noexec,suid,dev,exec", ""),
        ("owner", "nosuid nodev"),
        ("strictatime,noatime", "noatime"),
        ("noatime,atime", ""),
        ("noatime,relatime", ""),
        ("strictatime,nostrictatime,norelatime", ""),
        ("nodiratime,diratime", ""),
        ("_netdev,async,auto,defaults,loud,noauto,nofail,nolazytime,nomand,nouser,silent", ""),
        ("x-systemd.requires=a,X-mount.subdir=a,comment=a", ""),
        ("nosymfollow", "nosymfollow"),
        ("nosymfollow,symfollow", ""),
    ],
)
def test_attributes_of_the_mount(text: str, expected: str) -> None:
    assert parse([f"{text},basedir=a"]).attributes == set(expected.split())


def test_digests_of_both_lengths() -> None:
    for digest in ("0123456789abcdef" * 4, "0123456789ABCDEF" * 8):
        request = parse([f"basedir=a,tryverity,digest={digest}"])
        assert (request.digest, request.verity) == (digest.lower(), "require")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("verity", "require"), ("tryverity", "try"), ("tryverity,verity", "require"), ("verity,tryverity", "require")],
)
def test_verity(text: str, expected: str) -> None:
    assert parse([f"{text},basedir=a"]).verity == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ro",
        "basedir",
        "basedir=",
        "basedir=a,unknown",
        "basedir=a,idmap",
        "basedir=a,verity=yes",
        "basedir=a,ro=1",
        "basedir=a,nosuid=1",
        "basedir=a,sync",
        "basedir=a,remount",
        "basedir=a,context=x",
        "basedir=a,digest=12",
        f"basedir=a,digest={'x' * 64}",
        "basedir=a,upperdir=u",
        "basedir=a,workdir=w",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse([text])


def test_sloppy_ignores_what_is_unknown_only() -> None:
    assert parse(["basedir=a,unknown,also=this"], sloppy=True) == Request(basedir=("a",))
    with pytest.raises(UsageError):
        parse(["basedir=a,digest=1"], sloppy=True)
