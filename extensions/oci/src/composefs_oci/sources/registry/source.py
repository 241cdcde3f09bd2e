"""An image in a registry (OCI distribution specification 1.1; Docker's registries speak the same)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import urljoin

from composefs_ext.errors import CorruptError, FormatError, NetworkError, NotFoundError, UnsupportedError
from composefs_oci.formats.descriptors import Descriptor, parse_index, type_of
from composefs_oci.formats.digest import digest_of, is_digest
from composefs_oci.formats.json_document import parse_object
from composefs_oci.formats.mediatypes import OCI_INDEX, ROOTS, is_index
from composefs_oci.formats.platform import Platform
from composefs_oci.formats.reference import RegistryReference, is_tag
from composefs_oci.sources.access import Access
from composefs_oci.sources.closing import Closing
from composefs_oci.sources.registry.blob import BlobReader
from composefs_oci.sources.registry.client import Answer, Client
from composefs_oci.sources.registry.urls import origin, parts_of, shown
from composefs_oci.sources.source import Blob, Document, check_document, resolve

__all__ = ["RegistrySource"]

_ACCEPT = {"Accept": ", ".join(ROOTS)}
_PAGE = 1000
_MAX_PAGES = 1000
_MAX_TAGS = 200_000
_MAX_REFERRERS = 10_000
_NEXT = re.compile(r'\s*<([^>]{1,2000})>\s*;[^,]*\brel="?next"?', re.IGNORECASE)


class RegistrySource(Closing):
    """The image that a reference names."""

    def __init__(self, reference: RegistryReference, access: Access, tell: Callable[[str], object]) -> None:
        self._reference = reference
        self._client = Client(reference, access, tell)

    def manifest(self, platform: Platform | None = None) -> Document:
        """Return the image's manifest."""
        name = self._reference.digest or self._reference.tag
        url = self._client.url(f"manifests/{name}")
        answer = self._client.read(url, _ACCEPT)
        digest = digest_of(answer.data, self._reference.digest or "sha256:")
        expected = self._reference.digest or answer.header("Docker-Content-Digest")
        if is_digest(expected) and digest_of(answer.data, expected) != expected:
            raise CorruptError(
                f"{shown(url)} has the digest {digest}, not {expected}",
                hint="what is there is damaged or was tampered with: have it pushed there again",
                subject=shown(url),
            )
        document = Document(digest, type_of(answer.data, answer.media_type, shown(url)), answer.data)
        if not is_index(document.media_type):
            return document
        manifests = parse_index(document.raw, document.media_type, shown(url))
        return resolve(manifests, self.document, platform, str(self._reference))

    def document(self, descriptor: Descriptor) -> Document:
        """Return a manifest or an index."""
        url = self._client.url(f"manifests/{descriptor.digest}")
        answer = self._client.read(url, _ACCEPT)
        return check_document(answer.data, descriptor, answer.media_type, shown(url))

    def open_blob(self, descriptor: Descriptor) -> Blob:
        """Return a blob."""
        url = self._client.url(f"blobs/{descriptor.digest}")
        return Blob(BlobReader(self._client, url, descriptor.size), descriptor, shown(url))

    def tags(self) -> list[str]:
        """Return the tags of the repository."""
        tags: dict[str, None] = {}
        for url, answer in self._pages(self._client.url(f"tags/list?n={_PAGE}")):
            found = parse_object(answer.data, shown(url), "the registry has a problem").texts("tags", _MAX_TAGS)
            if any(not is_tag(tag) for tag in found):
                raise FormatError(f"{shown(url)} lists what cannot be a tag", subject=shown(url))
            tags.update(dict.fromkeys(found))
            if len(tags) > _MAX_TAGS:
                raise FormatError(f"{shown(url)} lists more than {_MAX_TAGS} tags", subject=shown(url))
        return list(tags)

    def referrers(self, digest: str) -> list[Descriptor]:
        """Return what refers to a manifest: by the registry's own list, or by the tag that stands for it elsewhere."""
        found: list[Descriptor] = []
        try:
            for url, answer in self._pages(self._client.url(f"referrers/{digest}"), {"Accept": OCI_INDEX}):
                found += parse_index(answer.data, OCI_INDEX, shown(url))
                if len(found) > _MAX_REFERRERS:
                    raise FormatError(f"{shown(url)} lists more than {_MAX_REFERRERS} referrers", subject=shown(url))
        except NotFoundError:
            return self._referrers_by_tag(digest)
        return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _referrers_by_tag(self, digest: str) -> list[Descriptor]:
        """Read the list that clients keep where the registry keeps none ("Referrers Tag Schema")."""
        url = self._client.url(f"manifests/{digest.replace(':', '-')[:128]}")
        try:
            answer = self._client.read(url, {"Accept": OCI_INDEX})
        except NotFoundError:
            return []
        media_type = type_of(answer.data, answer.media_type, shown(url))
        if not is_index(media_type):
            raise UnsupportedError(f"{shown(url)} is not a list of referrers", subject=shown(url))
        return list(parse_index(answer.data, media_type, shown(url)))

    def _pages(self, url: str, headers: dict[str, str] | None = None) -> Iterator[tuple[str, Answer]]:
        """Yield an answer and those that it says come next, all of this repository."""
        seen = set()
        for _ in range(_MAX_PAGES):
            seen.add(url)
            answer = self._client.read(url, headers)
            yield url, answer
            following = _NEXT.match(answer.header("Link"))
            if following is None:
                return
            try:
                target = urljoin(url, following[1])
            except ValueError:
                target = ""
            if origin(target) != origin(url) or parts_of(target).path != parts_of(url).path or target in seen:
                raise NetworkError(
                    f"{shown(url)} goes on at {shown(target)[:300]!r}, which is not followed",
                    hint="the registry has a problem",
                    subject=shown(url),
                )
            url = target
        raise NetworkError(f"{shown(url)} has more than {_MAX_PAGES} pages", subject=shown(url))
