"""The examples in the SDK's README run as they stand: the extension, its manifest, its tests, and the kit."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from composefs_ext.errors import PermissionDeniedError
from composefs_ext.fsverity import fsverity_digest
from composefs_ext.testing import MemoryCore
from support.commands import cfsctl, run

README = (Path(__file__).resolve().parents[2] / "extensions/sdk/README.md").read_text()
EXTENSION, TESTS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
[MANIFEST] = re.findall(r"```json\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    (tmp_path / "hello.json").write_text(MANIFEST)
    (tmp_path / "hello.py").write_text(EXTENSION)
    (tmp_path / "hello").write_text(f"#!{sys.executable}\n{EXTENSION}")
    (tmp_path / "hello").chmod(0o755)
    return tmp_path / "hello"


def test_the_example_stores_and_publishes(hello: Path, tmp_path: Path) -> None:
    core = MemoryCore(tmp_path / "core", manifest=hello.with_suffix(".json"))
    for text in ("one", "two"):
        result = core.run_program([hello], ["put"], {"text": text})
        assert result == {"id": fsverity_digest(text.encode())}
    assert core.refs == {"hello/main": "hello-1"}
    assert core.output.startswith("stored ")


def test_the_manifest_says_what_may_be_named_and_given(hello: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "other.json"
    manifest.write_text(MANIFEST.replace('"hello"', '"other"'))
    with pytest.raises(PermissionDeniedError, match="hello-1"):
        MemoryCore(tmp_path / "core", manifest=manifest).run_program([hello], ["put"], {"text": "x"})
    with pytest.raises(AssertionError, match="requires"):
        MemoryCore(tmp_path / "core", manifest=manifest).run_program([hello], ["put"], {})


def test_its_tests_pass(hello: Path) -> None:
    (hello.parent / "test_hello.py").write_text(TESTS)
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_hello.py", cwd=hello.parent)
    assert "2 passed" in done.stdout


def test_the_kit_finds_nothing(hello: Path) -> None:
    assert "hello passes: " in cfsctl("ext", "check", hello, "--strict").stdout
