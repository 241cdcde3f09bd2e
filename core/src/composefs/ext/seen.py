"""What a run has put into its repository or looked at there, and need not look at again: its lock keeps everything."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from composefs.repository import Repository

__all__ = ["Seen"]

_MOST = 1 << 18
"""Ids that are remembered, of each sort, 300 bytes each; beyond it they are looked up again, 3 µs each."""

_MOST_IMAGES = 1000
"""Images of which the objects are remembered, with _MOST ids in all, or of the last alone."""


class Seen:
    """What is known of a repository; without one (None) there is nothing to look at.

    ``sizes`` are the bytes of objects by id.  ``whole_streams`` and ``whole_images`` are the ids of those of which this
    run has made or checked all that `publish` asks for: that an image was read does not say that its objects are here.
    """

    def __init__(self, repository: Repository | None) -> None:
        self._repository = repository
        self.sizes: dict[str, int] = {}
        self.whole_streams: set[str] = set()
        self.whole_images: set[str] = set()
        self._objects: dict[str, Collection[str]] = {}  # of images, ids by id

    @property
    def _repo(self) -> Repository:
        assert self._repository is not None
        return self._repository

    def add(self, sizes: Mapping[str, int]) -> None:
        """Note objects that are here, with their sizes."""
        if len(self.sizes) + len(sizes) > _MOST:
            self.sizes.clear()
        self.sizes.update(sizes)

    def add_whole_stream(self, stream_id: str) -> None:
        """Note a stream that can be published."""
        if len(self.whole_streams) < _MOST:
            self.whole_streams.add(stream_id)

    def add_whole_image(self, image_id: str, objects: Collection[str]) -> None:
        """Note an image that can be published, with its objects."""
        if len(self.whole_images) < _MOST:
            self.whole_images.add(image_id)
        self._add_objects(image_id, objects)

    def require(self, ids: Collection[str], what: str) -> None:
        """Raise MissingObjectError unless every id is in the repository."""
        self._repo.objects.require(ids, what, self.sizes)

    def require_files(self, files: Mapping[str, int], what: str) -> None:
        """Do the same for the objects of a tree, given with its files' sizes; CorruptError for one of another size."""
        self._repo.objects.require_files(files, what, self.sizes)

    def objects_of(self, image_id: str) -> Collection[str]:
        """Return the ids of an image's objects: as it was put in this run, or else read from it.

        Raises MissingObjectError without the image, FormatError if the object is no image.
        """
        found = self._objects.get(image_id)
        if found is None:
            self.require([image_id], "the call")
            found = self._repo.images.objects_of(image_id)
            self._add_objects(image_id, found)
        return found

    def check_image(self, image_id: str) -> None:
        """Check all that `publish` asks for of an image that this run has not made.

        Raises MissingObjectError without the image or one of its objects, CorruptError for one of another size than its
        file, FormatError if it is no image, or one in which a file leads to another object than its digest says.
        """
        self.require([image_id], "the call")
        files = self._repo.images.objects_of(image_id, strict=True)
        self.require_files(files, f"image {image_id}")
        self.add_whole_image(image_id, files)

    def _add_objects(self, image_id: str, objects: Collection[str]) -> None:
        held = self._objects
        if len(held) >= _MOST_IMAGES or sum(map(len, held.values())) + len(objects) > _MOST:
            held.clear()
        held[image_id] = objects
