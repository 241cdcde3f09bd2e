"""Metalinks: an XML document that says where a file is to be had, and what it must be.

A remote's ``metalink`` is that of its summary; the directory in which the summary lies is the repository.  Read is
version 3 (``metalink/files/file`` with ``size``, ``verification/hash`` and ``resources/url``), which is what ostree
reads and mirror managers write, and version 4 (RFC 5854), where the same elements stand in ``file`` itself.

The parser is expat without document types: no entity but XML's own, so that a small document cannot become a large one.
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from composefs_ext.errors import CorruptError, FormatError, UsageError
from composefs_ostree.formats.names import MAX_METADATA
from composefs_ostree.remotes.urls import check_url

__all__ = ["MAX_METALINK", "Metalink", "parse_metalink"]

MAX_METALINK = 1 << 20
_MAX_DEPTH = 16
_MAX_TEXT = 4096
_MAX_URLS = 64
_FILE = "summary"
_DIGESTS = {"sha512": "sha512", "sha-512": "sha512", "sha256": "sha256", "sha-256": "sha256"}
_DIGITS = {"sha256": 64, "sha512": 128}


class Metalink(NamedTuple):
    """What a metalink says of a summary: its size, its digest in hexadecimal digits, and the repositories that have it.

    ``algorithm`` is ``sha512`` or ``sha256``, the stronger one that is given.
    """

    size: int
    algorithm: str
    digest: str
    urls: list[str]

    def is_of(self, summary: bytes) -> bool:
        """Tell whether this is the summary."""
        import hashlib

        return len(summary) == self.size and hashlib.new(self.algorithm, summary).hexdigest() == self.digest

    def check(self, summary: bytes, where: str) -> None:
        """Raise CorruptError unless this is the summary."""
        if not self.is_of(summary):
            raise CorruptError.at(
                where,
                f"it has not the size and {self.algorithm} that the metalink says",
                hint="the mirror is behind or altered; try again later",
            )


def parse_metalink(data: bytes) -> Metalink:
    """Read a metalink; raise FormatError if it is malformed or does not say enough of a summary."""
    from xml.parsers import expat

    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse_document_type  # without which nothing can be declared
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise FormatError(f"the metalink is not XML: {error}") from None
    except (LookupError, ValueError) as error:  # encodings that Python does not know, or that are none
        raise FormatError(f"the metalink cannot be decoded: {error}") from None
    return reader.result()


def _refuse_document_type(*_: object) -> NoReturn:
    raise FormatError("the metalink has a document type; entities are not read")


class _Reader:
    """Collects what stands in the first ``file`` named summary."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._attributes: dict[str, str] = {}
        self._text = ""
        self._depth_of_file = 0
        self._is_done = False
        self._size: int | None = None
        self._digests: dict[str, str] = {}
        self._urls: dict[str, None] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(" ")[2]
        if len(self._path) == _MAX_DEPTH:
            raise FormatError(f"the metalink is nested deeper than {_MAX_DEPTH} levels")
        if not self._path and name != "metalink":
            raise FormatError("the document is no metalink")
        self._path.append(name)
        self._attributes = attributes
        self._text = ""
        if name == "file" and attributes.get("name") == _FILE and not self._depth_of_file and not self._is_done:
            self._depth_of_file = len(self._path)

    def text(self, text: str) -> None:
        if self._depth_of_file:
            self._text += text
            if len(self._text) > _MAX_TEXT:
                raise FormatError(f"the metalink has a text of more than {_MAX_TEXT} characters")

    def end(self, _name: str) -> None:
        name = self._path[-1]
        depth = len(self._path)
        del self._path[-1]
        if not self._depth_of_file:
            return
        if depth == self._depth_of_file:
            self._depth_of_file = 0
            self._is_done = True
        inside = self._path[self._depth_of_file :]
        match name:
            case "size" if not inside:
                self._take_size(self._text.strip())
            case "hash" if inside in ([], ["verification"]):
                self._take_digest(self._attributes.get("type", "").lower(), self._text.strip().lower())
            case "url" if inside in ([], ["resources"]):
                self._take_url(self._text.strip())
        self._text = ""

    def _take_size(self, text: str) -> None:
        if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= MAX_METADATA):
            raise FormatError(f"the metalink gives the summary the size {text[:40]!a}")
        self._size = int(text)

    def _take_digest(self, kind: str, digest: str) -> None:
        algorithm = _DIGESTS.get(kind)
        if algorithm is None:
            return
        if len(digest) != _DIGITS[algorithm] or not set(digest) <= set("0123456789abcdef"):
            raise FormatError(f"the metalink gives the summary the {algorithm} {digest[:140]!a}")
        self._digests[algorithm] = digest

    def _take_url(self, text: str) -> None:
        base, _, name = text.rpartition("/")
        if name != _FILE or len(self._urls) == _MAX_URLS:
            return
        try:
            self._urls[check_url(base)] = None
        except UsageError:
            return  # ftp, rsync

    def result(self) -> Metalink:
        algorithm = next((name for name in ("sha512", "sha256") if name in self._digests), None)
        if self._size is None or algorithm is None or not self._urls:
            raise FormatError("the metalink does not give the size, the sha256 or sha512 and an http URL of a summary")
        return Metalink(self._size, algorithm, self._digests[algorithm], list(self._urls))
