"""``NamedTuple`` as typing has it, without importing typing, which takes 2 to 3 ms, and with classes made faster.

What an extension imports before its first request is waited for by every run; everything else may import typing.
collections.namedtuple compiles a constructor for each class, 0.1 ms: two dozen classes are 2 of the 60 ms that a pull
takes which finds nothing new.  Here they share one.
"""

from __future__ import annotations

__all__ = ["NamedTuple"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from collections import _tuplegetter

    def _new(cls, *values, **named):
        if named or len(values) != len(cls._fields):
            values = _completed(cls, values, named)
        return tuple.__new__(cls, values)

    def _completed(cls, values, named):
        """Add to the first values of a record those that are named, and the defaults of the rest."""
        rest = cls._fields[len(values) :]
        given = cls._field_defaults | named
        try:
            values = (*values, *[given[name] for name in rest])
        except KeyError as error:
            raise TypeError(f"{cls.__name__} needs {error}") from None
        if len(values) != len(cls._fields) or not named.keys() <= set(rest):
            raise TypeError(f"{cls.__name__} has the fields {', '.join(cls._fields)} and no others")
        return values

    def _make(cls, values):
        return cls(*values)

    def _asdict(self):
        return dict(zip(self._fields, self, strict=True))

    def _replace(self, **named):
        return type(self)(**self._asdict() | named)

    def _values(self):
        return tuple(self)

    def _repr(self):
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

    _COMMON = {
        "__new__": _new,
        "__repr__": _repr,
        "__getnewargs__": _values,
        "__slots__": (),
        "_make": classmethod(_make),
        "_asdict": _asdict,
        "_replace": _replace,
    }

    class _Maker(type):
        """Makes a named tuple of the fields that a class annotates, with its defaults and methods."""

        def __new__(cls, name, bases, body):
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = tuple(body["__annotations__"])
            own = {
                "_fields": fields,
                "_field_defaults": {field: body[field] for field in fields if field in body},
                "__match_args__": fields,
            }
            getters = {field: _tuplegetter(index, None) for index, field in enumerate(fields)}
            return type(name, (tuple,), _COMMON | body | own | getters)

    class NamedTuple(metaclass=_Maker):
        """What classes of named tuples name as their base."""
