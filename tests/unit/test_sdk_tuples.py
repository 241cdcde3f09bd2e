"""The SDK's NamedTuple is typing's, made without it."""

from __future__ import annotations

import pickle
import typing
from typing import Any

import pytest

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


class Theirs(typing.NamedTuple):
    """Three fields."""

    first: int
    second: str = "b"
    third: tuple[int, ...] = ()


def test_it_is_what_typing_makes() -> None:
    for name in (
        "_fields",
        "_field_defaults",
        "__doc__",
        "__module__",
        "__match_args__",
        "__slots__",
        "__annotations__",
    ):
        mine, yours = getattr(Ours, name), getattr(Theirs, name)
        if name == "__annotations__":
            mine, yours = list(mine), list(yours)
        assert mine == yours, name
    assert (Ours.__qualname__, Ours.__bases__) == ("Ours", (tuple,))
    assert Ours(1) == (1, "b", ()) == Theirs(1)
    assert repr(Ours(1, third=(2,))) == repr(Theirs(1, third=(2,))).replace("Theirs", "Ours")
    assert Ours.of(3)._replace(second="c") == Ours(3, "c", (3,))
    assert Ours(1).both == "1b"
    assert pickle.loads(pickle.dumps(Ours(4))) == Ours(4)


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, "b", (), 4), {}), ((1,), {"fourth": 4})])
def test_it_refuses_what_typing_refuses(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Ours(*args, **kwargs)


def test_it_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError):
        Ours(1).other = 2  # type: ignore[attr-defined]
