"""``cfsctl oci fsck``: every object is whole, and what names them, or what they say, is not what it should be."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from composefs.repository import Repository
from composefs.repository.publication import Publication, RefUpdate, StreamName
from composefs.splitstream import Parts
from composefs_oci import names
from support.commands import cfsctl
from support.oci_images import init, pull
from support.oci_layout import CONFIG, GZIP, MANIFEST, Layout, digest, tar

SMALL, LARGE, OTHER = tar(small=b"s" * 3000), tar(large=b"l" * 300_000), tar(other=b"o" * 3000)
NOTHING = digest(b"")
SEAL = "sha256:" + "ab" * 32


def sealed(image: str, *layers: str) -> bytes:
    """Return a config that demands an image."""
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"containers.composefs.fsverity": image}},
            "rootfs": {"type": "layers", "diff_ids": layers},
        }
    ).encode()


class Image:
    """An image in a repository, whose streams can be made anew."""

    def __init__(self, repository: Repository, manifest: str) -> None:
        self.repository = repository
        self.manifest = manifest
        [config] = [name for name, _ in self.named(names.manifest_stream(manifest)) if name.startswith("config:")]
        self.config = config.removeprefix("config:")

    def named(self, stream: str) -> list[tuple[str, str]]:
        with self.repository.streams.open(self.repository.streams.resolve(stream)) as reader:
            return reader.named_refs

    def layer(self, data: bytes) -> str:
        return self.repository.streams.resolve(names.layer_stream(digest(data)))

    def object(self, object_id: str) -> Path:
        return Path(self.repository.path) / "objects" / object_id[:2] / object_id[2:]

    def objects_of(self, data: bytes) -> list[str]:
        with self.repository.streams.open(self.layer(data)) as reader:
            return list(reader.object_refs())

    def put(self, content_type: str, document: bytes, named: Sequence[tuple[str, str]]) -> str:
        stored = self.repository.objects.store_parts([document]).id
        return self.repository.streams.put(Parts(int(content_type, 16), b"", [0], [stored], named)).id

    def put_again(self, stream: str, named: Sequence[tuple[str, str]]) -> str:
        """Store a stream with the same content that names something else."""
        with self.repository.streams.open(self.repository.streams.resolve(stream)) as reader:
            parts = Parts(reader.content_type, b"", [0], list(reader.object_refs()), named)
        return self.repository.streams.put(parts).id

    def name(self, stream: str, object_id: str, ref: str | None = None) -> None:
        refs = [] if ref is None else [RefUpdate(f"oci/{ref}", stream, "percent")]
        self.repository.publish(Publication(streams=[StreamName(stream, object_id, "replace")], refs=refs))

    def let_manifest_name(self, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        stream = names.manifest_stream(self.manifest)
        self.name(stream, self.put_again(stream, list(change(dict(self.named(stream))).items())))

    def let_config_name(self, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        stream = names.config_stream(self.config)
        config = self.put_again(stream, list(change(dict(self.named(stream))).items()))
        self.let_manifest_name(lambda named: {**named, f"config:{self.config}": config})

    def hold(self, manifest: bytes, config: bytes, *layers: str, images: Sequence[tuple[str, str]] = ()) -> None:
        """Hold documents that nothing looked at, as app."""
        held = [(each, self.repository.streams.resolve(names.layer_stream(each))) for each in layers]
        config_id = self.put(names.CONFIG, config, [*held, *images])
        stream = self.put(names.MANIFEST, manifest, [(f"config:{digest(config)}", config_id), *held])
        self.name(names.manifest_stream(digest(manifest)), stream, "app")


def documents(config: bytes, *layers: bytes) -> tuple[bytes, bytes]:
    """Return manifest and config of an image."""
    layout = Layout()
    rows = [layout.blob(GZIP, gzip.compress(layer, mtime=0)) for layer in layers]
    entry = layout.document(MANIFEST, {"mediaType": MANIFEST, "config": layout.blob(CONFIG, config), "layers": rows})
    return layout.blobs[entry["digest"]], config


def artifact(layout: Layout) -> tuple[bytes, bytes]:
    """Return manifest and config of an artifact with one layer."""
    config = layout.blob("application/vnd.oci.empty.v1+json", b"{}")
    rows = [layout.blob("application/octet-stream", b"a layer")]
    entry = layout.document(MANIFEST, {"mediaType": MANIFEST, "config": config, "layers": rows})
    return layout.blobs[entry["digest"]], b"{}"


def without(named: dict[str, str], *keys: str) -> dict[str, str]:
    return {key: each for key, each in named.items() if key not in keys}


def name_another_config(image: Image) -> None:
    key = f"config:{image.config}"
    image.let_manifest_name(lambda named: {f"config:{NOTHING}": named[key], **without(named, key)})


def hold_rubbish_as_config(image: Image) -> None:
    image.hold(*documents(b"[]"))


def hold_rubbish_as_manifest(image: Image) -> None:
    image.hold(b"[]", b"{}")


def hold_another_document_as_config(image: Image) -> None:
    config = image.put(names.CONFIG, b"{}", image.named(names.config_stream(image.config)))
    image.let_manifest_name(lambda named: {**named, f"config:{image.config}": config})


def tag_what_is_no_image(image: Image) -> None:
    image.name("oci-other", image.repository.streams.resolve(names.manifest_stream(image.manifest)), "app")


def lose_a_file(image: Image) -> None:
    image.object(image.objects_of(LARGE)[0]).unlink()


def lose_a_layer(image: Image) -> None:
    image.object(image.layer(LARGE)).unlink()


def lose_an_image(image: Image) -> None:
    image.object(dict(image.named(names.config_stream(image.config)))["composefs.image.v1"]).unlink()


CASES: dict[str, tuple[Callable[[Image], object], str]] = {
    "a tag of something else": (tag_what_is_no_image, "ref-resolve-failed: app: 'oci-other' is not the name of an OCI"),
    "no config": (
        lambda image: image.let_manifest_name(lambda named: without(named, f"config:{image.config}")),
        "manifest-read-failed: app: oci-manifest-{manifest} names 0 configs, not one",
    ),
    "two configs": (
        lambda image: image.let_manifest_name(lambda named: {**named, f"config:{NOTHING}": image.layer(LARGE)}),
        "manifest-read-failed: app: oci-manifest-{manifest} names 2 configs, not one",
    ),
    "another config": (name_another_config, f"config-ref-missing: app: its stream names the config {NOTHING}, not "),
    "no manifest": (hold_rubbish_as_manifest, "manifest-parse-failed: app: "),
    "a layer as config": (
        lambda image: image.let_manifest_name(lambda named: {**named, f"config:{image.config}": image.layer(LARGE)}),
        "config-read-failed: app: oci-config-{config} has the content type 726579616c69636f, not 67666e6f6369636f",
    ),
    "another document": (
        hold_another_document_as_config,
        f"config-digest-mismatch: app: {{config}} has the digest {digest(b'{}')}",
    ),
    "no document": (hold_rubbish_as_config, "config-parse-failed: app: "),
    "a layer that is not named": (
        lambda image: image.let_manifest_name(lambda named: without(named, digest(LARGE))),
        f"layer-ref-missing: app: the manifest's stream does not name {digest(LARGE)}",
    ),
    "another layer": (
        lambda image: image.let_manifest_name(lambda named: {**named, digest(LARGE): image.layer(SMALL)}),
        f"layer-digest-mismatch: app: {digest(LARGE)} has the digest {digest(SMALL)}",
    ),
    "a lost layer": (lose_a_layer, f"layer-object-missing: app: {digest(LARGE)}: "),
    "a lost file": (lose_a_file, f"layer-object-missing: app: {digest(LARGE)}: No such file or directory"),
    "a document as layer": (
        lambda image: image.let_manifest_name(
            lambda named: {**named, digest(LARGE): image.repository.objects.store_parts([b"no stream"]).id}
        ),
        f"layer-check-failed: app: {digest(LARGE)}: ",
    ),
    "an artifact": (
        lambda image: image.hold(*artifact(Layout())),
        f"artifact-layer-ref-missing: app: the manifest's stream does not name {digest(b'a layer')}",
    ),
    "a lost image": (lose_an_image, "image-missing: app: composefs.image.v1: "),
    "another image": (
        lambda image: image.let_config_name(lambda named: {**named, "composefs.image.v1": named[digest(LARGE)]}),
        "image-mismatch: app: composefs.image.v1: ",
    ),
    "an image that was demanded": (
        lambda image: image.hold(*documents(sealed(SEAL))),
        f"seal-image-missing: app: the image {SEAL} that its config demands is not here",
    ),
}
"""What is done to an image, and what is told of it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository with one image, and the digest of its manifest."""
    directory = tmp_path_factory.mktemp("fsck")
    layout = Layout()
    layout.add(layout.image(SMALL, LARGE))
    facts = pull(init(directory / "repo"), f"oci:{layout.write(directory / 'layout')}", "app")
    return directory / "repo", facts["manifest"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_with_an_image_is_told(tmp_path: Path, whole: tuple[Path, str], case: str) -> None:
    source, manifest = whole
    repo = shutil.copytree(source, tmp_path / "repo", symlinks=True)
    change, words = CASES[case]
    with Repository.open(repo, writable=True) as repository:
        image = Image(repository, manifest)
        change(image)
    report = cfsctl("--repo", repo, "oci", "fsck", status=1).stdout
    assert f"  - fsck: {words.format(manifest=manifest, config=image.config)}" in report
    assert "oci images: 0/1 ok\noci errors: 1\n" in report
    assert report.endswith("cfsctl oci pull --repair fetches again what is damaged\n")


def test_an_image_with_several_problems_is_one_image(tmp_path: Path, whole: tuple[Path, str]) -> None:
    source, manifest = whole
    repo = shutil.copytree(source, tmp_path / "repo", symlinks=True)
    with Repository.open(repo, writable=True) as repository:
        Image(repository, manifest).let_manifest_name(lambda named: without(named, digest(SMALL), digest(LARGE)))
    assert "oci images: 0/1 ok\noci errors: 2\n" in cfsctl("--repo", repo, "oci", "fsck", status=1).stdout
    report = json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)
    assert (report["images_checked"], report["images_corrupted"], len(report["errors"])) == (1, 1, 2)


@pytest.mark.parametrize("prefix", ["", "sha256:"])
def test_an_image_that_was_demanded_and_is_here(tmp_path: Path, whole: tuple[Path, str], prefix: str) -> None:
    source, manifest = whole
    repo = shutil.copytree(source, tmp_path / "repo", symlinks=True)
    layers = [digest(SMALL), digest(LARGE)]
    with Repository.open(repo, writable=True) as repository:
        image = Image(repository, manifest)
        kept = dict(image.named(names.config_stream(image.config)))["composefs.image.v1"]
        config = sealed(prefix + kept, *layers)
        image.hold(*documents(config, SMALL, LARGE), *layers, images=[("composefs.image.v1", kept)])
    assert cfsctl("--repo", repo, "oci", "fsck").stdout.endswith("oci images: 1/1 ok\n")
