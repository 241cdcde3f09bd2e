"""Random layers over each other give the tree that a model gives which is too simple to be wrong.

The model keeps one dictionary of paths.  Of each layer it applies the markers first, to what is below, and then the
entries: so the order of markers and entries within a layer cannot matter.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from composefs_ext.errors import FormatError
from composefs_oci.filesystem import Directory
from support.oci_layers import Layers

Model = dict[str, dict[str, Any]]

NAMES = st.sampled_from(["a", "b"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
META = {"mode": st.sampled_from([0o644, 0o755, 0o4711]), "owner": st.integers(0, 3), "mtime": st.integers(0, 9)}
ENTRIES = st.one_of(
    st.fixed_dictionaries({"do": st.just("dir"), "path": PATHS, **META}),
    st.fixed_dictionaries({"do": st.just("file"), "path": PATHS, "size": st.sampled_from([0, 3, 64, 65]), **META}),
    st.fixed_dictionaries({"do": st.just("link"), "path": PATHS, "target": PATHS}),
    st.fixed_dictionaries({"do": st.just("whiteout"), "path": PATHS}),
    st.fixed_dictionaries({"do": st.just("opaque"), "path": PATHS}),
)
LAYERS = st.lists(st.lists(ENTRIES, max_size=9), min_size=1, max_size=4)


def drop(model: Model, path: str, *, below: bool = False) -> None:
    for known in list(model):
        if known.startswith(path + "/") or (known == path and not below):
            del model[known]


def apply(model: Model, layer: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Put a layer over the tree; return what is in it that does not contradict that."""
    kept: list[dict[str, Any]] = []
    for entry in layer:
        if entry["do"] in ("whiteout", "opaque"):
            drop(model, entry["path"], below=entry["do"] == "opaque")
    for entry in layer:
        path = entry["path"]
        if entry["do"] in ("whiteout", "opaque"):
            kept.append(entry)
            continue
        parts = path.split("/")
        above = ["/".join(parts[:end]) for end in range(1, len(parts))]
        target = model.get(entry.get("target", ""), {"do": "dir"})
        is_link = entry["do"] == "link"
        if any(model[each]["do"] != "dir" for each in above if each in model) or (is_link and target["do"] == "dir"):
            continue
        kept.append(entry)
        for each in above:
            model.setdefault(each, {"do": "dir", "mode": 0o755, "owner": 0, "mtime": 0})
        if is_link and target is model.get(path):
            continue
        content_here = content(number, len(kept) - 1, entry.get("size", 0))
        made = target if is_link else {**entry, "content": content_here}
        if not (made["do"] == "dir" and model.get(path, {}).get("do") == "dir"):
            drop(model, path)
        model[path] = made
    return kept


def content(number: int, count: int, size: int) -> bytes:
    return f"{number} {count} ".encode().ljust(size, b".")[:size]


def archive(layer: list[dict[str, Any]], number: int, tar_format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for count, entry in enumerate(layer):
            head, _, name = entry["path"].rpartition("/")
            path = {"whiteout": f"{head}/.wh.{name}", "opaque": f"{entry['path']}/.wh..wh..opq"}
            info = tarfile.TarInfo(path.get(entry["do"], entry["path"]).lstrip("/"))
            info.type = {"dir": tarfile.DIRTYPE, "link": tarfile.LNKTYPE}.get(entry["do"], tarfile.REGTYPE)
            info.mode, info.mtime = entry.get("mode", 0o600), entry.get("mtime", 77)
            info.uid = info.gid = entry.get("owner", 99)
            info.linkname = entry.get("target", "")
            data = content(number, count, entry.get("size", 0))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def flat(model: Model) -> dict[str, Any]:
    """What is at each path, and which other paths are the same inode."""
    names: dict[int, list[str]] = {}
    for path, entry in model.items():
        names.setdefault(id(entry), []).append(path)
    return {
        path: (
            entry["do"],
            entry["mode"],
            entry["owner"],
            entry["mtime"],
            entry.get("content", b""),
            sorted(names[id(entry)]),
        )
        for path, entry in model.items()
    }


def flat_tree(layers: Layers) -> dict[str, Any]:
    model: Model = {}
    seen: dict[int, dict[str, Any]] = {}
    pending: list[tuple[str, Directory]] = [("", layers.filesystem().root)]
    for prefix, directory in pending:
        for raw, node in directory.children.items():
            path = prefix + raw.decode()
            if isinstance(node, Directory):
                assert node.above is directory
                assert node.name == raw
                assert node.own is None
                pending.append((path + "/", node))
            data = layers.objects[node.content] if isinstance(node.content, str) else node.content
            assert len(data) == node.size
            entry = seen.setdefault(
                id(node),
                {
                    "do": "dir" if isinstance(node, Directory) else "file",
                    "mode": node.mode & 0o7777,
                    "owner": node.uid,
                    "mtime": node.mtime[0],
                    "content": data,
                },
            )
            model[path] = entry
    return flat(model)


@given(LAYERS, st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
@settings(max_examples=120)
def test_any_layers_as_the_model(drawn: list[list[dict[str, Any]]], tar_format: int) -> None:
    model: Model = {}
    with tempfile.TemporaryDirectory() as directory:
        layers = Layers(Path(directory))
        try:
            for number, layer in enumerate(drawn):
                layers.add(archive(apply(model, layer, number), number, tar_format))
            found = flat_tree(layers)
        except FormatError:
            # A marker that removes what an entry before it contradicts: programs that unpack mind that too.
            assume(False)
            raise
    assert found == flat(model)
