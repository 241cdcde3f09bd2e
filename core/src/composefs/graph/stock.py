"""The list of the objects that a repository holds, by the names of their files alone."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from composefs.graph.problem import Problem
from composefs.linux.closing import Descriptor
from composefs.linux.files import open_directory
from composefs.repository import Repository

__all__ = ["Stock", "read_stock"]

_PREFIX = re.compile("[0-9a-f]{2}")


@dataclass(slots=True)
class Stock:
    """``files`` is {XX: [REST, …]}, for the objects ``objects/XX/REST``; what has no such name is in ``problems``."""

    files: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.files.values()))

    def ids(self) -> set[str]:
        """Return the ids of all objects."""
        return {prefix + rest for prefix, names in self.files.items() for rest in names}


def read_stock(repository: Repository) -> Stock:
    """List the objects: 256 directories, and not a system call for each object."""
    stock = Stock()
    well_formed = re.compile(f"[0-9a-f]{{{repository.algorithm.hex_size - 2}}}").fullmatch
    try:
        objects = repository.store.find("objects")
        for prefix in sorted(os.listdir(objects)) if objects is not None else ():
            if not _PREFIX.fullmatch(prefix):
                stock.problems.append(_invalid(f"objects/{prefix}"))
                continue
            try:
                fd = open_directory(prefix, repository.store.objects)
            except NotADirectoryError:
                stock.problems.append(_invalid(f"objects/{prefix}"))
                continue
            with Descriptor(fd):
                names = os.listdir(fd)
            stock.files[prefix] = good = list(filter(well_formed, names))
            if len(good) < len(names):
                stock.problems += [_invalid(f"objects/{prefix}/{name}") for name in sorted({*names}.difference(good))]
    except OSError as error:
        raise repository.store.failed(error, "listing the objects") from error
    return stock


def _invalid(where: str) -> Problem:
    return Problem("object-invalid-name", where, "it is not named as an object is")
