"""The list of the objects that a repository holds, by the names of their files alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from composefs.graph.problem import Problem
from composefs.linux.closing import Descriptor
from composefs.linux.files import open_directory
from composefs.repository import Repository

__all__ = ["Stock", "read_stock"]

_PREFIX = re.compile("[0-9a-f]{2}")


@dataclass(slots=True)
class Stock:
    """``ids`` are the raw ids of the objects in ``objects/XX``, by XX; what has no such name is in ``problems``."""

    ids: dict[str, list[bytes]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.ids.values()))

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self.ids.values())


def read_stock(repository: Repository) -> Stock:
    """List the objects: 256 directories, and not a system call for each object."""
    stock = Stock()
    well_formed = re.compile(f"[0-9a-f]{{{repository.algorithm.hex_size - 2}}}").fullmatch
    with repository.store.doing("listing the objects"):
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
            good = list(filter(well_formed, names))
            stock.ids[prefix] = [bytes.fromhex(prefix + name) for name in good]
            if len(good) < len(names):
                stock.problems += [_invalid(f"objects/{prefix}/{name}") for name in sorted({*names}.difference(good))]
    return stock


def _invalid(where: str) -> Problem:
    return Problem("object-invalid-name", where, "it is not named as an object is")
