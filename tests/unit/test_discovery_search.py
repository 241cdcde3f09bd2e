"""Finding extensions: order, shadowing, rejection, and whom root trusts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from composefs.errors import ExtensionError, NotFoundError
from composefs.ext import discovery
from composefs.ext.environment import clean_environment
from composefs.ext.trust import distrust


def place(directory: Path, name: str, *, mode: int = 0o755, **changes: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    executable = directory / name
    executable.write_text("#!/bin/sh\n")
    executable.chmod(mode)
    manifest = {
        "name": name,
        "summary": "S",
        "version": "1",
        "protocol": [1],
        "commands": [{"name": ["x"], "summary": "X"}],
        **changes,
    }
    (directory / f"{name}.json").write_text(json.dumps(manifest))
    return executable


def states(*directories: Path) -> list[tuple[str, str]]:
    return [(each.name, each.state) for each in discovery.list_all([str(directory) for directory in directories])]


def reason(*directories: Path) -> str:
    [each] = [each for each in discovery.list_all(list(map(str, directories))) if each.state == "rejected"]
    assert each.reason is not None
    with pytest.raises(ExtensionError) as caught:
        discovery.find(each.name, list(map(str, directories)))
    assert each.reason in str(caught.value)
    return each.reason


def test_the_first_of_a_name_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    place(second, "demo")
    place(second, "alpha")
    executable = place(first, "demo")
    assert states(first, tmp_path / "missing", second) == [
        ("demo", "active"),
        ("alpha", "active"),
        ("demo", "shadowed"),
    ]
    assert discovery.find("demo", [str(first), str(second)]).executable == str(executable)
    assert discovery.list_all([str(first), str(second)])[2].reason == f"{executable} comes first"
    with pytest.raises(NotFoundError, match="no extension nothing"):
        discovery.find("nothing", [str(first)])


def test_a_rejected_one_does_not_hide_a_good_one(tmp_path: Path) -> None:
    place(tmp_path / "1", "demo", mode=0o644)
    place(tmp_path / "2", "demo")
    assert states(tmp_path / "1", tmp_path / "2") == [("demo", "rejected"), ("demo", "active")]
    assert discovery.find("demo", [str(tmp_path / "1"), str(tmp_path / "2")]).executable == str(tmp_path / "2" / "demo")


def test_not_executable(tmp_path: Path) -> None:
    place(tmp_path, "demo", mode=0o644)
    assert "is not an executable file" in reason(tmp_path)


def test_a_directory_is_not_an_executable(tmp_path: Path) -> None:
    place(tmp_path, "demo").unlink()
    (tmp_path / "demo").mkdir()
    assert "is not an executable file" in reason(tmp_path)


def test_half_an_installation(tmp_path: Path) -> None:
    place(tmp_path, "demo").unlink()
    assert reason(tmp_path).endswith("No such file or directory")
    place(tmp_path, "demo")
    (tmp_path / "demo.json").unlink()
    assert reason(tmp_path) == "its manifest demo.json is not beside it"


def test_malformed_manifest_says_where(tmp_path: Path) -> None:
    place(tmp_path, "demo", commands=[{"name": ["x"]}])
    assert reason(tmp_path) == "demo.json: commands[0].summary is missing"


def test_huge_manifest_is_not_read(tmp_path: Path) -> None:
    place(tmp_path, "demo")
    with (tmp_path / "demo.json").open("r+") as file:
        file.truncate(2 << 20)
    assert "not a regular file of at most 1048576 bytes" in reason(tmp_path)


def test_manifest_that_is_a_fifo_does_not_hang(tmp_path: Path) -> None:
    place(tmp_path, "demo")
    (tmp_path / "demo.json").unlink()
    os.mkfifo(tmp_path / "demo.json")
    assert "not a regular file" in reason(tmp_path)


@pytest.mark.parametrize("name", ["Demo", "demo-two", "2demo", "demo.bak", "démo"])
def test_names_that_no_command_can_have(tmp_path: Path, name: str) -> None:
    place(tmp_path, name)
    assert states(tmp_path) == [(name, "rejected")]


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"streams": ["shared-"]}, {"streams": ["shared-"]}),
        ({"streams": ["sha"]}, {"streams": ["shared-"]}),
        ({"streams": ["shared-inner-"]}, {"streams": ["shared-"]}),
        ({"refs": [{"dir": "beta"}]}, {}),
    ],
)
def test_overlapping_names_are_refused_to_the_later_one(tmp_path: Path, mine: Any, theirs: Any) -> None:
    place(tmp_path, "alpha", **mine)
    place(tmp_path, "beta", **theirs)
    assert states(tmp_path) == [("alpha", "active"), ("beta", "rejected")]
    assert f"belongs to {tmp_path}/alpha" in reason(tmp_path)


def test_search_order(monkeypatch: pytest.MonkeyPatch, environment: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", f"{tmp_path}/a:{tmp_path}/b::relative")
    path = discovery.search_path()
    assert path[:2] == [f"{tmp_path}/a", f"{tmp_path}/b"]
    assert path[2] == str(Path("relative").absolute())
    assert path[3:] == [
        f"{environment}/.local/libexec/composefs/ext",
        f"{sys.prefix}/libexec/composefs/ext",
        "/usr/local/libexec/composefs/ext",
        "/usr/libexec/composefs/ext",
    ]


def test_the_search_goes_where_the_kernel_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "elsewhere/below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("elsewhere/below")
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", f"{tmp_path}/link/../ext")
    assert discovery.search_path()[0] == f"{tmp_path}/elsewhere/ext"


def test_borrowed_privileges_ignore_the_users_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", "/tmp/mine")
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert discovery.search_path() == [
        f"{prefix}/libexec/composefs/ext" for prefix in (sys.prefix, "/usr/local", "/usr")
    ]


@pytest.mark.root
class TestRoot:
    @pytest.fixture(autouse=True)
    def as_root(self) -> None:
        if os.geteuid() != 0:
            pytest.fail("this test needs to be root")

    def test_writable_by_others(self, tmp_path: Path) -> None:
        executable = place(tmp_path / "ext", "demo")
        assert distrust(str(executable)) is None
        for path in (executable, tmp_path / "ext", executable.with_suffix(".json")):
            mode = path.stat().st_mode
            path.chmod(mode | 0o020)
            assert f"root does not trust it: {path} is writable by its group" in reason(tmp_path / "ext")
            path.chmod(mode | 0o002)
            assert "is writable by others" in reason(tmp_path / "ext")
            path.chmod(mode)
        assert states(tmp_path / "ext") == [("demo", "active")]

    def test_another_owner(self, tmp_path: Path) -> None:
        executable = place(tmp_path / "ext", "demo")
        os.chown(executable, 12345, 0)
        assert "belongs to user 12345, not to root" in reason(tmp_path / "ext")

    def test_the_way_of_a_link_counts(self, tmp_path: Path) -> None:
        executable = place(tmp_path / "real", "demo")
        linked = tmp_path / "ext"
        linked.mkdir()
        (linked / "demo").symlink_to("../real/demo")
        (linked / "demo.json").symlink_to(executable.with_suffix(".json"))
        assert states(linked) == [("demo", "active")]
        (tmp_path / "real").chmod(0o777)
        assert f"{tmp_path}/real is writable by others" in reason(linked)

    def test_sticky_directory_of_roots_is_trusted(self, tmp_path: Path) -> None:
        executable = place(tmp_path / "ext", "demo")
        (tmp_path / "ext").chmod(0o1777)
        assert distrust(str(executable)) is None
        executable.chmod(0o1757)  # of a file that bit says nothing
        assert distrust(str(executable)) == f"{executable} is writable by others"
        executable.chmod(0o755)
        os.chown(tmp_path / "ext", 12345, 0)
        assert distrust(str(executable)) is not None

    def test_other_users_trust_themselves_their_group_and_their_home(self, tmp_path: Path) -> None:
        home = tmp_path / "home"
        (home / "cache").mkdir(parents=True)
        cache = str(home / "cache")
        os.chown(home, 12345, 0)
        os.chown(cache, 1000, 0)
        os.chmod(cache, 0o770)
        assert distrust(cache, 1000) == f"{home} belongs to user 12345, not to root"
        assert distrust(cache, 1000, str(home)) is None
        (tmp_path / "link").symlink_to(home)
        assert distrust(f"{tmp_path}/link/cache", 1000, f"{tmp_path}/link") is None
        assert distrust(cache, 1001, str(home)) == f"{cache} belongs to user 1000, not to root"
        assert distrust(cache, 0, str(home)) == f"{home} belongs to user 12345, not to root"
        os.chmod(cache, 0o707)
        assert distrust(cache, 1000, str(home)) == f"{cache} is writable by others"
        os.chown(cache, 0, 0)
        os.chmod(cache, 0o770)
        assert distrust(cache, 1000, str(home)) == f"{cache} is writable by its group"

    def test_links_in_a_circle(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        assert "more than 40 symbolic links" in str(distrust(f"{tmp_path}/a"))


def test_environment_is_cleaned() -> None:
    inherited = {
        "PATH": "/bin",
        "HOME": "/h",
        "LC_TIME": "C",
        "XDG_RUNTIME_DIR": "/run",
        "HTTPS_PROXY": "p",
        "SSL_CERT_FILE": "c",
        "SECRET": "s",
        "WANTED": "w",
    }
    never = ["LD_LIBRARY_PATH", "PYTHONSTARTUP", "BASH_ENV", "ENV", "IFS", "GCONV_PATH", "NODE_OPTIONS"]
    never += ["PERLLIB", "PERL5LIB", "PERL5OPT", "DYLD_INSERT_LIBRARIES", "COMPOSEFS_EXT_PATH"]
    kept = clean_environment(inherited | dict.fromkeys(never, "x"), ["WANTED", *never])
    assert sorted(kept) == sorted(
        ["PATH", "HOME", "LC_TIME", "XDG_RUNTIME_DIR", "HTTPS_PROXY", "SSL_CERT_FILE", "WANTED"]
    )
    assert clean_environment({}, [])["PATH"].endswith("/bin")
