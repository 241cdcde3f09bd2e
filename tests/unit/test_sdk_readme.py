"""The example in the SDK's README runs as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from composefs_ext.fsverity import fsverity_digest
from composefs_ext.testing import MemoryCore

README = Path(__file__).resolve().parent.parent.parent / "extensions" / "sdk" / "README.md"


def test_the_example_stores_and_publishes(tmp_path: Path) -> None:
    [example] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (tmp_path / "hello.py").write_text(example)
    core = MemoryCore(tmp_path)
    for text in ("one", "two"):
        result = core.run_program([sys.executable, str(tmp_path / "hello.py")], ["put"], {"text": text})
        assert result == {"id": fsverity_digest(text.encode())}
    assert core.refs == {"hello/main": "hello-1"}
    assert core.output.startswith("stored ")
