#!/usr/bin/env python3
"""Make a small ostree archive repository without ostree: a few dozen files of a made-up system, one commit, one branch.

    samples/make_ostree_repo.py DIRECTORY [BRANCH]

It prints the commit's id.  Only the standard library is used, so that it also reads as a short description of what such
a repository is: everything is an object named by its SHA-256, serialised as GVariant (see libostree's docs/formats.md
and GLib's GVariant specification).
"""

from __future__ import annotations

import hashlib
import random
import stat
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

# --- GVariant: values are bytes with an alignment; containers add padding, and the ends of members of variable size ---


class Value(NamedTuple):
    """A serialised value, the alignment of its type, and whether all values of the type have the same size."""

    data: bytes
    alignment: int
    fixed: bool = False


def uint32(number: int) -> Value:
    """ostree stores its numbers big-endian, whatever GVariant thinks of them."""
    return Value(number.to_bytes(4, "big"), 4, fixed=True)


def uint64(number: int) -> Value:
    return Value(number.to_bytes(8, "big"), 8, fixed=True)


def string(text: str) -> Value:
    return Value(text.encode() + b"\0", 1)


def blob(data: bytes) -> Value:
    return Value(data, 1)


def variant(value: Value, signature: str) -> Value:
    return Value(value.data + b"\0" + signature.encode(), 8)


def _pad(body: bytearray, alignment: int) -> None:
    body += bytes(-len(body) % alignment)


def _with_offsets(body: bytearray, ends: list[int]) -> bytes:
    """Append the offsets, as narrow as the whole allows."""
    width = next(width for width in (1, 2, 4, 8) if len(body) + width * len(ends) < 1 << (8 * width))
    return bytes(body) + b"".join(end.to_bytes(width, "little") for end in ends)


def array(elements: list[Value], alignment: int) -> Value:
    body, ends = bytearray(), []
    for element in elements:
        _pad(body, alignment)
        body += element.data
        ends.append(len(body))
    return Value(_with_offsets(body, [] if all(e.fixed for e in elements) else ends), alignment)


def struct(*members: Value) -> Value:
    body, ends = bytearray(), []
    alignment = max(member.alignment for member in members)
    fixed = all(member.fixed for member in members)
    for member in members:
        _pad(body, member.alignment)
        body += member.data
        if not member.fixed:
            ends.append(len(body))
    if fixed:
        _pad(body, alignment)
    elif not members[-1].fixed:
        ends.pop()  # the last member ends where the offsets begin
    return Value(_with_offsets(body, ends[::-1]), alignment, fixed)


# --- ostree's objects ---


class File(NamedTuple):
    """A regular file, or a symbolic link whose target is ``content``."""

    content: bytes
    mode: int = stat.S_IFREG | 0o644
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


Tree = dict[str, "File | Tree"]


def _xattrs(pairs: tuple[tuple[bytes, bytes], ...]) -> Value:
    return array([struct(blob(name + b"\0"), blob(value)) for name, value in sorted(pairs)], 1)


def _framed(header: Value) -> bytes:
    """A file object's header with the length before it."""
    return len(header.data).to_bytes(4, "big") + bytes(4) + header.data


class Repository:
    """An archive repository in the making."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("objects", "refs/heads", "refs/remotes", "tmp"):
            (directory / name).mkdir(parents=True)
        (directory / "config").write_text("[core]\nrepo_version=1\nmode=archive-z2\n")

    def _store(self, identity: bytes, suffix: str, stored: bytes) -> bytes:
        """Store an object under the SHA-256 of ``identity``; return that digest."""
        digest = hashlib.sha256(identity)
        name = digest.hexdigest()
        path = self.directory / "objects" / name[:2] / f"{name[2:]}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(stored)
        return digest.digest()

    def _store_metadata(self, value: Value, suffix: str) -> bytes:
        return self._store(value.data, suffix, value.data)

    def add_file(self, file: File) -> bytes:
        """Store a file: the digest is of header and plain content, what is stored has the content deflated."""
        is_link = stat.S_ISLNK(file.mode)
        target, content = (file.content.decode(), b"") if is_link else ("", file.content)
        tail = (uint32(0), uint32(0), uint32(file.mode), uint32(0), string(target), _xattrs(file.xattrs))
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = b"" if is_link else deflate.compress(content) + deflate.flush()
        stored = _framed(struct(uint64(len(content)), *tail)) + body
        return self._store(_framed(struct(*tail)) + content, "filez", stored)

    def add_directory(self, tree: Tree, mode: int = 0o755) -> tuple[bytes, bytes]:
        """Store a directory and all below it; return the digests of its dirtree and its dirmeta."""
        files, directories = [], []
        for name, item in sorted(tree.items(), key=lambda pair: pair[0].encode()):
            if isinstance(item, File):
                files.append(struct(string(name), blob(self.add_file(item))))
            else:
                directories.append(struct(string(name), *map(blob, self.add_directory(item))))
        dirtree = struct(array(files, 1), array(directories, 1))
        dirmeta = struct(uint32(0), uint32(0), uint32(stat.S_IFDIR | mode), _xattrs(()))
        return self._store_metadata(dirtree, "dirtree"), self._store_metadata(dirmeta, "dirmeta")

    def commit(self, tree: Tree, branch: str, subject: str, version: str, timestamp: int) -> str:
        """Store a tree and its commit, and point the branch to it; return the commit's id."""
        dirtree, dirmeta = self.add_directory(tree)
        metadata = [
            struct(string("ostree.ref-binding"), variant(array([string(branch)], 1), "as")),
            struct(string("version"), variant(string(version), "s")),
        ]
        commit = struct(
            array(metadata, 8),
            blob(b""),  # no parent
            array([], 1),  # no related objects
            string(subject),
            string(""),  # no body
            uint64(timestamp),
            blob(dirtree),
            blob(dirmeta),
        )
        name = self._store_metadata(commit, "commit").hex()
        ref = self.directory / "refs" / "heads" / branch
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(name + "\n")
        return name


# --- the made-up system ---


def sample_tree() -> Tree:
    """Return a tree with what a pull and an image have to cope with: sizes, links, attributes, odd names, twins."""
    chooser = random.Random(2026)
    words = b"the quick brown fox jumps over the lazy dog ".split()

    def text(size: int) -> bytes:
        return b" ".join(chooser.choice(words) for _ in range(size // 5))[:size]

    return {
        "etc": {"os-release": File(b"NAME=Demo\nVERSION=1\n"), "empty": File(b"")},
        "usr": {
            "bin": {
                "hello": File(b"#!/bin/sh\necho Hello from an image\n", stat.S_IFREG | 0o755),
                "hi": File(b"hello", stat.S_IFLNK | 0o777),
                "ping": File(chooser.randbytes(60_000), stat.S_IFREG | 0o755, ((b"user.note", b"a=b\0"),)),
            },
            "lib": {f"lib{number}.so": File(chooser.randbytes(200_000) + text(400_000)) for number in range(12)},
            "share": {
                "doc": {f"chapter {number}.txt": File(text(300 * number)) for number in range(40)},
                "grüße=\\": File(b"a name that needs escaping\n"),
                "LICENSE": File(text(2000)),
                "twin": File(b"same\n" * 100),
                "twin 2": File(b"same\n" * 100),
            },
        },
        "var": {},
    }


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    branch = sys.argv[2] if len(sys.argv) == 3 else "demo/main"
    repository = Repository(Path(sys.argv[1]))
    print(repository.commit(sample_tree(), branch, "A system made up for the demo", "1.0", 1_700_000_000))


if __name__ == "__main__":
    main()
