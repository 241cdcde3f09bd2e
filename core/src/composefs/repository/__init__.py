"""The repository: a directory of objects, and of the streams, images and refs that name them.

    meta.json                 algorithm, EROFS formats, features; fs-verity on it means that every object must have it
    objects/XX/REST           files named by their fs-verity digest
    streams/NAME              symlinks to splitstreams
    streams/refs/DIR/NAME     symlinks to streams
    images/ID                 symlinks to EROFS images
    images/refs/NAME          symlinks to images
    staging/                  unfinished work of this implementation

The layout is that of composefs-rs 0.9.0 but for ``staging``.  The directory itself is locked: shared by everybody, and
exclusively by garbage collection, and by what makes the repository secure or new.

`facade` is the repository as an object, over `store`, its open directories; `setup` makes one, `metafile` has
meta.json.  `objects`, `streams`, `images` and `refs` are its parts.  `staging` is where extensions put files, which
`adoption` and `packs` take in; `sealing` gives them fs-verity.  `names` and `links` are what symlinks may be called and
how they are read and written, `lookup` what a user means by a name.  `publication`, `plan` and `publish` give names to
what is stored.
"""

from composefs.repository.facade import Repository
from composefs.repository.staging import Staging

__all__ = ["Repository", "Staging"]
