"""Tar archives in every dialect that layers are written in, read without any input or output.

:class:`Parser` is fed blocks and gives entries; who feeds it is :mod:`composefs_oci.layers.unpacking`, which keeps the
bytes, and :mod:`composefs_oci.layers.stored`, which reads them back.

Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar's manual, "Basic Tar Format"
and "Storing Sparse Files"; for attributes, the records that star and libarchive document.
"""

from composefs_oci.formats.tar.entries import Entry, Kind, Parser
from composefs_oci.formats.tar.header import BLOCK, padding

__all__ = ["BLOCK", "Entry", "Kind", "Parser", "padding"]
