"""Layouts, in directories and archives: finding the image, and everything that may be wrong with them."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from composefs_ext.errors import (
    CorruptError,
    ExtError,
    FormatError,
    NotFoundError,
    TooLargeError,
    UnsupportedError,
)
from composefs_oci.formats.descriptors import Descriptor, parse_manifest
from composefs_oci.formats.platform import Platform, native
from composefs_oci.sources.archive import ArchiveFiles
from composefs_oci.sources.layout import DirectoryFiles, LayoutSource
from support.oci_layout import GZIP, MANIFEST, Layout, digest, simple, tar

ARM = Platform("linux", "arm64")


def directory(path: Path, tag: str | None = None) -> LayoutSource:
    return LayoutSource(DirectoryFiles(str(path)), tag)


def archive(path: Path, tag: str | None = None) -> LayoutSource:
    return LayoutSource(ArchiveFiles(str(path)), tag)


def platform(**fields: str) -> dict[str, dict[str, str]]:
    return {"platform": {"os": "linux", **fields}}


def test_what_is_no_layout_is_no_image_of_another_sort_for_a_file_alone(tmp_path: Path) -> None:
    """An unpacked archive of docker save has one, which skopeo does not take, and so has many a web site."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/manifest.json").write_text("[]")
    (tmp_path / "odd/manifest.json").mkdir(parents=True)
    (tmp_path / "odd/version").touch()
    with tarfile.open(tmp_path / "odd.tar", "w") as odd:
        odd.add(tmp_path / "odd", "")
    for opens, name in ((directory, "site"), (directory, "odd"), (archive, "odd.tar")):
        with pytest.raises(NotFoundError, match="oci-layout is missing") as caught:
            opens(tmp_path / name)
        assert caught.value.hint == "check the path"


@pytest.mark.parametrize("tag", [None, "latest"])
@pytest.mark.parametrize("kind", ["directory", "gnu", "pax", "ustar", "dotted"])
def test_an_image_is_found_and_read(tmp_path: Path, kind: str, tag: str | None) -> None:
    layout = simple()
    if kind == "directory":
        source = directory(layout.write(tmp_path / "layout"), tag)
    else:
        formats = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}
        prefix = "./" if kind == "dotted" else ""
        source = archive(layout.archive(tmp_path / "x.tar", formats.get(kind, tarfile.GNU_FORMAT), prefix), tag)
    with source:
        document = source.manifest()
        assert (document.digest, document.media_type) == (layout.entries[0]["digest"], MANIFEST)
        manifest = parse_manifest(document.raw, document.media_type)
        for each in (manifest.config, *manifest.layers):
            with source.open_blob(each) as blob:
                assert blob.read_all() == layout.blobs[each.digest]
        assert source.tags() == ["latest"]
        assert source.referrers(document.digest) == []


def test_two_blobs_can_be_read_at_a_time(tmp_path: Path) -> None:
    source = archive(simple().archive(tmp_path / "x.tar"))
    layers = parse_manifest(source.manifest().raw, MANIFEST).layers
    one, two = map(source.open_blob, layers)
    read = [(one.read(10), two.read(10)) for _ in range(5)]
    assert b"".join(first for first, _ in read) == source.open_blob(layers[0]).read_all()[:50]


def test_the_tag_decides(tmp_path: Path) -> None:
    layout = Layout()
    layout.add(layout.image(tar(a=b"1")), "one")
    layout.add(layout.image(tar(a=b"2")), "two")
    path = layout.write(tmp_path)
    assert directory(path, "two").manifest().digest == layout.entries[1]["digest"]
    with pytest.raises(NotFoundError, match="three") as caught:
        directory(path, "three").manifest()
    assert "one, two" in (caught.value.hint or "")
    with pytest.raises(NotFoundError, match="several images") as caught:
        directory(path).manifest()
    assert "one, two" in (caught.value.hint or "")
    assert directory(path).tags() == ["one", "two"]


def test_one_image_with_two_tags_needs_no_tag(tmp_path: Path) -> None:
    layout = Layout()
    entry = layout.image(tar(a=b"1"))
    layout.add(entry, "one")
    layout.add(entry, "two")
    assert directory(layout.write(tmp_path)).manifest().digest == entry["digest"]


@pytest.mark.parametrize("is_nested", [False, True])
def test_the_platform_decides(tmp_path: Path, is_nested: bool) -> None:
    layout = Layout()
    images = [layout.image(tar(a=name.encode()), architecture=name) for name in ("amd64", "arm64", "s390x")]
    entries = [
        {**image, **platform(architecture=name)}
        for image, name in zip(images, ("amd64", "arm64", "s390x"), strict=True)
    ]
    attestation = {**layout.image(tar()), "platform": {"os": "unknown", "architecture": "unknown"}}
    if is_nested:
        layout.add(layout.index(layout.index(*entries, attestation)), "latest")
    else:
        for entry in [*entries, attestation]:
            layout.add(entry)
    path = layout.write(tmp_path)
    assert directory(path).manifest(ARM).digest == images[1]["digest"]
    if native().architecture == "amd64":
        assert directory(path).manifest().digest == images[0]["digest"]
    with pytest.raises(NotFoundError, match="linux/riscv64") as caught:
        directory(path).manifest(Platform("linux", "riscv64"))
    assert caught.value.hint == "it has linux/amd64, linux/arm64, linux/s390x: choose with --platform"


def test_what_is_for_no_platform_is_not_offered(tmp_path: Path) -> None:
    layout = Layout()
    for name in ("", "unknown"):
        layout.add({**layout.image(tar(a=b"1")), "platform": {"os": name, "architecture": name}}, "1")
    with pytest.raises(NotFoundError, match="has no image for linux/arm64") as caught:
        directory(layout.write(tmp_path), "1").manifest(ARM)
    assert (caught.value.hint or "").startswith("nothing there says for which platform it is: have the image pushed ")


def test_two_images_for_one_platform_are_not_chosen_from(tmp_path: Path) -> None:
    layout = Layout()
    entries = [{**layout.image(tar(a=name)), **platform(architecture="arm64")} for name in (b"1", b"2")]
    layout.add(layout.index(*entries))
    with pytest.raises(FormatError, match="2 images fit linux/arm64"):
        directory(layout.write(tmp_path)).manifest(ARM)


def test_of_one_image_with_several_compressions_that_with_zstd_is_taken(tmp_path: Path) -> None:
    """The first one: a later one may be for those alone who know what else is said of it."""
    layout = Layout()
    zstd = {"annotations": {"io.github.containers.compression.zstd": "true"}}
    images = [layout.image(tar(a=name)) for name in (b"1", b"2", b"3")]
    entries = [{**image, **platform(architecture="arm64")} for image in images]
    layout.add(layout.index(entries[0], {**entries[1], **zstd}, {**entries[2], **zstd}), "zstd")
    other = {"annotations": {"io.github.containers.compression.zstd": "false"}}
    layout.add(layout.index(entries[0], {**entries[1], **other}), "other")
    path = layout.write(tmp_path)
    assert directory(path, "zstd").manifest(ARM).digest == images[1]["digest"]
    with pytest.raises(FormatError, match="2 images fit linux/arm64"):
        directory(path, "other").manifest(ARM)


def test_an_image_by_its_number(tmp_path: Path) -> None:
    layout = Layout()
    for name, tag in ((b"0", None), (b"1", "one"), (b"2", "@0")):
        layout.add(layout.image(tar(a=name)), tag)
    path = layout.write(tmp_path)
    for number, entry in enumerate(layout.entries):
        assert directory(path, f"@{number}").manifest().digest == entry["digest"]
    for tag in ("@3", "@-1", "@999999", "@9999999", "@", "@1x", "@\u0661"):
        with pytest.raises(NotFoundError, match="has no image with the tag"):
            directory(path, tag).manifest()


def test_without_tags_there_are_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="has no image with the tag 'latest'") as caught:
        directory(simple(None).write(tmp_path), "latest").manifest()
    assert ":@0" in (caught.value.hint or "")
    directory(tmp_path, "@0").manifest()


def test_indexes_in_indexes_end(tmp_path: Path) -> None:
    layout = Layout()
    entry = layout.image(tar())
    for _ in range(10):
        entry = layout.index(entry)
    layout.add(entry)
    with pytest.raises(FormatError, match="deep"):
        directory(layout.write(tmp_path)).manifest()


def test_referrers_are_found_by_their_subject(tmp_path: Path) -> None:
    layout = simple()
    image = layout.entries[0]
    empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}")
    artifact = {"mediaType": MANIFEST, "artifactType": "application/x-sig", "config": empty, "layers": [empty]}
    signature = layout.document(MANIFEST, {**artifact, "subject": image, "annotations": {"k": "v"}})
    gone = {**image, "digest": digest(b"gone")}
    layout.add(signature)
    layout.add(gone)
    layout.add(layout.index(gone, layout.document(MANIFEST, {**artifact, "subject": empty})))
    source = directory(layout.write(tmp_path))
    [found] = source.referrers(image["digest"])
    assert (found.digest, found.artifact_type, found.annotations) == (
        signature["digest"],
        "application/x-sig",
        {"k": "v"},
    )
    assert source.document(found).digest == signature["digest"]


def test_a_chain_of_referrers_is_followed_in_one_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading all documents for each of them would take hours for what a hostile layout may hold."""
    layout, count = simple(), 50
    empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}")
    chain = [layout.entries[0]]
    for number in range(count):
        artifact = {"mediaType": MANIFEST, "config": empty, "layers": [], "annotations": {"number": str(number)}}
        chain.append(layout.document(MANIFEST, {**artifact, "subject": chain[-1]}))
        layout.add(chain[-1])
    source = directory(layout.write(tmp_path))
    opened: list[str] = []
    open_blob = source.open_blob
    monkeypatch.setattr(source, "open_blob", lambda each: opened.append(each.digest) or open_blob(each))
    for number in range(count):
        [found] = source.referrers(chain[number]["digest"])
        assert (found.digest, found.annotations) == (chain[number + 1]["digest"], {"number": str(number)})
    assert source.referrers(chain[-1]["digest"]) == []
    assert len(opened) == len(chain) + count


def test_a_walk_to_referrers_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = simple()
    layout.add(layout.index(*[layout.image(tar(x=b"%d" % number)) for number in range(3)]))
    source = directory(layout.write(tmp_path))
    monkeypatch.setattr("composefs_oci.sources.layout._MAX_DOCUMENTS", 4)
    with pytest.raises(FormatError, match=r"index\.json leads to more than 4 documents"):
        source.referrers("sha256:" + "0" * 64)
    monkeypatch.setattr("composefs_oci.sources.layout._MAX_DOCUMENTS", 5)
    assert source.referrers("sha256:" + "0" * 64) == []


def test_a_walk_to_referrers_reads_each_document_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often indexes name it: with thousands of names in each of four levels it would never end."""
    layout = simple()
    inner = layout.index(*[layout.entries[0]] * 20)
    outer = layout.index(*[inner] * 20, layout.blob("application/octet-stream", b"no document"))
    layout.add(outer)
    source = directory(layout.write(tmp_path))
    opened: list[str] = []
    open_blob = source.open_blob
    monkeypatch.setattr(source, "open_blob", lambda each: opened.append(each.digest) or open_blob(each))
    assert source.referrers("sha256:" + "0" * 64) == []
    assert opened == [layout.entries[0]["digest"], outer["digest"], inner["digest"]]


def test_a_missing_blob_is_named(tmp_path: Path) -> None:
    layout = simple()
    path = layout.write(tmp_path)
    manifest = parse_manifest(directory(path).manifest().raw, MANIFEST)
    victim = path / "blobs" / manifest.layers[0].digest.replace(":", "/")
    victim.unlink()
    with pytest.raises(NotFoundError, match=manifest.layers[0].digest.partition(":")[2]):
        directory(path).open_blob(manifest.layers[0])


@pytest.mark.parametrize(("change", "message"), [("flip", "digest"), ("short", "ends after"), ("long", "longer")])
@pytest.mark.parametrize("what", ["manifest", "layer"])
def test_every_blob_is_checked(tmp_path: Path, what: str, change: str, message: str) -> None:
    layout = simple()
    path = layout.write(tmp_path)
    layer = parse_manifest(directory(path).manifest().raw, MANIFEST).layers[0]
    name = layout.entries[0]["digest"] if what == "manifest" else layer.digest
    victim = path / "blobs" / name.replace(":", "/")
    data = victim.read_bytes()
    victim.write_bytes(
        {"flip": data[:9] + bytes([data[9] ^ 1]) + data[10:], "short": data[:-1], "long": data + b" "}[change]
    )
    source = directory(path)
    with source.open_blob(layer) as blob, pytest.raises(CorruptError, match=message) as caught:
        source.manifest() if what == "manifest" else blob.read_all()
    assert str(victim) in caught.value.message


def test_a_descriptor_of_another_type_is_refused(tmp_path: Path) -> None:
    layout = simple()
    layout.entries[0]["mediaType"] = "application/vnd.oci.image.index.v1+json"
    with pytest.raises(FormatError, match="was said to be"):
        directory(layout.write(tmp_path)).manifest()


def test_a_small_document_has_its_limit(tmp_path: Path) -> None:
    data = b" " * (5 << 20)
    layout = Layout()
    blob = layout.blob(GZIP, data)
    layout.add(layout.image(tar()))
    source = directory(layout.write(tmp_path))
    with source.open_blob(Descriptor(GZIP, blob["digest"], blob["size"])) as opened, pytest.raises(TooLargeError):
        opened.read_all()


@pytest.mark.parametrize(
    ("path", "data", "error"),
    [
        ("oci-layout", None, NotFoundError),
        ("oci-layout", b"{}", FormatError),
        ("oci-layout", b'{"imageLayoutVersion": "2.0.0"}', UnsupportedError),
        ("oci-layout", b" " * 100_000, TooLargeError),
        ("index.json", None, NotFoundError),
        ("index.json", b"", FormatError),
        ("index.json", b" " * (5 << 20), TooLargeError),
        ("index.json", json.dumps({"schemaVersion": 2, "manifests": [{}]}).encode(), FormatError),
        ("index.json", json.dumps({"schemaVersion": 2, "manifests": []}).encode(), NotFoundError),
    ],
)
def test_what_is_no_layout(tmp_path: Path, path: str, data: bytes | None, error: type[ExtError]) -> None:
    where = simple().write(tmp_path)
    if data is None:
        (where / path).unlink()
    else:
        (where / path).write_bytes(data)
    with pytest.raises(error) as caught:
        directory(where).manifest()
    assert path in caught.value.message


@pytest.mark.parametrize("kind", ["directory", "fifo", "dangling"])
def test_odd_files_are_not_waited_for(tmp_path: Path, kind: str) -> None:
    where = simple().write(tmp_path)
    victim = where / "index.json"
    victim.unlink()
    if kind == "directory":
        victim.mkdir()
    elif kind == "fifo":
        os.mkfifo(victim)
    else:
        victim.symlink_to("nowhere")
    with pytest.raises((FormatError, NotFoundError), match=r"index\.json"):
        directory(where)


def test_paths_that_are_the_other_kind(tmp_path: Path) -> None:
    path = simple().archive(tmp_path / "x.tar")
    with pytest.raises(NotFoundError) as caught:
        directory(path)
    assert "oci-archive:" in (caught.value.hint or "")
    with pytest.raises(NotFoundError) as caught:
        archive(tmp_path)
    assert "oci:" in (caught.value.hint or "")
    with pytest.raises(NotFoundError):
        archive(tmp_path / "missing.tar")


@pytest.mark.parametrize(
    ("magic", "command"),
    [
        (gzip.compress(b"x", mtime=0), "gzip -dc"),
        (b"\x28\xb5\x2f\xfd", "zstd -dc"),
        (b"\xfd7zXZ\0\0", "xz -dc"),
        (b"BZh9", "bzip2"),
    ],
)
def test_compressed_archives_are_refused_with_the_remedy(tmp_path: Path, magic: bytes, command: str) -> None:
    (tmp_path / "x.tar").write_bytes(magic + bytes(2000))
    with pytest.raises(UnsupportedError) as caught:
        archive(tmp_path / "x.tar")
    assert command in (caught.value.hint or "")


@pytest.mark.parametrize("data", [b"", b"short", b"x" * 4096, b"PK\3\4" + bytes(2000)])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(ExtError, match=r"x\.tar"):
        archive(tmp_path / "x.tar")


def test_archives_cut_off(tmp_path: Path) -> None:
    whole = simple().archive(tmp_path / "x.tar").read_bytes()
    for length in (300, 700, 1500, 4000):
        (tmp_path / "x.tar").write_bytes(whole[:length])
        with pytest.raises(ExtError, match=r"x\.tar"):
            archive(tmp_path / "x.tar").manifest()
    with tarfile.open(fileobj=io.BytesIO(whole)) as members:
        ends = [each.offset_data + each.size for each in members]
    for end in ends:
        (tmp_path / "x.tar").write_bytes(whole[: end - 1])
        with pytest.raises(FormatError, match=r"x\.tar is cut off"):
            archive(tmp_path / "x.tar")
    (tmp_path / "x.tar").write_bytes(whole[: ends[-1]])  # what is missing is padding
    archive(tmp_path / "x.tar").manifest()


def test_of_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    layout = simple()
    path = layout.archive(tmp_path / "x.tar")
    layout.add(layout.image(tar(new=b"new")), "new")
    with tarfile.open(path, mode="a") as out:
        for name, data in layout.files().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    assert archive(path, "new").manifest().digest == layout.entries[-1]["digest"]


def test_links_in_archives_are_not_followed(tmp_path: Path) -> None:
    layout = simple()
    path = layout.archive(tmp_path / "x.tar")
    with tarfile.open(path, mode="a") as out:
        info = tarfile.TarInfo("index.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(info)
    with pytest.raises(FormatError, match="not a regular file") as caught:
        archive(path)
    assert caught.value.hint == "have the image pushed or copied there again"


def test_an_archive_s_extended_headers_are_bounded(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 2 << 20
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(3 << 20))
    with pytest.raises(FormatError, match="extended header"):
        archive(path)


@pytest.mark.parametrize("size", ["-1", "x", "9" * 5000], ids=["negative", "letters", "thousands of digits"])
def test_members_of_an_archive_whose_size_is_none(tmp_path: Path, size: str) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"size": size}
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    with pytest.raises(FormatError, match=r"x\.tar is cut off"):
        archive(path)


def test_long_names_in_an_archive_take_no_memory(tmp_path: Path) -> None:
    path = simple().archive(tmp_path / "x.tar")
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as out:
        for number in range(20):
            out.addfile(tarfile.TarInfo(f"{number:02}" + "n" * 500_000))
    tracemalloc.start()
    try:
        source = archive(path)
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()
    assert source.manifest().raw


def test_members_of_an_archive_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = simple().archive(tmp_path / "x.tar")
    with tarfile.open(path) as members:
        count = len(members.getnames())
    monkeypatch.setattr("composefs_oci.sources.archive._MAX_MEMBERS", count)
    with pytest.raises(FormatError, match=rf"x\.tar: more than {count} members"):
        archive(path)
    monkeypatch.setattr("composefs_oci.sources.archive._MAX_MEMBERS", count + 1)  # and the end
    assert archive(path).manifest().raw


def test_a_malformed_record_is_told_with_the_archive(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 512
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + b"9999 path=x\n".ljust(512) + bytes(1024))
    with pytest.raises(FormatError, match=r"x\.tar: a pax header has a malformed record"):
        archive(path)
