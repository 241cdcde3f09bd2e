"""Images and layers by the first digits of their digests, and what a pull and ``inspect`` say of an image."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from support.commands import cfsctl, the_error
from support.oci_images import init, pull
from support.oci_layout import CONFIG, GZIP, MANIFEST, Layout, digest, tar

OWN = tar(own=b"of this image alone" * 9)


def image(layout: Layout, number: int, **fields: Any) -> str:
    """Add an image that the number tells from others, tagged so; return its digest."""
    labels = {"number": str(number), **fields}
    rootfs = {"type": "layers", "diff_ids": [digest(OWN)]}
    config = {"architecture": "amd64", "os": "linux", "rootfs": rootfs, "config": {"Labels": labels}}
    layers = [layout.blob(GZIP, gzip.compress(OWN, mtime=0))]
    described = layout.blob(CONFIG, json.dumps(config).encode())
    entry = layout.document(MANIFEST, {"mediaType": MANIFEST, "config": described, "layers": layers})
    layout.add(entry, f"n{number}")
    found: str = entry["digest"]
    return found


def two_alike() -> tuple[Layout, str, str]:
    """Two images whose manifests' digests have the same first four digits."""
    seen: dict[str, int] = {}
    for number in range(100_000):
        found = image(Layout(), number)
        if (earlier := seen.setdefault(found[:11], number)) != number:
            layout = Layout()
            return layout, image(layout, earlier), image(layout, number)
    raise AssertionError("no two digests begin alike")


def inspected(repo: Path, name: str) -> str:
    return digest(cfsctl("--repo", repo, "oci", "inspect", "--manifest", name).stdout.encode()[:-1])


def test_the_first_digits_will_do(tmp_path: Path, repo: Path) -> None:
    layout, one, other = two_alike()
    layout.write(tmp_path / "layout")
    tags = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in layout.entries]
    for tag in tags:
        pull(repo, f"oci:{tmp_path}/layout:{tag}", tag)
    [_, *rows] = cfsctl("--repo", repo, "oci", "images").stdout.splitlines()
    for row in rows:
        tag, shown, *_ = row.split()
        whole = one if tag == tags[0] else other
        assert len(shown) == 12
        for name in (shown, f"sha256:{shown}", f"@{shown}", f"@sha256:{shown}", whole, whole[:-1]):
            assert inspected(repo, name) == whole
        dumped = cfsctl("--repo", repo, "oci", "dump", tag).stdout
        assert cfsctl("--repo", repo, "oci", "dump", shown).stdout == dumped
        assert cfsctl("--repo", repo, "oci", "tag", shown, f"again-{tag}").stdout == f"Tagged {whole} as again-{tag}\n"
        assert "ok" in cfsctl("--repo", repo, "oci", "fsck", shown).stdout
    config = json.loads(cfsctl("--repo", repo, "oci", "inspect", "--manifest", one).stdout)["config"]["digest"]
    by_config = cfsctl("--repo", repo, "oci", "compute-id", config[7:30]).stdout
    assert by_config == cfsctl("--repo", repo, "oci", "compute-id", one).stdout
    archive = cfsctl("--repo", repo, "oci", "layer", digest(OWN)[7:11], "--json").stdout
    assert json.loads(archive)["diffId"] == digest(OWN)
    # Four digits are both images', three are nobody's, and a tag is a tag whatever it looks like.
    told = the_error("--repo", repo, "oci", "inspect", one[7:11], status=2)
    assert f"2 digests here begin with {one[7:11]}" in told
    assert one in told
    assert other in told
    assert "no image here is called" in the_error("--repo", repo, "oci", "inspect", one[7:10], status=3)
    cfsctl("--repo", repo, "oci", "tag", other, one[7:19])
    assert inspected(repo, one[7:19]) == other
    assert inspected(repo, f"@{one[7:19]}") == one


def test_a_whole_digest_means_nothing_but_itself(tmp_path: Path, repo: Path) -> None:
    layout = Layout()
    one, other = image(layout, 1), image(layout, 2)
    layout.write(tmp_path / "layout")
    for name in ("n1", "n2"):
        pull(repo, f"oci:{tmp_path}/layout:{name}", name)
    for command in (("tag", "n2", one), ("pull", f"oci:{tmp_path}/layout:n2", one)):
        assert "it would be taken for a digest" in the_error("--repo", repo, "oci", *command, status=2)
    (repo / "streams/refs/oci" / one).symlink_to((repo / "streams/refs/oci/n2").readlink())  # another program's
    assert inspected(repo, one) == one
    assert inspected(repo, "n2") == other


def test_a_copy_by_the_first_digits_gets_no_name(tmp_path: Path, repo: Path) -> None:
    layout = Layout()
    whole = image(layout, 1)
    layout.write(tmp_path / "layout")
    pull(repo, f"oci:{tmp_path}/layout", "app")
    other = init(tmp_path / "other")
    facts = json.loads(cfsctl("--repo", other, "oci", "copy", whole[7:20], "--from", repo, "--json").stdout)
    assert (facts["manifest"], facts["name"]) == (whole, None)
    assert inspected(other, whole[7:20]) == whole


@pytest.mark.parametrize("erofs_format", [1, 2])
def test_a_pull_says_which_image_it_has_made(tmp_path: Path, erofs_format: int) -> None:
    repo = init(tmp_path / "repo", "sha256", erofs_format, 3 - erofs_format)
    layout = Layout()
    image(layout, 1)
    layout.write(tmp_path / "layout")
    wanted = json.loads(cfsctl("--repo", repo, "oci", "pull", f"oci:{tmp_path}/layout", "app", "--json").stdout)[
        "image"
    ]
    assert wanted == cfsctl("--repo", repo, "oci", "compute-id", "app").stdout.strip()
    lines = cfsctl("--repo", repo, "oci", "pull", f"oci:{tmp_path}/layout", "app").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["manifest", "config", "verity", "image", "tagged", "objects"]
    assert f"image    {wanted}" in lines
    assert (repo / "images" / wanted).is_symlink()


def test_documents_that_are_too_long_for_a_message(tmp_path: Path, repo: Path) -> None:
    layout = Layout()
    history = json.dumps([{"created_by": f'RUN "é{number}"', "comment": "\\" * 500} for number in range(500)])
    image(layout, 1, long="x" * 600_000, other="\u00e4" * 300_000, history=history)
    layout.write(tmp_path / "layout")
    pull(repo, f"oci:{tmp_path}/layout", "app")
    inspect = ("--repo", repo, "oci", "inspect", "app")
    text = cfsctl(*inspect).stdout
    told = json.loads(text)
    assert digest(told["config"].encode()) == json.loads(told["manifest"])["config"]["digest"]
    assert len(told["config"]) > 3 << 20
    assert digest(cfsctl(*inspect, "--json").stdout.encode()) == digest(text.encode())
    config = cfsctl(*inspect, "--config").stdout.removesuffix("\n")
    assert digest(config.encode()) == digest(told["config"].encode())
    as_json = json.loads(cfsctl(*inspect, "--config", "--json").stdout)
    assert [(key, digest(value.encode())) for key, value in as_json.items()] == [("config", digest(config.encode()))]
    assert [*json.loads(cfsctl(*inspect, "--manifest", "--json").stdout)] == ["manifest"]
