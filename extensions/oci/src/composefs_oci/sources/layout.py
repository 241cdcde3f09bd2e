"""OCI layouts: a directory with ``index.json`` and ``blobs/ALGORITHM/HEX`` (OCI image specification, image-layout.md).

The names of images are in the index, in the annotation ``org.opencontainers.image.ref.name``.
"""

from __future__ import annotations

import os
import re
import stat

from composefs_ext.errors import FormatError, NotFoundError, PermissionDeniedError, TooLargeError, UnsupportedError
from composefs_ext.files import Naming
from composefs_oci.formats.descriptors import Descriptor, parse_index, parse_manifest
from composefs_oci.formats.json_document import AGAIN, MAX_DOCUMENT, parse_object
from composefs_oci.formats.mediatypes import OCI_INDEX, is_index, is_manifest
from composefs_oci.sources.closing import Closing
from composefs_oci.sources.regular import open_regular
from composefs_oci.sources.source import PIECE, Blob, check_document, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    from composefs_oci.formats.platform import Platform
    from composefs_oci.sources.source import Document, Reader

    class Files(Protocol):
        """The files of a layout."""

        def open(self, path: str) -> Reader | None:
            """Open a file by its path in the layout; None if there is none."""

        def where(self, path: str) -> str:
            """Return how messages name a file."""

        def other_sort(self) -> str | None:
            """Return what skopeo calls the image of another sort that is there, if one is."""

        def close(self) -> None:
            """Let go of what is open."""


__all__ = ["DirectoryFiles", "LayoutSource"]

REF_NAME = "org.opencontainers.image.ref.name"
_NUMBER = re.compile(r"@([0-9]{1,6})")
"""Which one of a layout's images, from 0 (containers-transports(5))."""

_MARKER = "oci-layout"
_MAX_MARKER = 65536
_MAX_DEPTH = 4
_MAX_DOCUMENTS = 20_000


class LayoutSource(Closing):
    """The image with this tag of a layout, for ``@3`` the fourth that is listed; without a tag, the only one."""

    def __init__(self, files: Files, tag: str | None) -> None:
        """Read the layout's index; raise NotFoundError, UnsupportedError or FormatError."""
        self._files = files
        self._tag = tag
        self._subjects: dict[str, list[Descriptor]] | None = None
        try:
            _check_version(files)
            where = files.where("index.json")
            self._manifests = parse_index(_read(files, "index.json"), OCI_INDEX, where)
        except BaseException:
            files.close()
            raise

    def manifest(self, platform: Platform | None = None) -> Document:
        """Return the image's manifest."""
        where = self._files.where("index.json")
        if self._tag is None:
            named = [each for each in self._manifests if _is_document(each)]
            if len({each.digest for each in named}) > 1 and len(tags := self.tags()) > 1:
                raise NotFoundError(
                    f"{where} has several images, and none was named",
                    hint=f"append one of the tags to the path, after a colon: {', '.join(tags[:20])}",
                    subject=where,
                )
            named = named or list(self._manifests)  # so that it is told what they are
        elif number := _NUMBER.fullmatch(self._tag):
            named = list(self._manifests[int(number[1]) :][:1])
        else:
            named = [each for each in self._manifests if each.annotations.get(REF_NAME) == self._tag]
        if not named:
            hint = "what is there has no tag: name it by its number, the first :@0" if self._manifests else None
            raise NotFoundError(
                f"{where} has no image" + (f" with the tag {self._tag!r}" if self._tag else ""),
                hint=f"it has {', '.join(self.tags()[:20])}" if self.tags() else hint,
                subject=where,
            )
        to_name_one = "name one of them by its number, the first :@0, or by a tag of its own"
        return resolve(named, self.document, platform, where, to_name_one)

    def document(self, descriptor: Descriptor) -> Document:
        """Return a manifest or an index."""
        with self.open_blob(descriptor) as blob:
            return check_document(blob.read_all(), descriptor, "", blob.where)

    def open_blob(self, descriptor: Descriptor) -> Blob:
        """Return a blob; raise NotFoundError if the layout does not have it."""
        path = _blob(descriptor.digest)
        reader = self._files.open(path)
        where = self._files.where(path)
        if reader is None:
            raise NotFoundError(
                f"{where} is missing",
                hint="the layout is incomplete: copy the image there again, whole",
                subject=where,
            )
        return Blob(reader, descriptor, where)

    def tags(self) -> list[str]:
        """Return the tags in the index, each once."""
        return list(dict.fromkeys(name for each in self._manifests if (name := each.annotations.get(REF_NAME))))

    def referrers(self, digest: str) -> list[Descriptor]:
        """Return the manifests that the index leads to and whose subject this is."""
        if self._subjects is None:
            self._subjects = self._find_subjects()
        found = []
        for each in self._subjects.get(digest, ()):
            manifest = parse_manifest(self.document(each).raw, each.media_type, each.digest)
            kind = manifest.artifact_type or manifest.config.media_type
            found.append(each._replace(annotations=manifest.annotations, artifact_type=kind))
        return found

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _find_subjects(self) -> dict[str, list[Descriptor]]:
        """Return what refers to each digest, after one walk: what refers may be referred to, and be asked for next.

        Only what leads there again is kept, as annotations may be long.
        """
        subjects: dict[str, list[Descriptor]] = {}
        for document in self._walk():
            subject = parse_manifest(document.raw, document.media_type, document.digest).subject
            if subject:
                found = Descriptor(document.media_type, document.digest, len(document.raw))
                subjects.setdefault(subject.digest, []).append(found)
        return subjects

    def _walk(self) -> Iterator[Document]:
        """Walk all manifests that the index leads to and that are here, each once."""
        seen: set[str] = set()
        level: Sequence[Descriptor] = self._manifests
        for _ in range(_MAX_DEPTH):
            inner: list[Descriptor] = []
            for each in level:
                if each.digest in seen or not _is_document(each):
                    continue
                seen.add(each.digest)
                if len(seen) > _MAX_DOCUMENTS:
                    where = self._files.where("index.json")
                    raise FormatError(f"{where} leads to more than {_MAX_DOCUMENTS} documents", subject=where)
                try:
                    document = self.document(each)
                except NotFoundError:
                    continue  # an index may list platforms that were not copied
                if is_index(document.media_type):
                    inner += parse_index(document.raw, document.media_type, document.digest)
                else:
                    yield document
            level = inner


class DirectoryFiles:
    """The files of a layout that is a directory."""

    def __init__(self, directory: str) -> None:
        """Raise NotFoundError if there is no such directory, PermissionError if that cannot be seen."""
        try:
            is_directory = stat.S_ISDIR(os.stat(directory).st_mode)
        except PermissionError:
            raise
        except OSError:
            is_directory = False
        if not is_directory:
            raise NotFoundError(
                f"{directory} is not a directory",
                hint="an OCI layout is one; for a tar archive write oci-archive:PATH",
                subject=directory,
            )
        self._directory = directory

    def open(self, path: str) -> Reader | None:
        """Open a regular file, and nothing else, however it got there.

        It may be a symlink, as Bazel makes them; out of the layout it can be followed where that may be read.
        """
        where = self.where(path)
        try:
            return open_regular(where, AGAIN)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            target = os.path.realpath(where)
            if target.startswith(os.path.realpath(self._directory) + "/"):
                raise
            from shlex import quote

            needs = f"cfsctl --ext-read {quote(os.path.dirname(target))}"
            raise PermissionDeniedError(
                f"{where} leads to {target}: {error.strerror}",
                hint=f"check the owner and mode; a confined extension needs {needs}",
                subject=where,
            ) from None

    def where(self, path: str) -> str:
        """Return its path."""
        return f"{self._directory}/{path}"

    def other_sort(self) -> str | None:
        """Return skopeo's name of it where it has the files of its ``dir:`` (containers-transports(5))."""
        are_there = all(os.path.isfile(self.where(name)) for name in ("manifest.json", "version"))
        return f"dir:{self._directory}" if are_there else None

    def close(self) -> None:
        """There is nothing to close."""


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _is_document(descriptor: Descriptor) -> bool:
    return is_manifest(descriptor.media_type) or is_index(descriptor.media_type)


def _read(files: Files, path: str, limit: int = MAX_DOCUMENT) -> bytes:
    """Read a small file; raise NotFoundError or TooLargeError."""
    where = files.where(path)
    reader = files.open(path)
    if reader is None:
        hint = "check the path"
        if (other := files.other_sort()) is not None:
            from shlex import quote

            hint = f"copy it first: skopeo copy {quote(other)} oci-archive:image.tar:latest"
        raise NotFoundError(f"{where} is missing, so this is not an OCI layout", hint=hint, subject=where)
    pieces, size = [], 0
    try:
        with Naming(where):
            while data := reader.read(PIECE):
                size += len(data)
                if size > limit:
                    hint = "copy the image to a layout of its own, with skopeo copy"
                    raise TooLargeError(f"{where} has more than {limit} bytes", hint=hint, subject=where)
                pieces.append(data)
    finally:
        reader.close()
    return b"".join(pieces)


def _check_version(files: Files) -> None:
    where = files.where(_MARKER)
    version = parse_object(_read(files, _MARKER, _MAX_MARKER), where).text("imageLayoutVersion")
    if version.partition(".")[0] != "1":
        hint = "have it made with version 1.0.0, as skopeo copy does"
        raise UnsupportedError.at(where, f"version {version[:40]!r} of the layout is unknown", hint=hint)
