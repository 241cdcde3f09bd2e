"""Which login is taken for a repository, of those that skopeo, podman, docker and their helpers have kept."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from composefs_oci.sources.registry.credentials import Credentials, find_credentials

HELPER = """#!/bin/sh
read -r server
case $server in
    nothing.example) echo credentials not found in native keychain; exit 1 ;;
    token.example) user="<token>" ;;
    *) user=$server ;;
esac
echo "{\\"Username\\": \\"$user\\", \\"Secret\\": \\"s\\"}"
"""
"""Names the server as the user, but for one that it does not know and one that has a token."""


@pytest.fixture(autouse=True)
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bin/docker-credential-h"
    path.parent.mkdir()
    path.write_text(HELPER)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


def login(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:p".encode()).decode()}


def logins(*keys: str) -> dict[str, Any]:
    """Logins under these keys, each with its key as the user, who has no colon."""
    return {"auths": {key: login(key.replace(":", ";")) for key in keys}}


CASES: list[tuple[dict[str, Any], str, str | None]] = [
    (logins("a.example", "a.example/team", "a.example/team/app"), "a.example/team/app", "a.example/team/app"),
    (logins("a.example/team", "a.example"), "a.example/team/other", "a.example/team"),
    (logins("a.example/team", "a.example"), "a.example/teams/app", "a.example"),
    (logins("a.example/team"), "a.example/app", None),
    (logins("a.example"), "b.example/app", None),
    (logins("a.example/"), "a.example/app", "a.example/"),
    (logins("https://a.example/v2/"), "a.example/app", "https;//a.example/v2/"),
    (logins("https://index.docker.io/v1/"), "docker.io/library/debian", "https;//index.docker.io/v1/"),
    (logins("docker.io", "https://index.docker.io/v1/"), "docker.io/library/debian", "docker.io"),
    (logins("https://index.docker.io/v1/"), "a.example/app", None),
    (
        logins(*(f"https://index.docker.io/v1/{each}" for each in ("access-token", "", "refresh-token"))),
        "docker.io/library/debian",
        "https;//index.docker.io/v1/",
    ),
    (logins("https://index.docker.io/v1/access-token", "index.docker.io"), "docker.io/app", "index.docker.io"),
    (logins("https://r.example", "r.example"), "r.example/app", "r.example"),
    (logins("r.example", "https://r.example"), "r.example/app", "r.example"),
    (logins("https://r.example", "http://r.example"), "r.example/app", "http;//r.example"),
    ({"auths": {"https://r.example": {}, "r.example": login("r")}}, "r.example/app", "r"),
    ({"auths": {"https://r.example": login("r"), "r.example": {}}}, "r.example/app", "r"),
    (logins("http://r.example/", "https://r.example"), "r.example/app", "https;//r.example"),
    (logins("https://r.example", "http://r.example/"), "r.example/app", "https;//r.example"),
    ({"credsStore": "h"}, "a.example/app", "a.example"),
    ({"credsStore": "h"}, "docker.io/library/debian", "https://index.docker.io/v1/"),
    ({"credsStore": "h"}, "nothing.example/app", None),
    ({"credsStore": "h", "auths": {"a.example": {}}}, "a.example/app", "a.example"),
    ({"credsStore": "h", "auths": {"a.example": login("a")}}, "a.example/app", "a"),
    ({"credHelpers": {"b.example": "h"}, "auths": {"a.example": login("a")}}, "a.example/app", "a"),
    ({"credHelpers": {"a.example": "h"}, "auths": {"a.example": login("a")}}, "a.example/app", "a.example"),
    ({"auths": {"a.example": {"username": "a", "password": "p"}}}, "a.example/app", "a"),
    ({}, "a.example/app", None),
]


@pytest.mark.parametrize(("settings", "image", "user"), CASES)
def test_the_login_that_fits_most_closely(
    tmp_path: Path, settings: dict[str, Any], image: str, user: str | None
) -> None:
    (tmp_path / "auth.json").write_text(json.dumps(settings))
    registry, _, repository = image.partition("/")
    found = find_credentials(registry, repository, str(tmp_path / "auth.json"))
    assert (found.user if found else None) == user


def test_an_identity_token(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"credsStore": "h"}))
    assert find_credentials("token.example", "app", str(path)) == Credentials("", "", "s")
    path.write_text(json.dumps({"auths": {"token.example": {"identitytoken": "s"}}}))
    assert find_credentials("token.example", "app", str(path)) == Credentials("", "", "s")


def test_the_first_file_that_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: Path) -> None:
    """Where a file has none for the registry the next one is read; a file that the user names is the only one."""
    files = {
        "XDG_RUNTIME_DIR": tmp_path / "run/containers/auth.json",
        "XDG_CONFIG_HOME": tmp_path / "config/containers/auth.json",
        "DOCKER_CONFIG": tmp_path / "docker/config.json",
    }
    for name, path in files.items():
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"auths": {"a.example": login(name)}}))
        top = path.parent if name == "DOCKER_CONFIG" else path.parent.parent
        monkeypatch.setenv(name, str(top))
    for name, path in files.items():
        found = find_credentials("a.example", "app", None)
        assert found == Credentials(name, "p")
        path.write_text(json.dumps({"auths": {"b.example": login("b")}}))
    assert find_credentials("a.example", "app", None) is None

    for name in files:
        monkeypatch.delenv(name)
    for path in (environment / ".docker/config.json", environment / ".config/containers/auth.json"):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"auths": {"a.example": login(path.name)}}))
        assert find_credentials("a.example", "app", None) == Credentials(path.name, "p")

    only = tmp_path / "only.json"
    only.write_text(json.dumps({"auths": {"b.example": login("b")}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(only))
    assert find_credentials("a.example", "app", None) is None
    only.write_text(json.dumps({"auths": {"a.example": login("only")}}))
    assert find_credentials("a.example", "app", None) == Credentials("only", "p")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "another"))
    assert find_credentials("a.example", "app", str(only)) == Credentials("only", "p")
