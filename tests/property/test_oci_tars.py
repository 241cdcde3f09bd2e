"""Any archive comes back from its layer byte for byte, and its entries are those that Python's tarfile finds."""

from __future__ import annotations

import io
import stat
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from composefs_oci.formats.tar import Kind
from composefs_oci.layers.stored import entries
from support.oci_layers import Layers

TYPES = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
    tarfile.FIFOTYPE: Kind.FIFO,
    tarfile.CHRTYPE: Kind.CHARACTER,
    tarfile.BLKTYPE: Kind.BLOCK,
}
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}

PARTS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=60
)
PATHS = st.lists(
    PARTS.filter(lambda part: part not in (".", "..") and len(part.encode()) < 255), min_size=1, max_size=6
)
XATTRS = st.dictionaries(
    st.sampled_from(["user.a", "user.b=c", "security.capability"]), st.text(max_size=40), max_size=2
)
MEMBERS = st.fixed_dictionaries(
    {
        "path": PATHS.map("/".join),
        "lead": st.sampled_from(["", "", "./", "/"]),
        "type": st.sampled_from(list(TYPES)),
        "size": st.sampled_from([0, 1, 63, 64, 65, 511, 512, 513, 700]),
        "mode": st.integers(0, 0o7777),
        "uid": st.sampled_from([0, 1000, 2097151, 2097152, 2**32 - 2]),
        "mtime": st.one_of(st.integers(0, 2**33), st.floats(0, 2**33).map(lambda value: round(value, 3))),
        "target": PATHS.map("/".join),
        "device": st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1)),
        "xattrs": XATTRS,
    }
)


def write(members: list[dict[str, Any]], tar_format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format, errors="surrogateescape") as tar:
        for number, member in enumerate(members):
            info = tarfile.TarInfo(member["lead"] + member["path"])
            info.type, info.mode, info.uid, info.gid = member["type"], member["mode"], member["uid"], member["uid"]
            info.mtime = member["mtime"] if tar_format == tarfile.PAX_FORMAT else int(member["mtime"])
            if info.islnk() or info.issym():
                info.linkname = member["target"]
            if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                info.devmajor, info.devminor = member["device"]
            if tar_format == tarfile.PAX_FORMAT:
                info.pax_headers.update(
                    {f"SCHILY.xattr.{key}": value for key, value in member["xattrs"].items() if "=" not in key}
                )
            info.size = member["size"] if TYPES[info.type] is Kind.FILE else 0
            try:
                tar.addfile(info, io.BytesIO(bytes([number % 256]) * info.size))
            except ValueError:
                continue  # ustar cannot say it
    return buffer.getvalue()


@given(
    members=st.lists(MEMBERS, max_size=8),
    style=st.sampled_from(sorted(FORMATS)),
    tail=st.sampled_from([b"", bytes(512), bytes(10240), b"behind the end"]),
    piece=st.sampled_from([1, 100, 511, 512, 513, 4000, 1 << 20]),
)
@settings(max_examples=100)
def test_any_archive_of_python(members: list[dict[str, Any]], style: str, tail: bytes, piece: int) -> None:
    data = write(members, FORMATS[style]) + tail
    with tempfile.TemporaryDirectory() as directory:
        layers = Layers(Path(directory))
        layer = layers.add(data, piece=piece)
        assert layers.archive() == data
        found = list(entries(layer))
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        infos = tar.getmembers()
        assert len(found) == len(infos)
        for (entry, content), info in zip(found, infos, strict=True):
            assert entry.path == info.name.strip("/").removeprefix("./").encode("utf-8", "surrogateescape")
            assert entry.kind == TYPES[info.type]
            assert entry.mode == stat.S_IMODE(info.mode)
            assert (entry.uid, entry.gid) == (info.uid & 0xFFFFFFFF, info.gid & 0xFFFFFFFF)
            assert abs(entry.mtime[0] + entry.mtime[1] / 1e9 - info.mtime) < 1e-3
            if entry.kind in (Kind.SYMLINK, Kind.HARDLINK):
                assert entry.link.decode("utf-8", "surrogateescape") == info.linkname
            if entry.kind in (Kind.CHARACTER, Kind.BLOCK):
                assert entry.device == (info.devmajor, info.devminor)
            data_of = layers.objects[content] if isinstance(content, str) else content
            member = tar.extractfile(info) if entry.kind == Kind.FILE else None
            assert data_of == (member.read() if member else b"")
            assert entry.external == isinstance(content, str) == (entry.size > 64)
            xattrs = {
                key.removeprefix("SCHILY.xattr."): value.encode("utf-8", "surrogateescape")
                for key, value in info.pax_headers.items()
                if key.startswith("SCHILY.xattr.")
            }
            assert {key.decode(): value for key, value in entry.xattrs} == xattrs
