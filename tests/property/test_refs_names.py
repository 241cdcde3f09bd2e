"""Names of refs: encoding is undone by decoding, and no name leads out of ``refs/``."""

import os
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from composefs.errors import CorruptError, FormatError
from composefs.repository.names import (
    TEMPORARY_PREFIX,
    decode_flat,
    encode_flat,
    parse_ref_link,
    ref_link,
    ref_parts,
)

tricky = st.sampled_from(["%", "/", "25", "2F", "2f", ".", "..", "a", "@", ":", "\n", "é", "\0", "\udc80", ".symlink-"])
names = st.one_of(st.text(max_size=40), st.lists(tricky, max_size=12).map("".join))
encodings = st.sampled_from(["flat", "path"])


@given(name=names)
def test_decoding_undoes_encoding(name: str) -> None:
    encoded = encode_flat(name)
    assert "/" not in encoded
    assert decode_flat(encoded) == name


@given(text=names)
def test_whatever_can_be_decoded_was_encoded(text: str) -> None:
    try:
        name = decode_flat(text)
    except FormatError:
        return
    assert encode_flat(name) == text or "/" in text


@given(name=names, encoding=encodings)
def test_an_allowed_name_stays_below_refs(name: str, encoding: str) -> None:
    try:
        parts = ref_parts(name, encoding)
    except FormatError:
        return
    assert not any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts)
    assert all(len(part.encode()) <= 255 and not part.startswith(TEMPORARY_PREFIX) for part in parts)
    assert len(PurePosixPath(*parts).parts) == len(parts) == (2 if encoding == "flat" else name.count("/") + 1)
    rest = "/".join(parts[1:])
    assert "/".join([parts[0], decode_flat(rest)] if encoding == "flat" else parts) == name


@given(name=names, encoding=encodings, target=names)
def test_links_lead_where_they_should_and_back(name: str, encoding: str, target: str) -> None:
    try:
        parts = ref_parts(name, encoding)
        ref_parts(f"x/{target}", "flat")
    except FormatError:
        return
    link = ref_link(len(parts) - 1, target)
    try:
        assert parse_ref_link(link, len(parts) - 1, "where") == target
    except CorruptError:
        assert "/" in target or target == "refs"
        return
    assert os.path.normpath(os.path.join("/streams/refs", *parts[:-1], link)) == f"/streams/{target}"
