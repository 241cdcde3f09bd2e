"""Images that other programs made, or that are byte for byte theirs, become text, and the same image again."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from composefs import dumpfile, erofs
from composefs.digest import SHA256, SHA512, Algorithm
from composefs.erofs.reader import Image, Lookup, ReadRules, read_objects, read_tree
from composefs.tree import Tree, walk
from support import peers
from support.commands import BIN, run
from support.dumps import generate_dump, recorded, row_name
from support.recorded import RECORDED, answers, unpack

ROWS = recorded("images.json")
INFO = BIN / "composefs-info"


def _image(tree: Tree, version: int, compat: str) -> bytes:
    assert compat in ("rs", "c")
    return b"".join(erofs.write(tree, version=version, compat="c" if compat == "c" else "rs"))


def _text(tree: Tree, style: str) -> bytes:
    assert style in ("rs", "c")
    text = io.BytesIO()
    dumpfile.write(tree, text.write, style="c" if style == "c" else "rs")
    return text.getvalue()


def _first_names_are_real(tree: Tree) -> bool:
    """Whether the first name of each hard link group, depth first, is the real one: then images can be made again."""
    first: dict[int, bool] = {}
    for _, directory, name, node in walk(tree.root):
        if node.home is not None:
            first.setdefault(id(node), node.home == (directory, name))
    return all(first.values())


@pytest.mark.parametrize("row", [row for row in ROWS if "v0" in row], ids=row_name)
def test_images_of_the_c_tool_become_text_and_the_same_image_again(row: dict[str, Any], tmp_path: Path) -> None:
    source = dumpfile.parse(generate_dump(row), SHA256)
    for version in (0, 1):
        image = _image(source, version, "c")
        assert hashlib.sha256(image).hexdigest() == row[f"v{version}"]["image_sha256"]
        (tmp_path / "image").write_bytes(image)
        text = subprocess.run([INFO, "dump", tmp_path / "image"], check=True, capture_output=True).stdout
        again = _image(dumpfile.parse(text, SHA256), version, "c")
        assert again == image or not _first_names_are_real(source)
        assert _text(read_tree(Image(again), ReadRules("c")), "c") == text


@pytest.mark.parametrize("row", [row for row in ROWS if "v2" in row], ids=row_name)
def test_images_of_composefs_rs_become_text_and_the_same_image_again(row: dict[str, Any]) -> None:
    algorithm = SHA512 if "--algorithm=sha512" in row["flags"] else SHA256
    source = dumpfile.parse(generate_dump(row), algorithm)
    for version in (0, 1, 2):
        image = _image(source, version, "rs")
        if f"v{version}" in row:
            assert hashlib.sha256(image).hexdigest() == row[f"v{version}"]["image_sha256"]
        tree = read_tree(Image(image), ReadRules("rs", algorithm))
        assert _image(tree, version, "rs") == image
        text = _text(tree, "rs")
        assert _image(dumpfile.parse(text, algorithm), version, "rs") == image
        assert text == _text(source, "rs") or version == 2 or b"user.overlay.opaque" in _text(source, "rs")
        assert read_objects(Image(image), algorithm, strict=True).keys() == source.objects().keys()


def test_the_rows_cover_both_sides_of_the_condition() -> None:
    conditions = {
        _first_names_are_real(dumpfile.parse(generate_dump(row), SHA256))
        for row in ROWS
        if "v0" in row and row["seed"] < 8
    }
    assert conditions == {True, False}


@pytest.mark.vectors
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_images(name: str, tmp_path: Path) -> None:
    repo, told = unpack(name, tmp_path), answers(name)
    algorithm: Algorithm = SHA512 if "sha512" in told["algorithm"] else SHA256
    images = [path for path in (repo / "images").iterdir() if path.name != "refs"]
    assert len(images) == 5
    for path in images:
        data = path.read_bytes()
        tree = read_tree(Image(data), ReadRules("rs", algorithm))
        assert Image(data).version == told["erofs_version"]
        assert _image(tree, told["erofs_version"], "rs") == data
        expected = next(each for each in told["commands"] if each["argv"] == ["image-objects", path.name])
        ids = read_objects(Image(data), algorithm, strict=True)
        assert sorted(f"{algorithm}:{each}" for each in ids) == expected["sorted"]


@pytest.mark.vectors
@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_dump_is_that_of_an_image(name: str, tmp_path: Path) -> None:
    repo, told = unpack(name, tmp_path), answers(name)
    algorithm = SHA512 if "sha512" in told["algorithm"] else SHA256
    dumps = {
        hashlib.sha256(_text(read_tree(Image(path.read_bytes()), ReadRules("rs", algorithm)), "rs")).hexdigest()
        for path in (repo / "images").iterdir()
        if path.name != "refs"
    }
    recorded_dumps = {
        each["sha256"]
        for each in told["commands"]
        # Those of `oci dump` are made of the layers, so they have the nanoseconds that an image of format 2 has not.
        if each["argv"][1:2] == ["dump"] and (told["erofs_version"] < 2 or each["argv"][0] == "ostree")
    }
    assert len(recorded_dumps) == (4 if told["erofs_version"] < 2 else 2)
    assert recorded_dumps <= dumps


@pytest.mark.parametrize("options", [(), ("-Eforce-inode-extended",), ("-Enoinline_data",), ("-Eforce-inode-compact",)])
def test_images_of_mkfs_erofs(options: tuple[str, ...], tmp_path: Path) -> None:
    peers.require("mkfs.erofs")
    source, image = tmp_path / "source", tmp_path / "image"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "deep" / "file").write_bytes(b"content")
    (source / "deep" / "block").write_bytes(bytes(range(256)) * 16)
    (source / "link").symlink_to("deep/file")
    (source / "hard").hardlink_to(source / "deep" / "file")
    os.mkfifo(source / "fifo")
    for number in range(500):
        (source / "deep" / "er" / f"{number:03}{'x' * 40}").touch()
    run("mkfs.erofs", "-T1700000000", *options, image, source)
    tree = read_tree(Image(image.read_bytes()), ReadRules("c"))
    assert Image(image.read_bytes()).version is None
    found = {path: node for path, _, _, node in walk(tree.root)}
    assert set(found) == {b"/" + os.fsencode(path.relative_to(source)) for path in source.rglob("*")}
    assert found[b"/deep/file"].content == b"content"
    assert found[b"/deep/file"] is found[b"/hard"]
    assert found[b"/deep/block"].content == bytes(range(256)) * 16
    assert found[b"/link"].payload == b"deep/file"
    assert {node.mtime for node in found.values()} == {(1700000000, 0)}
    assert found[b"/deep/er"].size > 4096
    lookup = Lookup(Image(image.read_bytes()), ReadRules("c"))
    assert set(lookup.children(b"deep/er")) == {os.fsencode(path.name) for path in (source / "deep" / "er").iterdir()}
    assert lookup.node(b"/deep/er/499" + b"x" * 40).mode == found[b"/deep/er/499" + b"x" * 40].mode
    assert run(INFO, "dump", image).stdout.count("\n") == len(found) + 1


def test_images_of_mkfs_erofs_with_compression_are_refused(tmp_path: Path) -> None:
    peers.require("mkfs.erofs")
    source, image = tmp_path / "source", tmp_path / "image"
    source.mkdir()
    (source / "file").write_bytes(b"many the same" * 10000)
    run("mkfs.erofs", "-zlz4", image, source)
    assert "data layout that is not supported" in run(INFO, "dump", image, status=1).stderr
