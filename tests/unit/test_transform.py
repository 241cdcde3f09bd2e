"""The container transform on small trees; recorded ids are in tests/interop/test_scan_vectors.py."""

from __future__ import annotations

import pytest

from composefs import transform
from composefs.digest import SHA256
from composefs.errors import FormatError
from composefs.tree import Node, Tree


def sample() -> Tree:
    capability = {b"security.capability": b"c", b"security.selinux": b"s", b"user.x": b"u", b"trusted.x": b"t"}
    usr = Node(0o40751, 2, 7, 8, 0, (5, 6), xattrs=capability, children={b"f": Node(0o100644, xattrs=capability)})
    run = Node(0o41777, 2, 1, 2, 0, (9, 9), xattrs={b"user.y": b"v"}, children={b"secret": Node(0o100600)})
    return Tree(Node(0o40700, children={b"run": run, b"usr": usr}), SHA256)


def test_the_root_is_like_usr_and_run_is_empty() -> None:
    tree = sample()
    transform.propagate_usr_to_root(tree)
    root = tree.root
    assert root.children is not None
    assert (root.mode, root.uid, root.gid, root.mtime) == (0o40751, 7, 8, (5, 6))
    assert root.xattrs == root.children[b"usr"].xattrs
    run = root.children[b"run"]
    assert (run.mode, run.uid, run.gid, run.mtime, run.children) == (0o41777, 1, 2, (5, 6), {})
    assert run.xattrs == {b"user.y": b"v"}


@pytest.mark.parametrize(
    ("mode", "kept"),
    [("allowlist-only", {b"security.capability"}), ("keep-user-xattrs", {b"security.capability", b"user.x"})],
)
def test_attributes_are_filtered_everywhere(mode: str, kept: set[bytes]) -> None:
    tree = sample()
    transform.propagate_usr_to_root(tree)
    transform.filter_xattrs(tree, mode)
    assert tree.root.children is not None
    usr = tree.root.children[b"usr"]
    assert usr.children is not None
    assert set(tree.root.xattrs) == set(usr.xattrs) == set(usr.children[b"f"].xattrs) == kept
    assert usr.xattrs is usr.children[b"f"].xattrs  # Equal sets stay one.


def test_trees_that_are_no_containers() -> None:
    with pytest.raises(FormatError, match="no /usr"):
        transform.propagate_usr_to_root(Tree(Node(0o40755, children={}), SHA256))
    for name in (b"usr", b"run"):
        tree = sample()
        assert tree.root.children is not None
        tree.root.children[name] = Node(0o120777, payload=b"x")
        with pytest.raises(FormatError, match=f"/{name.decode()} is not a directory"):
            transform.propagate_usr_to_root(tree)
    with pytest.raises(ValueError, match="other"):
        transform.filter_xattrs(sample(), "other")
