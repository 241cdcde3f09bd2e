"""Repositories that composefs-rs 0.9.0 made open here, and answer as it recorded."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.commands import CFSCTL, cfsctl
from support.recorded import RECORDED, answers, unpack

pytestmark = pytest.mark.vectors


@pytest.fixture(scope="module", params=RECORDED)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Unpack one of the repositories; return its path and what was recorded about it."""
    name = str(request.param)
    return unpack(name, tmp_path_factory.mktemp(name)), answers(name)


def commands(told: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = [each for each in told["commands"] if each["argv"][0] == name]
    assert found
    return found


def test_images(recorded: tuple[Path, dict[str, Any]]) -> None:
    repo, told = recorded
    expected = next(each for each in commands(told, "images") if "json" in each)
    assert cfsctl("--repo", repo, "--insecure", "images", "--json").stdout == expected["stdout"]
    rows = [line.split() for line in cfsctl("--repo", repo, "images").stdout.splitlines()]
    images = expected["json"]["images"]
    assert rows == [["NAME", "DIGEST"], *([image["name"], image["digest"][:12]] for image in images)]
    rows = [line.split() for line in cfsctl("--repo", repo, "images", "--no-trunc").stdout.splitlines()]
    assert rows[1:] == [[image["name"], image["digest"]] for image in images]


def test_cat(recorded: tuple[Path, dict[str, Any]]) -> None:
    repo, told = recorded
    refs = 0
    for command in commands(told, "cat"):
        done = subprocess.run([CFSCTL, "--repo", repo, *command["argv"]], capture_output=True, check=False)
        if command["rc"]:
            assert done.returncode != 0
            assert done.stderr.count(b"\n") == 1
            assert done.stdout == b""
            continue
        assert done.returncode == 0, done.stderr
        assert (hashlib.sha256(done.stdout).hexdigest(), len(done.stdout)) == (command["sha256"], command["size"])
        refs += command["argv"][1].startswith("refs/")
    assert refs >= 5


def test_refs(recorded: tuple[Path, dict[str, Any]]) -> None:
    repo, told = recorded
    refs = json.loads(cfsctl("--repo", repo, "ref", "list", "--json").stdout)["refs"]
    named = {(ref["kind"], ref["name"]): ref["target"] for ref in refs}
    links = {**told["streams"], **told["images"]}
    recorded_refs = [path for path, link in links.items() if "/refs/" in path and link != "/"]
    assert len(named) == len(recorded_refs)
    assert ("stream", "ostree/team/50%off") in named
    assert ("image", "team/50%off") in named
    for (kind, _), target in named.items():
        assert f"{kind}s/{target}" in links


def test_asserting_the_algorithm(recorded: tuple[Path, dict[str, Any]]) -> None:
    repo, told = recorded
    hashes = {"sha256", "sha512"}
    [own] = [each for each in hashes if each in told["algorithm"]]
    cfsctl("--repo", repo, "--hash", own, "images")
    [other] = hashes - {own}
    assert own in cfsctl("--repo", repo, "--hash", other, "images", status=5).stderr


def test_a_damaged_object_is_noticed(recorded: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    repo, told = recorded
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", repo, copy], check=True)
    [stream] = [name for name in told["streams"] if name.startswith("streams/oci-layer-sha256:097")]
    # Any object of the layer: one byte of each is changed, but for the splitstream itself.
    own = (copy / stream).resolve()
    for path in (copy / "objects").rglob("*"):
        if path.is_file() and path != own and path.stat().st_size:
            path.chmod(0o644)
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
    done = subprocess.run([CFSCTL, "--repo", copy, "cat", Path(stream).name], capture_output=True, check=False)
    assert done.returncode == 5
    assert b"is damaged" in done.stderr
    own.chmod(0o644)
    own.write_bytes(own.read_bytes()[:-1])
    done = subprocess.run([CFSCTL, "--repo", copy, "cat", Path(stream).name], capture_output=True, check=False)
    assert done.returncode == 5
    assert done.stdout == b""
