"""What a check found, as JSON and as text: the keys and lines of ``cfsctl fsck`` of composefs-rs 0.9.0, and more.

What is more appears only where there is something to say: ``affected`` when anything is wrong, and ``repaired``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from composefs.errors import ComposefsError
from composefs.graph import Problem

__all__ = ["Report"]

_WRONG_CONTENT = frozenset({"image-invalid", "stream-read-failed"})


@dataclass(slots=True)
class Report:
    """Counts, and the problems in the order in which they were found.

    ``has_metadata`` tells whether there is a meta.json, which repositories from before composefs-rs 0.7 lack.
    ``metadata_only`` tells that objects were not read, but for streams and images, so that none is counted.
    ``bad`` are the ids of the objects that are missing or damaged, ``useless`` those of streams and images that have
    their digest and wrong content all the same, ``repaired`` those of objects put back, and ``stuck`` what kept
    others from that.  ``affected`` are the names of what needs something bad or useless: ``streams``, ``images``, and
    ``refs``, which are paths from the top.
    """

    metadata_only: bool = False
    has_metadata: bool = True
    objects_checked: int = 0
    objects_corrupted: int = 0
    streams_checked: int = 0
    streams_corrupted: int = 0
    images_checked: int = 0
    images_corrupted: int = 0
    broken_links: int = 0
    missing: set[str] = field(default_factory=set)
    bad: set[str] = field(default_factory=set)
    useless: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    affected: dict[str, list[str]] = field(default_factory=dict)
    repaired: list[str] = field(default_factory=list)
    stuck: list[ComposefsError] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def add(self, problem: Problem) -> None:
        """Add a problem."""
        self.problems.append(problem)
        self.broken_links += problem.kind == "broken-symlink"
        if problem.object is not None:
            (self.useless if problem.kind in _WRONG_CONTENT else self.bad).add(problem.object)

    def errors(self) -> list[str]:
        """Return a line for each problem."""
        return [f"fsck: {problem.kind}: {problem}" for problem in self.problems]

    def as_json(self) -> dict[str, object]:
        """Return what ``--json`` prints."""
        document: dict[str, object] = {
            "ok": self.ok,
            "has_metadata": self.has_metadata,
            "objects_checked": self.objects_checked,
            "objects_corrupted": self.objects_corrupted,
            "streams_checked": self.streams_checked,
            "streams_corrupted": self.streams_corrupted,
            "images_checked": self.images_checked,
            "images_corrupted": self.images_corrupted,
            "broken_links": self.broken_links,
            "missing_objects": len(self.missing),
            "errors": self.errors(),
        }
        if not self.ok:
            document["affected"] = self.affected
        if self.repaired:
            document["repaired"] = self.repaired
        return document

    def lines(self) -> Iterator[str]:
        """Yield what is printed without ``--json``."""
        yield f"meta.json: {'ok' if self.has_metadata else 'absent'}"
        objects = _whole(self.objects_checked, self.objects_corrupted)
        yield f"objects: {'not read (--metadata-only)' if self.metadata_only else objects}"
        yield f"streams: {_whole(self.streams_checked, self.streams_corrupted)}"
        yield f"images: {_whole(self.images_checked, self.images_corrupted)}"
        if self.broken_links:
            yield f"broken links: {self.broken_links}"
        if self.missing:
            yield f"missing objects: {len(self.missing)}"
        if self.repaired:
            yield f"repaired objects: {len(self.repaired)}"
        yield from self.errors()
        for name, affected in self.affected.items():
            if affected:
                yield f"affected {name}: {len(affected)}"
                yield from (f"  {each}" for each in affected)
        yield f"status: {'ok' if self.ok else 'corrupted'}"


def _whole(checked: int, corrupted: int) -> str:
    return f"{checked - corrupted}/{checked} ok"
