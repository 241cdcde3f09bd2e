"""The text form of a tree, composefs-dump(5): one line for each name, eleven fields and the extended attributes.

PATH SIZE MODE NLINK UID GID RDEV MTIME PAYLOAD CONTENT DIGEST [KEY=VALUE]...
"""

from composefs.dumpfile.reader import Parser, parse
from composefs.dumpfile.writer import write, write_below

__all__ = ["Parser", "parse", "write", "write_below"]
