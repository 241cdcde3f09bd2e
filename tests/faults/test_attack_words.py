"""Words that a user did not think of, and an extension did: told in one line that reads as what it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from composefs.ext.errortext import ErrorText
from support.commands import cfsctl
from support.hosting import Host


@pytest.mark.parametrize("name", ["9" * 5000, "9" * 4000, "\u0663" * 30])
def test_numbers_of_users_that_no_user_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    host = Host(tmp_path, monkeypatch)
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(host.search))
    done = cfsctl("--repo", host.path, "--ext-user", name, "bad", "write", "--steps", "[]", status=3)
    assert done.stderr == f"cfsctl: there is no user {name[:100]} (make one: adduser --system NAME)\n"


def test_error_text_cannot_turn_its_lines_round() -> None:
    """As everywhere else: what an extension writes after U+202E would be read from right to left."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    shown, to = os.pipe()
    text = ErrorText(reader, "bad", to)
    os.write(writer, "a\u202eb\u2066c\u0085d\u202ce é\n".encode())
    os.close(writer)
    text.close()
    os.close(to)
    with open(shown, encoding="utf-8") as file:
        assert file.read() == "a\ufffdb\ufffdc\ufffdd\ufffde é\n"
