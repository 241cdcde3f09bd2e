"""OCI layouts for tests, blob by blob, right or wrong as a test wants them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image"
MANIFEST = f"{OCI}.manifest.v1+json"
INDEX = f"{OCI}.index.v1+json"
CONFIG = f"{OCI}.config.v1+json"
GZIP = f"{OCI}.layer.v1.tar+gzip"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(media_type: str, data: bytes, **fields: Any) -> dict[str, Any]:
    """Describe some bytes as documents do."""
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **fields}


def tar(**files: bytes) -> bytes:
    """A tar with these files in /usr."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        usr = tarfile.TarInfo("usr")
        usr.type, usr.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(usr)
        for name, data in files.items():
            info = tarfile.TarInfo(f"usr/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Layout:
    """A layout under construction; ``blobs`` are all that it has, by digest."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.entries: list[dict[str, Any]] = []

    def blob(self, media_type: str, data: bytes, **fields: Any) -> dict[str, Any]:
        """Add a blob; return its descriptor."""
        described = descriptor(media_type, data, **fields)
        self.blobs[described["digest"]] = data
        return described

    def document(self, media_type: str, value: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Add a manifest or index; return its descriptor."""
        return self.blob(media_type, json.dumps({"schemaVersion": 2, **value}).encode(), **fields)

    def image(
        self,
        *layers: bytes,
        architecture: str = "amd64",
        layer_type: str = GZIP,
        compress: Callable[[bytes], bytes] = lambda data: gzip.compress(data, mtime=0),
        **fields: Any,
    ) -> dict[str, Any]:
        """Add an image with these layers, compressed; return the descriptor of its manifest."""
        rootfs = {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}
        config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": rootfs}).encode()
        return self.document(
            MANIFEST,
            {
                "mediaType": MANIFEST,
                "config": self.blob(CONFIG, config),
                "layers": [self.blob(layer_type, compress(layer)) for layer in layers],
            },
            **fields,
        )

    def index(self, *manifests: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Add an index of manifests; return its descriptor."""
        return self.document(INDEX, {"mediaType": INDEX, "manifests": list(manifests)}, **fields)

    def add(self, entry: dict[str, Any], tag: str | None = None) -> None:
        """List a document in index.json."""
        annotations = {"annotations": {"org.opencontainers.image.ref.name": tag}} if tag else {}
        self.entries.append({**entry, **annotations})

    def files(self) -> dict[str, bytes]:
        """The files of the layout, by path."""
        return {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps({"schemaVersion": 2, "manifests": self.entries}).encode(),
            **{f"blobs/{name.replace(':', '/')}": data for name, data in self.blobs.items()},
        }

    def write(self, directory: Path) -> Path:
        """Write it as a directory."""
        for name, data in self.files().items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return directory

    def archive(self, path: Path, tar_format: int = tarfile.GNU_FORMAT, prefix: str = "") -> Path:
        """Write it as a tar."""
        with tarfile.open(path, mode="w", format=tar_format) as archive:
            for name, data in self.files().items():
                info = tarfile.TarInfo(prefix + name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path


def simple(tag: str | None = "latest") -> Layout:
    """A layout with one image of two layers."""
    layout = Layout()
    layout.add(layout.image(tar(a=b"one" * 100), tar(b=bytes(100_000))), tag)
    return layout
