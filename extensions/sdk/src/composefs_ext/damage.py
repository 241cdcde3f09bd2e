"""Which objects of the repository are missing or damaged, for an extension that can fetch them again."""

from __future__ import annotations

import re

from composefs_ext.errors import UNREADABLE, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from composefs_ext.core import Core

__all__ = ["damaged_objects"]

_OBJECT = re.compile(r"objects/([0-9a-f]{2})/([0-9a-f]{62,126})")


def damaged_objects(core: Core, names: Iterable[str]) -> set[str]:
    """Return the ids of the objects that these streams need and that are damaged or missing.

    A stream that cannot be read is among them itself; a name that no stream has is left out.  Every object is read.
    """
    here = []
    bad: set[str] = set()
    for name in dict.fromkeys(names):
        try:
            needed = core.stream_get(name=name, named_refs=True, object_refs=True).result().object_refs
        except NotFoundError:
            continue
        except UNREADABLE:
            bad.update(each["id"] for each in core.stream_list(name).result() if each["name"] == name)
            continue
        here.append(name)
        if needed:
            present = core.object_has(needed).result()
            bad.update(each for each, is_present in zip(needed, present, strict=True) if not is_present)
    errors = core.repo_fsck(here).result()["errors"]
    return bad.union(prefix + rest for error in errors for prefix, rest in _OBJECT.findall(error))
