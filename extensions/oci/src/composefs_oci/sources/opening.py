"""From a reference to the source that has the image."""

from __future__ import annotations

from composefs_oci.formats.reference import LayoutReference, RegistryReference, parse_reference
from composefs_oci.sources.access import access_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from composefs_ext import Request
    from composefs_oci.formats.reference import Reference
    from composefs_oci.sources.access import Access
    from composefs_oci.sources.source import Opener, Source

__all__ = ["open_source", "opener_of"]


def opener_of(request: Request) -> Opener:
    """Return what opens the source that a command's IMAGE names."""
    reference, access = parse_reference(request.arguments["image"], request.directory), access_of(request)
    return lambda tell: open_source(reference, access, tell)


def open_source(reference: Reference, access: Access, tell: Callable[[str], object] = lambda _line: None) -> Source:
    """Open a source; each process needs one of its own.  ``tell`` gets a line for the user before each longer wait."""
    match reference:
        case RegistryReference():
            from composefs_oci.sources.registry.source import RegistrySource

            return RegistrySource(reference, access, tell)
        case LayoutReference(path, tag, is_archive):
            from composefs_oci.sources.layout import DirectoryFiles, LayoutSource

            if not is_archive:
                return LayoutSource(DirectoryFiles(path), tag)
            from composefs_oci.sources.archive import ArchiveFiles

            return LayoutSource(ArchiveFiles(path), tag)
