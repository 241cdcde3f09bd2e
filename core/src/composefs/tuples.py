"""``NamedTuple`` as typing has it, for modules that every start imports.

typing compiles a constructor for each class, 0.1 to 0.2 ms, and twenty classes are needed before an extension is
started.  Here all classes share one, which is as fast with positional values and slower with named ones: for records of
which there are thousands, take typing's.

The SDK has the same (``composefs_ext.tuples``), as it and the core share no code; tests/unit/test_tuples.py holds both
to what typing makes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["NamedTuple"]

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
