"""``cfsctl diff``: what differs between two images."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import click

from composefs.cli.complete import ImageName
from composefs.cli.frame import Command, Example, json_option
from composefs.cli.named import named_image
from composefs.cli.output import line, print_json, size_shown
from composefs.cli.settings import Settings, pass_settings
from composefs.cli.text import counted
from composefs.paths import shown

if TYPE_CHECKING:
    from composefs.repository import Repository
    from composefs.tree import Tree

__all__ = ["command"]

_SIGNS = {"added": "+", "removed": "-", "changed": "M"}


@click.command(
    cls=Command,
    examples=[
        Example("cfsctl diff refs/os/41 refs/os/42"),
        Example("cfsctl diff --json refs/os/41 refs/os/42 | jq .fetch.bytes", "What an update downloads at most."),
    ],
)
@click.argument("old", type=ImageName())
@click.argument("new", type=ImageName())
@json_option()
@pass_settings
def command(settings: Settings, old: str, new: str, as_json: bool) -> None:
    """Show which paths differ from image OLD to image NEW, and how much of NEW is not in OLD.

    Each is an image's id, refs/ and its name, or a ref of a stream that names one image, as `cfsctl ref list` shows it.

    A line is + for an added path, - for a removed one, or M for a changed one and what changed: type, mode, owner,
    device, mtime, links, target, content or xattrs.  The size is in bytes, but on a terminal in the unit that suits.
    """
    from composefs.compare import compare, objects_to_fetch

    with settings.open_repository() as repository, settings.reporting("diff", "comparing") as report:
        report(0)
        before, after = _tree(repository, old), _tree(repository, new)
        changes = list(compare(before, after))
        fetch = objects_to_fetch(before, after)
    if as_json:
        paths = {
            kind: [os.fsdecode(change.path) for change in changes if change.kind == kind]
            for kind in ("added", "removed")
        }
        changed = [
            {"path": os.fsdecode(change.path), "fields": change.fields}
            for change in changes
            if change.kind == "changed"
        ]
        print_json({**paths, "changed": changed, "fetch": {"objects": len(fetch), "bytes": sum(fetch.values())}})
        return
    for change in changes:
        fields = f" ({', '.join(change.fields)})" if change.fields else ""
        line(f"{_SIGNS[change.kind]} {shown(change.path)}{fields}")
    counts = Counter(change.kind for change in changes)
    line(
        f"{counts['added']} added, {counts['removed']} removed, {counts['changed']} changed; "
        f"{counted(len(fetch), 'object')} of {size_shown(sum(fetch.values()))} to fetch"
    )


def _tree(repository: Repository, name: str) -> Tree:
    from composefs.erofs.reader import read_tree

    with repository.images.load(named_image(repository, name)) as image:
        return read_tree(image, repository.images.rules)
