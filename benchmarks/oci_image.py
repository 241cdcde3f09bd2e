"""What pulls of images are measured on: an OCI layout with one image, compressed with gzip and with zstd.

The small one has 8,000 files and 128 MiB in six layers, the large one 16,000 files and 1 GB; sizes are log-normal with
a median of 2 kB, and a few large files hold the rest.  The lowest layer has half of the files, each other a tenth, and
those also replace and remove files of the ones below.  All follows from one seed; a layout is made once and kept.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import random
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import zstandard

from workload import pool

_VERSION = 1  # of this generator
_SEED = 2027
_MEDIAN = 2_000
_SIGMA = 1.7
_LAYERS = 6
_LOWEST = 0.5
_REPLACED = 0.02
_TIME = 1_700_000_000
_OCI = "application/vnd.oci.image"


class Image(NamedTuple):
    """The layout, with the tags ``gzip`` and ``zstd``; ``bytes`` are those of the files in all layers."""

    layout: Path
    files: int
    bytes: int
    compressed: dict[str, int]


SMALL = ("small", 8_000, 128 << 20)
LARGE = ("large", 16_000, 1_000_000_000)


def image(directory: Path, name: str, files: int, size: int) -> Image:
    """Return the image of that name from the directory, after making it if it is not there."""
    home = directory / f"image-{name}"
    note = home / "image.json"
    if note.is_file() and (kept := json.loads(note.read_text()))["version"] == _VERSION:
        return Image(home / "layout", kept["files"], kept["bytes"], kept["compressed"])
    shutil.rmtree(home, ignore_errors=True)
    layout = home / "layout"
    (layout / "blobs/sha256").mkdir(parents=True)
    sizes = _sizes(files, size)
    diff_ids: list[str] = []
    layers: dict[str, list[dict[str, Any]]] = {"gzip": [], "zstd": []}
    for archive in _archives(sizes, random.Random(_SEED)):
        diff_ids.append("sha256:" + hashlib.sha256(archive).hexdigest())
        for how, compressed in (
            ("gzip", gzip.compress(archive, 6, mtime=0)),
            ("zstd", zstandard.ZstdCompressor(3).compress(archive)),
        ):
            layers[how].append(_blob(layout, f"{_OCI}.layer.v1.tar+{how}", compressed))
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    described = _blob(layout, f"{_OCI}.config.v1+json", json.dumps(config).encode())
    entries = []
    for how, descriptors in layers.items():
        kind = f"{_OCI}.manifest.v1+json"
        manifest = {"schemaVersion": 2, "mediaType": kind, "config": described, "layers": descriptors}
        entry = _blob(layout, kind, json.dumps(manifest).encode())
        entries.append({**entry, "annotations": {"org.opencontainers.image.ref.name": how}})
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    total = {how: sum(each["size"] for each in descriptors) for how, descriptors in layers.items()}
    made = Image(layout, len(sizes), sum(sizes), total)
    note.write_text(json.dumps({**made._asdict(), "layout": "layout", "version": _VERSION}))
    return made


def _sizes(count: int, total: int) -> list[int]:
    """Log-normal sizes in no order, and among them the few large files that hold what is left of the total."""
    normal = NormalDist(math.log(_MEDIAN), _SIGMA)
    sizes = [round(math.exp(normal.inv_cdf((i + 0.5) / count))) for i in range(count)]
    large = 0.16 * (total - sum(sizes))
    for place in range(len(sizes)):  # the smallest ones become the large ones
        if sum(sizes) + large > total:
            break
        sizes[place] = round(large)
        large *= 0.85
    random.Random(_SEED).shuffle(sizes)
    return sizes


def _archives(sizes: list[int], chooser: random.Random) -> Iterator[bytes]:
    """Yield the layers' archives, the lowest first."""
    content = pool(chooser)
    directories = [f"usr/lib/d{number}/e{number % 7}" for number in range(len(sizes) // 8)]
    paths = [f"{chooser.choice(directories)}/file-{number}.so" for number in range(len(sizes))]
    first = round(len(sizes) * _LOWEST)
    step = (len(sizes) - first) // (_LAYERS - 1)
    ends = [first + step * number for number in range(_LAYERS - 1)] + [len(sizes)]
    begin = 0
    for end in ends:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            made: set[str] = set()
            for path, size in zip(paths[begin:end], sizes[begin:end], strict=True):
                _add(archive, path, _content(content, size, chooser), made)
            for path in chooser.sample(paths[:begin], round(begin * _REPLACED)):
                head, _, name = path.rpartition("/")
                hidden = chooser.random() < 0.5
                _add(archive, f"{head}/.wh.{name}" if hidden else path, b"" if hidden else b"replaced" * 99, made)
        yield out.getvalue()
        begin = end


def _add(archive: tarfile.TarFile, path: str, data: bytes, made: set[str]) -> None:
    """Add a file, after the directories above it if the layer does not have them."""
    for position, character in enumerate(path):
        if character == "/" and path[:position] not in made:
            made.add(path[:position])
            above = tarfile.TarInfo(path[:position])
            above.type, above.mode, above.mtime = tarfile.DIRTYPE, 0o755, _TIME
            archive.addfile(above)
    info = tarfile.TarInfo(path)
    info.size, info.mode, info.mtime = len(data), 0o644, _TIME
    archive.addfile(info, io.BytesIO(data))


def _content(content: bytes, size: int, chooser: random.Random) -> bytes:
    pieces = []
    while size > 0:
        start = chooser.randrange(len(content) - 1)
        pieces.append(content[start : start + min(size, 1 << 20)])
        size -= len(pieces[-1])
    return b"".join(pieces)


def _blob(layout: Path, media_type: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
