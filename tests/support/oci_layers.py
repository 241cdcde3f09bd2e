"""Layers without a registry and a repository: archives taken apart, put together, and made images of by the core."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import zstandard

from composefs import dumpfile, erofs
from composefs.boot import make_bootable
from composefs.digest import SHA256, Algorithm
from composefs.fsverity import Hasher
from composefs.transform import filter_xattrs, propagate_usr_to_root
from composefs.tree import Node, Tree
from composefs_ext.fsverity import fsverity_digest
from composefs_ext.staging import Staging
from composefs_oci.dump import write_tree
from composefs_oci.filesystem import Filesystem
from composefs_oci.formats.digest import digest_of
from composefs_oci.formats.tar import Entry
from composefs_oci.layers.stored import StoredLayer, entries
from composefs_oci.layers.stream import references
from composefs_oci.layers.unpacking import Unpacked, unpack
from support.vectors import DATA


class Pieces:
    """An archive that comes in pieces of one size."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file = io.BytesIO(data)
        self._size = size

    def read(self, size: int, /) -> bytes:
        return self._file.read(min(self._size, size))


class Layers:
    """What a pull would store: objects by id, and the layers, from bottom to top."""

    def __init__(self, directory: Path, algorithm: Algorithm = SHA256) -> None:
        self.algorithm = algorithm
        self.objects: dict[str, bytes] = {}
        self.layers: list[StoredLayer] = []
        self.unpacked: list[Unpacked] = []
        self.staging = Staging(tempfile.mkdtemp(dir=directory))
        self.repo = SimpleNamespace(algorithm=algorithm.name)

    def add(self, data: bytes, *, piece: int = 1 << 20, max_inline: int = 1 << 30) -> StoredLayer:
        """Take an archive apart.  The entries that are told meanwhile are those that its stream has."""
        ids: list[str] = []
        noted: list[tuple[Entry, bytes | int]] = []

        def take(name: str, size: int, _offset: int | None) -> None:
            content = self.staging.read(name)
            assert len(content) == size
            ids.append(fsverity_digest(content, self.algorithm.name))
            self.objects[ids[-1]] = content

        unpacked = unpack(
            Pieces(data, piece),
            self.staging,
            take,
            diff_id=digest_of(data),
            max_inline=max_inline,
            note=lambda entry, content: noted.append((entry, content)),
        )
        assert unpacked.size == len(data)
        inline = self.staging.path_of(unpacked.inline)
        core: Any = self
        layer = StoredLayer(core, digest_of(data), inline, *references(unpacked, ids), len(data))
        told = [(entry, ids[content] if isinstance(content, int) else content) for entry, content in noted]
        assert told == list(entries(layer))
        self.layers.append(layer)
        self.unpacked.append(unpacked)
        return layer

    def object_get(self, object_id: str, into: str) -> Any:
        """What measuring a sparse file wants of the core."""
        Path(self.staging.path_of(into)).write_bytes(self.objects[object_id])
        return SimpleNamespace(result=lambda: None)

    def archive(self, number: int = -1) -> bytes:
        """Put a layer's stream together again."""
        layer, out = self.layers[number], bytearray()
        with open(layer.inline, "rb") as inline:
            for chunk in layer.chunks:
                out += self.objects[layer.object_refs[chunk]] if chunk >= 0 else inline.read(-chunk)
            assert not inline.read()
        return bytes(out)

    def filesystem(self, *, upstream: bool = False) -> Filesystem:
        filesystem = Filesystem(upstream=upstream)
        for layer in self.layers:
            filesystem.apply(layer.name, entries(layer, upstream=upstream))
        return filesystem

    def dump(self, *, upstream: bool = False) -> bytes:
        out = io.BytesIO()
        write_tree(out, self.filesystem(upstream=upstream).root)
        return out.getvalue()

    def tree(
        self, *, bootable: bool = False, xattrs: str = "allowlist-only", upstream: bool = False, has_usr: bool = True
    ) -> Tree:
        """The tree of all layers as an image has it."""
        tree = dumpfile.parse(self.dump(upstream=upstream), self.algorithm)
        if has_usr:
            propagate_usr_to_root(tree)
        filter_xattrs(tree, xattrs)
        if bootable:
            make_bootable(tree, self._content)
        return tree

    def image(self, version: int = 1, **options: Any) -> str:
        """The id of the image of all layers."""
        hasher = Hasher(self.algorithm)
        for part in erofs.write(self.tree(**options), version=version):
            hasher.update(part)
        return hasher.digest().hex()

    def _content(self, _path: bytes, node: Node) -> bytes:
        assert node.digest is not None
        return self.objects[node.digest.hex()]


def run_generator(name: str, *arguments: str | Path) -> None:
    subprocess.run([sys.executable, DATA / name, *map(str, arguments)], check=True)


def archives(layout: Path) -> list[bytes]:
    """The archives of a layout's only image, from bottom to top, inflated."""

    def blob(descriptor: dict[str, Any]) -> bytes:
        return (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()

    manifest = json.loads(blob(json.loads((layout / "index.json").read_text())["manifests"][0]))
    layers = []
    for descriptor in manifest["layers"]:
        data = blob(descriptor)
        if descriptor["mediaType"].endswith("+gzip"):
            data = gzip.decompress(data)
        elif descriptor["mediaType"].endswith("+zstd"):
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        layers.append(data)
    return layers
