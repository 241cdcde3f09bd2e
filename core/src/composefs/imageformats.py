"""The EROFS formats of images, by number: 0 and 1 are those of libcomposefs, 2 is that of composefs-rs.

Apart from what reads and writes them, because every command line names them.
"""

from __future__ import annotations

__all__ = ["DEFAULT_EROFS_FORMAT", "EROFS_FORMATS"]

EROFS_FORMATS = (0, 1, 2)
DEFAULT_EROFS_FORMAT = 1
"""That of a repository for which none was asked, as composefs-rs 0.9.0 has it."""
