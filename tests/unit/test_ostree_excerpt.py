"""The paths of a commit in part: which are kept, which make no sense, and what they lead to."""

from __future__ import annotations

import pytest

from composefs_ext.errors import NotFoundError, UsageError
from composefs_ostree.formats.objects import MAX_DEPTH, Commit, Dirtree, make_dirtree
from composefs_ostree.held.excerpt import find_excerpt, joined_subpaths, parse_subpaths

ROOT, FILE, META = (bytes([number]) * 32 for number in range(1, 4))


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        (["/usr/ab", "/usr/a/b", "/usr/a", "/usr/a"], ["/usr/a", "/usr/ab"]),
        (["/a/c", "/a-b", "/a"], ["/a", "/a-b"]),  # as text, /a-b is between the others
        (["/a", "/", "/b"], None),
        ([], []),
    ],
)
def test_paths_that_lie_in_others_are_left_out(paths: list[str], kept: list[str] | None) -> None:
    assert joined_subpaths(paths) == kept
    assert parse_subpaths([f"{path}//" for path in paths]) == kept


def test_paths_that_no_commit_can_have() -> None:
    deepest, longest = "/a" * MAX_DEPTH, f"/{'ä' * 127}a"
    assert parse_subpaths([deepest, longest]) == [deepest, longest]
    with pytest.raises(UsageError, match="is not the path of something in a commit"):
        parse_subpaths([f"{deepest}/a"])
    with pytest.raises(UsageError, match="has a name of more than 255 bytes"):
        parse_subpaths([f"{longest}a"])


def test_nothing_is_below_a_file() -> None:
    commit = Commit({}, None, "", "", 0, ROOT, META)
    root = make_dirtree(Dirtree([(b"file", FILE)], []))
    assert find_excerpt(commit, ["/file"], lambda _: root).files == [FILE]
    with pytest.raises(NotFoundError, match="the commit has no '/file/below'"):
        find_excerpt(commit, ["/file/below"], lambda _: root)
