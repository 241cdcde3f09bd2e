"""Manifests, indexes, configs: what is read of them, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from composefs_ext.errors import FormatError, TooLargeError, UnsupportedError
from composefs_oci.formats import mediatypes
from composefs_oci.formats.descriptors import parse_config, parse_index, parse_manifest, type_of
from composefs_oci.formats.json_document import MAX_DOCUMENT
from composefs_oci.formats.mediatypes import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from composefs_oci.formats.platform import Platform

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha512:" + "cd" * 64


def descriptor(media_type: str = mediatypes.OCI_CONFIG, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 7, **fields}


def manifest(**fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": descriptor(), "layers": [], **fields}).encode()


def index(**fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": [], **fields}).encode()


def config(**fields: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [DIGEST, OTHER]}
    return json.dumps({"architecture": "arm64", "os": "linux", "rootfs": rootfs, **fields}).encode()


def test_a_manifest() -> None:
    layer = descriptor(
        "application/vnd.oci.image.layer.v1.tar+zstd", digest=OTHER, size=2**40, annotations={"a": "b"}, urls=["x"]
    )
    raw = manifest(
        mediaType=OCI_MANIFEST,
        layers=[layer, descriptor()],
        subject=descriptor(OCI_MANIFEST),
        artifactType="application/x",
        annotations={"k": "v"},
        something={"else": [1]},
    )
    parsed = parse_manifest(raw, OCI_MANIFEST)
    assert parsed.raw == raw
    assert parsed.is_image
    assert parsed.layers[0].digest == OTHER
    assert parsed.layers[0].size == 2**40
    assert parsed.layers[0].annotations == {"a": "b"}
    assert parsed.layers[0].urls == ("x",)
    assert parsed.subject is not None
    assert parsed.subject.media_type == OCI_MANIFEST
    assert (parsed.artifact_type, parsed.annotations) == ("application/x", {"k": "v"})


def test_artifacts_are_told_from_images() -> None:
    for media_type, is_image in (
        (mediatypes.OCI_CONFIG, True),
        (mediatypes.DOCKER_CONFIG, True),
        ("application/vnd.oci.empty.v1+json", False),
        ("application/vnd.cncf.helm.config.v1+json", False),
    ):
        assert parse_manifest(manifest(config=descriptor(media_type)), OCI_MANIFEST).is_image is is_image


def test_an_index() -> None:
    entry = descriptor(OCI_MANIFEST, platform={"os": "linux", "architecture": "arm", "variant": "v7"})
    parsed = parse_index(index(manifests=[entry, descriptor(OCI_MANIFEST)]), OCI_INDEX)
    assert [each.platform for each in parsed] == [Platform("linux", "arm", "v7"), None]


def test_a_config() -> None:
    raw = config(created="2026-01-02T03:04:05Z", variant="v8", config={"Labels": {"a": "b"}}, history=[{}])
    parsed = parse_config(raw)
    assert parsed.platform == Platform("linux", "arm64", "v8")
    assert parsed.diff_ids == (DIGEST, OTHER)
    assert (parsed.created, parsed.labels) == ("2026-01-02T03:04:05Z", {"a": "b"})
    assert parse_config(config(config={"Labels": None}, created=None)).labels == {}


@pytest.mark.parametrize(
    ("data", "served_as", "expected"),
    [
        (manifest(), OCI_MANIFEST, OCI_MANIFEST),
        (manifest(), f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST),
        (manifest(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (manifest(mediaType=DOCKER_MANIFEST), "application/json", DOCKER_MANIFEST),
        (manifest(mediaType=OCI_MANIFEST), "", OCI_MANIFEST),
        (index(mediaType=DOCKER_INDEX), "text/plain", DOCKER_INDEX),
        (manifest(), "", OCI_MANIFEST),
        (index(), "application/octet-stream", OCI_INDEX),
    ],
)
def test_the_type_of_a_document(data: bytes, served_as: str, expected: str) -> None:
    assert type_of(data, served_as, "it") == expected


@pytest.mark.parametrize(
    ("data", "served_as"),
    [
        (manifest(mediaType=OCI_MANIFEST), DOCKER_MANIFEST),
        (manifest(mediaType=OCI_INDEX), OCI_MANIFEST),
        (manifest(manifests=[]), ""),
        (index(layers=[]), ""),
        (index(config=descriptor()), ""),
        (b"{}", ""),
        (b'{"schemaVersion": 2}', "text/html"),
        (manifest(mediaType="application/x"), "application/x"),
        (b"<html>", OCI_MANIFEST),
    ],
)
def test_documents_of_two_minds_or_of_none(data: bytes, served_as: str) -> None:
    with pytest.raises(FormatError):
        type_of(data, served_as, "it")


@pytest.mark.parametrize("served_as", [*sorted(mediatypes.DOCKER_SCHEMA1), "application/json"])
def test_schema_1_is_named(served_as: str) -> None:
    with pytest.raises(UnsupportedError, match="schema 1") as caught:
        type_of(b'{"schemaVersion": 1, "name": "x", "fsLayers": []}', served_as, "it")
    assert caught.value.hint


MANY = [descriptor()] * 4097

BAD_MANIFESTS = {
    "not an object": b"[]",
    "not JSON": b"{",
    "two documents": manifest() + b"{}",
    "bytes that are not UTF-8": manifest().replace(b"schema", b"sch\xff"),
    "the same key twice": b'{"schemaVersion": 2,' + manifest()[1:],
    "the same key twice below": manifest().replace(b'"size": 7', b'"size": 8, "size": 7'),
    "the same key in other letters": manifest(Layers=[]),
    "only a key in other letters": manifest().replace(b'"layers"', b'"LAYERS"'),
    "a key in letters that are folded": manifest(x=[]).replace(b'"x"', b'"layer\\u017f"'),
    "a key in other letters below": manifest(config=descriptor(Digest=OTHER)),
    "a platform's key in other letters": manifest(config=descriptor(platform={"OS": "linux"})),
    "NaN": manifest(x=float("nan")),
    "Infinity": manifest(x=float("inf")),
    "deep": manifest(x=0).replace(b'"x": 0', b'"x": ' + b"[" * 100 + b"]" * 100),
    "very deep": b"[" * 1_000_000,
    "deep objects": b'{"a":' * 200_000,
    "a huge number": manifest().replace(b'"size": 7', b'"size": ' + b"9" * 100_000),
    "version 1": manifest(schemaVersion=1),
    "version true": manifest(schemaVersion=True),
    "no version": json.dumps({"config": descriptor(), "layers": []}).encode(),
    "another type": manifest(mediaType=OCI_INDEX),
    "a list of manifests too": manifest(manifests=[]),
    "no config": manifest(config=None),
    "config no object": manifest(config=[]),
    "layers no list": manifest(layers={}),
    "layers no objects": manifest(layers=["x"]),
    "too many layers": manifest(layers=MANY),
    "size missing": manifest(config={"mediaType": mediatypes.OCI_CONFIG, "digest": DIGEST}),
    "size negative": manifest(config=descriptor(size=-1)),
    "size a fraction": manifest(config=descriptor(size=1.5)),
    "size a truth": manifest(config=descriptor(size=True)),
    "size beyond": manifest(config=descriptor(size=2**53)),
    "digest short": manifest(config=descriptor(digest=DIGEST[:-1])),
    "digest of another sort": manifest(config=descriptor(digest="md5:" + "a" * 32)),
    "digest a path": manifest(config=descriptor(digest="sha256:../../etc/passwd")),
    "type missing": manifest(config={"digest": DIGEST, "size": 7}),
    "type empty": manifest(config=descriptor("")),
    "type with a line": manifest(config=descriptor("a/b\nc")),
    "type with an escape": manifest(config=descriptor("a/b; c=\x1b[0m")),
    "type without a slash": manifest(config=descriptor("text")),
    "annotations no strings": manifest(annotations={"a": 1}),
    "annotations a list": manifest(annotations=[]),
    "artifactType a number": manifest(artifactType=1),
    "subject a string": manifest(subject="x"),
    "platform a string": manifest(config=descriptor(platform="linux")),
    "too many urls": manifest(config=descriptor(urls=["x"] * 65)),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_bad_manifests_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_manifest(BAD_MANIFESTS[name], OCI_MANIFEST, "the manifest of x")
    assert caught.value.message.startswith("the manifest of x")
    assert len(caught.value.message) < 500
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        config(rootfs=None),
        config(rootfs={"type": "other", "diff_ids": []}),
        config(rootfs={"type": "layers", "diff_ids": [DIGEST, "sha256:x"]}),
        config(rootfs={"type": "layers", "diff_ids": DIGEST}),
        config(rootfs={"type": "layers", "diff_ids": [1]}),
        config(rootfs={"type": "layers", "diff_ids": [DIGEST] * 4097}),
        config(os=1),
        config(config={"Labels": {"a": None}}),
        config(config="x"),
        config(config={"Labels": {"a": "b"}, "labels": {"a": "c"}}),
        config(config={"Labels": None, "labels": {"a": "c"}}),
        config(config={"LABELS": {"a": "b"}, "labels": {"a": "c"}}),
        config(RootFS={"type": "layers", "diff_ids": []}),
        config(rootfs={"type": "layers", "diff_ids": [DIGEST], "Diff_IDs": []}),
    ],
)
def test_bad_configs(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_config(data)


def test_keys_that_nothing_is_read_from_may_have_any_letters() -> None:
    """Labels and annotations are names of their own, and so are fields that are read elsewhere."""
    labels = {"name": "a", "Name": "b"}
    assert parse_config(config(Size=7, Digest="x", config={"Labels": labels, "cmd": None})).labels == labels
    assert parse_manifest(manifest(annotations=labels, Size=7), OCI_MANIFEST).annotations == labels


@pytest.mark.parametrize("annotations", [{"a": 1}, []], ids=["numbers", "a list"])
def test_bad_annotations_of_an_index(annotations: object) -> None:
    with pytest.raises(FormatError, match="annotations is not an object of strings"):
        parse_index(index(annotations=annotations))


def test_an_index_is_not_a_manifest() -> None:
    for data in (index(config=descriptor()), index(layers=[]), index(mediaType=OCI_MANIFEST), manifest()):
        with pytest.raises(FormatError):
            parse_index(data, OCI_INDEX) if data != manifest() else parse_index(data, OCI_MANIFEST)
    with pytest.raises(FormatError):
        parse_manifest(index(), OCI_INDEX)


def test_documents_have_a_size() -> None:
    padding = " " * MAX_DOCUMENT
    with pytest.raises(TooLargeError):
        parse_manifest(manifest(x=padding), OCI_MANIFEST)
    with pytest.raises(FormatError, match="characters"):
        parse_manifest(manifest(artifactType="x" * 70_000), OCI_MANIFEST)


@pytest.mark.parametrize(
    ("media_type", "ours"),
    [
        ("application/vnd.oci.image.layer.v1.tar", None),
        ("application/vnd.oci.image.layer.v1.tar+gzip", None),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", None),
        ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
    ],
)
def test_layers_of_files(media_type: str, ours: str | None) -> None:
    assert mediatypes.is_tar_layer(media_type)
    assert mediatypes.oci_layer_type(media_type) == (ours or media_type)


def test_other_layers() -> None:
    for media_type in ("application/vnd.oci.image.layer.v1.tar+xz", "application/vnd.oci.empty.v1+json", "text/plain"):
        assert not mediatypes.is_tar_layer(media_type)
        assert mediatypes.oci_layer_type(media_type) == media_type
