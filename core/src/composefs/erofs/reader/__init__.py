"""EROFS images read back: trees, single paths, and the objects they refer to.

Images are of libcomposefs (formats 0 and 1), composefs-rs (0, 1 and 2), and of mkfs.erofs without compression.  Every
byte is hostile until it is checked; `image` has the structures and the checks, `attributes` the extended attributes,
`tree` makes trees, `lookup` finds one path without reading the rest, `objects` collects digests without making nodes.
"""

from composefs.erofs.reader.image import Image
from composefs.erofs.reader.lookup import Lookup
from composefs.erofs.reader.objects import read_objects, walk_objects
from composefs.erofs.reader.tree import ReadRules, read_tree

__all__ = ["Image", "Lookup", "ReadRules", "read_objects", "read_tree", "walk_objects"]
