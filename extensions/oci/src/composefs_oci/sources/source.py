"""Where an image is pulled from: a registry, a layout or its archive, behind one interface.

Whatever the source, nothing leaves it unchecked: a document or blob has the size and the digest of the descriptor that
led to it, or the caller gets CorruptError.  The one digest that nobody tells is that of what a tag names.
"""

from __future__ import annotations

from composefs_ext.errors import CorruptError, FormatError, NotFoundError, TooLargeError
from composefs_ext.files import Naming
from composefs_ext.tuples import NamedTuple
from composefs_oci.formats.descriptors import parse_index, type_of
from composefs_oci.formats.digest import digest_of, digest_of_hash, new_hash
from composefs_oci.formats.json_document import AGAIN, MAX_DOCUMENT
from composefs_oci.formats.mediatypes import is_index, is_manifest
from composefs_oci.formats.platform import best, native
from composefs_oci.sources.closing import Closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol, Self

    from composefs_oci.formats.descriptors import Descriptor
    from composefs_oci.formats.platform import Platform

    class Reader(Protocol):
        """Bytes, a piece at a time."""

        def read(self, size: int, /) -> bytes:
            """Return between 1 and ``size`` bytes; none at the end."""

        def close(self) -> None:
            """Let go of what is behind it."""

    class Source(Protocol):
        """A place that has an image; a context manager.  A forked process must open one of its own."""

        def manifest(self, platform: Platform | None = None) -> Document:
            """Return the image's manifest, from an index the one for the platform (None: this machine's).

            Raise NotFoundError, FormatError, CorruptError or NetworkError.
            """

        def document(self, descriptor: Descriptor) -> Document:
            """Return the manifest or index that a descriptor leads to."""

        def open_blob(self, descriptor: Descriptor) -> Blob:
            """Return the blob that a descriptor leads to."""

        def tags(self) -> list[str]:
            """Return the names of the images that are there."""

        def referrers(self, digest: str) -> list[Descriptor]:
            """Return the manifests there that refer to this one, such as signatures."""

        def __enter__(self) -> Self: ...

        def __exit__(self, *_: object) -> None: ...

    Opener = Callable[[Callable[[str], object]], Source]
    """Opens a source; each process needs one of its own.  It is given what takes a line for the user."""


__all__ = ["PIECE", "Blob", "Document", "check_document", "resolve"]

PIECE = 1 << 17
"""Bytes that are read at a time where nobody says how many."""

_MAX_DEPTH = 4
_TO_NAME_ONE = "name one of them by a tag of its own, or in a registry by its digest"
_IS_ZSTD = "io.github.containers.compression.zstd"
"""An annotation that podman and buildah give an image in an index beside the same one with gzip."""


class Document(NamedTuple):
    """A manifest or an index: its digest, its media type, its bytes."""

    digest: str
    media_type: str
    raw: bytes


class Blob(Closing):
    """A blob that is checked while it is read; a context manager.

    ``read`` returns no bytes, which says that this is the end, only after size and digest turned out right; it raises
    CorruptError otherwise, at the latest there.  Whoever stops before the end has bytes that nobody vouches for.
    """

    __slots__ = ("_hash", "_left", "_reader", "descriptor", "where")

    def __init__(self, reader: Reader, descriptor: Descriptor, where: str) -> None:
        self.descriptor = descriptor
        self.where = where
        self._reader = reader
        self._left = descriptor.size
        self._hash = new_hash(descriptor.digest)

    def read(self, size: int = PIECE) -> bytes:
        """Return the next bytes, at most ``size`` of them; none at the end."""
        with Naming(self.where):
            data = self._reader.read(min(size, self._left) if self._left else 1)
        if self._left:
            if not data:
                got = self.descriptor.size - self._left
                raise CorruptError(
                    f"{self.where} ends after {got} of {self.descriptor.size} bytes", hint=AGAIN, subject=self.where
                )
            self._left -= len(data)
            self._hash.update(data)
            return data
        if data:
            raise CorruptError(
                f"{self.where} is longer than the {self.descriptor.size} bytes that it should have",
                hint=AGAIN,
                subject=self.where,
            )
        digest = digest_of_hash(self._hash)
        if digest != self.descriptor.digest:
            raise _wrong_digest(self.where, digest)
        return b""

    def read_all(self) -> bytes:
        """Return all of it, checked; raise TooLargeError if it has more bytes than a document may."""
        size = self.descriptor.size
        if size > MAX_DOCUMENT:
            raise TooLargeError(
                f"{self.where} has {size} bytes, more than {MAX_DOCUMENT}",
                hint="have the image made with less in it that only describes: labels, annotations, history",
                subject=self.where,
            )
        return b"".join(iter(self.read, b""))

    def close(self) -> None:
        """Let go of file or connection."""
        self._reader.close()


def check_document(data: bytes, descriptor: Descriptor, served_as: str, where: str) -> Document:
    """Return a document whose bytes came with this media type, if it is what the descriptor says; else raise."""
    digest = digest_of(data, descriptor.digest)
    if digest != descriptor.digest:
        raise _wrong_digest(where, digest)
    if len(data) != descriptor.size:
        raise CorruptError(f"{where} has {len(data)} bytes, not {descriptor.size}", hint=AGAIN, subject=where)
    media_type = type_of(data, served_as, where)
    if descriptor.media_type != media_type:
        raise FormatError(
            f"{where} is {media_type}, and was said to be {descriptor.media_type}", hint=AGAIN, subject=where
        )
    return Document(digest, media_type, data)


def resolve(
    roots: Sequence[Descriptor],
    fetch: Callable[[Descriptor], Document],
    platform: Platform | None,
    where: str,
    to_name_one: str = _TO_NAME_ONE,
) -> Document:
    """Follow indexes to the one manifest for the platform (None: this machine's).

    A manifest without a platform fits where it is the only one there, and of several the first that is said to be
    compressed with zstd.  Raise NotFoundError if nothing fits, and FormatError if several do; ``to_name_one`` says what
    to do where those are among the roots.
    """
    for _ in range(_MAX_DEPTH):
        descriptor = _choose(roots, platform, where, to_name_one)
        document = fetch(descriptor)
        if is_manifest(document.media_type):
            return document
        roots = parse_index(document.raw, document.media_type, f"{where}: {document.digest}")
        to_name_one = _TO_NAME_ONE
    raise FormatError.at(where, f"indexes in indexes, more than {_MAX_DEPTH} deep")


def _choose(roots: Sequence[Descriptor], platform: Platform | None, where: str, to_name_one: str) -> Descriptor:
    wanted = platform or native()
    possible = {each.digest: each for each in roots if is_manifest(each.media_type) or is_index(each.media_type)}
    fitting = best([(each.platform, each) for each in possible.values() if each.platform], wanted)
    if not fitting:
        fitting = [each for each in possible.values() if each.platform is None]
    if not fitting:
        # What says how the others were built is for the platform unknown.
        offered = sorted({str(each.platform) for each in possible.values() if each.platform and each.platform.is_known})
        hint = f"it has {', '.join(offered[:20])}: choose with --platform" if offered else None
        if possible and not offered:
            hint = "nothing there says for which platform it is: have the image pushed or copied there with one"
        if roots and not possible:
            others = sorted({each.media_type for each in roots})
            hint = f"it has only {', '.join(others[:5])}; what can be pulled is made by skopeo copy --format oci"
        raise NotFoundError(f"{where} has no image for {wanted}", hint=hint, subject=where)
    if len(fitting) > 1:  # the same, compressed in several ways?  Podman takes this one, too
        fitting = [each for each in fitting if each.annotations.get(_IS_ZSTD) == "true"][:1] or fitting
    if len(fitting) > 1:
        raise FormatError.at(where, f"{len(fitting)} images fit {wanted}", hint=to_name_one)
    return fitting[0]


def _wrong_digest(where: str, digest: str) -> CorruptError:
    return CorruptError(
        f"{where} has the digest {digest}",
        hint="what is there is damaged or was tampered with: have it pushed or copied there again",
        subject=where,
    )
