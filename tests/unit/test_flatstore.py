"""The store of mkcomposefs: files that change while they are copied, and what a crash has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from composefs.cli import flatstore
from composefs.cli.flatstore import FlatStore
from composefs.digest import SHA256
from composefs.errors import BusyError
from composefs.fsverity import digest_bytes
from composefs.linux.files import opened

CONTENT = b"content" * 100


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


def stored(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_what_changes_while_it_is_copied_is_not_stored(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(_source: int, _target: int) -> bool:
        source.write_bytes(CONTENT + b"more")
        return False

    monkeypatch.setattr(flatstore, "clone", change)
    with opened(source, "opening") as fd, pytest.raises(BusyError, match="a file changed while it was copied") as told:
        FlatStore(str(tmp_path / "store")).store(fd)
    assert told.value.retryable
    assert stored(tmp_path / "store") == []


def test_an_object_that_a_crash_has_cut_short_is_replaced(tmp_path: Path, source: Path) -> None:
    store = FlatStore(str(tmp_path / "store"))
    for damage in (b"", CONTENT[:-1]):
        with opened(source, "opening") as fd:
            assert store.store(fd) == digest_bytes(CONTENT, SHA256).hex()
        [path] = stored(tmp_path / "store")
        assert path.read_bytes() == CONTENT
        path.unlink()
        path.write_bytes(damage)
