"""What a commit says besides its tree, from the options of ``commit``: body, metadata and bindings.

The metadata have the order that ``ostree commit`` gives them, because the commit's id depends on it: strings, other
values, what is kept of the parent's, then the bindings.
"""

from __future__ import annotations

from composefs_ext import Core, Request
from composefs_ext.errors import FormatError, TooLargeError, UsageError
from composefs_ostree.committing.previous import Previous
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import check_collection, check_ref

__all__ = ["commit_body", "commit_metadata", "given_strings"]

_MAX_BODY = 1 << 20
_SHOWN_KEYS = 20


def commit_body(request: Request, core: Core) -> str:
    """Return what ``--body`` or ``--body-file`` gives; raise UsageError, FormatError, TooLargeError or OSError."""
    body, path = request.get("body"), request.get("body_file")
    if path is None:
        return body or ""
    if body is not None:
        raise UsageError("--body and --body-file exclude each other")
    from composefs_ext.aside import open_aside

    with open_aside(core, path) as file:
        data = file.read(_MAX_BODY + 1)
    if len(data) > _MAX_BODY:
        raise TooLargeError(f"{path} has more than {_MAX_BODY} bytes, too many for a commit's body", subject=path)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise FormatError(f"{path} is not text in UTF-8, as a commit's body has to be", subject=path)
    return text


def commit_metadata(request: Request, branch: str | None, previous: Previous | None) -> dict[str, Variant]:
    """Return the metadata of the commit that the request describes."""
    metadata = given_strings(request, "add_metadata_string")
    for key, text in _pairs(request, "add_metadata"):
        from composefs_ostree.committing.varianttext import parse_text

        try:
            _add(metadata, key, parse_text(text))
        except FormatError as error:
            raise UsageError(
                f"--add-metadata {key}: {error.message}",
                hint="the value is GVariant text: 'a string', true, uint32 5, ['a', 'b']",
            ) from None
    for key in request.get("keep_metadata", []):
        _add(metadata, key, _kept(previous, key))
    bound, collection = request.get("bind_ref", []), request.get("collection_id")
    if request.get("no_bindings"):
        if bound or collection is not None:
            raise UsageError(f"--{'bind-ref' if bound else 'collection-id'} and --no-bindings exclude each other")
    else:
        # One that is given twice is in the list twice, as ostree writes it: the id depends on it.
        refs = [check_ref(name) for name in bound] + ([branch] if branch else [])
        _add(metadata, "ostree.ref-binding", Variant("as", sorted(refs, key=str.encode)))
        if collection is not None:
            _add(metadata, "ostree.collection-binding", Variant("s", check_collection(collection)))
    return metadata


def given_strings(request: Request, name: str) -> dict[str, Variant]:
    """Return the metadata that an option gives as ``KEY=STRING``."""
    metadata: dict[str, Variant] = {}
    for key, text in _pairs(request, name):
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


def _kept(previous: Previous | None, key: str) -> Variant:
    if previous is None:
        raise UsageError(
            f"--keep-metadata {key}: there is no commit before this one to keep it of",
            hint="give --parent, or a branch that is here",
        )
    found = previous.commit.metadata.get(key)
    if found is None:
        keys = sorted(previous.commit.metadata)
        raise UsageError(
            f"--keep-metadata {key[:80]}: the parent, commit {previous.commit_id.hex()}, has no such key",
            hint=f"it has {', '.join(keys[:_SHOWN_KEYS])}" if keys else "it has none",
        )
    return found


def _add(metadata: dict[str, Variant], key: str, value: Variant) -> None:
    if key in metadata:
        raise UsageError(f"the metadata key {key!r} is given twice")
    metadata[key] = value
