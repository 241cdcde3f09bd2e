"""Digests, and what they name in a repository."""

from __future__ import annotations

import hashlib

import pytest

from composefs_ext.errors import FormatError, UsageError
from composefs_oci import names
from composefs_oci.formats import digest

SHA256 = "sha256:" + "ab" * 32


@pytest.mark.parametrize(("algorithm", "size"), [("sha256", 32), ("sha384", 48), ("sha512", 64)])
def test_the_registered_algorithms_are_read_and_computed(algorithm: str, size: int) -> None:
    text = f"{algorithm}:{'0f' * size}"
    assert digest.is_digest(text)
    hasher = digest.new_hash(text)
    hasher.update(b"data")
    expected = f"{algorithm}:{hashlib.new(algorithm, b'data').hexdigest()}"
    assert f"{algorithm}:{hasher.hexdigest()}" == expected == digest.digest_of(b"data", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "ab" * 32,
        SHA256.upper(),
        SHA256 + "\n",
        SHA256 + "ab",
        SHA256[:-1],
        "sha512:" + "ab" * 32,
        "md5:" + "ab" * 16,
        "sha256:../../../../" + "a" * 48,
        "sha256:" + "٣" * 64,
        "x" * 100_000,
    ],
)
def test_anything_else_is_refused_in_few_words(text: str) -> None:
    assert not digest.is_digest(text)
    with pytest.raises(FormatError) as caught:
        names.digest_of_stream(f"oci-config-{text}")
    assert len(caught.value.message) < 250


def test_short_digests_are_twelve_digits() -> None:
    assert digest.shorten(SHA256) == "ab" * 6


def test_streams_are_named_by_digest() -> None:
    for make in (names.manifest_stream, names.config_stream, names.layer_stream):
        assert names.digest_of_stream(make(SHA256)) == SHA256
    for wrong in ("oci-manifest-", f"oci-other-{SHA256}", f"ostree-commit-{SHA256}", f"oci-layer-{SHA256}x"):
        with pytest.raises(FormatError):
            names.digest_of_stream(wrong)


def test_content_types_are_eight_letters() -> None:
    spelt = [bytes.fromhex(each)[::-1] for each in (names.MANIFEST, names.CONFIG, names.LAYER, names.BLOB)]
    assert spelt == [b"ocimanif", b"ociconfg", b"ocilayer", b"oci_blob"]


def test_names_of_images_are_not_digests() -> None:
    assert names.tag_ref("docker://example.org/a:1") == "oci/docker://example.org/a:1"
    for wrong in ("", "@" + SHA256, "@"):
        with pytest.raises(UsageError):
            names.tag_ref(wrong)
