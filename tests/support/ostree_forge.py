"""ostree objects with right checksums and wrong contents."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Variant
from support.ostree_repo import BRANCH, make_repo


def swap(number: int, size: int) -> int:
    return int.from_bytes(number.to_bytes(size, "big"), "little")


class Forge:
    """Writes objects with right checksums and wrong contents into an archive repository."""

    def __init__(self, path: Path) -> None:
        self.path = make_repo(path)
        self.meta = self.put("dirmeta", gvariant.encode("(uuua(ayay))", (0, 0, swap(0o40755, 4), [])))

    def put(self, kind: str, data: bytes, object_id: bytes | None = None) -> bytes:
        object_id = object_id or hashlib.sha256(data).digest()
        name = object_id.hex()
        path = self.path / "objects" / name[:2] / f"{name[2:]}.{kind}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return object_id

    def file(self, content: bytes = b"hello") -> bytes:
        numbers = [swap(number, 4) for number in (0, 0, 0o100644, 0)]
        head = gvariant.encode("(tuuuusa(ayay))", (swap(len(content), 8), *numbers, "", []))
        plain = gvariant.encode("(uuuusa(ayay))", (*numbers, "", []))
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        filez = struct.pack(">II", len(head), 0) + head + packer.compress(content) + packer.flush()
        return self.put("filez", filez, hashlib.sha256(struct.pack(">II", len(plain), 0) + plain + content).digest())

    def tree(self, files: list[tuple[str, bytes]], directories: list[tuple[str, bytes]]) -> bytes:
        rows = [(name, tree, self.meta) for name, tree in directories]
        return self.put("dirtree", gvariant.encode("(a(say)a(sayay))", (files, rows)))

    def bomb(self, claimed: int, compressed: bytes) -> bytes:
        """A file whose head claims a size that its compressed content need not have."""
        head = gvariant.encode("(tuuuusa(ayay))", (swap(claimed, 8), 0, 0, swap(0o100644, 4), 0, "", []))
        return self.put("filez", struct.pack(">II", len(head), 0) + head + compressed, hashlib.sha256(head).digest())

    def commit(
        self, root: bytes, metadata: dict[str, Variant] | None = None, *, time: int = 1, parent: bytes = b""
    ) -> bytes:
        value = (metadata or {}, parent, [], "forged", "", swap(time, 8), root, self.meta)
        commit_id = self.put("commit", gvariant.encode("(a{sv}aya(say)sstayay)", value))
        ref = self.path / "refs" / "heads" / BRANCH
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit_id.hex() + "\n")
        return commit_id
