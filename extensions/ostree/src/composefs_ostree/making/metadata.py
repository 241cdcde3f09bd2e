"""What a commit says besides its tree, from the options of ``commit``: metadata, bindings and parent.

The metadata have the order that ``ostree commit`` gives them, because the commit's id depends on it: strings, other
values, then the binding.
"""

from __future__ import annotations

from composefs_ext.errors import FormatError, UsageError
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import check_ref, is_commit_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext import Request

__all__ = ["commit_metadata", "detached_strings", "given_parent"]


def commit_metadata(request: Request, branch: str | None) -> dict[str, Variant]:
    """Return the metadata of the commit that the request describes."""
    metadata: dict[str, Variant] = {}
    for key, text in _pairs(request, "add_metadata_string"):
        _add(metadata, key, Variant("s", text))
    for key, text in _pairs(request, "add_metadata"):
        from composefs_ostree.making.varianttext import parse_text

        try:
            _add(metadata, key, parse_text(text))
        except FormatError as error:
            raise UsageError(
                f"--add-metadata {key}: {error.message}",
                hint="the value is GVariant text: 'a string', true, uint32 5, ['a', 'b']",
            ) from None
    bound = request.get("bind_ref", [])
    if request.get("no_bindings"):
        if bound:
            raise UsageError("--bind-ref and --no-bindings exclude each other")
    else:
        # One that is given twice is in the list twice, as ostree writes it: the id depends on it.
        refs = [check_ref(name) for name in bound] + ([branch] if branch else [])
        _add(metadata, "ostree.ref-binding", Variant("as", sorted(refs, key=str.encode)))
    return metadata


def detached_strings(request: Request) -> dict[str, Variant]:
    """Return what ``--add-detached-metadata-string`` gives."""
    metadata: dict[str, Variant] = {}
    for key, text in _pairs(request, "add_detached_metadata_string"):
        _add(metadata, key, Variant("s", text))
    return metadata


def _pairs(request: Request, name: str) -> list[tuple[str, str]]:
    pairs = []
    for each in request.get(name, []):
        key, separator, text = each.partition("=")
        if not separator or not key:
            raise UsageError(f"--{name.replace('_', '-')} {each[:80]!r} is not KEY=VALUE")
        if "\0" in each:
            raise UsageError(f"--{name.replace('_', '-')} {key!r} has a NUL in it")
        pairs.append((key, text))
    return pairs


def _add(metadata: dict[str, Variant], key: str, value: Variant) -> None:
    if key in metadata:
        raise UsageError(f"the metadata key {key!r} is given twice")
    metadata[key] = value


def given_parent(request: Request) -> tuple[bool, bytes | None]:
    """Return whether ``--parent`` was given, and the commit id, None for ``none``."""
    text = request.get("parent")
    if text is None:
        return False, None
    if text != "none" and not is_commit_id(text):
        raise UsageError(f"--parent {text[:80]!r} is neither a commit id nor none")
    return True, None if text == "none" else bytes.fromhex(text)
