"""From a reference to the source that has the image."""

from __future__ import annotations

from composefs_oci.reference import ArchiveReference, LayoutReference, RegistryReference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from composefs_oci.access import Access
    from composefs_oci.reference import Reference
    from composefs_oci.source import Source

__all__ = ["open_source"]


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
