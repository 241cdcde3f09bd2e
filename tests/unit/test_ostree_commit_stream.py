"""A commit's stream: written, looked up, and refused when its table lies."""

from __future__ import annotations

import io
import struct
from hashlib import sha256

import pytest

from composefs_ext.errors import FormatError
from composefs_ostree.formats.commit_stream import CommitStream, Entry, inline_limit, stream_name, write

IDS = [sha256(b"%d" % number).digest() for number in range(301)]


def entries() -> dict[bytes, Entry]:
    return {
        object_id: Entry(b"d" * (number % 23), f"{number % 50:064x}" if number % 3 == 0 else None)
        for number, object_id in enumerate(IDS)
    }


def written() -> tuple[bytes, list[str]]:
    out = io.BytesIO()
    size, references = write(out, IDS[7], entries())
    assert size == len(out.getvalue())
    return out.getvalue(), references


def test_everything_written_is_found() -> None:
    data, references = written()
    stream = CommitStream(data, references)
    assert stream.commit_id == IDS[7]
    assert {object_id: stream.get(object_id) for object_id in IDS} == entries()
    assert stream.get(bytes(32)) is None
    assert stream.get(b"\xff" * 32) is None


def test_references_are_numbered_in_table_order_once_each() -> None:
    _, references = written()
    in_order = [entry.content for _, entry in sorted(entries().items()) if entry.content is not None]
    assert references == list(dict.fromkeys(in_order))


def test_the_layout_byte_for_byte() -> None:
    one, two, three = (bytes([first]) + bytes(31) for first in (0, 0x80, 0x80))
    three = three[:-1] + b"\1"
    out = io.BytesIO()
    write(out, two, {three: Entry(b"", "cc"), one: Entry(b"abc", None), two: Entry(b"12345678", "cc")})
    buckets = [1] * 128 + [3] * 128
    assert out.getvalue() == (
        struct.pack("<II", 1, 0)
        + struct.pack("<256I", *buckets)
        + one + two + three
        + struct.pack("<3I", 0, 3, 0xFFFFFFFF)
        + struct.pack("<3I", 1, 8, 0)
        + struct.pack("<3I", 2, 0, 0)
        + b"abc\0\0\0\0\0" + b"12345678"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, 301),  # the commit is outside of the table
        (4, 2),  # unknown flags
        (8, 0xFFFFFFFF),  # buckets out of order
        (8 + 4 * 255, 0xFFFFFF),  # more ids than bytes
        (8 + 4 * 255, 0),
    ],
)
def test_an_inconsistent_table_is_refused(position: int, value: int) -> None:
    data, references = written()
    changed = data[:position] + struct.pack("<I", value) + data[position + 4 :]
    with pytest.raises(FormatError, match="inconsistent"):
        CommitStream(changed, references)


def test_a_stream_that_is_cut_short_is_refused() -> None:
    data, references = written()
    for size in (0, 100, 1032, 1032 + 44 * 301 - 1):
        with pytest.raises(FormatError):
            CommitStream(data[:size], references)


@pytest.mark.parametrize(("field", "value"), [(0, 1 << 20), (4, 1 << 30), (8, 50)])
def test_an_object_outside_of_the_stream_is_refused(field: int, value: int) -> None:
    data, references = written()
    position = 1032 + 32 * 301 + 12 * 5 + field
    changed = data[:position] + struct.pack("<I", value) + data[position + 4 :]
    with pytest.raises(FormatError, match="outside"):
        CommitStream(changed, references).get(sorted(IDS)[5])


def in_part(*paths: str) -> bytes:
    out = io.BytesIO()
    write(out, IDS[7], entries(), list(paths))
    return out.getvalue()


def test_which_part_of_a_commit_is_here() -> None:
    data, (whole, references) = in_part("/etc", "/usr/bin"), written()
    assert CommitStream(data, references).subpaths == ["/etc", "/usr/bin"]
    assert CommitStream(whole, references).subpaths is None
    table = 1032 + 44 * len(IDS)
    for lying in (data[:-4] + struct.pack("<I", len(data) - table - 3), data[:table]):
        with pytest.raises(FormatError, match="does not tell which part"):
            CommitStream(lying, references)
    for path in ("etc", "/usr//bin", ""):
        with pytest.raises(FormatError, match="something else than paths"):
            CommitStream(in_part("/etc", path), references)


def test_names_and_limits() -> None:
    assert stream_name(b"\xab" * 32) == "ostree-commit-" + "ab" * 32
    assert (inline_limit("sha256"), inline_limit("sha512")) == (64, 128)
