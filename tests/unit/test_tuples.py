"""The NamedTuple of the core and that of the SDK are typing's, made without it."""

from __future__ import annotations

import pickle
import typing
from typing import Any

import pytest

import composefs.tuples
import composefs_ext.tuples


class Ours(composefs_ext.tuples.NamedTuple):
    """Three fields."""

    first: int
    second: str = "b"
    third: tuple[int, ...] = ()

    @property
    def both(self) -> str:
        """The first two."""
        return f"{self.first}{self.second}"

    @classmethod
    def of(cls, number: int) -> Ours:
        """Make one."""
        return cls(number, third=(number,))


class Core(composefs.tuples.NamedTuple):
    """Three fields."""

    first: int
    second: str = "b"
    third: tuple[int, ...] = ()

    @property
    def both(self) -> str:
        """The first two."""
        return f"{self.first}{self.second}"

    @classmethod
    def of(cls, number: int) -> Core:
        """Make one."""
        return cls(number, third=(number,))


class Theirs(typing.NamedTuple):
    """Three fields."""

    first: int
    second: str = "b"
    third: tuple[int, ...] = ()


either = pytest.mark.parametrize("made", [Ours, Core])


@either
def test_it_is_what_typing_makes(made: type[Ours]) -> None:
    for name in (
        "_fields",
        "_field_defaults",
        "__doc__",
        "__module__",
        "__match_args__",
        "__slots__",
        "__annotations__",
    ):
        mine, yours = getattr(made, name), getattr(Theirs, name)
        if name == "__annotations__":
            mine, yours = list(mine), list(yours)
        assert mine == yours, name
    assert made.__bases__ == (tuple,)
    assert made(1) == (1, "b", ()) == Theirs(1)
    assert repr(made(1, third=(2,))) == repr(Theirs(1, third=(2,))).replace("Theirs", made.__qualname__)
    assert made.of(3)._replace(second="c") == made(3, "c", (3,))
    assert made(1).both == "1b"
    assert pickle.loads(pickle.dumps(made(4))) == made(4)


@either
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, "b", (), 4), {}), ((1,), {"fourth": 4}), ((1,), {"first": 2}), ((), {"second": "b"})],
)
def test_it_refuses_what_typing_refuses(made: type[Ours], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for each in (made, Theirs):
        with pytest.raises(TypeError):
            each(*args, **kwargs)


@either
def test_it_has_no_other_attributes(made: type[Ours]) -> None:
    with pytest.raises(AttributeError):
        made(1).other = 2  # type: ignore[attr-defined]
