"""Pulling what is here already, in part or whole, under other names, by others; and letting go of it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.commands import CFSCTL, TIMEOUT, cfsctl, completions, the_error
from support.oci_images import init, pull
from support.oci_layout import CONFIG, GZIP, MANIFEST, Layout, digest, simple, tar

ARTIFACT = "application/vnd.example.signature"


def blobs(layout: Path) -> Path:
    return layout / "blobs/sha256"


def config_of(layout: Path, manifest: str) -> dict[str, Any]:
    document = json.loads((blobs(layout) / manifest[7:]).read_text())
    found: dict[str, Any] = json.loads((blobs(layout) / document["config"]["digest"][7:]).read_text())
    return found


def images(repo: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cfsctl("--repo", repo, "oci", "images", "--json").stdout)["images"]
    return found


def state(repo: Path) -> dict[str, Any]:
    """Every name in a repository, and where it leads."""
    links = [path for top in ("streams", "images") for path in (repo / top).rglob("*") if path.is_symlink()]
    return {str(path.relative_to(repo)): os.readlink(path) for path in links}


def test_a_second_pull_needs_nothing_but_the_manifest(tmp_path: Path, repo: Path) -> None:
    layout = simple().write(tmp_path / "layout")
    first = pull(repo, f"oci:{layout}:latest", "app:1")
    before = state(repo)
    kept = {first["manifest"][7:]}
    for blob in blobs(layout).iterdir():
        if blob.name not in kept:
            blob.unlink()
    again = pull(repo, f"oci:{layout}:latest", "app:1")
    assert again["objects"] == {"new": 0, "stored": 0, "present": 0, "inlined": 0}
    assert (again["verity"], again["images"]) == (first["verity"], first["images"])
    assert state(repo) == before
    pull(repo, f"oci:{layout}:latest", "app/other:50%")  # another name for what is here
    assert state(repo).keys() - before.keys() == {"streams/refs/oci/app%2Fother:50%25"}
    (tmp_path / "elsewhere").mkdir()
    cfsctl("--repo", repo, "oci", "pull", "oci:../layout:latest", cwd=tmp_path / "elsewhere")  # as it is typed
    assert {image["name"] for image in images(repo)} == {"app:1", "app/other:50%", "oci:../layout:latest"}
    assert {image["manifest_digest"] for image in images(repo)} == {first["manifest"]}


def test_more_layers_than_a_message_has_rows(tmp_path: Path, repo: Path) -> None:
    layout = Layout()
    layout.add(layout.image(*(tar(**{f"file{number}": b""}) for number in range(1001))), "many")
    source = f"oci:{layout.write(tmp_path / 'layout')}:many"
    first = pull(repo, source, "many")
    assert pull(repo, source, "many")["images"] == first["images"]
    assert pull(repo, "--repair", source, "many")["objects"]["new"] == 0
    assert "/usr/file1000 " in cfsctl("--repo", repo, "oci", "dump", first["config"]).stdout


def test_only_the_layers_that_are_new_are_fetched(tmp_path: Path, repo: Path) -> None:
    base, old, new = tar(base=b"b" * 5000), tar(a=b"old" * 100), tar(a=b"new" * 100)
    layout = Layout()
    layout.add(layout.image(base, old), "1")
    layout.add(layout.image(base, new), "2")
    directory = layout.write(tmp_path / "layout")
    pull(repo, f"oci:{directory}:1", "app")
    import gzip

    (blobs(directory) / digest(gzip.compress(base, mtime=0))[7:]).unlink()
    facts = pull(repo, f"oci:{directory}:2", "app")
    assert facts["objects"]["new"] == 3, "the new file, the config and the manifest"
    dump = cfsctl("--repo", repo, "oci", "dump", "app").stdout
    assert "/usr/base 5000" in dump
    # What the tag let go of is collected, what it shares is not.
    cfsctl("--repo", repo, "gc")
    streams = {path.name for path in (repo / "streams").iterdir()} - {"refs"}
    assert streams == {
        f"oci-layer-{digest(base)}",
        f"oci-layer-{digest(new)}",
        f"oci-config-{facts['config']}",
        f"oci-manifest-{facts['manifest']}",
    }
    assert cfsctl("--repo", repo, "oci", "fsck").stdout.endswith("oci images: 1/1 ok\n")
    cfsctl("--repo", repo, "oci", "untag", "app")
    assert cfsctl("--repo", repo, "oci", "images").stdout == "No images found\n"
    cfsctl("--repo", repo, "gc")
    assert [path for path in (repo / "objects").rglob("*") if path.is_file()] == []


def test_the_platform_of_an_index(tmp_path: Path, repo: Path) -> None:
    layout = Layout()
    each = {
        name: layout.image(tar(a=name.encode() * 50), architecture=name, platform={"os": "linux", "architecture": name})
        for name in ("amd64", "arm64", "s390x")
    }
    layout.add(layout.index(*each.values()), "multi")
    source = f"oci:{layout.write(tmp_path / 'layout')}:multi"
    for name in ("arm64", "s390x"):
        facts = pull(repo, source, f"app:{name}", f"--platform=linux/{name}")
        assert (facts["manifest"], facts["origin"]) == (each[name]["digest"], None)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64")
    assert pull(repo, source, "app:native")["manifest"] == each[machine]["digest"]
    assert "linux/riscv64" in the_error("--repo", repo, "oci", "pull", source, "--platform=linux/riscv64", status=3)
    layout.add({key: value for key, value in each["s390x"].items() if key != "platform"}, "one")
    one = f"oci:{layout.write(tmp_path / 'again')}:one"
    for name, words in (("s390x", ""), ("s390x/z13", ""), ("arm64", "it is for linux/s390x, not for linux/arm64")):
        told = cfsctl("--repo", repo, "oci", "pull", one, "one", f"--platform=linux/{name}").stderr
        assert (words in told) if words else not told
    table = [line.split() for line in cfsctl("--repo", repo, "oci", "images").stdout.splitlines()]
    assert table[1] == ["app:arm64", each["arm64"]["digest"][7:19], "arm64", "1", "0"]
    layout.add(referring(layout, each["s390x"], b"of no platform\n"), "note")
    note = f"oci:{layout.write(tmp_path / 'layout')}:note"
    assert cfsctl("--repo", repo, "oci", "pull", note, "note", "--platform=linux/s390x").stderr == ""
    for name, number in (("s390x", 1), ("arm64", 0)):
        listed = json.loads(cfsctl("oci", "list-referrers", source, f"--platform=linux/{name}", "--json").stdout)
        assert (listed["subject"], len(listed["referrers"])) == (each[name]["digest"], number)


def test_a_platform_that_an_index_spells_in_its_own_way(tmp_path: Path, repo: Path) -> None:
    """What is offered for --platform is found then; and it is no other one than the config's."""
    layout = Layout()
    spelled = {"os": "Linux", "architecture": "S390X"}
    layout.add(layout.index(layout.image(tar(a=b"a"), architecture="S390X", platform=spelled)), "1")
    source = f"oci:{layout.write(tmp_path / 'layout')}:1"
    offered = "it has Linux/S390X: choose with --platform"
    assert offered in the_error("--repo", repo, "oci", "pull", source, "--platform=linux/riscv64", status=3)
    for name in ("Linux/S390X", "linux/s390x"):
        assert cfsctl("--repo", repo, "oci", "pull", source, "app", f"--platform={name}").stderr == ""
    both = [
        layout.image(tar(a=name.encode()), architecture=name, platform={"os": "linux", "architecture": name})
        for name in ("S390X", "s390x")
    ]
    layout.add(layout.index(*both), "2")
    source = f"oci:{layout.write(tmp_path / 'both')}:2"
    assert pull(repo, source, "app", "--platform=linux/s390x")["manifest"] == both[1]["digest"]


def test_an_image_of_docker_is_kept_as_oci(tmp_path: Path, repo: Path) -> None:
    layer, layout = tar(a=b"x" * 100), Layout()
    image = layout.image(layer)
    manifest = json.loads(layout.blobs[image["digest"]])
    docker = "application/vnd.docker."
    manifest["mediaType"] = f"{docker}distribution.manifest.v2+json"
    manifest["config"]["mediaType"] = f"{docker}container.image.v1+json"
    manifest["layers"][0]["mediaType"] = f"{docker}image.rootfs.diff.tar.gzip"
    entry = layout.document(manifest["mediaType"], manifest)
    layout.add(entry, "docker")
    source = f"oci:{layout.write(tmp_path / 'layout')}:docker"
    facts = pull(repo, source, "app")
    assert facts["origin"] == entry["digest"]
    raw = cfsctl("--repo", repo, "oci", "inspect", "app", "--manifest").stdout
    assert digest(raw.removesuffix("\n").encode()) == facts["manifest"] != entry["digest"]
    the_error("--repo", repo, "oci", "inspect", "app", "--manifest", "--config", status=2)
    found = json.loads(raw)
    assert found["mediaType"] == MANIFEST
    assert found["config"]["mediaType"] == CONFIG
    assert [layer["mediaType"] for layer in found["layers"]] == [GZIP]
    assert f"origin   {entry['digest']}\n" in cfsctl("--repo", repo, "oci", "pull", source, "app").stdout
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)["ok"]


def referring(layout: Layout, subject: dict[str, Any], content: bytes, config: str = "") -> dict[str, Any]:
    """Add an artifact that refers to a manifest; with the type of its ``config`` it says no other."""
    return layout.document(
        MANIFEST,
        {
            "mediaType": MANIFEST,
            **({} if config else {"artifactType": ARTIFACT}),
            "config": layout.blob(config or "application/vnd.oci.empty.v1+json", b"{}"),
            "layers": [layout.blob("text/plain; charset=utf-8", content)],  # as podman artifact add writes it
            "subject": {key: subject[key] for key in ("mediaType", "digest", "size")},
            "annotations": {"made.by": "a test"},
        },
    )


def signed(layout: Layout, image: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Add a signature of an image, and a note on that."""
    signature = referring(layout, image, b"signature\n")
    note = referring(layout, signature, b"note on the signature\n")
    for each in (signature, note):
        layout.add(each)
    return signature, note


def test_artifacts_and_referrers(tmp_path: Path, repo: Path) -> None:
    layout = Layout()
    image = layout.image(tar(a=b"x" * 100))
    layout.add(image, "1")
    signature, note = signed(layout, image)
    source = f"oci:{layout.write(tmp_path / 'layout')}:1"
    listed = json.loads(cfsctl("oci", "list-referrers", source, "--json").stdout)
    assert [row["digest"] for row in listed["referrers"]] == [signature["digest"]]
    assert listed["referrers"][0]["artifact_type"] == ARTIFACT
    pull(repo, source, "app")
    assert cfsctl("--repo", repo, "oci", "referrers", "app").stdout == "No referrers found\n"
    assert pull(repo, source, "app", "--referrers")["referrers"] == 2
    assert "\nreferrers 2\n" in cfsctl("--repo", repo, "oci", "pull", source, "app", "--referrers").stdout
    assert images(repo)[0]["referrer_count"] == 1
    assert json.loads(cfsctl("--repo", repo, "oci", "inspect", "app").stdout)["referrers"] == [signature["digest"]]
    [row] = json.loads(cfsctl("--repo", repo, "oci", "referrers", "app", "--json").stdout)["referrers"]
    assert row == {
        "digest": signature["digest"],
        "artifact_type": ARTIFACT,
        "size": signature["size"],
        "annotations": {"made.by": "a test"},
    }
    assert note["digest"] in cfsctl("--repo", repo, "oci", "referrers", f"@{signature['digest']}").stdout
    blob = cfsctl("--repo", repo, "oci", "layer", digest(b"signature\n")).stdout
    assert blob == "signature\n"
    cfsctl("--repo", repo, "gc")
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)["ok"]
    # An artifact by itself; no image can be made of it.
    cfsctl("--repo", repo, "oci", "tag", note["digest"], "note")
    assert [each["is_container"] for each in images(repo)] == [True, False]
    assert "artifact" in cfsctl("--repo", repo, "oci", "images").stdout
    for command in (["dump", "note"], ["compute-id", "note"], ["mount", "note", str(tmp_path)]):
        told = the_error("--repo", repo, "oci", *command, status=9)
        assert told == "cfsctl: note is an artifact, of which no image is made\n"
    for option in ("--dumpfile", "--json"):
        told = the_error("--repo", repo, "oci", "layer", option, digest(b"signature\n"), status=9)
        assert told.endswith(
            " is a blob of an artifact, no layer of files (without --json and --dumpfile it is printed as it is)\n"
        )
    # A copy takes them along; the last tag takes them with it.
    other = init(tmp_path / "other")
    copied = cfsctl(
        "--repo", other, "oci", "copy", "app", "--from", repo, "--referrers", "--name=copy", "--json"
    ).stdout
    assert json.loads(copied)["referrers"] == [signature["digest"], note["digest"]]
    assert json.loads(cfsctl("--repo", other, "oci", "fsck", "--json").stdout)["ok"]
    cfsctl("--repo", other, "oci", "untag", "copy")
    cfsctl("--repo", other, "gc")
    assert [path for path in (other / "objects").rglob("*") if path.is_file()] == []


def test_a_damaged_artifact_is_left_out_of_what_refers_to_an_image(tmp_path: Path, repo: Path) -> None:
    layout = Layout()
    image = layout.image(tar(a=b"x" * 100))
    layout.add(image, "1")
    kind = "application/vnd.example.config"
    artifacts = [referring(layout, image, b"good\n", kind), referring(layout, image, b"bad\n")]
    for each in artifacts:
        layout.add(each)
    pull(repo, f"oci:{layout.write(tmp_path / 'layout')}:1", "app", "--referrers")
    good, bad = [each["digest"] for each in artifacts]
    (repo / "streams" / f"oci-manifest-{bad}").resolve().unlink()
    done = cfsctl("--repo", repo, "oci", "referrers", "app")
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [[good, kind]]
    assert f"left out {bad}: " in done.stderr
    assert "(cfsctl oci fsck tells all that is wrong)" in done.stderr


@pytest.mark.parametrize("by", ["pull", "tag", "copy", "untag"])
def test_what_refers_to_an_image_goes_with_its_last_tag(tmp_path: Path, repo: Path, by: str) -> None:
    """Also where the tag becomes that of another image, as with each pull of a newer one."""
    layout = Layout()
    old, new = (layout.image(tar(a=content)) for content in (b"old" * 100, b"new" * 100))
    for name, image in (("old", old), ("new", new)):
        layout.add(image, name)
    signed(layout, old)
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    other = init(tmp_path / "other")
    for path in (repo, other):
        cfsctl("--repo", path, "oci", "pull", f"{source}:new", "newer")
    cfsctl("--repo", repo, "oci", "pull", "--referrers", f"{source}:old", "app")
    cfsctl("--repo", repo, "oci", "tag", "app", "second")
    commands = {
        "pull": ["pull", f"{source}:new"],
        "tag": ["tag", "newer"],
        "copy": ["copy", "newer", "--from", other, "--name"],
        "untag": ["untag"],
    }
    for name, left in (("app", 2), ("second", 0)):
        cfsctl("--repo", repo, "oci", *commands[by], name)
        assert len([path for path in (repo / "streams/refs/oci-referrers").rglob("*") if path.is_symlink()]) == left


@pytest.mark.parametrize("by", ["pull", "tag", "copy", "untag"])
def test_what_was_left_of_what_refers_to_images_goes_when_they_have_gone(tmp_path: Path, repo: Path, by: str) -> None:
    """By who was interrupted, or has removed the tag as a ref like others; what is here without a tag keeps its own."""
    layout = Layout()
    old, kept, new = (layout.image(tar(a=content)) for content in (b"old" * 100, b"kept" * 100, b"new" * 100))
    for name, image in (("old", old), ("kept", kept), ("new", new)):
        layout.add(image, name)
    signed(layout, old)
    signature = referring(layout, kept, b"signature\n")
    layout.add(signature)
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    other = init(tmp_path / "other")
    for path in (repo, other):
        pull(path, f"{source}:new", "newer")
    for name in ("old", "kept"):
        pull(repo, f"{source}:{name}", name, "--referrers")
    for name in ("one", "two", "more"):
        pull(repo, f"{source}:kept", name)
    cfsctl("--repo", repo, "ref", "remove", "oci/old", "oci/kept")
    refs = repo / "streams/refs/oci-referrers"
    commands = {
        "pull": ["pull", f"{source}:new"],
        "tag": ["tag", "newer"],
        "copy": ["copy", "newer", "--from", other, "--name"],
        "untag": ["untag"],
    }

    def left() -> list[Path]:
        return [path.relative_to(refs) for path in refs.rglob("*") if path.is_symlink()]

    cfsctl("--repo", repo, "oci", *commands[by], "one")
    assert len(left()) == 3
    cfsctl("--repo", repo, "gc")
    cfsctl("--repo", repo, "oci", "untag", "old", status=3)
    assert len(left()) == 3
    cfsctl("--repo", repo, "oci", *commands[by], "two")
    assert left() == [Path(kept["digest"], signature["digest"])]
    cfsctl("--repo", repo, "gc")
    assert {path.name for path in (repo / "streams").glob("oci-manifest-*")} == {
        f"oci-manifest-{each['digest']}" for each in (kept, signature, new)
    }


@pytest.mark.parametrize("by", ["pull", "tag", "copy", "untag", "untag nothing"])
def test_what_refers_to_an_image_that_was_copied_by_its_digest_stays(tmp_path: Path, repo: Path, by: str) -> None:
    layout = Layout()
    image, old, new = (layout.image(tar(a=content)) for content in (b"signed", b"old", b"new"))
    for name, each in (("1", image), ("old", old), ("new", new)):
        layout.add(each, name)
    signature, note = signed(layout, image)
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    other = init(tmp_path / "other")
    pull(other, f"{source}:1", "app", "--referrers")
    for path in (repo, other):
        pull(path, f"{source}:new", "new")
    pull(repo, f"{source}:old", "app")
    cfsctl("--repo", repo, "oci", "copy", f"@{image['digest']}", "--from", other, "--referrers")
    commands = {
        "pull": ["pull", f"{source}:new", "app"],
        "tag": ["tag", "new", "app"],
        "copy": ["copy", "new", "--from", other, "--name", "app"],
        "untag": ["untag", "app"],
        "untag nothing": ["untag", "nothing"],
    }
    cfsctl("--repo", repo, "oci", *commands[by], status=3 if by == "untag nothing" else 0)
    cfsctl("--repo", repo, "oci", "tag", f"@{image['digest']}", "signed")
    for subject, artifact in ((image, signature), (signature, note)):
        assert artifact["digest"] in cfsctl("--repo", repo, "oci", "referrers", f"@{subject['digest']}").stdout


def test_what_refers_to_a_tagged_artifact_stays_with_it(tmp_path: Path, repo: Path) -> None:
    layout = Layout()
    image = layout.image(tar(a=b"a"))
    layout.add(image, "1")
    signature, note = signed(layout, image)
    cfsctl("--repo", repo, "oci", "pull", "--referrers", f"oci:{layout.write(tmp_path / 'layout')}:1", "app")
    cfsctl("--repo", repo, "oci", "tag", signature["digest"], "app")
    refs = repo / "streams/refs/oci-referrers"
    kept = [path.relative_to(refs) for path in refs.rglob("*") if path.is_symlink()]
    assert kept == [Path(signature["digest"], note["digest"])]


@pytest.mark.parametrize("by", ["pull", "pull --referrers", "tag", "copy", "untag"])
def test_what_a_tag_keeps_from_above_stays_when_an_artifact_loses_its_own(tmp_path: Path, repo: Path, by: str) -> None:
    layout = Layout()
    image, new = (layout.image(tar(a=content)) for content in (b"old" * 100, b"new" * 100))
    for name, each in (("1", image), ("new", new)):
        layout.add(each, name)
    signature, note = signed(layout, image)
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    other = init(tmp_path / "other")
    for path in (repo, other):
        cfsctl("--repo", path, "oci", "pull", f"{source}:new", "newer")
    cfsctl("--repo", repo, "oci", "pull", "--referrers", f"{source}:1", "app")
    cfsctl("--repo", repo, "oci", "tag", signature["digest"], "mine")
    commands = {
        "pull": ["pull", f"{source}:new"],
        "pull --referrers": ["pull", "--referrers", f"{source}:1"],
        "tag": ["tag", "newer"],
        "copy": ["copy", "newer", "--from", other, "--name"],
        "untag": ["untag"],
    }
    cfsctl("--repo", repo, "oci", *commands[by], "mine")
    refs = repo / "streams/refs/oci-referrers"
    kept = {path.relative_to(refs) for path in refs.rglob("*") if path.is_symlink()}
    assert kept == {Path(image["digest"], signature["digest"]), Path(signature["digest"], note["digest"])}


def test_other_tags_are_not_looked_at_where_a_tag_stays(tmp_path: Path, repo: Path) -> None:
    source = f"oci:{simple().write(tmp_path / 'layout')}:latest"
    (repo / "streams/refs/oci").mkdir(parents=True)
    (repo / "streams/refs/oci/dangling").symlink_to("../../oci-manifest-sha256:" + "0" * 64)
    for _ in range(2):
        done = cfsctl("--repo", repo, "--trace", "oci", "pull", source, "app")
        assert "left out" not in done.stderr
        assert '"method":"publish"' in done.stderr
        assert '"method":"ref.list"' not in done.stderr


@pytest.mark.parametrize("by", ["pull", "tag", "untag"])
def test_a_tag_of_what_is_no_image_can_be_taken(tmp_path: Path, repo: Path, by: str) -> None:
    layout = Layout()
    image = layout.image(tar(a=b"a"))
    layout.add(image, "1")
    layout.add(referring(layout, image, b"signature\n"))
    source = f"oci:{layout.write(tmp_path / 'layout')}:1"
    pull(repo, source, "app", "--referrers")
    streams = repo / "streams"
    (streams / "other").symlink_to((streams / f"oci-manifest-{image['digest']}").readlink())
    odd = streams / "refs/oci/odd"
    odd.symlink_to("../../other")
    commands = {"pull": ["pull", source], "tag": ["tag", "app"], "untag": ["untag"]}
    cfsctl("--repo", repo, "oci", *commands[by], "odd")
    assert odd.is_symlink() == (by != "untag")
    assert by == "untag" or odd.readlink() == (streams / "refs/oci/app").readlink()


@pytest.mark.parametrize("name", ["odd", "subject/odd", "subject/artifact/odd", "subject/artifact"])
def test_refs_that_say_nothing_are_let_alone_among_those_of_what_refers_to_an_image(
    tmp_path: Path, repo: Path, name: str
) -> None:
    """Such as name no manifest, or another one than they are called by."""
    layout = Layout()
    image, new = (layout.image(tar(a=content)) for content in (b"old" * 100, b"new" * 100))
    for tag, each in (("1", image), ("new", new)):
        layout.add(each, tag)
    layout.add(referring(layout, image, b"signature\n"))
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    pull(repo, f"{source}:new", "newer")
    pull(repo, f"{source}:1", "app", "--referrers")
    streams = repo / "streams"
    (streams / "other").symlink_to((streams / f"oci-manifest-{new['digest']}").readlink())
    odd = (
        streams
        / "refs/oci-referrers"
        / name.replace("subject", image["digest"]).replace("artifact", "sha256:" + "0" * 64)
    )
    odd.parent.mkdir(exist_ok=True)
    target = "other" if name.endswith("odd") else f"oci-manifest-{new['digest']}"
    odd.symlink_to(os.path.relpath(streams / target, odd.parent))
    assert [each["referrer_count"] for each in images(repo)] == [1, 0]
    assert len(json.loads(cfsctl("--repo", repo, "oci", "referrers", "app", "--json").stdout)["referrers"]) == 1
    cfsctl("--repo", repo, "oci", "tag", "newer", "app")
    assert [path for path in (streams / "refs/oci-referrers").rglob("*") if path.is_symlink()] == [odd]


def test_copy_keeps_the_images_of_both_sides(tmp_path: Path, repo: Path) -> None:
    source = f"oci:{simple().write(tmp_path / 'layout')}:latest"
    with_format_2 = init(tmp_path / "other", "sha256", 2)
    here, there = pull(repo, source, "app")["images"], pull(with_format_2, source, "app")["images"]
    out = cfsctl("--repo", repo, "oci", "copy", "app", "--from", with_format_2).stdout.splitlines()
    assert out[0] == "Copied image app"
    assert [line.split()[0] for line in out[1:5]] == ["manifest", "config", "verity", "tagged"]
    for version in ("1", "2"):
        shown = cfsctl("--repo", repo, "--erofs-version", version, "oci", "inspect", "app").stdout
        assert json.loads(shown)["composefs_erofs"] == next(iter((here if version == "1" else there).values()))
    assert "nothing" in the_error("--repo", repo, "oci", "copy", "nothing", "--from", with_format_2, status=3)
    sha512 = init(tmp_path / "sha512", "sha512")
    assert "sha512" in the_error("--repo", sha512, "oci", "copy", "app", "--from", repo, status=9)
    cfsctl("--repo", repo, "gc")
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)["ok"]


def test_an_image_without_usr(tmp_path: Path, repo: Path) -> None:
    """A static program: the root is what the layers make of it, and it cannot be made bootable."""
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("app", "run/app.pid"):
            info = tarfile.TarInfo(name)
            info.size = 100
            archive.addfile(info, io.BytesIO(bytes(100)))
    layout = Layout()
    layout.add(layout.image(out.getvalue()), "1")
    layout.add(layout.image(), "scratch")
    source = layout.write(tmp_path / "layout")
    pull(repo, f"oci:{source}:1", "app")
    dump = [line.split()[:3] for line in cfsctl("--repo", repo, "oci", "dump", "app").stdout.splitlines()]
    assert dump == [
        ["/", "0", "40755"],
        ["/app", "100", "100644"],
        ["/run", "0", "40755"],
        ["/run/app.pid", "100", "100644"],
    ]
    assert "/usr" in the_error("--repo", repo, "oci", "pull", f"oci:{source}:1", "app", "--bootable", status=5)
    pull(repo, f"oci:{source}:scratch", "scratch")
    assert cfsctl("--repo", repo, "oci", "dump", "scratch").stdout.splitlines() == ["/ 0 40755 2 0 0 0 0.0 - - -"]


def test_two_pulls_at_once(tmp_path: Path, repo: Path) -> None:
    source = f"oci:{simple().write(tmp_path / 'layout')}:latest"
    argv = [CFSCTL, "--repo", str(repo), "oci", "pull", source]
    runs = [subprocess.Popen([*argv, f"app:{number}"], stderr=subprocess.PIPE, text=True) for number in range(4)]
    for run in runs:
        _, err = run.communicate(timeout=TIMEOUT)
        assert (run.returncode, err) == (0, "")
    assert len({image["manifest_digest"] for image in images(repo)}) == 1
    assert len(images(repo)) == 4
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)["ok"]


def test_names_are_completed(tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(repo, f"oci:{simple().write(tmp_path / 'layout')}:latest", "team/app:1")
    pull(repo, f"oci:{tmp_path / 'layout'}:latest", "team/lib:2")
    monkeypatch.chdir(tmp_path)
    for command in ("inspect", "untag", "mount", "dump", "compute-id", "fsck", "referrers"):
        assert completions("--repo", "repo", "oci", command, "team/a") == ["team/app:1"], command


def test_what_is_not_here_is_named(repo: Path) -> None:
    wanted = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    for name in ("none:1", f"@{wanted}", wanted):
        for command in ("inspect", "dump", "compute-id", "fsck", "untag", "referrers"):
            if command == "untag" and name != "none:1":
                continue
            assert name.removeprefix("@") in the_error("--repo", repo, "oci", command, name, status=3)
    assert wanted in the_error("--repo", repo, "oci", "layer", wanted, status=3)


def test_a_copy_says_where_it_has_looked_and_what_is_no_digest_is_told_to_be(tmp_path: Path, repo: Path) -> None:
    other = init(tmp_path / "an other")
    for name in ("none:1", f"sha256:{hashlib.sha256(b'').hexdigest()}"):
        told = the_error("--repo", repo, "oci", "copy", name, "--from", other, status=3)
        assert f"no image in {other} is called '{name}'" in told
        assert f"cfsctl --repo '{other}' oci images" in told
        (tmp_path / "none").mkdir(exist_ok=True)
        told = the_error("--repo", repo, "oci", "copy", name, "--from", tmp_path / "none", status=3)
        assert told == f"cfsctl: there is no repository at {tmp_path}/none (check the path after --from)\n"
    for command in ("inspect", "dump", "untag"):
        assert "cfsctl oci images" in the_error("--repo", repo, "oci", command, "b7b0212ba0cc", status=3)
    assert "cfsctl oci images" in the_error("--repo", repo, "oci", "inspect", "@sha256:b7b0212ba0cc", status=3)
    assert "neither a digest" in the_error("--repo", repo, "oci", "inspect", "@app:1", status=2)
