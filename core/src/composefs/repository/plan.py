"""What publishing has to do: names are checked, and compared with what is there; no name is written.

A plan made without the lock on ``streams/`` is a look at what there is; one made with it holds until that is given up.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from composefs.errors import ConflictError, CorruptError, ExistsError, NotFoundError, UsageError
from composefs.repository.images import Images
from composefs.repository.links import MAX_DEPTH, read_ref_link
from composefs.repository.names import Encoding, check_stream_name, object_link, parse_ref_link, ref_parts
from composefs.repository.objects import Objects
from composefs.repository.publication import (
    ANY,
    Expectation,
    ImageName,
    Publication,
    Published,
    RefRemoval,
    RefUpdate,
    StreamName,
)
from composefs.repository.refs import Refs
from composefs.repository.store import Store
from composefs.repository.streams import Streams

__all__ = ["Plan", "Planner", "check_names"]


@dataclass(slots=True)
class Plan:
    """What is to be written and removed, and what is to be answered.

    A directory that is a key has names that must be durable in the end; its list has those that are not there yet.
    ``names`` is by "images" or "streams": (name, target of the symlink).  ``refs`` is by that and the directories below
    ``refs``: (last part of the path, what the ref names).  ``removals`` are ("images" or "streams", path below
    ``refs``).
    """

    published: Published = field(default_factory=lambda: Published([], [], [], [], []))
    names: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    refs: dict[tuple[str, tuple[str, ...]], list[tuple[str, str]]] = field(default_factory=dict)
    removals: list[tuple[str, list[str]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything is to be written or removed."""
        return any(self.names.values()) or any(self.refs.values()) or bool(self.removals)

    def add_name(self, directory: str, name: str, object_id: str, *, there: bool) -> None:
        """Plan that a stream or image has its name, which may be ``there`` already."""
        names = self.names.setdefault(directory, [])
        if not there:
            names.append((name, object_link(object_id)))

    def add_ref(self, directory: str, parts: list[str], target: str, *, there: bool) -> None:
        """Plan that a ref, given by its path below ``refs``, names ``target``, which it may already."""
        refs = self.refs.setdefault((directory, tuple(parts[:-1])), [])
        if not there:
            refs.append((parts[-1], target))


class Planner:
    """Makes plans for one repository."""

    def __init__(self, store: Store, objects: Objects, streams: Streams, images: Images, refs: Refs) -> None:
        self._store = store
        self._objects = objects
        self._streams = streams
        self._images = images
        self._refs = refs

    def plan(self, publication: Publication) -> Plan:
        """Look at what is there, check what is expected, and return what is to be done.

        Raises NotFoundError for a ref's target or a ref to remove that does not exist, ConflictError for a broken
        expectation, ExistsError, and MissingObjectError for a ref to a stream that is lost.
        """
        plan = Plan()
        for image in publication.images:
            self._plan_image(image, plan)
        for stream in publication.streams:
            self._plan_stream(stream, plan)
        new = {stream.name for stream in publication.streams}
        for ref in publication.refs:
            self._plan_ref(ref, new, plan)
        for removal in publication.remove_refs:
            self._plan_removal(removal, plan)
        for name in publication.remove_image_refs:
            self._plan_image_removal(name, plan)
        return plan

    def _plan_image(self, image: ImageName, plan: Plan) -> None:
        plan.add_name("images", image.id, image.id, there=self._images.is_named(image.id))
        if image.ref is not None:
            there = self._images.read_ref(image.ref) == image.id
            plan.add_ref("images", ref_parts(image.ref, "path"), image.id, there=there)
        plan.published.images.append(image.id)

    def _plan_stream(self, stream: StreamName, plan: Plan) -> None:
        current = self._streams.lookup(stream.name)
        _check_expectation(f"the stream {stream.name!r}", current, stream.expect)
        now = stream.id
        if current is not None and current != stream.id:
            if stream.if_exists == "fail":
                raise ExistsError(f"the stream {stream.name!r} exists with another id, {current}", subject=stream.name)
            if stream.if_exists == "keep" and self._objects.has(current):
                now = current
        plan.add_name("streams", stream.name, now, there=now == current)
        plan.published.streams.append((stream.name, now, current))

    def _plan_ref(self, ref: RefUpdate, new: set[str], plan: Plan) -> None:
        """Plan for a ref; ``new`` are the streams that get their names with it, and any other one must be there."""
        current = self._refs.read(ref.name, ref.encoding)
        # A ref whose stream has no name any more is in no list, so that whoever looks expects nothing.
        if ref.expect is not None or (current is not None and self._streams.lookup(current) is not None):
            _check_expectation(f"the ref {ref.name!r}", current, ref.expect)
        if ref.target not in new:
            target_id = self._streams.lookup(ref.target)
            if target_id is None:
                raise NotFoundError(f"the ref {ref.name!r} cannot name {ref.target!r}: there is no such stream")
            self._objects.require([target_id], f"naming the stream {ref.target!r}")
            plan.add_name("streams", ref.target, target_id, there=True)
        plan.add_ref("streams", ref_parts(ref.name, ref.encoding), ref.target, there=current == ref.target)
        plan.published.refs.append((ref.name, current))

    def _plan_removal(self, removal: RefRemoval, plan: Plan) -> None:
        parts = _old_parts(removal.name, removal.encoding)
        current = self._named_by("streams", parts)
        if current is None:
            raise NotFoundError(
                f"there is no ref {removal.name!r}", subject=removal.name, hint="`cfsctl ref list` lists them"
            )
        _check_expectation(f"the ref {removal.name!r}", current, removal.expect)
        plan.removals.append(("streams", parts))
        plan.published.removed_refs.append((removal.name, current))

    def _plan_image_removal(self, name: str, plan: Plan) -> None:
        parts = _old_parts(name, "path")
        current = self._named_by("images", parts)
        if current is None:
            raise NotFoundError(f"there is no image ref {name!r}", subject=name, hint="`cfsctl images` lists them")
        plan.removals.append(("images", parts))
        plan.published.removed_image_refs.append((name, current))

    def _named_by(self, directory: str, parts: list[str]) -> str | None:
        """Return what a ref names that is to be removed; what is wrong with it must not keep it there for ever."""
        link = read_ref_link(parts, self._store, directory)
        if link is None:
            return None
        try:
            return parse_ref_link(link, len(parts) - 1, directory)
        except CorruptError:
            return os.fsencode(link).decode(errors="replace")


def check_names(publication: Publication) -> None:
    """Check names by themselves: allowed, each once, and no ref below another one."""
    for stream in publication.streams:
        check_stream_name(stream.name)
    for ref in publication.refs:
        check_stream_name(ref.target)
    stream_refs = [("streams", *ref_parts(ref.name, ref.encoding)) for ref in publication.refs]
    image_refs = [("images", *ref_parts(image.ref, "path")) for image in publication.images if image.ref is not None]
    for _, *directories, _ in (*stream_refs, *image_refs):
        if len(directories) > MAX_DEPTH:
            raise UsageError(
                f"publishing: a ref is in more than {MAX_DEPTH} directories: {'/'.join(directories)[:300]}"
            )
    stream_refs += [("streams", *_old_parts(removal.name, removal.encoding)) for removal in publication.remove_refs]
    image_refs += [("images", *_old_parts(name, "path")) for name in publication.remove_image_refs]
    paths = [*stream_refs, *image_refs]
    names: list[object] = [*paths, *(stream.name for stream in publication.streams)]
    if len(set(names)) != len(names):
        raise UsageError("publishing: a name comes twice in one call")
    known = set(paths)
    for path in paths:
        for length in range(2, len(path)):
            if path[:length] in known:
                raise UsageError(f"publishing: {'/'.join(path[1:length])!r} cannot be a ref and have refs below it")


def _old_parts(name: str, encoding: Encoding) -> list[str]:
    """Return the path of a ref that is to be removed: whoever has made it, of any bytes."""
    return ref_parts(name, encoding, "surrogateescape")


def _check_expectation(what: str, current: str | None, expect: Expectation) -> None:
    if expect is not ANY and current != expect:
        there = "does not exist" if current is None else f"is {current}"
        wanted = "nothing" if expect is None else expect
        raise ConflictError(f"{what} {there}; {wanted} was expected", hint="somebody else changed it: look again")
