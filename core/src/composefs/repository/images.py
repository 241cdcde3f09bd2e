"""Images: EROFS files stored as objects, with ``images/ID`` and names in ``images/refs``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from composefs.digest import parse_id
from composefs.errors import CorruptError, FormatError, InputOutputError, NotFoundError, TooLargeError
from composefs.repository.links import Odd, list_refs, read_entry, read_ref
from composefs.repository.names import ref_parts
from composefs.repository.objects import Objects, Stored
from composefs.repository.store import Store

if TYPE_CHECKING:
    from composefs.erofs.reader import Image, ReadRules
    from composefs.tree import Node, Tree

__all__ = ["Images", "image_objects"]


class Images:
    """The images of a repository."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._store = store
        self._objects = objects

    def put(self, parts: Iterable[bytes]) -> Stored:
        """Store an image that comes in pieces, without a name."""
        return self._objects.store_parts(parts)

    def is_named(self, image_id: str) -> bool:
        """Tell whether ``images/ID`` is there; only such images are ever mounted."""
        return read_entry(parse_id(image_id, self._store.algorithm), self._store, "images") == image_id

    def require_named(self, image_id: str) -> None:
        """Raise NotFoundError unless ``images/ID`` is there."""
        if not self.is_named(image_id):
            raise NotFoundError(f"there is no image {image_id}", subject=image_id, hint="`cfsctl images` lists them")

    def read_ref(self, name: str) -> str | None:
        """Return the id of the image that ``images/refs/NAME`` names, or None."""
        target = read_ref(ref_parts(name, "path"), self._store, "images")
        return None if target is None else self._target(name, target)

    def _target(self, name: str, target: str) -> str:
        try:
            return parse_id(target, self._store.algorithm)
        except FormatError as error:
            where = f"images/refs/{name}"
            raise CorruptError(
                f"the symlink {where} points to {target[:300]!r}, which is no id", subject=where
            ) from error

    def open(self, image_id: str) -> int:
        """Open an image's file, its digest checked."""
        return self._objects.open(image_id, verify=True)

    @property
    def rules(self) -> ReadRules:
        """How the images of this repository are read: as composefs-rs does, with digests of the repository's."""
        from composefs.erofs.reader import ReadRules

        return ReadRules("rs", self._store.algorithm)

    @contextmanager
    def load(self, image_id: str) -> Iterator[Image]:
        """Open an image for reading, its digest checked; errors about it name its id."""
        from composefs.erofs.reader import Image

        fd = self.open(image_id)
        try:
            with Image.open(fd) as image:
                yield image
        except (FormatError, TooLargeError, InputOutputError) as error:
            if error.subject is None:
                error.message = f"image {image_id} in {self._store.path}: {error.message}"
                error.subject = image_id
            raise
        finally:
            os.close(fd)

    def objects_of(self, image_id: str, *, strict: bool = False) -> dict[str, int]:
        """Return an image's objects as :func:`composefs.erofs.reader.read_objects` does, once its digest is checked."""
        from composefs.erofs.reader import read_objects

        with self.load(image_id) as image:
            return read_objects(image, self._store.algorithm, strict=strict)

    def list_refs(self, prefix: str = "", *, odd: Odd) -> list[tuple[str, str]]:
        """Return (name, id) of every ref whose name begins with ``prefix``."""

        def read(name: str, target: str) -> tuple[str, str]:
            return name, self._target(name, target)

        return list_refs(self._store, "images", prefix, read, odd)


def image_objects(tree: Tree) -> dict[str, int]:
    """Return the ids of the objects that an image of a tree refers to, each with the size that its files have.

    Raises FormatError for what `read_objects` refuses if it is strict: a path that leads to another object would be
    mounted without complaint where fs-verity is not enforced.
    """
    from composefs.tree import object_path

    sizes: dict[str, int] = {}
    for node in tree.nodes():
        if node.digest is None:
            if node.external:
                raise _wrong(tree, node, "neither CONTENT nor DIGEST")
        elif node.size and not node.content:  # external, without a call: a quarter of the time
            if node.payload != (path := object_path(node.digest)):
                raise _wrong(tree, node, f"a PAYLOAD that is not the path of its DIGEST, {path.decode()}")
            if sizes.setdefault(node.digest.hex(), node.size) != node.size:
                raise _wrong(tree, node, "not the SIZE of another with its DIGEST")
    return sizes


def _wrong(tree: Tree, wrong: Node, what: str) -> FormatError:
    """Make the error for a file of a dump, whose path is looked for only here, and ``what`` it has."""
    from composefs.paths import shown
    from composefs.tree import walk

    path = next(path for path, _, _, node in walk(tree.root) if node is wrong)
    return FormatError(f"in the dump, {shown(path)} has {what}")
