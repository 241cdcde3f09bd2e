"""Images in CNCF distribution's registry, put there by skopeo, buildah and podman, read by this extension."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from composefs_ext.errors import NetworkError, NotFoundError, PermissionDeniedError
from composefs_oci.formats.convert import as_oci
from composefs_oci.formats.descriptors import Manifest, parse_config, parse_manifest
from composefs_oci.formats.mediatypes import DOCKER_MANIFEST, OCI_CONFIG, OCI_MANIFEST
from composefs_oci.formats.platform import Platform
from composefs_oci.formats.reference import parse_reference
from composefs_oci.sources.access import Access
from composefs_oci.sources.opening import open_source
from support.commands import CFSCTL, cfsctl, run
from support.oci_images import init, pull
from support.oci_layout import MANIFEST, Layout, simple, tar
from support.oci_registry import ELSEWHERE, PASSWORD, USER, Registry, push, registry
from support.peers import require
from support.proxy import proxy

PLAIN = Access(tls_verify=False)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simple().write(tmp_path_factory.mktemp("layout"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def images(layout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The images of the layout, by the names that a repository keeps them under."""
    found: dict[str, str] = pull(init(tmp_path_factory.mktemp("images") / "repo"), f"oci:{layout}")["images"]
    assert found
    return found


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSEFS_OCI_RETRIES", "1")
    monkeypatch.setenv("COMPOSEFS_OCI_RETRY_DELAY", "0.01")


def read(reference: str, access: Access = PLAIN, platform: Platform | None = None) -> tuple[Manifest, list[bytes]]:
    """Read all of an image; return its manifest and its blobs, the config first."""
    with open_source(parse_reference(reference), access) as source:
        document = source.manifest(platform)
        manifest = parse_manifest(document.raw, document.media_type)
        blobs = []
        for each in (manifest.config, *manifest.layers):
            with source.open_blob(each) as blob:
                blobs.append(b"".join(iter(blob.read, b"")))
    return manifest, blobs


def test_what_skopeo_copied_is_read_as_from_the_layout(plain: Registry, layout: Path) -> None:
    push(f"oci:{layout}", plain.image("dir/app:1"), "--dest-tls-verify=false")
    assert read(plain.image("dir/app:1")) == read(f"oci:{layout}")
    manifest, _ = read(plain.image("dir/app:1"))
    with open_source(parse_reference(plain.image("dir/app:1")), PLAIN) as source:
        digest = source.manifest().digest
    assert read(plain.image(f"dir/app@{digest}"))[0] == manifest


def test_archives_of_skopeo_and_podman(layout: Path, tmp_path: Path) -> None:
    expected = read(f"oci:{layout}")
    for name in ("latest", ""):
        archive = tmp_path / f"x{name}.tar"
        push(f"oci:{layout}", f"oci-archive:{archive}:{name}".rstrip(":"))
        assert read(f"oci-archive:{archive}:{name}".rstrip(":")) == expected


def test_manifests_of_docker_become_oci_s(plain: Registry, layout: Path) -> None:
    push(f"oci:{layout}", plain.image("docker/app:1"), "--dest-tls-verify=false", "--format=v2s2")
    manifest, blobs = read(plain.image("docker/app:1"))
    assert manifest.media_type == DOCKER_MANIFEST
    assert manifest.is_image
    converted = as_oci(manifest)
    original, original_blobs = read(f"oci:{layout}")
    assert (converted.media_type, converted.config.media_type) == (OCI_MANIFEST, OCI_CONFIG)
    assert [layer[:3] for layer in converted.layers] == [layer[:3] for layer in original.layers]
    assert blobs[1:] == original_blobs[1:]
    assert as_oci(converted) is converted


def test_an_image_of_several_platforms_by_buildah(plain: Registry, tmp_path: Path) -> None:
    layout = Layout()
    for name in ("amd64", "arm64"):
        layout.add(layout.image(tar(arch=name.encode()), architecture=name), name)
    path = layout.write(tmp_path / "layout")
    storage = {
        **os.environ,
        "STORAGE_DRIVER": "vfs",
        "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "storage.conf").write_text(
        f'[storage]\ndriver="vfs"\nrunroot="{tmp_path}/runroot"\ngraphroot="{tmp_path}/graph"\n'
    )
    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    buildah = require("buildah")
    for name in ("amd64", "arm64"):
        push(f"oci:{path}:{name}", plain.image(f"multi/{name}:1"), "--dest-tls-verify=false")
    run(buildah, "manifest", "create", "all", env=storage)
    for name in ("amd64", "arm64"):
        image = plain.image(f"multi/{name}:1")
        run(buildah, "manifest", "add", "--tls-verify=false", "all", image, env=storage)
    push_all = ("manifest", "push", "--all", "--tls-verify=false", "all")
    run(buildah, *push_all, plain.image("multi/app:1"), env=storage)
    run(buildah, *push_all, f"oci:{tmp_path}/all:1", env=storage)
    for reference in (plain.image("multi/app:1"), f"oci:{tmp_path}/all:1"):
        for name in ("amd64", "arm64"):
            _, [config, _] = read(reference, platform=Platform("linux", name))
            assert parse_config(config).platform.architecture == name
        with pytest.raises(NotFoundError, match="linux/s390x") as caught:
            read(reference, platform=Platform("linux", "s390x"))
        assert "linux/amd64, linux/arm64" in (caught.value.hint or "")


def test_tags_are_listed_by_the_installed_command(plain: Registry, layout: Path) -> None:
    for tag in ("one", "two", "three"):
        push(f"oci:{layout}", plain.image(f"tags/app:{tag}"), "--dest-tls-verify=false")
    done = cfsctl("oci", "list-tags", "--tls-verify=false", plain.image("tags/app"))
    assert sorted(done.stdout.split()) == ["one", "three", "two"]
    listed = json.loads(cfsctl("oci", "list-tags", "--tls-verify=false", "--json", plain.image("tags/app")).stdout)
    assert sorted(listed["tags"]) == ["one", "three", "two"]
    assert cfsctl("oci", "list-tags", f"oci:{layout.name}", cwd=layout.parent).stdout == "latest\n"


def test_referrers_by_the_tag_schema(plain: Registry, tmp_path: Path) -> None:
    """This registry has no list of its own, so clients keep one behind a tag."""
    layout = simple("app")
    image = layout.entries[0]
    empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}")
    artifact = {"mediaType": MANIFEST, "artifactType": "application/x", "config": empty, "layers": [empty]}
    signature = layout.document(MANIFEST, {**artifact, "subject": image})
    layout.add(signature, "signature")
    layout.add(layout.index({**signature, "artifactType": "application/x"}), "list")
    path = layout.write(tmp_path)
    push(f"oci:{path}:app", plain.image("ref/app:1"), "--dest-tls-verify=false")
    tag = image["digest"].replace(":", "-")
    with open_source(parse_reference(plain.image("ref/app:1")), PLAIN) as source:
        assert source.referrers(image["digest"]) == []
    push(f"oci:{path}:list", plain.image(f"ref/app:{tag}"), "--dest-tls-verify=false", "--all")
    with open_source(parse_reference(plain.image("ref/app:1")), PLAIN) as source:
        [found] = source.referrers(image["digest"])
        assert (found.digest, found.artifact_type) == (signature["digest"], "application/x")
        assert source.document(found).digest == signature["digest"]


def listed(repo: Path) -> list[str]:
    """The names of the images that a repository has."""
    return [each["name"] for each in json.loads(cfsctl("--repo", repo, "oci", "images", "--json").stdout)["images"]]


def test_a_registry_with_a_login(
    layout: Path, images: dict[str, str], tmp_path: Path, hurry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = init(tmp_path / "repo")
    with registry(tmp_path / "registry", login=True) as running:
        push(f"oci:{layout}", running.image("app:1"), "--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}")
        command = ("oci", "list-tags", "--tls-verify=false", running.image("app"))

        done = cfsctl(*command, status=7)
        assert f"skopeo login {running.host}" in done.stderr

        authfile = tmp_path / "auth.json"
        login = (require("skopeo"), "login", "--tls-verify=false", f"--username={USER}", "--password-stdin")
        run(*login, f"--authfile={authfile}", running.host, input=PASSWORD)
        assert cfsctl(*command, "--authfile", authfile).stdout == "1\n"
        assert read(running.image("app:1"), Access(str(authfile), tls_verify=False)) == read(f"oci:{layout}")

        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(authfile))
        assert cfsctl(*command).stdout == "1\n"
        monkeypatch.delenv("REGISTRY_AUTH_FILE")

        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
        (tmp_path / "run/containers").mkdir(parents=True)
        run(*login, running.host, input=PASSWORD)
        assert (tmp_path / "run/containers/auth.json").exists()
        assert cfsctl(*command).stdout == "1\n"

        podman = (require("podman"), "login", "--tls-verify=false", f"--username={USER}", "--password-stdin")
        run(*podman, f"--authfile={tmp_path}/podman.json", running.host, input=PASSWORD)
        facts = pull(repo, running.image("app:1"), "--tls-verify=false", f"--authfile={tmp_path}/podman.json")
        assert facts["images"] == images
        assert listed(repo) == [running.image("app:1")]

        wrong = base64.b64encode(f"{USER}:not-{PASSWORD}".encode()).decode()
        authfile.write_text(json.dumps({"auths": {running.host: {"auth": wrong}}}))
        done = cfsctl("-vv", "--trace", *command, "--authfile", authfile, status=7)
        assert "refuses your login" in done.stderr
        assert '"list-tags"' in done.stderr  # the trace
        assert PASSWORD not in done.stderr
        assert wrong not in done.stderr


@pytest.mark.root
def test_a_directory_that_others_may_not_enter_hides_no_login_behind_it(
    layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root's /run/containers, for who has no XDG_RUNTIME_DIR; but a file that is there is not passed over."""
    hidden, own = tmp_path / "run/containers/auth.json", tmp_path / "config/containers/auth.json"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with registry(tmp_path / "registry", login=True) as running:
        push(f"oci:{layout}", running.image("app:1"), "--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}")
        for path, password in (hidden, "another"), (own, PASSWORD):
            path.parent.mkdir(parents=True)
            key = base64.b64encode(f"{USER}:{password}".encode()).decode()
            path.write_text(json.dumps({"auths": {running.host: {"auth": key}}}))
        command = [CFSCTL, "oci", "list-tags", "--tls-verify=false", running.image("app")]
        user = ["setpriv", "--bounding-set=-all", *command]
        hidden.parent.chmod(0)
        assert run(*user).stdout == "1\n"
        assert f"{hidden}: Permission denied" in run(*user, f"--authfile={hidden}", status=7).stderr
        own.chmod(0)
        assert f"{own}: Permission denied" in run(*user, status=7).stderr


def test_a_credential_helper_is_asked(
    layout: Path, images: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "bin/docker-credential-test"
    helper.parent.mkdir()
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    with registry(tmp_path / "registry", login=True) as running:
        helper.write_text(
            f'#!/bin/sh\n[ "$1" = get ] || exit 2\nread -r server\n'
            f'[ "$server" = {running.host} ] || {{ echo credentials not found; exit 1; }}\n'
            f'printf \'{{"ServerURL": "", "Username": "{USER}", "Secret": "{PASSWORD}"}}\'\n'
        )
        helper.chmod(0o755)
        push(f"oci:{layout}", running.image("app:1"), "--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}")
        command = ("oci", "list-tags", "--tls-verify=false", running.image("app"))
        for settings in ({"credHelpers": {running.host: "test"}}, {"credsStore": "test"}):
            (tmp_path / "docker/config.json").write_text(json.dumps(settings))
            assert cfsctl(*command).stdout == "1\n"
        facts = pull(init(tmp_path / "repo"), running.image("app:1"), "--tls-verify=false")
        assert facts["images"] == images
        helper.write_text(f"#!/bin/sh\necho {PASSWORD}; echo {PASSWORD} >&2; exit 1\n")
        done = cfsctl(*command, status=1)
        assert "docker-credential-test failed" in done.stderr
        assert PASSWORD not in done.stderr


def test_a_registry_with_a_certificate_of_its_own(
    layout: Path, images: dict[str, str], tmp_path: Path, hurry: None
) -> None:
    with registry(tmp_path / "registry", tls=True) as running:
        assert running.certs
        push(f"oci:{layout}", running.image("app:1"), "--dest-tls-verify=false")
        done = cfsctl("oci", "list-tags", running.image("app"), status=6)
        assert "not trusted" in done.stderr
        assert "--cert-dir" in done.stderr
        assert cfsctl("oci", "list-tags", "--cert-dir", running.certs, running.image("app")).stdout == "1\n"
        assert cfsctl("oci", "list-tags", "--tls-verify=false", running.image("app")).stdout == "1\n"
        image = running.image("app:1")
        done = cfsctl("--repo", init(tmp_path / "repo"), "oci", "pull", image, status=6)
        assert "not trusted" in done.stderr
        for number, option in enumerate((f"--cert-dir={running.certs}", "--tls-verify=false")):
            assert pull(init(tmp_path / f"repo{number}"), image, option)["images"] == images
        place = Path(os.environ["HOME"]) / ".config/containers/certs.d" / running.host
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes((running.certs / "ca.crt").read_bytes())
        assert cfsctl("oci", "list-tags", running.image("app")).stdout == "1\n"
        assert read(running.image("app:1"), Access(cert_dir=str(running.certs))) == read(f"oci:{layout}")


def test_a_directory_of_authorities_and_a_proxy_to_an_address(
    layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurry: None
) -> None:
    """SSL_CERT_DIR, as OpenSSL has it, beside the system's authorities; and CONNECT to an address of IPv6."""
    with registry(tmp_path / "registry", tls=True) as running:
        assert running.certs
        push(f"oci:{layout}", running.image("app:1"), "--dest-tls-verify=false")
        monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}/nothing:{running.certs}")
        assert "not trusted" in cfsctl("oci", "list-tags", running.image("app"), status=6).stderr
        run(require("openssl"), "rehash", running.certs)
        assert cfsctl("oci", "list-tags", running.image("app")).stdout == "1\n"
        _, _, port = running.host.rpartition(":")
        elsewhere = f"[{ELSEWHERE}]:{port}"
        with proxy(places={elsewhere: running.host}) as (url, asked):
            monkeypatch.setenv("https_proxy", url)
            assert cfsctl("oci", "list-tags", f"docker://{elsewhere}/app").stdout == "1\n"
            assert asked == [f"CONNECT {elsewhere}"]
            assert cfsctl("oci", "list-tags", running.image("app")).stdout == "1\n"  # on this machine, without it
            assert asked == [f"CONNECT {elsewhere}"]


def test_what_is_not_there(plain: Registry, layout: Path, hurry: None) -> None:
    push(f"oci:{layout}", plain.image("there:1"), "--dest-tls-verify=false")
    for name in ("there:2", "nothing:1", "there@sha256:" + "0" * 64):
        with pytest.raises(NotFoundError) as caught:
            read(plain.image(name))
        assert f"http://{plain.host}/v2/" in caught.value.message
        assert f"cfsctl oci list-tags {plain.image(name.partition(':')[0].partition('@')[0])} shows" in (
            caught.value.hint or ""
        )
    with pytest.raises(NetworkError, match="does not speak TLS"):
        read(plain.image("there:1"), Access())
    with pytest.raises((NetworkError, PermissionDeniedError), match="refused"):
        read("docker://127.0.0.1:1/x")
