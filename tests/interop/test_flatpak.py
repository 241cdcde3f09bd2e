"""Flatpak's repositories and bundles read by us, and Flatpak installing from repositories that we write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands import run
from support.gpg import Keys, keys  # noqa: F401  a fixture
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.peers import require
from support.server import serve

pytestmark = pytest.mark.usefixtures("extensions")

Flatpak = Callable[..., str]


@pytest.fixture
def flatpak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flatpak:
    """Run flatpak for a user who has nothing yet."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name, place in (("DATA", ".local/share"), ("CONFIG", ".config"), ("CACHE", ".cache")):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / place))

    def flatpak(*arguments: str | Path) -> str:
        return run(require("flatpak"), *arguments).stdout

    return flatpak


class Vendor:
    """A Flatpak repository with an app, its runtime and the runtime's translations."""

    def __init__(self, work: Path, flatpak: Flatpak, *signing: str) -> None:
        self.repo = work / "vendor"
        self._work = work
        self._flatpak = flatpak
        self._signing = signing
        arch = flatpak("--default-arch").strip()
        self.runtime = f"runtime/org.example.Platform/{arch}/1"
        self.locale = f"runtime/org.example.Platform.Locale/{arch}/1"
        self.app = f"app/org.example.App/{arch}/stable"

    def release(self, version: str) -> None:
        """Publish everything in a new version."""
        of = f"runtime={self.runtime.removeprefix('runtime/')}"
        extension = "[Extension org.example.Platform.Locale]\ndirectory=share/locale\nautodelete=true\n"
        self._export("1", f"[Runtime]\nname=org.example.Platform\n{of}\n\n{extension}", {"lib/version": version})
        self._export(
            "1",
            f"[Runtime]\nname=org.example.Platform.Locale\n\n[ExtensionOf]\nref={self.runtime}\n",
            {f"{language}/share/messages": f"{language} {version}" for language in ("de", "fr")},
        )
        self._export(
            "stable",
            f"[Application]\nname=org.example.App\n{of}\ncommand=hello\n",
            {"bin/hello": f"#!/bin/sh\necho {version}\n", "share/data": "unchanged " * 10_000},
        )
        self._flatpak("build-update-repo", *self._signing, "--generate-static-deltas", self.repo)

    def _export(self, branch: str, metadata: str, files: dict[str, str]) -> None:
        build = self._work / "build" / str(len(list(self._work.glob("build/*"))))
        for name, content in files.items():
            (build / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            (build / "files" / name).write_text(content)
        (build / "export").mkdir()
        (build / "metadata").write_text(metadata)
        kind = () if metadata.startswith("[Application]") else ("--runtime", "--files=files")
        self._flatpak("build-export", *kind, *self._signing, self.repo, build, branch)

    def commit(self, ref: str) -> str:
        """Return the commit that a ref names there."""
        return (self.repo / "refs/heads" / ref).read_text().strip()


def test_a_bundle_is_a_static_delta(tmp_path: Path, flatpak: Flatpak) -> None:
    vendor = Vendor(tmp_path, flatpak)
    vendor.release("1")
    flatpak("build-bundle", vendor.repo, tmp_path / "app.flatpak", "org.example.App", "stable")
    flatpak("build-bundle", "--runtime", vendor.repo, tmp_path / "runtime.flatpak", "org.example.Platform", "1")
    pulled = Target(tmp_path / "pulled")
    applied = Target(tmp_path / "applied")
    for bundle, ref in (("app.flatpak", vendor.app), ("runtime.flatpak", vendor.runtime)):
        made = applied.json("apply-delta", tmp_path / bundle)
        theirs = pulled.json("pull-local", vendor.repo, ref)
        assert (made["commit"], made["verity"], made["image"]) == (
            vendor.commit(ref),
            theirs["verity"],
            theirs["image"],
        )
    assert applied.json("fsck")["ok"]


def test_flatpak_installs_and_updates_from_what_export_writes(
    tmp_path: Path,
    flatpak: Flatpak,
    keys: Keys,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(keys.gpg.home))
    signing = f"--gpg-sign={keys.good}"
    (tmp_path / "key.gpg").write_bytes(keys.gpg.export(keys.good))
    vendor = Vendor(tmp_path, flatpak, signing)
    ours = Target(tmp_path / "ours")
    exported = tmp_path / "exported"
    refs = (vendor.app, vendor.runtime, vendor.locale)

    def bring() -> list[str]:
        """Pull everything from the vendor, export it, and return what the exports say about it."""
        told = []
        with serve(vendor.repo) as server:
            ours.ostree("remote", "add", "--force", *words, "vendor", server.url)
            ours.ostree("pull", "vendor", vendor.locale, "--subpath=/files/de", "--subpath=/metadata")
            server.forgive()
            ours.ostree("pull", "vendor", vendor.app, vendor.runtime)
            assert server.count("/summary") == 0  # but the part for the architecture, if that has changed
            assert server.count("*.filez") == 0  # but deltas, which only indexes list
            ours.ostree("pull", "vendor", vendor.locale)
        for ref in refs:
            told.append(ours.ostree("export", f"vendor:{ref}", exported, signing).stderr)
            assert (exported / "refs/heads" / ref).read_text().strip() == vendor.commit(ref)
        return told

    def installed() -> dict[str, str]:
        root = Path(os.environ["XDG_DATA_HOME"]) / "flatpak"
        places = {vendor.app: "files/bin/hello", vendor.runtime: "files/lib/version"}
        return {ref: (root / ref / "active" / place).read_text() for ref, place in places.items()}

    words = ("--set=gpg-verify-summary=true", f"--gpg-import={tmp_path / 'key.gpg'}")
    vendor.release("1")
    assert bring() == ["", "", ""]
    with serve(exported) as server:
        flatpak("--user", "remote-add", f"--gpg-import={tmp_path / 'key.gpg'}", "ours", server.url)
        flatpak("--user", "install", "-y", "--noninteractive", "ours", "org.example.App")
        assert installed() == {vendor.app: "#!/bin/sh\necho 1\n", vendor.runtime: "1"}
        vendor.release("2")
        assert bring() == ["", "", ""]
        flatpak("--user", "update", "-y", "--noninteractive")
        assert installed() == {vendor.app: "#!/bin/sh\necho 2\n", vendor.runtime: "2"}
        # Once Flatpak has made an index there, its clients read nothing else, and only Flatpak makes it anew.
        flatpak("build-update-repo", signing, exported)
        vendor.release("3")
        for told in bring():
            assert f"flatpak build-update-repo {exported}" in told
        flatpak("--user", "update", "-y", "--noninteractive")
        assert installed()[vendor.runtime] == "2"
        flatpak("build-update-repo", signing, exported)
        flatpak("--user", "update", "-y", "--noninteractive")
        assert installed() == {vendor.app: "#!/bin/sh\necho 3\n", vendor.runtime: "3"}
        flatpak("--user", "repair")
