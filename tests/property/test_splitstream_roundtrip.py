"""What is written is read back, and damaged splitstreams give FormatError, never anything else."""

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from composefs.digest import SHA256, SHA512, Algorithm
from composefs.errors import FormatError
from composefs.splitstream import Reader
from support.splitstreams import stream_of

algorithms = st.sampled_from([SHA256, SHA512])
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@st.composite
def parts(draw: st.DrawFn):
    algorithm = draw(algorithms)
    ids = st.binary(min_size=algorithm.size, max_size=algorithm.size).map(bytes.hex)
    object_refs = draw(st.lists(ids, unique=True, max_size=6))
    named_refs = draw(st.lists(st.tuples(names, ids), unique_by=lambda ref: ref[0], max_size=5))
    inline = st.integers(1, 400).map(lambda size: -size)
    chunk = st.one_of(inline, st.integers(0, len(object_refs) - 1)) if object_refs else inline
    chunks = draw(st.lists(chunk, max_size=12))
    data = draw(st.randoms(use_true_random=False)).randbytes(-sum(number for number in chunks if number < 0))
    return algorithm, draw(st.integers(0, 2**64 - 1)), object_refs, named_refs, chunks, data


def written(made: tuple) -> bytes:
    algorithm, content_type, object_refs, named_refs, chunks, data = made
    return stream_of(
        algorithm,
        content_type=content_type,
        named_refs=named_refs,
        object_refs=object_refs,
        chunks=chunks,
        inline=data,
        sizes=[int(object_id[:4], 16) for object_id in object_refs],
    )


def reassembled(reader: Reader) -> list[object]:
    """The stream as what a reader of it sees: bytes and ids."""
    seen: list[object] = []
    refs = list(reader.object_refs())
    for number, data in reader.chunks():
        if number >= 0:
            seen.append(refs[number])
        elif seen and isinstance(seen[-1], bytes):
            seen[-1] += data
        else:
            seen.append(data)
    return seen


@given(made=parts())
@settings(max_examples=80)
def test_round_trip(made: tuple) -> None:
    algorithm, content_type, object_refs, named_refs, chunks, data = made
    with Reader(written(made), algorithm) as reader:
        assert reader.content_type == content_type
        assert list(reader.object_refs()) == list(object_refs)
        assert [reader.object_ref(number) for number in range(len(object_refs))] == list(object_refs)
        assert dict(reader.named_refs) == dict(named_refs)
        source = io.BytesIO(data)
        expected: list[object] = []
        for number in chunks:
            if number >= 0:
                expected.append(object_refs[number])
            elif expected and isinstance(expected[-1], bytes):
                expected[-1] += source.read(-number)
            else:
                expected.append(source.read(-number))
        assert reassembled(reader) == expected
        assert reader.size == len(data) + sum(int(object_refs[number][:4], 16) for number in chunks if number >= 0)
        assert written((algorithm, content_type, object_refs, reader.named_refs, chunks, data)) == written(made)


@given(made=parts(), position=st.integers(0, 10_000), bits=st.integers(1, 255), cut=st.none() | st.integers(1, 500))
@settings(max_examples=300)
def test_damage_is_a_format_error(made: tuple, position: int, bits: int, cut: int | None) -> None:
    algorithm: Algorithm = made[0]
    data = bytearray(written(made))
    data[position % len(data)] ^= bits
    if cut is not None:
        del data[-cut:]
    try:
        with Reader(bytes(data), algorithm) as reader:
            assert all(name for name, _ in reader.named_refs)
            for _ in reader.chunks():
                pass
    except FormatError:
        pass
