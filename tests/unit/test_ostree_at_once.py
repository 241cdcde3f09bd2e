"""What pulls and ``remote add`` make of it when somebody else has published the same, or something else, meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from composefs_ext.errors import ConflictError
from composefs_ext.testing import MemoryCore
from composefs_ostree.commands.pulling import _publish
from composefs_ostree.remotes import store
from composefs_ostree.remotes.record import parse_remotes

if TYPE_CHECKING:
    from pathlib import Path

    from composefs_ext import Core, Request

COMMIT = "ab" * 32
NAME = f"ostree-commit-{COMMIT}"


def put(core: Core, content: bytes) -> str:
    inline = core.staging.write(content)
    return core.stream_put("0" * 16, chunks=[-len(content)], inline=inline).result()["id"]


def pull_beside(core: Core, made: bytes, by_another: bytes) -> dict[str, str]:
    """Replace what is held of a commit, when another pull has replaced it since."""
    before = put(core, b"a part")
    core.publish(streams=[{"name": NAME, "id": before, "if_exists": "fail"}]).result()
    row = {"name": NAME, "id": put(core, made), "if_exists": "replace", "expect": before}
    core.publish(streams=[{"name": NAME, "id": put(core, by_another), "if_exists": "replace"}]).result()
    commits: Any = SimpleNamespace(rows={NAME: row}, images=set())
    return _publish(core, commits, [])


def test_a_pull_that_has_completed_the_same_commit(tmp_path: Path) -> None:
    def handler(_request: Request, core: Core) -> dict[str, Any]:
        assert pull_beside(core, b"the whole", b"the whole") == {NAME: put(core, b"the whole")}
        return {}

    MemoryCore(tmp_path).run(handler, ["pull"])


def test_a_pull_that_has_made_something_else_of_a_commit(tmp_path: Path) -> None:
    def handler(_request: Request, core: Core) -> dict[str, Any]:
        with pytest.raises(ConflictError, match=f"commit {COMMIT} was changed by somebody else") as caught:
            pull_beside(core, b"the whole", b"another part")
        assert "again" in (caught.value.hint or "")
        return {}

    MemoryCore(tmp_path).run(handler, ["pull"])


def test_a_remote_that_somebody_has_added_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(_request: Request, core: Core) -> dict[str, Any]:
        first, second = (
            parse_remotes(f'[remote "origin"]\nurl=http://{host}/\n'.encode(), "here")[0] for host in ("one", "two")
        )
        assert store.save_remote(core, first, replace=False)
        with monkeypatch.context() as context:
            context.setattr(store, "_own_remote", lambda *_arguments: None)  # nobody had when this one looked
            assert not store.save_remote(core, second, replace=False)
        assert store.find_remote(core, "origin").settings["url"] == "http://one/"
        return {}

    MemoryCore(tmp_path).run(handler, ["remote", "add"])
