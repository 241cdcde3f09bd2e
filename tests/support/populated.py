"""A small repository with one of everything: files, an image, streams that name each other, refs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from composefs import dumpfile, erofs
from composefs.digest import SHA256, Algorithm
from composefs.repository import Repository
from composefs.repository.publication import ImageName, Publication, RefUpdate, StreamName
from composefs.splitstream import Parts

CONTENT_TYPE = 7


@dataclass(frozen=True)
class Populated:
    """Ids, by what they are.  ``alone`` is an image with a ref; ``inner``, named by the stream, has none.

    The stream ``top`` names the stream ``layer``, the object ``blob``, which is no stream, and the image ``inner``.
    ``garbage`` is an object, and the stream ``old`` a stream, that nothing names.
    """

    path: Path
    files: dict[str, str]
    alone: str
    inner: str
    layer: str
    top: str
    blob: str
    old: str
    garbage: str

    def object(self, object_id: str) -> Path:
        return self.path / "objects" / object_id[:2] / object_id[2:]

    def ids(self) -> set[str]:
        return {path.parent.name + path.name for path in (self.path / "objects").glob("*/*")}

    @property
    def live(self) -> set[str]:
        """What garbage collection keeps."""
        return {*self.files.values(), self.alone, self.inner, self.layer, self.top, self.blob}


def make_image(repository: Repository, *contents: bytes, version: int = 1) -> tuple[str, list[str]]:
    """Store an image with a file for each content, and return its id and the files' ids."""
    ids = [repository.objects.store_parts([content]).id for content in contents]
    lines = [b"/ 0 40755 2 0 0 0 0.0 - - -"]
    for number, (content, each) in enumerate(zip(contents, ids, strict=True)):
        payload = f"{each[:2]}/{each[2:]}"
        lines.append(f"/f{number} {len(content)} 100644 1 0 0 0 0.0 {payload} - {each}".encode())
    tree = dumpfile.parse(b"\n".join(lines) + b"\n", repository.algorithm)
    return repository.images.put(erofs.write(tree, version=version)).id, ids


def populate(path: Path, algorithm: Algorithm = SHA256) -> Populated:
    """Make the repository."""
    Repository.init(path, algorithm=algorithm, insecure=True)
    with Repository.open(path, writable=True) as repository:
        contents = {name: name.encode() * 100 for name in ("one", "two", "three", "four")}
        alone, [one, two] = make_image(repository, contents["one"], contents["two"])
        # composefs-rs would keep "three" only because the layer refers to it; "four" is known to the image alone.
        inner, [three, four] = make_image(repository, contents["three"], contents["four"])
        streams = repository.streams
        layer = streams.put(Parts(CONTENT_TYPE, b"layer", [-5, 0], object_refs=[three])).id
        blob = repository.objects.store_parts([b"no stream"]).id
        named = [("layer:1", layer), ("blob", blob), ("composefs.image", inner)]
        top = streams.put(Parts(CONTENT_TYPE, b"top", [-3], named_refs=named)).id
        old = streams.put(Parts(CONTENT_TYPE, b"old", [-3])).id
        garbage = repository.objects.store_parts([b"garbage" * 100]).id
        repository.publish(
            Publication(
                streams=[StreamName("top", top), StreamName("old", old)],
                images=[ImageName(alone, "os/1"), ImageName(inner)],
                refs=[RefUpdate("oci/team/app:1", "top", "flat")],
            )
        )
    files = {"one": one, "two": two, "three": three, "four": four}
    return Populated(path, files, alone, inner, layer, top, blob, old, garbage)
