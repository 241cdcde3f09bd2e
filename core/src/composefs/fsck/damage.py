"""The names of what is lost with bad objects."""

from __future__ import annotations

from composefs.graph import Graph, Names, Problem, Start
from composefs.repository import Repository

__all__ = ["find_affected"]


def find_affected(repository: Repository, names: Names, lost: set[bytes]) -> dict[str, list[str]]:
    """Return the names of the ``streams``, ``images`` and ``refs`` that need one of the lost objects (raw ids)."""
    graph = Graph(repository)
    known: dict[tuple[str, str], bool] = {}

    def is_affected(start: Start) -> bool:
        key = (start.id, start.kind)
        if key not in known:
            unread: list[Problem] = []
            known[key] = not lost.isdisjoint(graph.reach([start], unread)) or bool(unread)
        return known[key]

    streams = {name for name, each in names.streams.items() if is_affected(Start(each, "stream", name))}
    images = {image for image in names.images if is_affected(Start(image, "image", image))}
    refs = [f"streams/refs/{path}" for path, name in sorted(names.stream_refs.items()) if name in streams]
    refs += [f"images/refs/{path}" for path, image in sorted(names.image_refs.items()) if image in images]
    return {"streams": sorted(streams), "images": sorted(images), "refs": refs}
