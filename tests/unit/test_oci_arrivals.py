"""Layers that arrive in parallel: by worker processes, from a layout, into a core in memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from composefs_ext.core import Core
from composefs_ext.errors import CorruptError, ExtError, FormatError
from composefs_ext.testing import MemoryCore
from composefs_oci import arrivals as module
from composefs_oci.arrivals import Arrivals
from composefs_oci.formats.descriptors import parse_config, parse_manifest
from composefs_oci.formats.digest import digest_of
from composefs_oci.image import merge_entries, stage, stage_layers
from composefs_oci.layers import fetch
from composefs_oci.layers.fetch import Job
from composefs_oci.layers.stored import open_layer
from composefs_oci.names import BLOB, LAYER, layer_stream
from composefs_oci.sources.layout import DirectoryFiles, LayoutSource
from support.oci_layers import Layers, archives, run_generator


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    run_generator("make_oci_layout.py", 5, tmp_path / "layout", "--layers=5")
    return tmp_path / "layout"


def jobs_of(layout: Path) -> dict[str, Job]:
    with LayoutSource(DirectoryFiles(str(layout)), "v1") as source:
        document = source.manifest()
        manifest = parse_manifest(document.raw, document.media_type)
        with source.open_blob(manifest.config) as blob:
            config = parse_config(blob.read_all())
    return {diff_id: Job(layer, diff_id) for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)}


def opener(layout: Path) -> Callable[[Callable[[str], object]], LayoutSource]:
    def open_source(tell: Callable[[str], object]) -> LayoutSource:
        tell("a line for the user")
        return LayoutSource(DirectoryFiles(str(layout)), "v1")

    return open_source


def fetch_all(core: MemoryCore, layout: Path, jobs: dict[str, Job]) -> dict[str, Any]:
    """Run it; return the streams that arrived, what came with them, and the dump."""
    result: dict[str, Any] = {}

    def handler(_request: Any, client: Core) -> None:
        with Arrivals(client, jobs, opener(layout)) as arrivals:
            if any(job.diff_id is None for job in jobs.values()):
                result["streams"], result["counts"] = arrivals.wait_for_all()
                return
            tree = stage(client, merge_entries((digest, arrivals.entries(digest)) for digest in jobs))
            result["dump"] = Path(client.staging.path_of(tree.dump)).read_bytes()
            assert tree.has_usr
            tree = stage_layers(client, [open_layer(client, digest, arrivals.wait(digest)) for digest in jobs])
            assert Path(client.staging.path_of(tree.dump)).read_bytes() == result["dump"]
            result["streams"], result["counts"] = arrivals.wait_for_all()
        assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text()

    core.run(handler, ["pull"])
    return result


def archive_of(core: MemoryCore, stream: str) -> bytes:
    return core._reassemble(core.streams[stream])


def check(core: MemoryCore, layout: Path, tmp_path: Path, result: dict[str, Any]) -> None:
    layers = Layers(tmp_path)
    for data in archives(layout):
        layers.add(data)
        stream = result["streams"][digest_of(data)]
        assert archive_of(core, stream) == data
        assert core.streams[stream]["content_type"] == LAYER
    counts = result["counts"]
    assert counts.new + counts.present == sum(each.files for each in layers.unpacked)
    assert counts.inlined == sum(each.inline_size for each in layers.unpacked)
    assert result["dump"] == layers.dump()


def test_a_whole_image(tmp_path: Path, layout: Path) -> None:
    core = MemoryCore(tmp_path, algorithm="sha256")
    jobs = jobs_of(layout)
    result = fetch_all(core, layout, jobs)
    check(core, layout, tmp_path, result)
    ended = [event for method, event in core.events if method == "progress" and event["kind"] == "done"]
    assert sorted(event["label"] for event in ended) == sorted(jobs)
    assert all(event["done"] == event["total"] for event in ended)
    assert {event["message"] for method, event in core.events if method == "log"} == {"a line for the user"}
    again = fetch_all(core, layout, jobs)
    assert again["counts"].new == 0
    check(core, layout, tmp_path, again)


@pytest.mark.parametrize("offers", [["packs"], []])
def test_small_files_share_staged_ones_if_the_core_takes_them_so(
    tmp_path: Path, layout: Path, offers: list[str]
) -> None:
    core = MemoryCore(tmp_path, algorithm="sha256")
    core.offers = offers
    check(core, layout, tmp_path, fetch_all(core, layout, jobs_of(layout)))
    rows = [row for method, params in core.calls if method == "object.put" for row in params["files"]]
    assert bool(offers) == any("offset" in row for row in rows)


@pytest.mark.parametrize("cores", [1, 2, 9])
def test_any_number_of_workers_and_little_room(
    tmp_path: Path, layout: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: cores)
    monkeypatch.setattr(fetch, "STAGED_BYTES", 20_000)
    monkeypatch.setattr(module, "TAKEN_LOT", 5_000)
    core = MemoryCore(tmp_path, algorithm="sha256")
    check(core, layout, tmp_path, fetch_all(core, layout, jobs_of(layout)))


def test_a_blob_is_kept_as_it_is(tmp_path: Path, layout: Path) -> None:
    core = MemoryCore(tmp_path, algorithm="sha256")
    [job, *_] = jobs_of(layout).values()
    streams = fetch_all(core, layout, {job.descriptor.digest: Job(job.descriptor, None)})["streams"]
    assert core.streams[streams[job.descriptor.digest]]["content_type"] == BLOB
    assert digest_of(archive_of(core, streams[job.descriptor.digest])) == job.descriptor.digest


@pytest.mark.parametrize(("interval", "named"), [(0.0, 5), (1e6, 0)])
def test_each_layer_is_named_when_it_is_stored_unless_another_just_was(
    tmp_path: Path, layout: Path, monkeypatch: pytest.MonkeyPatch, interval: float, named: int
) -> None:
    monkeypatch.setattr(module, "NAME_INTERVAL", interval)
    monkeypatch.setattr(module, "available_cores", lambda: 1)
    core = MemoryCore(tmp_path, algorithm="sha256")
    streams = fetch_all(core, layout, jobs_of(layout))["streams"]
    assert len(core.stream_names) == named
    assert core.stream_names.items() <= {layer_stream(digest): stream for digest, stream in streams.items()}.items()


def damage(layout: Path, job: Job) -> None:
    blob = layout / "blobs" / job.descriptor.digest.replace(":", "/")
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1  # in gzip's trailer
    blob.write_bytes(data)


def test_a_damaged_layer_leaves_the_others(tmp_path: Path, layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 1)
    monkeypatch.setattr(module, "TAKEN_LOT", 1)
    core = MemoryCore(tmp_path, algorithm="sha256")
    jobs = jobs_of(layout)
    last = min(jobs.values(), key=lambda job: job.descriptor.size)
    damage(layout, last)
    with pytest.raises((CorruptError, FormatError), match=last.descriptor.digest.partition(":")[2]):
        fetch_all(core, layout, jobs)
    assert len(core.streams) == len(jobs) - 1
    assert sorted(core.stream_names) == sorted(layer_stream(digest) for digest, job in jobs.items() if job != last)


def test_a_layer_that_contradicts_the_tree_leaves_all(tmp_path: Path, layout: Path) -> None:
    core = MemoryCore(tmp_path, algorithm="sha256")
    jobs = jobs_of(layout)

    def handler(_request: Any, client: Core) -> None:
        with Arrivals(client, jobs, opener(layout)) as arrivals:
            for digest in jobs:
                assert list(arrivals.entries(digest))
            raise FormatError("a contradiction")

    with pytest.raises(FormatError, match="a contradiction"):
        core.run(handler, ["pull"])
    assert sorted(core.stream_names) == sorted(map(layer_stream, jobs))


def test_a_layer_that_is_being_stored_when_something_fails_is_named(tmp_path: Path, layout: Path) -> None:
    core = MemoryCore(tmp_path, algorithm="sha256")

    def handler(_request: Any, client: Core) -> None:
        with Arrivals(client, jobs_of(layout), opener(layout)) as arrivals:
            while not arrivals._storing:
                arrivals._advance()
            raise FormatError("something else")

    with pytest.raises(FormatError, match="something else"):
        core.run(handler, ["pull"])
    assert core.streams
    assert set(core.stream_names.values()) == set(core.streams)


def test_a_layer_of_another_diff_id(tmp_path: Path, layout: Path) -> None:
    jobs = jobs_of(layout)
    key = list(jobs)[1]
    jobs[key] = jobs[key]._replace(diff_id="sha256:" + "1" * 64)
    with pytest.raises(CorruptError, match="not sha256:1111"):
        fetch_all(MemoryCore(tmp_path, algorithm="sha256"), layout, jobs)


def test_what_the_core_refuses(tmp_path: Path, layout: Path) -> None:
    for method in ("object.put", "stream.put"):
        core = MemoryCore(tmp_path / method, algorithm="sha256")
        core.refuse[method] = CorruptError("no room for this")
        with pytest.raises(CorruptError, match="no room for this"):
            fetch_all(core, layout, jobs_of(layout))


def test_a_worker_that_dies(tmp_path: Path, layout: Path) -> None:
    def handler(_request: Any, client: Core) -> None:
        with Arrivals(client, jobs := jobs_of(layout), lambda _: os._exit(3)) as arrivals:
            arrivals.wait(next(iter(jobs)))

    with pytest.raises(ExtError, match=r"ended early \(exit status 3\)"):
        MemoryCore(tmp_path, algorithm="sha256").run(handler, ["pull"])


def test_the_images_digest_is_that_of_its_documents(layout: Path) -> None:
    """The layout is what it says: else the tests above would prove nothing."""
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"].partition(":")[2]
    assert hashlib.sha256((layout / "blobs/sha256" / digest).read_bytes()).hexdigest() == digest
