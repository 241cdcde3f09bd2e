"""What the text of a GVariant tells of its type: values that stand in one array say together what they do not alone.

``[(1, []), (2.5, ['a'])]`` is an array of ``(das)``: no number in it has a type of its own, and the first array has
none at all.
"""

from __future__ import annotations

from typing import NamedTuple

from composefs_ext.errors import FormatError
from composefs_ostree.formats.gvariant import Type

__all__ = ["INTEGERS", "Shape", "element_shape", "shape_of", "signature_of"]

INTEGERS = "ynqiuxth"


class Shape(NamedTuple):
    """A type that is not settled yet.

    ``kind`` is the first character of a type, ``N`` for a number, ``S`` for a string, an object path or a signature, or
    ``*`` for anything.  ``maybes`` is how often it is wrapped in a maybe, at the least if it is ``open``.
    """

    kind: str
    members: tuple[Shape, ...] = ()
    maybes: int = 0
    open: bool = True


_ANYTHING = Shape("*", open=False)


def shape_of(of: Type) -> Shape:
    """Return the shape of a type that is settled."""
    if of.kind == "m":
        inner = shape_of(of.members[0])
        return inner._replace(maybes=inner.maybes + 1)
    return Shape(of.kind, tuple(map(shape_of, of.members)), open=False)


def element_shape(shapes: list[Shape]) -> Shape:
    """Return the shape that all values of an array have; raise FormatError if there is none."""
    found = _ANYTHING
    for shape in shapes:
        merged = _merge(found, shape)
        if merged is None:
            raise FormatError("values of different types stand in one array or dictionary")
        found = merged
    return found


def _merge(one: Shape, other: Shape) -> Shape | None:
    if one.maybes > other.maybes:
        one, other = other, one
    if "*" in (one.kind, other.kind):
        # What is wrapped less often must be such that it can be wrapped more.
        if one.maybes < other.maybes and not (one.open or one.kind == "*"):
            return None
        known = one if other.kind == "*" else other
        return known._replace(maybes=other.maybes)
    if one.maybes < other.maybes and not one.open:
        return None
    kind = _common_kind(one.kind, other.kind)
    if kind is None or len(one.members) != len(other.members):
        return None
    members = tuple([_merge(*pair) for pair in zip(one.members, other.members, strict=True)])
    settled = tuple([member for member in members if member is not None])
    return Shape(kind, settled, other.maybes, one.open and other.open) if len(settled) == len(members) else None


def _common_kind(one: str, other: str) -> str | None:
    for wide, narrow in ((one, other), (other, one)):
        if wide == narrow or (wide == "N" and narrow in INTEGERS + "d") or (wide == "S" and narrow in "sog"):
            return narrow
    return None


def signature_of(shape: Shape) -> str | None:
    """Return the type that a shape comes down to, None if it does not tell."""
    if shape.kind == "*":
        return None
    members = list(map(signature_of, shape.members))
    if None in members:
        return None
    kind = {"N": "i", "S": "s"}.get(shape.kind, shape.kind)
    closing = {"(": ")", "{": "}"}.get(kind, "")
    return "m" * shape.maybes + kind + "".join(filter(None, members)) + closing
