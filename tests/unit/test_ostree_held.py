"""Commits that are here: how they are stored, what their streams must be, and which one is meant."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from composefs_ext import Core, Request
from composefs_ext.errors import CorruptError, NotFoundError
from composefs_ext.testing import MemoryCore
from composefs_ostree.formats.commit_stream import CONTENT_TYPE, PARTIAL_CONTENT_TYPE, Entry, partial_name, stream_name
from composefs_ostree.formats.objects import Commit, Dirmeta, Dirtree, make_commit, make_dirmeta, make_dirtree
from composefs_ostree.held.refs import commit_streams, find_stream, ref_name, similar_target
from composefs_ostree.held.storing import lay_out, metadata_limit, put_again, put_commit, put_detached, put_laid_out
from composefs_ostree.held.streams import open_commit
from composefs_ostree.held.tree import Tree, load

DATA = make_commit(Commit({}, None, "", "", 0, bytes(32), bytes(32)))
ID = sha256(DATA).digest()
ENTRIES = {ID: Entry(DATA, None)}
WHOLE, PARTIAL = stream_name(ID), partial_name(ID)


def name(core: Core, each: str, stream: str) -> None:
    core.publish(streams=[{"name": each, "id": stream}]).result()


def test_a_commit_has_one_id_in_whatever_order_its_references_have_come(tmp_path: Path) -> None:
    def handler(_request: Request, core: Core) -> dict[str, Any]:
        refs = [(each, put_commit(core, ID, ENTRIES)) for each in ("a", "b", "c")]
        whole = [put_commit(core, ID, ENTRIES, named_refs=order) for order in (refs, refs[::-1])]
        whole.append(put_again(core, put_commit(core, ID, ENTRIES), refs[::-1]))
        assert len(set(whole)) == 1
        return {}

    MemoryCore(tmp_path).run(handler, ["pull"])


def test_nothing_is_left_in_staging_of_what_was_stored_and_read(tmp_path: Path) -> None:
    def handler(_request: Request, core: Core) -> dict[str, Any]:
        name(core, WHOLE, put_commit(core, ID, ENTRIES))
        before = sorted(os.listdir(core.staging.path))
        for _ in range(3):
            open_commit(core, WHOLE)
            put_detached(core, ID, b"signatures")
        assert sorted(os.listdir(core.staging.path)) == before
        return {}

    MemoryCore(tmp_path).run(handler, ["pull"])


def test_what_metadata_may_take_is_bounded_whatever_the_core_says() -> None:
    for limits, most in (({}, 256 << 20), ({"stream_bytes": 100}, 100), ({"stream_bytes": 1 << 40}, 256 << 20)):
        core: Any = SimpleNamespace(limits=limits)
        assert metadata_limit(core) == most


def test_a_stream_under_the_name_of_something_else_is_refused(tmp_path: Path) -> None:
    other = stream_name(bytes(32))

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        part = lay_out(core, ID, ENTRIES, None)._replace(content_type=PARTIAL_CONTENT_TYPE)
        whole = lay_out(core, ID, ENTRIES, ())._replace(content_type="0" * 16)
        content = core.staging.write(b"no commit")
        split = core.stream_put(CONTENT_TYPE, chunks=[-2, -7], inline=content).result()["id"]
        for each, stream, says in (
            (other, put_commit(core, ID, ENTRIES), f"holds the commit {ID.hex()}"),
            (PARTIAL, put_laid_out(core, part, None, named_refs=()), f"holds the commit {ID.hex()}"),
            (WHOLE, put_laid_out(core, whole, None, named_refs=()), "has the content type 0000000000000000"),
            (stream_name(b"\1" * 32), split, "is not laid out as an ostree commit"),
        ):
            name(core, each, stream)
            with pytest.raises(CorruptError, match=f"{each} {says}"):
                open_commit(core, each, partial=True)
        return {}

    MemoryCore(tmp_path).run(handler, ["pull"])


def test_an_object_of_a_held_commit_with_other_bytes_is_refused(tmp_path: Path) -> None:
    tree, meta = make_dirtree(Dirtree([], [])), make_dirmeta(Dirmeta(0, 0, 0o40755, ()))
    ids = [sha256(each).digest() for each in (tree, meta)]
    data = make_commit(Commit({}, None, "", "", 0, *ids))
    commit = sha256(data).digest()
    good = {commit: data, ids[0]: tree, ids[1]: meta}
    wrong = {
        "commit": {commit: data + b"\0"},
        "dirtree": {ids[0]: make_dirtree(Dirtree([(b"file", bytes(32))], []))},
        "dirmeta": {ids[1]: make_dirmeta(Dirmeta(0, 0, 0o40777, ()))},
    }

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        def held(objects: dict[bytes, bytes]) -> Tree:
            entries = {object_id: Entry(each, None) for object_id, each in objects.items()}
            core.publish(
                streams=[{"name": stream_name(commit), "id": put_commit(core, commit, entries), "if_exists": "replace"}]
            ).result()
            return load(open_commit(core, stream_name(commit))[0])

        assert held(good).trees.keys() == {ids[0]}
        for kind, change in wrong.items():
            with pytest.raises(CorruptError, match=f"{kind} .* has another checksum"):
                held(good | change)
        return {}

    MemoryCore(tmp_path).run(handler, ["pull"])


def test_of_a_commit_that_is_here_twice_the_whole_one_is_meant(tmp_path: Path) -> None:
    def handler(_request: Request, core: Core) -> dict[str, Any]:
        name(core, PARTIAL, put_commit(core, ID, ENTRIES, subpaths=()))
        assert commit_streams(core) == {ID.hex(): PARTIAL}
        name(core, WHOLE, put_commit(core, ID, ENTRIES))
        assert commit_streams(core) == {ID.hex(): WHOLE}
        assert find_stream(core, ID.hex()[:4]) == WHOLE
        with pytest.raises(NotFoundError):  # else a word of three letters could mean a commit
            find_stream(core, ID.hex()[:3])
        return {}

    MemoryCore(tmp_path).run(handler, ["pull"])


def test_the_ref_with_most_words_in_common_is_the_likest(tmp_path: Path) -> None:
    def handler(_request: Request, core: Core) -> dict[str, Any]:
        for each in ("one", "two"):
            name(core, each, put_commit(core, ID, ENTRIES))
        refs: Any = [
            {"name": ref_name(ref), "target": target, "expect": None}
            for ref, target in {"os/x86/stable": "one", "there:os/x86/devel": "two", "z/os": "one"}.items()
        ]
        core.publish(refs=refs).result()
        assert similar_target(core, "o:os/x86/stable/2") == "one"
        assert similar_target(core, "devel") == "two"
        assert similar_target(core, "app/other") is None
        return {}

    MemoryCore(tmp_path).run(handler, ["pull"])
