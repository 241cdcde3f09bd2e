"""The wheels, built the way an installer builds them, and what the installed launchers find.

The source archive is built first and the wheel from that: files that only exist in the checkout would be missing.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from support.commands import run

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = {
    "composefs": "core",
    "composefs_ext": "extensions/sdk",
    "composefs_oci": "extensions/oci",
    "composefs_ostree": "extensions/ostree",
}
EXTENSIONS = ("oci", "ostree")
LIBEXEC = "libexec/composefs/ext/"
LAUNCHER = LIBEXEC + "ostree"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the wheels from their source archives; return them by the name of their package."""
    built = {}
    for name, folder in FOLDERS.items():
        home = tmp_path_factory.mktemp(name)
        run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", home / "sdist", cwd=ROOT / folder)
        [archive] = (home / "sdist").iterdir()
        with tarfile.open(archive) as tar:
            tar.extractall(home / "source", filter="data")
        [source] = (home / "source").iterdir()
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", home / "wheel", cwd=source)
        [built[name]] = (home / "wheel").iterdir()
    return built


def environment_with(folder: Path, *wheels: Path) -> Path:
    """Make a virtual environment with these wheels, which finds their dependencies here; return its folder."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    [packages] = folder.glob("lib/python3.*/site-packages")
    # Third parties' modules only: the editable installs of this workspace come in by .pth files, which are not followed
    # from here.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--force-reinstall", "--disable-pip-version-check", *wheels)
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_a_wheel_is_typed_licensed_and_holds_nothing_but_its_package(wheels: dict[str, Path], name: str) -> None:
    with zipfile.ZipFile(wheels[name]) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(entry for entry in names if entry.endswith(".dist-info/METADATA"))).decode()
        terms = wheel.read(next(entry for entry in names if entry.endswith(".dist-info/licenses/LICENSE")))
    assert f"{name}/py.typed" in names
    assert "License-Expression: MIT" in metadata
    assert terms == (ROOT / "LICENSE").read_bytes()
    modules = {
        path.relative_to(ROOT / FOLDERS[name] / "src").as_posix() for path in (ROOT / FOLDERS[name]).rglob("*.py")
    }
    assert modules <= set(names)
    assert {entry.partition("/")[0].partition("-")[0] for entry in names} == {name}


def test_the_core_ships_the_schemas(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["composefs"]) as wheel:
        schemas = [entry for entry in wheel.namelist() if entry.endswith(".json")]
    assert len(schemas) > 10
    assert all(entry.startswith("composefs/protocol/v1/") for entry in schemas)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_an_extension_ships_an_executable_launcher_and_its_manifest(wheels: dict[str, Path], name: str) -> None:
    with zipfile.ZipFile(wheels[f"composefs_{name}"]) as wheel:
        [launcher] = [entry for entry in wheel.infolist() if entry.filename.endswith(".data/data/" + LIBEXEC + name)]
        assert (launcher.external_attr >> 16) & 0o111 == 0o111
        assert wheel.read(launcher).startswith(b"#!/bin/sh\n")
        manifest = wheel.read(launcher.filename + ".json")
    assert manifest == (ROOT / "extensions" / name / (LIBEXEC + name + ".json")).read_bytes()


def test_the_core_alone_says_how_to_install_a_format(wheels: dict[str, Path], tmp_path: Path) -> None:
    prefix = environment_with(tmp_path / "venv", wheels["composefs"])
    for name in EXTENSIONS:
        assert name not in run(prefix / "bin" / "cfsctl", "ext", "list").stdout
        done = run(prefix / "bin" / "cfsctl", name, "images", status=3)
        assert f"composefs-{name}" in done.stderr


def test_installing_the_extension_is_enough_to_add_it(wheels: dict[str, Path], tmp_path: Path) -> None:
    prefix = environment_with(tmp_path / "venv", *wheels.values())
    cfsctl = prefix / "bin" / "cfsctl"
    listed = run(cfsctl, "ext", "list").stdout
    assert all(str(prefix / LIBEXEC / name) in listed for name in EXTENSIONS)
    run(cfsctl, "init", "--insecure", tmp_path / "repo")
    assert run(cfsctl, "--repo", tmp_path / "repo", "ostree", "images").stdout == "No ostree commits found\n"


def test_a_launcher_works_through_links_and_from_elsewhere(wheels: dict[str, Path], tmp_path: Path) -> None:
    prefix = environment_with(tmp_path / "venv", *wheels.values())
    run(prefix / "bin" / "cfsctl", "init", "--insecure", tmp_path / "repo")
    place = tmp_path / "extensions"
    place.mkdir()
    for suffix in ("", ".json"):
        os.symlink(os.path.relpath(prefix / (LAUNCHER + suffix), place), place / ("ostree" + suffix))
    core = environment_with(tmp_path / "core", wheels["composefs"])
    done = run(
        core / "bin" / "cfsctl",
        *("--repo", tmp_path / "repo", "ostree", "images"),
        env={**os.environ, "COMPOSEFS_EXT_PATH": str(place)},
    )
    assert done.stdout == "No ostree commits found\n"


def test_a_users_own_installation(wheels: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip install --user: everything is in ~/.local, and uninstalled nothing is left."""
    monkeypatch.setenv("HOME", str(tmp_path))
    python = os.path.realpath(sys.executable)  # of the installation, as there is no --user in a virtual environment
    site = Path(run(python, "-c", "import site; print(site.getusersitepackages())").stdout.strip())
    site.mkdir(parents=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    quietly = ("--quiet", "--no-deps", "--no-index", "--break-system-packages")
    run(*pip, "install", "--user", "--force-reinstall", "--no-warn-script-location", *quietly, *wheels.values())
    cfsctl = tmp_path / ".local/bin/cfsctl"
    run(cfsctl, "init", "--insecure", tmp_path / "repo")
    assert str(tmp_path / ".local" / LAUNCHER) in run(cfsctl, "ext", "list").stdout
    assert run(cfsctl, "--repo", tmp_path / "repo", "ostree", "images").stdout == "No ostree commits found\n"
    names = [name.replace("_", "-") for name in wheels]
    run(*pip, "uninstall", "--quiet", "--yes", "--break-system-packages", *names)
    left = [path for path in (tmp_path / ".local").rglob("*") if not path.is_dir()]
    assert left == [site / "dependencies.pth"]


def test_an_installation_in_usr_local(wheels: dict[str, Path], tmp_path: Path) -> None:
    """The distribution's Python, with its own packages as dependencies; our /usr/local vanishes with its mount."""
    script = f"""
    mount -t tmpfs none /usr/local
    pip() {{ /usr/bin/python3 -m pip "$@" --quiet --break-system-packages --root-user-action=ignore; }}
    pip install --no-deps --no-index {" ".join(map(str, wheels.values()))}
    cd /usr/local && bin/cfsctl init --insecure {tmp_path}/repo
    bin/cfsctl ext list
    bin/cfsctl --repo {tmp_path}/repo ostree images
    pip uninstall --yes {" ".join(name.replace("_", "-") for name in wheels)}
    find /usr/local -type f
    """
    environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = run("unshare", "-m", "sh", "-euc", script, env=environment)
    assert f"/usr/local/{LAUNCHER}" in done.stdout
    assert done.stdout.endswith("No ostree commits found\n")
