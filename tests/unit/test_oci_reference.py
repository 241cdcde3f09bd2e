"""References and platforms."""

from __future__ import annotations

import os
import sys

import pytest

from composefs_ext.errors import UnsupportedError, UsageError
from composefs_oci.formats import reference
from composefs_oci.formats.platform import Platform, best, native, parse_platform
from composefs_oci.formats.reference import LayoutReference, RegistryReference, parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("ubuntu", "docker.io", "library/ubuntu", "latest", None),
        ("ubuntu:24.04", "docker.io", "library/ubuntu", "24.04", None),
        ("grafana/grafana", "docker.io", "grafana/grafana", "latest", None),
        ("docker.io/ubuntu", "docker.io", "library/ubuntu", "latest", None),
        ("index.docker.io/a/b", "docker.io", "a/b", "latest", None),
        ("quay.io/fedora/fedora:41", "quay.io", "fedora/fedora", "41", None),
        ("localhost/x", "localhost", "x", "latest", None),
        ("localhost:5000/a/b/c:t", "localhost:5000", "a/b/c", "t", None),
        ("127.0.0.1:5000/x", "127.0.0.1:5000", "x", "latest", None),
        ("[::1]:5000/x:1", "[::1]:5000", "x", "1", None),
        (f"quay.io/a/b@{DIGEST}", "quay.io", "a/b", None, DIGEST),
        (f"quay.io/a/b:1@{DIGEST}", "quay.io", "a/b", "1", DIGEST),
        ("Registry/x", "Registry", "x", "latest", None),
        ("a__b/c--d.e", "docker.io", "a__b/c--d.e", "latest", None),
    ],
)
def test_names_in_registries(text: str, registry: str, repository: str, tag: str | None, digest: str | None) -> None:
    parsed = parse_reference(f"docker://{text}")
    assert parsed == RegistryReference(registry, repository, tag, digest)
    assert parse_reference(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ubuntu",
        "a/B",
        "-a",
        "a//b",
        "a/",
        "/a",
        "a..b",
        "a:",
        "a:tag with space",
        "a:" + "t" * 129,
        "a@sha256:12",
        "a@",
        "user:secret@example.org/a",
        "exa mple.org/a",
        "example.org:port/a",
        "example.org:123456/a",
        "example.org/../a",
        "example.org/a?b",
        "example.org/a#b",
        "a" * 256,
        "a\nb",
        "a%2fb",
    ],
)
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(f"docker://{text}")
    assert caught.value.hint
    assert "\n" not in caught.value.message


HERE = {"/d/layout", "/d/with:colon", "/abs", "/d/a.tar"}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have these paths and no others."""
    monkeypatch.setattr(reference, "exists", HERE.__contains__)


@pytest.mark.parametrize(
    ("text", "path", "tag"),
    [
        ("layout", "/d/layout", None),
        ("layout:latest", "/d/layout", "latest"),
        ("layout:localhost/name:tag", "/d/layout", "localhost/name:tag"),
        ("with:colon", "/d/with:colon", None),
        ("with:colon:1", "/d/with:colon", "1"),
        ("/abs:1", "/abs", "1"),
        ("layout:", "/d/layout", None),
        ("missing:1", "/d/missing", "1"),
        ("mis:sing/x", "/d/mis:sing/x", None),
        ("missing", "/d/missing", None),
    ],
)
def test_paths_and_tags_of_layouts(text: str, path: str, tag: str | None) -> None:
    for transport in ("oci", "oci-archive"):
        wanted = LayoutReference(path, tag, is_archive=transport == "oci-archive")
        assert parse_reference(f"{transport}:{text}", "/d") == wanted


@pytest.mark.parametrize(
    "text", ["oci:", "oci-archive:", "oci::tag", "oci:a\0b", "ubuntu", "quay.io/x:1", "", "http://x/y"]
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text, "/d")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("quay.io/x:1", "docker://quay.io/x:1"),
        ("alpine", "docker://alpine"),
        ("docker:alpine", "docker://alpine"),
        ("https://quay.io/a/b", "docker://quay.io/a/b"),
        ("./layout", "oci-archive:"),
        ("file:///x", "docker://"),
    ],
)
def test_what_could_be_in_a_registry_is_told_in_full(text: str, whole: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text, "/d")
    assert whole in (caught.value.hint or "")


@pytest.mark.parametrize("login", ["me:secret", "me:se@cret", "me:se@c/r@et"])
@pytest.mark.parametrize("name", ["x:1", "x/y@sha256:" + "0" * 64], ids=["tag", "digest"])
def test_nothing_of_a_login_is_shown(login: str, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(f"docker://{login}@host:5000/{name}", "/d")
    assert caught.value.message == "a login is no part of an image's name"
    assert caught.value.hint == "log in: skopeo login host:5000; or give --authfile"


@pytest.mark.parametrize("transport", ["containers-storage", "dir", "docker-archive", "docker-daemon"])
def test_other_transports_are_told_how(transport: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        parse_reference(f"{transport}:x")
    assert f"skopeo copy {transport}:x" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("Linux/x86_64", Platform("linux", "amd64")),
        ("linux/arm64/v8", Platform("linux", "arm64", "v8")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/armhf", Platform("linux", "arm", "v7")),
        ("linux/armel", Platform("linux", "arm", "v6")),
        ("linux/arm/V7", Platform("linux", "arm", "v7")),
    ],
)
def test_platforms_are_read(text: str, expected: Platform) -> None:
    assert parse_platform(text) == expected


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/a b", "linux/\n", "linux/amd64/"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(UsageError):
        parse_platform(text)


@pytest.mark.parametrize(
    ("offered", "wanted", "expected"),
    [
        (["linux/amd64", "linux/arm64"], "linux/arm64", ["linux/arm64"]),
        (["linux/arm64/v8"], "linux/arm64", ["linux/arm64/v8"]),
        (["linux/arm64"], "linux/arm64/v8", ["linux/arm64"]),
        (["linux/arm64/v8", "linux/arm64/v9"], "linux/arm64", ["linux/arm64/v8"]),
        (["linux/arm64/v8", "linux/arm64/v9"], "linux/arm64/v9", ["linux/arm64/v9"]),
        (["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", ["linux/arm/v6"]),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", ["linux/arm/v6"]),
        (["linux/arm/v7", "linux/arm/v6"], "linux/arm", ["linux/arm/v7"]),
        (["linux/arm/v7"], "linux/arm/v6", []),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", ["linux/amd64"]),
        (["linux/amd64/v3", "linux/amd64/v2"], "linux/amd64", []),
        (["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"], "linux/amd64/v4", ["linux/amd64/v3"]),
        (["linux/amd64/odd"], "linux/amd64", []),
        (["linux/amd64", "linux/amd64"], "linux/amd64", ["linux/amd64", "linux/amd64"]),
        (["windows/amd64", "unknown/unknown"], "linux/amd64", []),
        ([], "linux/amd64", []),
    ],
)
def test_the_best_variant_is_chosen(offered: list[str], wanted: str, expected: list[str]) -> None:
    candidates = [(parse_platform(text), text) for text in offered]
    assert best(candidates, parse_platform(wanted)) == expected


@pytest.mark.parametrize(
    ("system", "architecture", "wanted"),
    [("Linux", "AMD64", "linux/amd64"), ("linux", "x86_64", "linux/amd64"), ("linux", "AArch64", "Linux/AArch64")],
)
def test_platforms_are_the_same_however_they_are_spelled(system: str, architecture: str, wanted: str) -> None:
    assert best([(Platform(system, architecture), "it")], parse_platform(wanted)) == ["it"]


@pytest.mark.parametrize(
    ("offered", "wanted", "expected"),
    [
        (["linux/S390X", "linux/s390x"], "linux/s390x", ["linux/s390x"]),
        (["linux/x86_64", "linux/amd64"], "linux/x86_64", ["linux/amd64"]),
        (["linux/AArch64", "linux/arm64/v8"], "linux/arm64", ["linux/arm64/v8"]),
        (["linux/armel", "linux/arm/v7"], "linux/arm", ["linux/arm/v7"]),
        (["linux/armel", "linux/armhf"], "linux/arm", ["linux/armhf"]),
        (["linux/armel", "linux/armhf"], "linux/arm/v6", ["linux/armel"]),
        (["linux/armhf"], "linux/arm/v6", []),
        (["linux/arm/V7"], "linux/arm/v7", ["linux/arm/V7"]),
        (["linux/S390X", "Linux/s390x"], "linux/s390x", ["linux/S390X", "Linux/s390x"]),
    ],
)
def test_names_of_go_are_chosen_before_others(offered: list[str], wanted: str, expected: list[str]) -> None:
    candidates = [(Platform(*text.split("/")), text) for text in offered]
    assert best(candidates, parse_platform(wanted)) == expected


def test_this_machine_has_a_platform() -> None:
    assert parse_platform(str(native())) == native()


@pytest.mark.parametrize(
    ("machine", "bits", "platform"),
    [
        ("x86_64", 64, "linux/amd64"),
        ("x86_64", 32, "linux/386"),
        ("i686", 32, "linux/386"),
        ("aarch64", 64, "linux/arm64"),
        ("aarch64", 32, "linux/arm/v8"),
        ("armv8l", 32, "linux/arm/v8"),
        ("armv7l", 32, "linux/arm/v7"),
    ],
)
def test_the_platform_is_that_of_the_programs_not_of_the_kernel(
    monkeypatch: pytest.MonkeyPatch, machine: str, bits: int, platform: str
) -> None:
    names = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*names[:4], machine)))
    monkeypatch.setattr(sys, "maxsize", 2 ** (bits - 1) - 1)
    assert str(native()) == platform
