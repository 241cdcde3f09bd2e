"""What keeps a tree from becoming an image, and where in the tree that is.

The steps of the writer meet inodes and sets of attributes, not paths, and to keep paths at hand would cost every file.
So they say what it is that does not fit, and its path is looked for once, in the end.
"""

from __future__ import annotations

from collections.abc import Mapping

from composefs.errors import ComposefsError, TooLargeError
from composefs.paths import shown
from composefs.tree import Node, Tree, walk

__all__ = ["Unfit"]


class Unfit(Exception):  # noqa: N818 - never seen outside of this package
    """``culprit`` is a node, or the attributes of one; ``kind`` the error that it becomes."""

    def __init__(
        self,
        culprit: Node | Mapping[bytes, bytes],
        message: str,
        *,
        hint: str | None = None,
        kind: type[ComposefsError] = TooLargeError,
    ) -> None:
        super().__init__(message)
        self.culprit = culprit
        self.message = message
        self.hint = hint
        self.kind = kind

    def named(self, tree: Tree) -> ComposefsError:
        """Return the error that names the first path of what does not fit."""
        culprit = self.culprit
        # What is met nowhere below the root is the root.
        found = next((path for path, _, _, node in walk(tree.root) if node is culprit or node.xattrs is culprit), b"/")
        path = shown(found)
        return self.kind(f"{path}: {self.message}", hint=self.hint, subject=path)
