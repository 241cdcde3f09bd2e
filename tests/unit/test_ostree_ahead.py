"""Walking a held commit before it is known what of it stays: what is read, and what is wrong in it."""

from __future__ import annotations

import io
import itertools
from hashlib import sha256

from composefs_ostree.formats.commit_stream import CommitStream, Entry, write
from composefs_ostree.formats.objects import Commit, Dirmeta, Dirtree, make_commit, make_dirmeta, make_dirtree
from composefs_ostree.pulling.ahead import Ahead

CONTENT = "cd" * 64
META = make_dirmeta(Dirmeta(0, 0, 0o40755, ()))
FILES = {bytes([number]) * 32: Entry(b"head of %d" % number, CONTENT if number % 2 else None) for number in range(9)}


def id_of(data: bytes) -> bytes:
    return sha256(data).digest()


def tree(names: str, *below: bytes) -> bytes:
    directories = [(b"d%d" % number, id_of(each), id_of(META)) for number, each in enumerate(below)]
    return make_dirtree(Dirtree([(name.encode(), bytes([int(name)]) * 32) for name in names], directories))


def stream(root: bytes, *trees: bytes) -> CommitStream:
    data = make_commit(Commit({}, None, "", "", 0, id_of(root), id_of(META)))
    entries = {id_of(each): Entry(each, None) for each in (data, META, root, *trees)} | FILES
    out = io.BytesIO()
    _, references = write(out, id_of(data), entries)
    return CommitStream(out.getvalue(), references)


def walk(ahead: Ahead) -> dict[bytes, Entry]:
    met: dict[bytes, Entry] = {}
    while (found := ahead.step()) is not None:
        assert met.keys().isdisjoint(found)
        met |= found
    return met


def test_everything_is_met_once() -> None:
    shared, other = tree("12"), tree("23")
    root = tree("0", shared, other, shared)
    ahead = Ahead(stream(root, shared, other))
    met = walk(ahead)
    assert met == ahead.files == {file_id: FILES[file_id] for file_id in (bytes([n]) * 32 for n in range(4))}
    assert {id_of(each) for each in (root, shared, other)} == set(ahead.trees)
    for tree_id, (data, listing) in ahead.trees.items():
        assert id_of(data) == tree_id
        assert make_dirtree(listing) == data


def test_a_step_reads_some_directories_and_finds_no_file_again() -> None:
    below = [make_dirtree(Dirtree([(b"%d" % number, b"\1" * 32)], [])) for number in range(100)]
    root = make_dirtree(Dirtree([], [(b"%02d" % n, id_of(each), id_of(META)) for n, each in enumerate(below)]))
    ahead = Ahead(stream(root, *below))
    assert walk(ahead).keys() == {b"\1" * 32}
    assert len(ahead.trees) == 101
    ahead = Ahead(stream(root, *below))
    read = [0]
    while ahead.step() is not None:
        read.append(len(ahead.trees))
    assert max(after - before for before, after in itertools.pairwise(read)) <= 64


def test_what_is_absent_malformed_or_another_is_left_out() -> None:
    absent, good, nonsense = tree("1"), tree("2"), b"\xff nonsense"
    root = tree("3", absent, good, nonsense)
    altered = bytearray(stream(root, good, nonsense)._inline)
    ahead = Ahead(stream(root, good, nonsense))
    assert set(walk(ahead)) == {b"\2" * 32, b"\3" * 32}
    assert set(ahead.trees) == {id_of(root), id_of(good)}
    # The root with one byte changed: nothing under it is believed.
    place = altered.find(root)
    altered[place] ^= 1
    of = CommitStream(bytes(altered), [CONTENT])
    assert walk(Ahead(of)) == {}
