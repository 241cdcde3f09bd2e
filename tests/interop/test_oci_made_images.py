"""Images that umoci, buildah and podman make are here what umoci unpacks of them, wherever they are pulled from.

What is compared, file by file, are names, types, modes, owners, times, devices, contents, targets, attributes and hard
links.
"""

from __future__ import annotations

import bz2
import json
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from support.commands import cfsctl, run, the_error
from support.oci_compare import Tree, as_image, check_same, of_directory, of_image
from support.oci_images import init, pull
from support.oci_layout import Layout, tar
from support.oci_made import Containers, Umoci, change, fill, unpack
from support.oci_registry import Registry, push, registry
from support.peers import require

NAME = "app"
REMEDY = "--dest-compress-format=gzip"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def umoci(tmp_path_factory: pytest.TempPathFactory) -> Umoci:
    """A layout with images of umoci: ``one`` has a layer, ``two`` another, ``three`` one that hides a directory."""
    directory = tmp_path_factory.mktemp("umoci")
    made = Umoci(directory / "layout")
    made.new("one")
    fill(made.unpack("one", directory / "first"))
    made.repack("one", directory / "first")
    made.config("one", "two", "--config.label=name=two")
    change(made.unpack("two", directory / "second"))
    made.repack("two", directory / "second")
    made.config("two", "three", "--config.user=1000:100")
    (directory / "inserted").mkdir(mode=0o711)
    (directory / "inserted/only").write_bytes(b"what there is left" * 9)
    os.utime(directory / "inserted", (1_650_000_000, 1_650_000_000))
    made.insert("three", directory / "inserted", "/usr/lib", "--opaque")
    return made


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return init(tmp_path / "repo")


def check(repo: Path, source: str, expected: Tree, *options: str) -> dict[str, str]:
    """Pull and compare; return the images."""
    images: dict[str, str] = pull(repo, source, NAME, *options)["images"]
    check_same(of_image(repo, NAME), expected)
    return images


@pytest.mark.parametrize("tag", ["one", "two", "three"])
def test_umoci(umoci: Umoci, served: Registry, repo: Path, tmp_path: Path, tag: str) -> None:
    rootfs = umoci.unpack(tag, tmp_path / "bundle")
    expected = as_image(of_directory(rootfs))
    local = f"oci:{umoci.layout}:{tag}"
    images = check(repo, local, expected)
    assert (b"/usr/lib/only" in expected) == (tag == "three")
    assert (b"/usr/bin/size64" in expected) == (tag == "one")

    # The directory itself, read by another command, gives the same image.
    found = cfsctl("--repo", repo, "compute-id", "--xattrs=allowlist-only", rootfs).stdout
    assert images["composefs.image.v1"] in found

    push(local, f"oci-archive:{tmp_path}/image.tar:{tag}")
    push(local, served.image(f"umoci:{tag}"), "--dest-tls-verify=false")
    for number, source in enumerate((f"oci-archive:{tmp_path}/image.tar", served.image(f"umoci:{tag}"))):
        again = init(tmp_path / f"repo{number}")
        assert check(again, source, expected, "--tls-verify=false") == images


@pytest.mark.parametrize(
    "options",
    [
        ("--dest-compress-format=zstd",),
        ("--dest-compress-format=zstd:chunked",),
        ("--dest-compress-format=zstd:chunked", "--format=oci"),
        ("--dest-decompress",),
        ("--format=v2s2",),
    ],
    ids=" ".join,
)
def test_what_skopeo_copies_in_another_form(
    umoci: Umoci, served: Registry, repo: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    expected = as_image(of_directory(umoci.unpack("two", tmp_path / "bundle")))
    if "--dest-decompress" in options:
        source = f"oci:{tmp_path}/plain:two"
        push(f"oci:{umoci.layout}:two", f"dir:{tmp_path}/dir", *options)
        push(f"dir:{tmp_path}/dir", source)
    else:
        source = served.image(f"skopeo/{abs(hash(options))}:two")
        push(f"oci:{umoci.layout}:two", source, "--dest-tls-verify=false", *options)
    check(repo, source, expected, "--tls-verify=false")


@pytest.mark.parametrize(("kind", "ours"), [("docker-archive", "oci-archive"), ("dir", "oci")])
def test_another_sort_of_image_can_be_copied_as_we_say(
    umoci: Umoci, repo: Path, tmp_path: Path, kind: str, ours: str
) -> None:
    """What docker and podman save is easily taken for an OCI archive."""
    push(f"oci:{umoci.layout}:two", f"{kind}:{tmp_path}/what is saved")
    error = the_error("--repo", repo, "oci", "pull", f"{ours}:{tmp_path}/what is saved", NAME, status=3)
    _, _, command = error.rstrip(")\n").partition("(copy it first: ")
    run("sh", "-c", command, cwd=tmp_path)
    check(repo, f"oci-archive:{tmp_path}/image.tar", as_image(of_directory(umoci.unpack("two", tmp_path / "bundle"))))


def with_a_large_window(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=28)
    ).compressobj()
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("compress", "words", "status"),
    [
        (bz2.compress, "the layer is compressed with bzip2", 9),
        (lzma.compress, "the layer is compressed with xz", 9),
        (with_a_large_window, "the zstd data can be read with more than 128 MiB of memory only", 8),
    ],
    ids=["bzip2", "xz", "window"],
)
def test_what_is_compressed_otherwise_is_refused_and_the_remedy_helps(
    repo: Path, tmp_path: Path, compress: Callable[[bytes], bytes], words: str, status: int
) -> None:
    layout = Layout()
    layout.add(layout.image(tar(a=b"x" * 100), compress=compress), "1")
    source = f"oci:{layout.write(tmp_path / 'layout')}:1"
    told = the_error("--repo", repo, "oci", "pull", source, NAME, status=status)
    assert words in told
    assert f"skopeo copy {REMEDY} … oci:PATH:TAG" in told
    push(source, f"oci:{tmp_path}/again:1", REMEDY)
    pull(repo, f"oci:{tmp_path}/again:1", NAME)


def test_an_encrypted_layer_is_refused_and_the_remedy_helps(repo: Path, tmp_path: Path) -> None:
    run(require("openssl"), "genrsa", "-out", tmp_path / "key", "2048")
    run(require("openssl"), "rsa", "-in", tmp_path / "key", "-pubout", "-out", tmp_path / "public")
    layout = Layout()
    layout.add(layout.image(tar(a=b"x" * 100)), "1")
    source, secret = f"oci:{layout.write(tmp_path / 'layout')}:1", f"oci:{tmp_path}/secret:1"
    push(source, secret, f"--encryption-key=jwe:{tmp_path}/public")
    told = the_error("--repo", repo, "oci", "pull", secret, NAME, status=9)
    assert "+encrypted, no archive of files (have it decrypted: skopeo copy --decryption-key FILE … oci:PATH" in told
    push(secret, f"oci:{tmp_path}/again:1", "--decryption-key", tmp_path / "key")
    assert pull(repo, f"oci:{tmp_path}/again:1", NAME)["images"] == pull(repo, source, "other")["images"]


def test_buildah_and_podman(served: Registry, repo: Path, tmp_path: Path) -> None:
    made = Containers(tmp_path / "storage")

    container = made.buildah("from", "scratch")
    fill(Path(made.buildah("mount", container)))
    made.buildah("config", "--label=name=first", "--cmd=/usr/bin/size1", container)
    made.buildah("commit", "--quiet", container, "first")
    second = made.buildah("from", "--pull-never", "localhost/first")
    change(Path(made.buildah("mount", second)))
    made.buildah("commit", "--quiet", second, "second")

    context = tmp_path / "context"
    (context / "added").mkdir(parents=True)
    (context / "added/file").write_bytes(b"added" * 30)
    (context / "Containerfile").write_text(
        "FROM localhost/second\n"
        "COPY --chown=11:12 --chmod=640 added/file /opt/deep/er/file\n"
        "ADD added /usr/lib/old2\n"
        "LABEL built=yes\n"
    )
    made.buildah("build", "--quiet", "--layers", "--pull=never", "--isolation=chroot", "--tag=built", context)
    made.podman("build", "--quiet", "--pull=never", "--isolation=chroot", "--tag=podman", context)
    made.podman("save", "--quiet", "--format=oci-archive", f"--output={tmp_path}/podman.tar", "localhost/podman")
    push(f"oci-archive:{tmp_path}/podman.tar", f"oci:{tmp_path}/podman:x")
    podman = as_image(of_directory(unpack(f"{tmp_path}/podman:x", tmp_path / "bundle podman")))
    check(repo, f"oci-archive:{tmp_path}/podman.tar", podman)
    assert podman[b"/usr/lib/old2/file"].content == podman[b"/opt/deep/er/file"].content

    for number, name in enumerate(("first", "second", "built")):
        made.buildah("push", "--quiet", f"localhost/{name}", f"oci:{tmp_path}/layout:{name}")
        image = served.image(f"buildah/{name}:1")
        made.buildah("push", "--quiet", "--tls-verify=false", f"--format={('oci', 'v2s2')[number % 2]}", name, image)
        rootfs = unpack(f"{tmp_path}/layout:{name}", tmp_path / f"bundle {name}")
        expected = as_image(of_directory(rootfs))
        images = check(repo, f"oci:{tmp_path}/layout:{name}", expected)
        again = init(tmp_path / f"repo {name}")
        assert check(again, image, expected, "--tls-verify=false") == images


def test_an_index_of_buildah(served: Registry, repo: Path, tmp_path: Path) -> None:
    """The image of each platform, from a registry and a layout, by --platform."""
    made = Containers(tmp_path / "storage")
    made.buildah("manifest", "create", "all")
    for number, platform in enumerate(("linux/amd64", "linux/arm64", "linux/arm/v7")):
        context = tmp_path / f"context{number}"
        context.mkdir()
        (context / "file").write_text(platform * 20)
        (context / "Containerfile").write_text("FROM scratch\nCOPY file /usr/file\n")
        made.buildah("build", "--quiet", f"--platform={platform}", "--manifest=all", "--isolation=chroot", context)
    made.buildah("manifest", "push", "--quiet", "--all", "--tls-verify=false", "all", served.image("multi:1"))
    made.buildah("manifest", "push", "--quiet", "--all", "all", f"oci:{tmp_path}/layout:multi")
    seen = []
    for number, platform in enumerate(("linux/amd64", "linux/arm64", "linux/arm/v7")):
        for source in (served.image("multi:1"), f"oci:{tmp_path}/layout:multi"):
            pull(repo, source, NAME, f"--platform={platform}", "--tls-verify=false")
            tree = of_image(repo, NAME)
            size = (tmp_path / f"context{number}/file").stat().st_size
            assert size == len(platform) * 20
            seen.append(tree[b"/usr/file"].content)
        assert len(set(seen)) == number + 1
    done = cfsctl("--repo", repo, "oci", "pull", "--platform=linux/s390x", f"oci:{tmp_path}/layout:multi", status=3)
    assert "linux/arm/v7" in done.stderr


def test_an_index_of_buildah_with_several_compressions(served: Registry, repo: Path, tmp_path: Path) -> None:
    made = Containers(tmp_path / "storage")
    made.buildah("manifest", "create", "both")
    (tmp_path / "context").mkdir()
    (tmp_path / "context/file").write_text("x" * 1000)
    (tmp_path / "context/Containerfile").write_text("FROM scratch\nCOPY file /usr/file\n")
    made.buildah("build", "--quiet", "--manifest=both", "--isolation=chroot", tmp_path / "context")
    pulled = []
    for name, options in (("one", []), ("both", ["--add-compression=zstd"])):
        image = served.image(f"{name}:1")
        made.buildah("manifest", "push", "--quiet", "--all", "--tls-verify=false", *options, "both", image)
        pulled.append(pull(repo, image, name, "--tls-verify=false"))
        [layer] = json.loads(cfsctl("--repo", repo, "oci", "inspect", "--manifest", name).stdout)["layers"]
        assert layer["mediaType"].endswith("+zstd" if options else "+gzip")
    assert pulled[0]["images"] == pulled[1]["images"]
    assert pulled[0]["manifest"] != pulled[1]["manifest"]
