"""Lines come out whole, however the reads fall; dump fields come back whole, whatever the bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from composefs_ext import dump
from composefs_ext.wire import LineBuffer

lines = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=10)


@given(lines, st.lists(st.integers(1, 20), min_size=1, max_size=40))
def test_lines_do_not_depend_on_the_reads(expected: list[bytes], sizes: list[int]) -> None:
    data = b"".join(line + b"\n" for line in expected)
    buffer, found, position = LineBuffer(), [], 0
    while position < len(data):
        size = sizes[len(found) % len(sizes)]
        found += buffer.feed(data[position : position + size])
        position += size
    assert found == expected


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=40), st.binary(max_size=40))
def test_fields_survive_escaping(path: bytes, key: bytes, value: bytes) -> None:
    line = dump.entry(path, 0o100644, content=value, payload=key, xattrs=dump.xattrs([(key, value)]))
    fields = line.removesuffix(b"\n").split(b" ")
    assert len(fields) == 12
    name, _, text = fields[11].partition(b"=")
    assert [_unescape(field) for field in (fields[0], fields[8], fields[9], name, text)] == [
        path,
        key,
        value,
        key,
        value,
    ]


def _unescape(field: bytes) -> bytes:
    return field.decode("ascii").encode("latin-1").decode("unicode_escape").encode("latin-1")
