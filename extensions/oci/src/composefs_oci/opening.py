"""From a reference to the source that has the image."""

from __future__ import annotations

from composefs_oci.access import access_of
from composefs_oci.reference import ArchiveReference, LayoutReference, RegistryReference, parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from composefs_ext import Core, Request
    from composefs_oci.access import Access
    from composefs_oci.reference import Reference
    from composefs_oci.source import Source

__all__ = ["open_requested", "open_source"]


def open_requested(request: Request, core: Core) -> Source:
    """Open the source that a command's IMAGE names."""
    reference = parse_reference(request.arguments["image"], request.directory)
    return open_source(reference, access_of(request), lambda line: core.log("warning", line))


def open_source(reference: Reference, access: Access, tell: Callable[[str], object] | None = None) -> Source:
    """Open a source; each process needs one of its own.  ``tell`` gets a line for the user before each longer wait."""
    match reference:
        case RegistryReference():
            from composefs_oci.registry.source import RegistrySource

            return RegistrySource(reference, access, tell)
        case LayoutReference():
            from composefs_oci.layout import DirectoryFiles, LayoutSource

            return LayoutSource(DirectoryFiles(reference.path), reference.tag)
        case ArchiveReference():
            from composefs_oci.archive import ArchiveFiles
            from composefs_oci.layout import LayoutSource

            return LayoutSource(ArchiveFiles(reference.path), reference.tag)
