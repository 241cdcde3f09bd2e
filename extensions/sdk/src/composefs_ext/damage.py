"""Which objects of the repository are missing or damaged, for an extension that can fetch them again."""

from __future__ import annotations

import re

from composefs_ext.errors import ExtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from composefs_ext.core import Core

__all__ = ["damaged_objects"]

_OBJECT = re.compile(r"objects/([0-9a-f]{2})/([0-9a-f]{62,126})")


def damaged_objects(core: Core, names: Iterable[str]) -> set[str]:
    """Return the ids of the bad objects among those that some streams need; streams that cannot be read are left out.

    Everything is read.
    """
    here = []
    for name in dict.fromkeys(names):
        try:
            core.stream_get(name=name).result()
        except ExtError:
            continue
        here.append(name)
    errors = core.repo_fsck(here).result()["errors"]
    return {prefix + rest for error in errors for prefix, rest in _OBJECT.findall(error)}
