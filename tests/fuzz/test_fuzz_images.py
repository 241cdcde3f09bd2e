"""Damaged images never do worse than one clean FormatError, whoever reads them, and what is read can be written.

COMPOSEFS_FUZZ is the number of images; `make fuzz` sets 10,000, else it is a sample.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

from composefs import dumpfile, erofs
from composefs.digest import SHA256
from composefs.erofs.reader import Image, Lookup, Rules, read_objects, read_tree
from composefs.errors import FormatError, NotFoundError, TooLargeError
from composefs.tree import Tree, walk
from support.commands import BIN
from support.mutate import mutants, seeds

COUNT = int(os.environ.get("COMPOSEFS_FUZZ", "1500"))
PROCESSES = 4


def read(data: bytes, compat: Literal["rs", "c"]) -> Tree | None:
    """Read a tree; any other exception than FormatError with a sound offset goes through."""
    refusal = None
    try:
        return read_tree(Image(data), Rules(compat))
    except FormatError as error:
        refusal = error
    assert refusal.offset is not None
    assert 0 <= refusal.offset <= len(data)
    assert str(refusal).startswith("malformed image: ")
    return None


def check_tree(tree: Tree, data: bytes, compat: Literal["rs", "c"]) -> None:
    """What was read can be written as text, which is a dump of the same tree, and looked up path by path."""
    text = io.BytesIO()
    dumpfile.write(tree, text, style=compat)
    again = dumpfile.parse(text.getvalue(), tree.algorithm)
    second = io.BytesIO()
    dumpfile.write(again, second)
    first = io.BytesIO()
    dumpfile.write(tree, first)
    assert second.getvalue() == first.getvalue()
    with contextlib.suppress(TooLargeError):  # A file of 2^60 bytes.
        erofs.write(tree, version=2)
    lookup = Lookup(Image(data), Rules(compat))
    for path, _, _, node in walk(tree):
        found = lookup.node(path)
        assert (found.mode, found.digest, found.content) == (node.mode, node.digest, node.content)


@pytest.mark.parametrize("part", range(PROCESSES))
def test_damaged_images(part: int) -> None:
    outcomes: Counter[str] = Counter()
    for data in mutants(part, COUNT // PROCESSES):
        for compat in ("c", "rs"):
            tree = read(data, compat)
            outcomes[f"{compat} {'refused' if tree is None else 'read'}"] += 1
            if tree is not None:
                check_tree(tree, data, compat)
        try:
            ids = read_objects(Image(data), SHA256)
        except FormatError:
            continue
        if tree is not None and tree.algorithm is SHA256:
            assert tree.object_ids() <= ids
    # Half of nothing but refusals, or of nothing but harmless damage, would prove little.
    assert min(outcomes.values()) > COUNT // PROCESSES // 20, outcomes
    assert len(outcomes) == 4


def test_lookups_in_damaged_images() -> None:
    paths = [path for data in seeds() for path, _, _, _ in walk(read_tree(Image(data), Rules("c")))][::7]
    found = refused = 0
    for data in mutants(99, COUNT // 5):
        try:
            lookup = Lookup(Image(data))
        except FormatError:
            continue
        for path in paths:
            try:
                lookup.below(path)
                found += 1
            except NotFoundError:
                pass
            except FormatError:
                refused += 1
    assert found > 0
    assert refused > 0


def test_the_command_on_damaged_images(tmp_path: Path) -> None:
    statuses = set()
    for number, data in enumerate(mutants(7, max(COUNT // 60, 25))):
        image = tmp_path / f"{number}"
        image.write_bytes(data)
        done = subprocess.run([BIN / "composefs-info", "dump", image], capture_output=True, check=False, timeout=60)
        statuses.add(done.returncode)
        if done.returncode:
            assert done.stdout == b""
            assert done.stderr.startswith(b"composefs-info: " + os.fsencode(image) + b": malformed image: ")
            assert done.stderr.count(b"\n") == 1
    assert statuses == {0, 1}
