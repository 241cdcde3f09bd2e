"""How much a pull of an image takes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from composefs_ext import Core, Request
from composefs_ext.errors import TooLargeError
from composefs_ext.testing import MemoryCore
from composefs_oci.commands import pull as module
from support.oci_layout import MANIFEST, Layout, tar


@pytest.mark.parametrize(("limit", "is_enough"), [(3, True), (2, False)])
def test_referrers_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, is_enough: bool) -> None:
    """Three artifacts, two of which refer to the image and one to another of them."""
    layout = Layout()
    image = layout.image(tar(a=b"a"))
    layout.add(image, "1")
    subject = image
    for number, above in enumerate((image, image, None)):
        subject = layout.document(
            MANIFEST,
            {
                "mediaType": MANIFEST,
                "config": layout.blob("application/vnd.oci.empty.v1+json", b"{}"),
                "layers": [layout.blob("application/octet-stream", b"%d" % number)],
                "subject": {key: (above or subject)[key] for key in ("mediaType", "digest", "size")},
            },
        )
        layout.add(subject)
        layout.add(subject)  # what is listed twice counts once
    name = f"oci:{layout.write(tmp_path / 'layout')}:1"
    monkeypatch.setattr(module, "_MAX_REFERRERS", limit)

    def handler(request: Request, core: Core) -> dict[str, Any]:
        facts = module.pull(request, core)
        assert facts["referrers"] == 3
        return {}

    core = MemoryCore(tmp_path, algorithm="sha256")
    arguments = {"image": name, "referrers": True}
    if is_enough:
        core.run(handler, ["pull"], arguments)
    else:
        with pytest.raises(TooLargeError, match=f"{image['digest']} has more than {limit} referrers"):
            core.run(handler, ["pull"], arguments)
    assert bool(core.refs) == is_enough
