"""Splitstreams: a stored file whose large pieces are objects of the repository.

Integers are little-endian; a range is two u64, the absolute offsets of its first byte and of the byte after its last.

    header   0    11  "SplitStream"
             11   1   version, 0
             12   2   flags, 0
             14   1   hash algorithm, 1 sha256 or 2 sha512
             15   1   log2 of the block size, 12
             16   16  range of info
    info     0    16  range of stream_refs: raw digests
             16   16  range of object_refs: raw digests, each once, in the order of their first use
             32   16  range of stream: zstd
             48   16  range of named_refs: zstd of records "INDEX:NAME" NUL, INDEX into stream_refs, sorted by name
             64   8   content type
             72   8   size of the reassembled stream

``stream`` is a sequence of chunks: a signed 64-bit number, where -n is followed by n bytes of the reassembled stream,
and i >= 0 stands for all of object_refs[i].  No two inline chunks follow each other.  Both zstd parts are one frame
each.  A longer info is allowed, and what we do not know of it ignored.  This is the format of composefs-rs 0.9.0
(crates/composefs/src/splitstream.rs), which writes header, info, stream_refs, object_refs, named_refs, stream in this
order; so do we, but readers go by the ranges.

`layout` has the numbers, `frame` reads and writes the zstd frames, `writer` and `reader` whole streams.
"""

from composefs.splitstream.layout import MAGIC, names_image
from composefs.splitstream.reader import Reader
from composefs.splitstream.writer import Parts, write

__all__ = ["MAGIC", "Parts", "Reader", "names_image", "write"]
