"""The Debian packages: built, looked through by lintian, installed into a clean system, used there, and purged."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from support.commands import run
from support.nginx import Certificates, make_certificates, nginx
from support.oci_layout import simple
from support.oci_registry import push, registry
from support.peers import require
from support.server import listening, serve

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("composefs", "composefs-ext-dev", "composefs-oci", "composefs-ostree", "python3-composefs-ext")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RELEASE = "trixie"
LONG = 1200
"""Seconds after which a build or an installation that hangs is killed."""

# What dpkg, apt and ldconfig keep for themselves, and what the test put there.
NOT_OURS = (
    "var/lib/dpkg",
    "var/lib/apt",
    "var/cache/apt",
    "var/cache/ldconfig",
    "var/log",
    "srv",
    "tmp",
    "proc",
    "dev",
)


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the packages from what git knows of; return the directory that they are in."""
    require("dpkg-buildpackage")
    home = tmp_path_factory.mktemp("deb")
    # The checkout may be another user's, as where it is mounted into a container.
    git = ("git", "-c", f"safe.directory={ROOT}", "-C", ROOT)
    names = run(*git, "ls-files", "-co", "--exclude-standard", "-z").stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (home / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, home / "source" / name, follow_symlinks=False)
    environment = {**os.environ, "PATH": SYSTEM_PATH}
    run("dpkg-buildpackage", "-us", "-uc", "-b", cwd=home / "source", env=environment, timeout=LONG)
    shutil.rmtree(home / "source")
    assert sorted(path.name.partition("_")[0] for path in home.glob("*.deb")) == list(PACKAGES)
    return home


@pytest.fixture(scope="module")
def clean_root(debs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the smallest Debian system that has what the packages depend on, but not them; keep it for the next time."""
    require("mmdebstrap")
    needed: set[str] = set()
    for deb in debs.glob("*.deb"):
        control = run("dpkg-deb", "-f", deb, "Depends").stdout
        needed |= {word.split("(")[0].split(":")[0].strip() for word in control.split(",")}
    include = ",".join(sorted(needed - set(PACKAGES) - {""}))
    key = hashlib.sha256(f"{RELEASE} {include}".encode()).hexdigest()[:16]
    cache = Path(os.environ.get("COMPOSEFS_TESTS_CACHE") or Path("~root").expanduser() / ".cache/composefs-tests")
    archive = cache / f"debian-{key}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        made = archive.with_suffix(f".{os.getpid()}.tar")
        options = ("--variant=apt", f"--include={include}", "--aptopt=APT::Install-Recommends false")
        run("mmdebstrap", *options, RELEASE, made, env={**os.environ, "PATH": SYSTEM_PATH}, timeout=LONG)
        made.rename(archive)
    root = tmp_path_factory.mktemp("root")
    root.chmod(0o755)
    run("tar", "-C", root, "--numeric-owner", "--exclude=./dev/*", "-xf", archive)
    return root


def inside(root: Path, *command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in the system, with its own mounts of /proc and /dev that vanish with it."""
    mounts = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
    environment = {"PATH": SYSTEM_PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return run("unshare", "-m", "sh", "-c", mounts, root, *command, status=status, env=environment, timeout=LONG)


def files(root: Path) -> set[str]:
    """Every path in the system that is not the package manager's own."""
    found = set()
    for directory, names, others in os.walk(root):
        place = os.path.relpath(directory, root)
        names[:] = [name for name in names if os.path.normpath(f"{place}/{name}") not in NOT_OURS]
        found |= {os.path.normpath(f"{place}/{name}") for name in (*names, *others)}
    return found


@contextmanager
def demanding(certificates: Certificates) -> Iterator[str]:
    """A server that ends connections without a certificate by the alert of TLS 1.3, and waits until that was read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            tls = context.wrap_socket(self.connection, server_side=True, do_handshake_on_connect=False)
            with suppress(ssl.SSLError):
                tls.do_handshake()
            with socket.socket(fileno=tls.detach()) as connection:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

    with listening(Handler) as place:
        yield f"https://{place.replace('127.0.0.1', 'localhost')}"


@pytest.mark.root
def test_lintian_finds_no_errors(debs: Path) -> None:
    require("lintian")
    [changes] = debs.glob("*.changes")
    run("lintian", "--allow-root", "--fail-on", "error", changes, timeout=LONG)


@pytest.mark.root
def test_the_main_job_from_installed_packages(debs: Path, clean_root: Path, tmp_path: Path) -> None:
    """The core alone says what is missing; with ostree it pulls; purged, nothing is left."""
    root = clean_root
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/hello").write_bytes(b"hello\n" * 1000)
    archive = root / "srv/archive"
    run("ostree", f"--repo={archive}", "init", "--mode=archive")
    owners = ("--owner-uid=0", "--owner-gid=0")
    run("ostree", f"--repo={archive}", "commit", "--branch=os", "--timestamp=@1", *owners, f"--tree=dir={tree}")
    before = files(root)
    for deb in debs.glob("*.deb"):
        shutil.copy(deb, root / "srv")

    def install(*names: str) -> None:
        inside(root, "dpkg", "-i", *(f"/srv/{next(debs.glob(f'{name}_*.deb')).name}" for name in names))

    install("composefs")
    missing = inside(root, "cfsctl", "ostree", "images", status=3).stderr
    assert "apt install composefs-ostree" in missing
    assert "pip install composefs-ostree" in missing
    assert "pip install composefs-oci" in inside(root, "cfsctl", "oci", "images", status=3).stderr
    assert "install" not in inside(root, "cfsctl", "flatpak", "images", status=2).stderr
    install("python3-composefs-ext", "composefs-ostree", "composefs-oci", "composefs-ext-dev")
    assert "/usr/libexec/composefs/ext/ostree" in inside(root, "cfsctl", "ext", "list").stdout

    repo = ("--repo", "/srv/repo")
    inside(root, "cfsctl", "init", "--insecure", "/srv/repo")
    # The libraries for HTTP are Debian's here, and older than what pip installs for the other tests.
    with serve(archive) as server:
        inside(root, "cfsctl", *repo, "ostree", "pull", server.url, "os")
    # So is that for TLS: GnuTLS, which reads other keys for clients than OpenSSL.
    certificates = make_certificates(root / "srv/tls")
    keys = {"ca-path": "ca.pem", "client-cert-path": "client.pem", "client-key-path": "client.key"}
    settings = [f"--set=tls-{key}=/srv/tls/{name}" for key, name in keys.items()]
    with nginx(tmp_path / "nginx", archive, certificates=certificates, clients=True) as server:
        inside(root, "cfsctl", *repo, "ostree", "remote", "add", "--no-gpg-verify", "o", server.url, *settings)
        inside(root, "cfsctl", *repo, "--ext-read", "/srv/tls", "ostree", "pull", "o", "os")
    with demanding(certificates) as url:
        inside(root, "cfsctl", *repo, "ostree", "remote", "add", "--no-gpg-verify", "d", url, settings[0])
        told = inside(root, "cfsctl", *repo, "--ext-read", "/srv/tls", "ostree", "pull", "d", "os", status=6).stderr
        assert f"{url}/config: the server wants a client certificate (" in told
    with registry(tmp_path / "registry") as running:
        push(f"oci:{simple().write(tmp_path / 'layout')}:latest", running.image("app"), "--dest-tls-verify=false")
        inside(root, "cfsctl", *repo, "oci", "pull", "--tls-verify=false", running.image("app"), "app")
    assert "app" in inside(root, "cfsctl", *repo, "oci", "images").stdout
    image = inside(root, "cfsctl", *repo, "ostree", "compute-id", "os").stdout.split()[-1]
    assert (root / "srv/repo/images" / image).is_symlink()
    assert "/usr/bin/hello 6000 " in inside(root, "cfsctl", *repo, "ostree", "dump", "os").stdout
    inside(root, "cfsctl", *repo, "--ext-user", "nobody", "ostree", "images")
    inside(root, "cfsctl", *repo, "fsck")
    dump = "cfsctl --no-repo --hash sha256 create-dumpfile --no-propagate-usr-to-root /usr/bin"
    inside(root, "sh", "-c", f"{dump} | mkcomposefs --from-file - /srv/image")
    assert "/cfsctl " in inside(root, "composefs-info", "dump", "/srv/image").stdout
    for name in ("sbin/mount.composefs", "share/man/man8/mount.composefs.8.gz", "share/man/man1/cfsctl-ostree.1.gz"):
        assert (root / "usr" / name).exists()
    for package, page in {"composefs": "repository", "composefs-ostree": "ostree", "composefs-oci": "oci"}.items():
        assert (root / f"usr/share/doc/{package}/{page}.md.gz").exists()
    for name in ("bash-completion/completions/cfsctl", "zsh/vendor-completions/_cfsctl"):
        assert "cfsctl" in (root / "usr/share" / name).read_text()
    assert "cfsctl" in (root / "usr/share/fish/vendor_completions.d/cfsctl.fish").read_text()

    inside(root, "dpkg", "--purge", *PACKAGES)
    left = files(root) - before - {"root/.cache"}
    assert {name for name in left if not name.startswith("root/.cache/")} == set()
