"""The EROFS formats of images, by number: 0 and 1 are those of libcomposefs, 2 is that of composefs-rs.

They are apart from what reads and writes images, because every command line needs them.
"""

from __future__ import annotations

__all__ = ["DEFAULT_EROFS_FORMAT", "EROFS_FORMATS"]

EROFS_FORMATS = (0, 1, 2)
DEFAULT_EROFS_FORMAT = 1
"""Of a new repository, unless another is asked for; composefs-rs 0.9.0 has the same."""
