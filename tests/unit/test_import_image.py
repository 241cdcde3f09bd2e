"""What ``import-image`` reads of its standard input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from composefs.cli.commands import import_image
from composefs.erofs import layout
from composefs.errors import InputOutputError, TooLargeError


def test_an_image_without_end_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image").write_bytes(b"image")
    for limit in (5, 4):
        with (tmp_path / "image").open("rb") as file:
            monkeypatch.setattr(import_image, "STDIN", file.fileno())
            monkeypatch.setattr(layout, "MAX_IMAGE", limit)
            if limit == 5:
                assert b"".join(import_image._pieces()) == b"image"
                continue
            with pytest.raises(TooLargeError, match="the image on standard input is larger than 4 bytes"):
                list(import_image._pieces())


def test_standard_input_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(import_image, "STDIN", fd)
    try:
        with pytest.raises(InputOutputError, match="reading standard input: Is a directory"):
            list(import_image._pieces())
    finally:
        os.close(fd)
