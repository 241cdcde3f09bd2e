"""Properties of the image reader: what is written comes back, whichever way it is asked for."""

from __future__ import annotations

import io
import stat
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from composefs import dumpfile, erofs
from composefs.compare import compare, objects_to_fetch
from composefs.digest import SHA256, SHA512, Algorithm
from composefs.erofs.reader import Image, Lookup, ReadRules, read_objects, read_tree
from composefs.tree import TYPE_MASK, Node, Tree, walk
from support.strategies import trees

VERSIONS = st.sampled_from([0, 1, 2])
ALGORITHMS = st.sampled_from([SHA256, SHA512])
# What composefs-rs takes for its own in formats 0 and 1, libcomposefs in all.
MARKS = (b"user.overlay.", b"trusted.overlay.")


def is_plain(tree: Tree) -> bool:
    """Whether no file has what readers take for a mark of the writer."""
    nodes = [tree.root, *(node for _, _, _, node in walk(tree.root))]
    return not any(name.startswith(MARKS) for node in nodes for name in node.xattrs)


def write(tree: Tree, version: int, compat: Literal["rs", "c"] = "rs") -> bytes:
    return b"".join(erofs.write(tree, version=version, compat=compat))


def dump(tree: Tree, style: Literal["rs", "c"] = "rs") -> bytes:
    text = io.BytesIO()
    dumpfile.write(tree, text.write, style=style)
    return text.getvalue()


def counted(tree: Tree) -> Tree:
    """Set the link counts that the writer counts."""
    links: dict[int, int] = {}
    for _, _, _, node in walk(tree.root):
        links[id(node)] = links.get(id(node), 0) + 1
    for _, _, _, node in walk(tree.root):
        if node.children is None:
            node.nlink = links[id(node)]
    return tree


@given(st.data(), ALGORITHMS, VERSIONS)
@settings(max_examples=200)
def test_an_image_is_read_as_the_tree_it_was_made_of(data: st.DataObject, algorithm: Algorithm, version: int) -> None:
    tree = data.draw(trees(algorithm).filter(is_plain))
    image = write(tree, version)
    again = read_tree(Image(image), ReadRules("rs", algorithm))
    assert write(again, version) == image
    if version != 2:  # Format 2 has no nanoseconds.
        assert dump(again) == dump(tree)
    assert read_objects(Image(image), algorithm).keys() == tree.objects().keys()
    assert list(compare(again, read_tree(Image(image)))) == []
    assert objects_to_fetch(again, again) == {}


@given(st.data(), VERSIONS)
@settings(max_examples=100)
def test_every_path_is_found_as_it_is_in_the_tree(data: st.DataObject, version: int) -> None:
    image = Image(write(data.draw(trees(SHA256).filter(is_plain)), version))
    tree = read_tree(image, ReadRules("rs"))
    lookup = Lookup(image)
    for path, directory, name, node in walk(tree.root):
        parent = path[: -len(name) - 1]
        for found in (lookup.node(path), lookup.children(parent)[name], lookup.below(path)):
            assert (found.mode, found.nlink, found.uid, found.gid, found.mtime, found.size) == (
                node.mode,
                node.nlink,
                node.uid,
                node.gid,
                node.mtime,
                node.size,
            )
            assert (found.payload, found.content, found.digest) == (node.payload, node.content, node.digest)
            assert dict(found.xattrs) == dict(node.xattrs)
        assert list(lookup.children(parent)) == list(directory.children or {})
        below = lookup.below(path)
        assert [each[0] for each in walk(below)] == [each[0] for each in walk(node)]


@given(st.data(), st.sampled_from([0, 1]))
@settings(max_examples=100)
def test_text_in_the_manner_of_c_is_stable(data: st.DataObject, version: int) -> None:
    tree = data.draw(trees(SHA256).filter(is_plain))
    text = dump(read_tree(Image(write(counted(tree), version, "c")), ReadRules("c")), "c")
    again = dumpfile.parse(text, SHA256, c_limits=True, strict=True)
    image = write(again, version, "c")
    second = read_tree(Image(image), ReadRules("c"))
    assert dump(second, "c") == text
    assert write(second, version, "c") == image


@given(st.data())
@settings(max_examples=100)
def test_differences_are_what_was_changed(data: st.DataObject) -> None:
    tree = data.draw(trees(SHA256))
    before, after = (dumpfile.parse(dump(tree), SHA256) for _ in range(2))
    assert list(compare(before, after)) == []
    paths = [(path, directory, name) for path, directory, name, _ in walk(after.root)]
    if not paths:
        return
    path, directory, name = data.draw(st.sampled_from(paths))
    assert directory.children is not None
    removed = directory.children.pop(name)
    below = [path, *(path + each[0] for each in walk(removed))]
    assert list(compare(before, after)) == [(each, "removed", ()) for each in below]
    assert list(compare(after, before)) == [(each, "added", ()) for each in below]
    kind = stat.S_IFIFO if removed.mode & TYPE_MASK != stat.S_IFIFO else stat.S_IFSOCK
    directory.children[name] = Node(kind | 0o600)
    directory.children = dict(sorted(directory.children.items()))
    changes = list(compare(before, after))
    assert changes[0] == (path, "changed", ("type",))
    assert changes[1:] == [(each, "removed", ()) for each in below[1:]]
