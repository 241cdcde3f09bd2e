"""Properties of the ostree formats: what was written is read, and whatever is read has one serialisation."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composefs_ext.errors import CorruptError, FormatError
from composefs_ext.packs import Packs
from composefs_ext.staging import Staging
from composefs_ostree.fetching.content import FileFetch
from composefs_ostree.fetching.stage import SmallContents
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.commit_stream import CommitStream, Entry, write
from composefs_ostree.formats.fileheader import checksum_header, parse_head
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.objects import (
    COMMIT_TYPE,
    Commit,
    Dirmeta,
    make_commit,
    make_dirmeta,
    make_dirtree,
    make_xattrs,
    parse_commit,
    parse_dirmeta,
    parse_dirtree,
    parse_xattrs,
)
from composefs_ostree.formats.summary import find_ref, metadata_value
from composefs_ostree.pulling.cache import read_records, record
from composefs_ostree.signatures.detached import parse_detached

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=300)
NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0/"), min_size=1, max_size=80).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 255
)
IDS = st.binary(min_size=32, max_size=32)
NUMBERS = {"y": 8, "q": 16, "u": 32, "t": 64}

BASIC = st.sampled_from(["y", "b", "n", "q", "i", "u", "x", "t", "s", "ay"])


def types(depth: int = 3) -> st.SearchStrategy[str]:
    if not depth:
        return BASIC
    inner = types(depth - 1)
    return st.one_of(
        BASIC,
        st.just("v"),
        inner.map(lambda each: "a" + each),
        inner.map(lambda each: "m" + each),
        st.lists(inner, max_size=4).map(lambda each: f"({''.join(each)})"),
        st.tuples(st.sampled_from("suty"), inner).map(lambda each: "a{" + "".join(each) + "}"),
    )


def values(of: gvariant.Type, depth: int = 2) -> st.SearchStrategy[object]:
    match of.kind:
        case "b":
            return st.booleans()
        case "y" | "q" | "u" | "t":
            return st.integers(0, (1 << NUMBERS[of.kind]) - 1)
        case "n" | "i" | "x":
            size = {"n": 15, "i": 31, "x": 63}[of.kind]
            return st.integers(-(1 << size), (1 << size) - 1)
        case "s":
            return TEXT
        case "v":
            inner = types(depth - 1) if depth > 0 else BASIC
            return inner.flatmap(
                lambda each: values(gvariant.parse_type(each), depth - 1).map(lambda v: Variant(each, v))
            )
        case "m":
            return st.one_of(st.none(), st.tuples(values(of.members[0], depth)))
        case "a":
            if of.members[0].kind == "y":
                return st.binary(max_size=300)
            if of.members[0].kind == "{":
                key, value = of.members[0].members
                return st.dictionaries(values(key, depth), values(value, depth), max_size=5)
            return st.lists(values(of.members[0], depth), max_size=8)
        case _:
            return st.tuples(*(values(member, depth) for member in of.members))


TYPED = types().flatmap(lambda each: st.tuples(st.just(each), values(gvariant.parse_type(each))))


@given(TYPED)
def test_every_value_survives(typed: tuple[str, object]) -> None:
    signature, value = typed
    data = gvariant.encode(signature, value)
    assert gvariant.decode(signature, data) == value
    size = gvariant.parse_type(signature).size
    assert size is None or size == len(data)


@given(st.one_of(types(), st.just("a{sv}")), st.binary(max_size=200))
def test_bytes_are_refused_or_the_only_form_of_a_value(signature: str, data: bytes) -> None:
    try:
        value = gvariant.decode(signature, data)
    except FormatError:
        return
    assert gvariant.encode(signature, value) == data


@st.composite
def dirtrees(draw: st.DrawFn) -> tuple[list[tuple[str, bytes]], list[tuple[str, bytes, bytes]]]:
    names = draw(st.lists(NAMES, unique=True, max_size=12))
    cut = draw(st.integers(0, len(names)))
    files = sorted(((name, draw(IDS)) for name in names[:cut]), key=lambda row: row[0].encode())
    directories = sorted(((name, draw(IDS), draw(IDS)) for name in names[cut:]), key=lambda row: row[0].encode())
    return files, directories


def serialised(files: list[tuple[str, bytes]], directories: list[tuple[str, bytes, bytes]]) -> bytes:
    return gvariant.encode("(a(say)a(sayay))", (files, directories))


@given(dirtrees())
def test_every_dirtree_is_read(
    entries: tuple[list[tuple[str, bytes]], list[tuple[str, bytes, bytes]]],
) -> None:
    files, directories = entries
    read = parse_dirtree(serialised(files, directories))
    assert read.files == [(name.encode(), file_id) for name, file_id in files]
    assert read.directories == [(name.encode(), tree, meta) for name, tree, meta in directories]
    assert make_dirtree(read) == serialised(files, directories)


@given(
    st.dictionaries(st.binary(min_size=1, max_size=255).filter(lambda n: b"\0" not in n), st.binary(max_size=70_000)),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0o7777),
)
def test_attributes_and_dirmetas_are_written_as_they_are_read(xattrs: dict[bytes, bytes], uid: int, mode: int) -> None:
    pairs = tuple(sorted((name, value[:65536]) for name, value in xattrs.items()))
    data = make_xattrs(pairs)
    assert data == gvariant.encode("a(ayay)", [(name + b"\0", value) for name, value in pairs])
    assert parse_xattrs(data, "test") == pairs
    meta = Dirmeta(uid, 7, 0o40000 | mode, pairs)
    assert parse_dirmeta(make_dirmeta(meta)) == meta


@given(
    st.dictionaries(TEXT.filter(bool), TEXT.map(lambda text: Variant("s", text)), max_size=5),
    st.none() | IDS,
    TEXT,
    st.integers(0, 2**63),
)
def test_commits_are_written_as_they_are_read(
    metadata: dict[str, Variant], parent: bytes | None, subject: str, timestamp: int
) -> None:
    commit = Commit(metadata, parent, subject, "body", timestamp, bytes(32), bytes(range(32)))
    read = parse_commit(make_commit(commit))
    assert read == commit
    assert list(read.metadata) == list(metadata)


KEYS = ("ostree.ref-binding", "ostree.gpgsigs", "ostree.summary.collection-id", "k")
LISTED = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 255).map(lambda n: Variant("y", n))), max_size=6)


@given(LISTED)
def test_a_dictionary_says_one_thing_or_is_refused(rows: list[tuple[str, Variant]]) -> None:
    """By every reader: of two entries with one key, GLib's own take the first or the last."""
    pairs = gvariant.encode("a(sv)", rows)  # looks like a{sv}
    body = (b"", [], "", "", 0, bytes(32), bytes(32))
    commit = gvariant.encode(COMMIT_TYPE.replace("{sv}", "(sv)", 1), (rows, *body))
    summary = gvariant.encode("(a(s(taya{sv}))a(sv))", ([], rows))
    readers: dict[str, Callable[[], object]] = {
        "bare": lambda: gvariant.decode("a{sv}", pairs),
        "variant": lambda: gvariant.decode("v", pairs + b"\0a{sv}").value,
        "commit": lambda: parse_commit(commit).metadata,
        "detached": lambda: parse_detached(pairs, "here"),
    }
    entries = dict(rows)
    for reader in readers.values():
        if len(entries) == len(rows):
            assert reader() == entries
        else:
            with pytest.raises(FormatError, match="twice"):
                reader()
    for key in KEYS:  # of a summary, one value is read without the others
        if [each for each, _ in rows].count(key) <= 1:
            assert metadata_value(summary, key) == entries.get(key)
        else:
            with pytest.raises(FormatError, match="twice"):
                metadata_value(summary, key)


@given(dirtrees(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
def test_the_fast_reader_takes_nothing_that_the_generic_one_refuses(
    entries: tuple[list[tuple[str, bytes]], list[tuple[str, bytes, bytes]]], changes: list[tuple[int, int]]
) -> None:
    data = bytearray(serialised(*entries))
    for position, value in changes:
        data[position % len(data)] = value
    try:
        read = parse_dirtree(bytes(data))
    except FormatError:
        return
    files, directories = gvariant.decode("(a(say)a(sayay))", bytes(data))
    assert read.files == [(name.encode(), file_id) for name, file_id in files]
    assert read.directories == [(name.encode(), tree, meta) for name, tree, meta in directories]


@given(st.binary(max_size=300))
def test_rubbish_makes_no_reader_fail_otherwise(data: bytes) -> None:
    for reader in (parse_dirtree, parse_dirmeta, parse_commit, parse_head):
        with contextlib.suppress(FormatError):
            reader(data)
    with contextlib.suppress(FormatError):
        find_ref(data, "a/b")
    read_records(data)


@st.composite
def heads(draw: st.DrawFn, size: int) -> bytes:
    xattrs = sorted(
        draw(st.dictionaries(st.from_regex(r"[a-z.]{1,20}", fullmatch=True), st.binary(max_size=300))).items()
    )
    numbers = draw(st.tuples(*[st.integers(0, (1 << 32) - 1)] * 2))
    mode = 0o100000 | draw(st.integers(0, 0o7777))
    swapped = [int.from_bytes(number.to_bytes(4, "big"), "little") for number in (*numbers, mode, 0)]
    told = int.from_bytes(size.to_bytes(8, "big"), "little")
    rows = [(name.encode() + b"\0", value) for name, value in xattrs]
    z = gvariant.encode("(tuuuusa(ayay))", (told, *swapped, "", rows))
    head = struct.pack(">II", len(z), 0) + z
    plain = gvariant.encode("(uuuusa(ayay))", (*swapped, "", rows))
    assert checksum_header(head) == struct.pack(">II", len(plain), 0) + plain
    assert parse_head(head) == (size, *numbers, mode, b"", tuple((name[:-1], value) for name, value in rows))
    return head


@given(st.data(), st.binary(max_size=2000), st.integers(1, 700), st.integers(0, 3000))
def test_content_arrives_or_is_refused(data: st.DataObject, content: bytes, piece: int, damage: int) -> None:
    head = data.draw(heads(len(content)))
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = bytearray(head + packer.compress(content) + packer.flush())
    if damage < len(body):
        body[damage] ^= 1 << data.draw(st.integers(0, 7))
    file_id = sha256(checksum_header(head) + content).digest()
    with TemporaryDirectory() as directory:
        staged = Path(directory) / "f"
        fetch = FileFetch(file_id, str(staged), SmallContents(64, Packs(Staging(directory), ())))
        fetch.begin()
        for start in range(0, len(body), piece):
            if fetch.take(bytes(body[start : start + piece])) is not None:
                break
        try:
            _, kept, size, name = fetch.finish()
        except (CorruptError, FormatError):
            fetch.discard()
            assert not staged.exists()
            assert damage < len(body)
            return
        assert size == len(content)
        assert (kept[len(head) :] if name is None else staged.read_bytes()) == content


ENTRIES = st.builds(Entry, st.binary(max_size=40), st.one_of(st.none(), st.sampled_from(["aa" * 32, "bb" * 32])))


@given(st.dictionaries(IDS, ENTRIES, min_size=1, max_size=30))
def test_streams_and_caches_give_back_what_they_got(entries: dict[bytes, Entry]) -> None:
    commit = min(entries)
    out = io.BytesIO()
    size, references = write(out, commit, entries)
    stream = CommitStream(out.getvalue(), references)
    assert size == len(out.getvalue())
    assert stream.commit_id == commit
    assert {object_id: stream.get(object_id) for object_id in entries} == entries
    data = b"".join(record(file_id, entry) for file_id, entry in entries.items())
    assert read_records(data) == (entries, len(data))


@given(st.dictionaries(IDS, ENTRIES, min_size=1, max_size=5), st.integers(0, 5000), st.integers(0, 255))
def test_a_damaged_stream_never_reads_outside(entries: dict[bytes, Entry], position: int, value: int) -> None:
    out = io.BytesIO()
    _, references = write(out, min(entries), entries)
    data = bytearray(out.getvalue())
    data[position % len(data)] = value
    try:
        stream = CommitStream(bytes(data), references)
        for object_id in entries:
            stream.get(object_id)
    except FormatError:
        pass
