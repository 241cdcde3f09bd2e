"""Damaged images never do worse than one clean FormatError, whoever reads them, and what is read can be written.

COMPOSEFS_FUZZ is the number of images; `make fuzz` sets 10,000, else it is a sample.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

from composefs import dumpfile, erofs
from composefs.digest import SHA256
from composefs.erofs.reader import Image, Lookup, ReadRules, read_objects, read_tree
from composefs.errors import FormatError, NotFoundError, TooLargeError
from composefs.tree import Tree, walk
from support.mutate import mutants, seeds

COUNT = int(os.environ.get("COMPOSEFS_FUZZ", "1500"))
PROCESSES = 4


def read(data: bytes, compat: Literal["rs", "c"]) -> Tree | None:
    """Read a tree; any other exception than FormatError with a sound offset goes through."""
    refusal = None
    try:
        return read_tree(Image(data), ReadRules(compat))
    except FormatError as error:
        refusal = error
    assert refusal.offset is not None
    assert 0 <= refusal.offset <= len(data)
    assert str(refusal).startswith("malformed image: ")
    return None


def check_tree(tree: Tree, data: bytes, compat: Literal["rs", "c"]) -> None:
    """What was read can be written as text, which is a dump of the same tree, and looked up path by path."""
    text = io.BytesIO()
    dumpfile.write(tree, text.write, style=compat)
    again = dumpfile.parse(text.getvalue(), tree.algorithm)
    second = io.BytesIO()
    dumpfile.write(again, second.write)
    first = io.BytesIO()
    dumpfile.write(tree, first.write)
    assert second.getvalue() == first.getvalue()
    with contextlib.suppress(TooLargeError):  # A file of 2^60 bytes.
        assert [*erofs.write(tree, version=2)]
    lookup = Lookup(Image(data), ReadRules(compat))
    for path, _, _, node in walk(tree.root):
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
            assert tree.objects().keys() <= ids.keys()
    # Half of nothing but refusals, or of nothing but harmless damage, would prove little.
    assert min(outcomes.values()) > COUNT // PROCESSES // 20, outcomes
    assert len(outcomes) == 4


def test_lookups_in_damaged_images() -> None:
    paths = [path for data in seeds() for path, _, _, _ in walk(read_tree(Image(data), ReadRules("c")).root)][::7]
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


# The entry point of the installed command, in a child for each image: to start it anew takes ten times as long.
FORKS = """
import os, resource, sys
from composefs.cli import composefs_info, dumps, standalone, text
from composefs import dumpfile, erofs, tree
from composefs.erofs import reader
for path in sys.stdin.read().split():
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
        resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
        os.dup2(os.open(path + ".out", os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(os.open(path + ".err", os.O_WRONLY | os.O_CREAT), 2)
        sys.argv = ["composefs-info", "dump", path]
        status = 99
        try:
            status = composefs_info.main()
        finally:
            os._exit(status)
    print(path, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("part", range(PROCESSES))
def test_the_command_on_damaged_images(part: int, tmp_path: Path) -> None:
    statuses = set()
    paths = []
    for number, data in enumerate(mutants(100 + part, COUNT // PROCESSES)):
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", FORKS], input="\n".join(map(str, paths)), text=True, stdout=subprocess.PIPE, check=True
    )
    results = [line.split() for line in done.stdout.splitlines()]
    assert len(results) == len(paths)
    for name, status in results:
        statuses.add(int(status))
        if int(status):
            assert Path(name + ".out").read_bytes() == b""
            errors = Path(name + ".err").read_bytes()
            assert errors.startswith(b"composefs-info: " + os.fsencode(name) + b": malformed image: ")
            assert errors.count(b"\n") == 1
    assert statuses == {0, 1}
