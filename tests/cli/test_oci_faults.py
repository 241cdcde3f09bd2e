"""Pulls that are interrupted, run out of room, or meet damage and malice: what was here stays, the next pull works."""

from __future__ import annotations

import gzip
import io
import json
import random
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from composefs.repository import Repository
from composefs.splitstream import Parts
from support.commands import CFSCTL, TIMEOUT, cfsctl, the_error
from support.mounts import mounted
from support.oci_hostile import Handler, Hostile, hostile
from support.oci_images import init, pull
from support.oci_layers import run_generator
from support.oci_layout import CONFIG, GZIP, INDEX, MANIFEST, Layout, digest, simple, tar
from support.oci_odd import ODD

SMALL, LARGE = tar(small=b"s" * 3000), tar(large=random.Random(1).randbytes(300_000))


def two_layers() -> Layout:
    layout = Layout()
    layout.add(layout.image(SMALL, LARGE))
    return layout


def blob_of(layer: bytes) -> str:
    return digest(gzip.compress(layer, mtime=0))


def stall(handler: Handler) -> bool:
    """Send the beginning of a body, and then nothing."""
    handler.answer(
        200, b"\x1f\x8b", {"Content-Type": "application/octet-stream"}, length=len(gzip.compress(LARGE, mtime=0))
    )
    handler.state.ending.wait(TIMEOUT)
    return True


def left_over(repo: Path) -> list[Path]:
    return list((repo / "staging").iterdir()) if (repo / "staging").exists() else []


@contextmanager
def stalled_pull(server: Hostile, repo: Path, ready: Callable[[], bool]) -> Iterator[subprocess.Popen[str]]:
    """A pull of which one layer has come to a stop, once something is ``ready``."""
    server.rule(blob_of(LARGE), stall)
    argv = [CFSCTL, "--repo", str(repo), "oci", "pull", server.image, "app", "--tls-verify=false"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + TIMEOUT
        while not ready():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_pull_goes_on(repo: Path, number: signal.Signals) -> None:
    small = repo / "streams" / f"oci-layer-{digest(SMALL)}"
    with hostile(two_layers()) as server:
        with stalled_pull(server, repo, small.is_symlink) as process:
            process.send_signal(number)
            out, _ = process.communicate(timeout=TIMEOUT)
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
        assert out == ""
        assert [path.name for path in (repo / "streams").iterdir()] == [small.name]
        if number != signal.SIGKILL:
            assert left_over(repo) == []
        server.rules.clear()
        pull(repo, server.image, "app", "--tls-verify=false")
        assert len(server.paths(blob_of(SMALL))) == 1, "what had come did not come again"
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)["ok"]
    cfsctl("--repo", repo, "gc")
    assert left_over(repo) == []


def test_a_layer_that_fails_does_not_take_the_others_with_it(repo: Path) -> None:
    layout = two_layers()
    small = repo / "streams" / f"oci-layer-{digest(SMALL)}"

    def absent(handler: Handler) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not small.is_symlink() and time.monotonic() < deadline:
            time.sleep(0.02)
        handler.answer(404, b"")

    with hostile(layout) as server:
        server.rule(blob_of(LARGE), absent)
        error = the_error("--repo", repo, "oci", "pull", server.image, "app", "--tls-verify=false", status=3)
        assert blob_of(LARGE) in error
        server.rules.clear()
        pull(repo, server.image, "app", "--tls-verify=false")
        assert len(server.paths(blob_of(SMALL))) == 1


def test_what_refers_to_an_image_and_is_no_manifest_is_left_out(repo: Path) -> None:
    thing = {"mediaType": "application/vnd.example.thing", "digest": digest(b"thing"), "size": 5}
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [thing]}).encode()
    with hostile(two_layers()) as server:
        server.rule("/referrers/", lambda handler: handler.answer(200, body, {"Content-Type": INDEX}))
        done = cfsctl("--repo", repo, "oci", "pull", server.image, "app", "--tls-verify=false", "--referrers")
        assert server.paths(digest(b"thing")) == []
    assert f"left out the referrer {digest(b'thing')}: it is application/vnd.example.thing" in done.stderr
    assert "referrers" not in done.stdout


def test_what_is_wrong_in_a_layer_is_told_if_it_is_the_right_layer(tmp_path: Path, repo: Path) -> None:
    """Its entries are looked at before it is whole; damage explains them, and so comes first."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo("usr/link")
        link.type, link.linkname = tarfile.LNKTYPE, "usr/none"
        archive.addfile(link)
        large = tarfile.TarInfo("usr/large")
        large.size = 3_000_000
        archive.addfile(large, io.BytesIO(bytes(large.size)))
    odd = out.getvalue()
    (tmp_path / "small").write_bytes(SMALL)
    # Here already: in the pull, it may be under way until the other one is refused.
    with open(tmp_path / "small", "rb") as layer:
        cfsctl("--repo", repo, "oci", "import-layer", digest(SMALL), stdin=layer)
    for diff_id, words in (
        (digest(odd), "usr/link: the target of the hard link, usr/none, does not exist"),
        (digest(b"another"), f"has the digest {digest(odd)}, not {digest(b'another')} (the image's config says so"),
    ):
        layout = Layout()
        rootfs = {"type": "layers", "diff_ids": [digest(SMALL), diff_id]}
        config = layout.blob(CONFIG, json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode())
        layers = [layout.blob(GZIP, gzip.compress(layer, mtime=0)) for layer in (SMALL, odd)]
        layout.add(layout.document(MANIFEST, {"mediaType": MANIFEST, "config": config, "layers": layers}))
        source = f"oci:{layout.write(tmp_path / diff_id[-9:])}"
        assert words in the_error("--repo", repo, "oci", "pull", source, "app", status=5)
        assert not (repo / "streams/refs").exists()
        kept = {path.name for path in (repo / "streams").glob("oci-layer-*")}
        assert kept == {f"oci-layer-{digest(layer)}" for layer in (SMALL, odd)}
        assert not left_over(repo)


def test_images_that_were_put_together_wrongly(tmp_path: Path, repo: Path) -> None:
    rootfs = {"type": "layers", "diff_ids": [digest(SMALL), digest(LARGE)]}
    text = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    other = "application/vnd.example.other"
    for kind, layer, options, words, status in (
        (CONFIG, GZIP, [], "has 1 layer, but its config has 2 diff ids", 5),
        (CONFIG, other, [], f"is of the type {other}, no archive of files", 9),
        (other, GZIP, ["--bootable"], "is an artifact, of which no bootable image can be made", 2),
    ):
        layout = Layout()
        layers = [layout.blob(layer, gzip.compress(SMALL, mtime=0))] * (2 if layer == other else 1)
        document = {"mediaType": MANIFEST, "config": layout.blob(kind, text), "layers": layers}
        layout.add(layout.document(MANIFEST, document))
        source = f"oci:{layout.write(tmp_path / str(status))}"
        assert words in the_error("--repo", repo, "oci", "pull", source, "app", *options, status=status)
        assert not list((repo / "streams").iterdir())


def test_a_layer_that_is_had_from_elsewhere_is_said_to_be(tmp_path: Path, repo: Path) -> None:
    """As were those of Windows, which nobody may distribute; one that is here with the others is like any other."""
    layout = Layout()
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    image = json.loads(layout.blobs[layout.image(SMALL, layer_type=kind)["digest"]])
    image["layers"][0]["urls"] = ["https://example.org/layer\x1b[2J"]
    layout.add(layout.document(MANIFEST, image))
    pull(repo, f"oci:{layout.write(tmp_path / 'whole')}", "app")
    cfsctl("--repo", repo, "oci", "untag", "app")
    cfsctl("--repo", repo, "gc")
    gone = layout.blobs.pop(image["layers"][0]["digest"])
    words = f"{digest(gone)[7:]} is missing (the image leaves it to be had from 'https://example.org/layer"
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    assert words in the_error("--repo", repo, "oci", "pull", source, "app", status=3)


def test_a_read_only_repository(tmp_path: Path, repo: Path) -> None:
    layout = two_layers()
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    facts = pull(repo, source, "app")
    (tmp_path / "view").mkdir()
    view = tmp_path / "view"
    with hostile(layout) as server, mounted(view, "--bind", "-o", "ro", str(repo)):
        for command in (
            ["pull", server.image, "other", "--tls-verify=false"],
            ["tag", facts["manifest"], "other"],
            ["untag", "app"],
            ["copy", "app", "--from", str(repo)],
        ):
            assert str(view) in the_error("--repo", view, "oci", *command, status=7)
        assert server.requests == [], "it is told before anything is fetched"
        for command in (["images"], ["inspect", "app"], ["dump", "app"], ["layer", digest(SMALL), "--json"], ["fsck"]):
            assert cfsctl("--repo", view, "oci", *command).stdout
        image = cfsctl("--repo", view, "oci", "compute-id", "app").stdout
        assert image.strip() == facts["images"]["composefs.image.v1"]


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def test_damage_is_found_and_fetched_again(tmp_path: Path, repo: Path) -> None:
    source = f"oci:{two_layers().write(tmp_path / 'layout')}"
    facts = pull(repo, source, "app")
    streams = repo / "streams"

    def object_of(name: str, data: bytes | None = None) -> Path:
        """The object of a stream, or the one with this content."""
        if data is None:
            return (streams / name).resolve()
        return next(path for path in (repo / "objects").rglob("*") if path.is_file() and path.read_bytes() == data)

    raw = {
        option: cfsctl("--repo", repo, "oci", "inspect", "app", f"--{option}").stdout
        for option in ("manifest", "config")
    }
    victims = {
        "content": object_of("", b"s" * 3000),
        "layer": object_of(f"oci-layer-{digest(LARGE)}"),
        "config": object_of("", raw["config"][:-1].encode()),
        "config stream": object_of(f"oci-config-{facts['config']}"),
        "manifest": object_of("", raw["manifest"][:-1].encode()),
        "manifest stream": object_of(f"oci-manifest-{facts['manifest']}"),
        "image": (repo / "images" / facts["images"]["composefs.image.v1"]).resolve(),
    }
    for what, path in victims.items():
        good = path.read_bytes()
        for harm in (damaged, Path.unlink):
            harm(path)
            report = cfsctl("--repo", repo, "oci", "fsck", status=1).stdout
            assert path.name in report, what
            assert "cfsctl oci pull --repair" in report
            assert not json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)["ok"]
            pull(repo, source, "app", "--repair")
            assert path.read_bytes() == good, what
    for what in ("config stream", "manifest stream"):  # either document tells which layers there are to read
        several = [victims["content"], victims[what]]
        whole = [path.read_bytes() for path in several]
        several[0].unlink()
        damaged(several[1])
        pull(repo, source, "app", "--repair")
        assert [path.read_bytes() for path in several] == whole, what
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)["ok"]


def test_what_a_pull_has_to_read_and_cannot_it_brings_again(tmp_path: Path, repo: Path) -> None:
    """Without being asked to look for damage."""
    layout = two_layers()
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    facts = pull(repo, source, "app")
    config = layout.blobs[facts["config"]]
    victims = [(repo / "streams" / f"oci-{kind}-{facts[kind]}").resolve() for kind in ("config", "manifest")]
    victims += [path for path in (repo / "objects").glob("*/*") if path.read_bytes() == config]
    assert len(victims) == 3
    for path in victims:
        good = path.read_bytes()
        for harm in (damaged, Path.unlink):
            harm(path)
            assert pull(repo, source, "app")["images"] == facts["images"]
            assert path.read_bytes() == good
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)["ok"]


def test_a_bootable_image_that_was_lost_is_made_again(tmp_path: Path, repo: Path) -> None:
    """Also by a pull that asks for none, as ``fsck`` advises it."""
    run_generator("make_boot_layout.py", 1, tmp_path / "layout")
    source = f"oci:{tmp_path / 'layout'}"
    images = pull(repo, source, "os", "--bootable")["images"]
    image = (repo / "images" / images["composefs.image.boot.v1"]).resolve()
    good = image.read_bytes()
    for harm in (damaged, Path.unlink):
        harm(image)
        assert pull(repo, source, "os", "--repair")["images"] == images
        assert image.read_bytes() == good


@pytest.mark.parametrize("case", ["another format", "composefs-rs's reading"])
def test_a_sealed_image_that_was_lost_is_made_again_and_no_other_one(tmp_path: Path, case: str) -> None:
    """One in a format that is kept under the same key as the repository's, and one of archives read otherwise."""
    if case == "another format":
        run_generator("make_boot_layout.py", 1, tmp_path / "layout")
        repo = init(tmp_path / "repo", "sha256", 0)
        sealed = pull(init(tmp_path / "other"), f"oci:{tmp_path / 'layout'}", "os", "--bootable")["boot_image"]
    else:
        repo = init(tmp_path / "repo")
        run_generator("make_boot_layout.py", 0, tmp_path / "layout", "--case=whiteout-order")
        sealed = ODD["whiteout-order"]["sha256-v1"]["pull --bootable"]
    source = f"oci:{tmp_path / 'layout'}"
    images = pull(repo, source, "os", "--bootable", f"--expected-digest={sealed}")["images"]
    image = (repo / "images" / sealed).resolve()
    for harm in (damaged, Path.unlink):
        harm(image)
        assert pull(repo, source, "os", "--repair")["images"] == images
        assert image.is_file()
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)["ok"]
    image.unlink()
    assert pull(repo, source, "os", "--bootable")["boot_image"] != sealed, "another one was asked for"


def test_a_lost_image_that_cannot_be_made_again_is_not_replaced(tmp_path: Path, repo: Path) -> None:
    run_generator("make_boot_layout.py", 1, tmp_path / "layout")
    source = f"oci:{tmp_path / 'layout'}"
    facts = pull(repo, source, "os", "--bootable")
    other = pull(repo, f"oci:{simple().write(tmp_path / 'simple')}:latest", "other")["image"]
    stream = repo / "streams" / f"oci-config-{facts['config']}"
    with Repository.open(repo, writable=True) as opened:
        reader = opened.streams.open(opened.streams.resolve(stream.name))
        named = [(name, other if each == facts["boot_image"] else each) for name, each in reader.named_refs]
        parts = Parts(reader.content_type, b"", [0], list(reader.object_refs()), named)
        forged = opened.objects.path(opened.streams.put(parts).id)
        opened.objects.path(other).unlink()
    stream.unlink()
    stream.symlink_to(".." / forged.relative_to(repo))
    error = the_error("--repo", repo, "oci", "pull", source, "os", status=5)
    assert other in error
    assert "untag the image" in error
    assert pull(repo, source, "os", "--bootable")["images"] == facts["images"]


def test_what_only_the_check_of_images_can_find(tmp_path: Path, repo: Path) -> None:
    """Every object is whole, and belongs to something else."""
    layout = two_layers()
    other = layout.image(LARGE)
    layout.add(other, "other")
    source = layout.write(tmp_path / "layout")
    first = layout.entries[0]["digest"]
    layout.entries[0]["annotations"] = {"org.opencontainers.image.ref.name": "app"}
    layout.write(source)
    pull(repo, f"oci:{source}:app", "app")
    pull(repo, f"oci:{source}:other", "other")
    streams = repo / "streams"
    (streams / "refs/oci/lost").symlink_to(f"../../oci-manifest-{digest(b'')}")
    manifest = streams / f"oci-manifest-{first}"
    target = manifest.readlink()
    manifest.unlink()
    manifest.symlink_to((streams / f"oci-manifest-{other['digest']}").readlink())
    done = cfsctl("--repo", repo, "oci", "fsck", status=1)
    assert "oci images: 1/2 ok" in done.stdout
    assert f"  - fsck: manifest-digest-mismatch: app: {first} has the digest {other['digest']}" in done.stdout
    assert "fsck: broken-symlink: streams/refs/oci/lost" in done.stdout
    again = streams / "refs/oci/app2"
    again.symlink_to((streams / "refs/oci/app").readlink())
    listed = cfsctl("--repo", repo, "oci", "images", "--json")
    assert [image["name"] for image in json.loads(listed.stdout)["images"]] == ["other"]
    assert "left out app: " in listed.stderr
    assert "left out app2: " in listed.stderr
    again.unlink()
    for stream, words in (
        (f"oci-config-{json.loads(layout.blobs[first])['config']['digest']}", "has the content type 67666e6f6369636f"),
        (f"oci-layer-{digest(SMALL)}", "has the content type 726579616c69636f"),
    ):
        manifest.unlink()
        manifest.symlink_to((streams / stream).readlink())
        assert f"oci-manifest-{first} {words}, not 66696e616d69636f" in the_error(
            "--repo", repo, "oci", "inspect", "app", status=5
        )
    manifest.unlink()
    manifest.symlink_to(target)
    assert "oci images: 2/2 ok" in cfsctl("--repo", repo, "oci", "fsck", status=1).stdout
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", "app", "--json").stdout)["images_checked"] == 1


@pytest.mark.root
def test_a_layer_that_an_image_names_many_times_takes_the_room_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = archive(*((f"file{number}", {"pax_headers": {"comment": "x" * 1_000_000}}) for number in range(4)))
    layout = Layout()
    layout.add(layout.image(layer), "once")
    layout.add(layout.image(*[layer] * 20), "often")
    source = layout.write(tmp_path / "layout")
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=32m", "tmpfs"):
        repo = init(disk / "repo")
        monkeypatch.setenv("TMPDIR", str(disk))
        pull(repo, f"oci:{source}:once", "once")
        facts = pull(repo, f"oci:{source}:often", "often")
        assert cfsctl("--repo", repo, "oci", "compute-id", "often").stdout.strip() == facts["image"]
        cfsctl("--repo", repo, "oci", "fsck")


@pytest.mark.root
def test_a_full_disk(tmp_path: Path) -> None:
    big = tar(big=random.Random(2).randbytes(6_000_000))
    layout = Layout()
    layout.add(layout.image(SMALL, big))
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=3m", "tmpfs"):
        repo = init(disk / "repo")
        error = the_error("--repo", repo, "oci", "pull", source, "app", status=8)
        assert str(repo) in error
        assert left_over(repo) == []
        assert not (repo / "streams/refs").exists()
        assert json.loads(cfsctl("--repo", repo, "fsck", "--json").stdout)["ok"]
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        pull(repo, source, "app")


def archive(*entries: tuple[str, dict[str, object]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name, members in entries:
            info = tarfile.TarInfo(name)
            for key, value in members.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(bytes(info.size)) if info.size else None)
    return out.getvalue()


def sparse(size: int) -> bytes:
    return archive(
        ("usr", {"type": tarfile.DIRTYPE}),
        (
            "usr/bomb",
            {
                "pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)},
                "size": 512,
            },
        ),
    )


USR = ("usr", {"type": tarfile.DIRTYPE})
HOSTILE: dict[str, tuple[bytes, int, str]] = {
    "a sparse bomb": (archive(USR).removesuffix(bytes(1024)) and sparse(1 << 50), 8, "bytes"),
    "out of the root": (archive(USR, ("usr/../../etc/passwd", {"size": 100})), 5, ".. in its path"),
    "a link out of the root": (
        archive(USR, ("usr/a", {"type": tarfile.LNKTYPE, "linkname": "../../etc/shadow"})),
        5,
        ".. in its path",
    ),
    "links in a circle": (
        archive(
            USR,
            ("usr/a", {"type": tarfile.SYMTYPE, "linkname": "b"}),
            ("usr/b", {"type": tarfile.SYMTYPE, "linkname": "a"}),
            ("usr/a/file", {"size": 100}),
        ),
        5,
        "usr/a",
    ),
    "a file on the way": (archive(USR, ("usr/a", {"size": 100}), ("usr/a/b", {"size": 100})), 5, "usr/a/b"),
    "endless names": (archive(USR, ("/".join(["usr"] + ["d" * 200] * 30), {"size": 100})), 5, "4095"),
    "a huge header": (archive(USR, ("usr/a", {"pax_headers": {"SCHILY.xattr.user.x": "x" * (2 << 20)}})), 8, "1048576"),
    "no archive": (random.Random(3).randbytes(4096), 5, "checksum"),
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One repository for all attacks, with an image that has to survive them."""
    directory = tmp_path_factory.mktemp("attacked")
    repo = init(directory / "repo")
    pull(repo, f"oci:{simple().write(directory / 'layout')}", "good")
    return repo


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_layer(tmp_path: Path, attacked: Path, attack: str) -> None:
    layer, status, words = HOSTILE[attack]
    layout = Layout()
    layout.add(layout.image(layer))
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    before = cfsctl("--repo", attacked, "oci", "images").stdout
    error = the_error("--repo", attacked, "oci", "pull", source, "bad", status=status)
    assert words in error, error
    assert cfsctl("--repo", attacked, "oci", "images").stdout == before
    assert left_over(attacked) == []
    cfsctl("--repo", attacked, "gc")
    assert cfsctl("--repo", attacked, "oci", "fsck").stdout.endswith("oci images: 1/1 ok\n")


@pytest.mark.parametrize("how", ["cut short", "followed by rubbish", "a bomb of nothing"])
def test_a_hostile_blob(tmp_path: Path, attacked: Path, how: str) -> None:
    blob = gzip.compress(SMALL, mtime=0)
    blob = {
        "cut short": blob[:-9],
        "followed by rubbish": blob + b"rubbish",
        "a bomb of nothing": gzip.compress(bytes(64 << 20), mtime=0),
    }[how]
    layout = Layout()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(SMALL)]}}
    )
    document = {
        "mediaType": MANIFEST,
        "config": layout.blob(CONFIG, config.encode()),
        "layers": [layout.blob(GZIP, blob)],
    }
    layout.add(layout.document(MANIFEST, document))
    error = the_error("--repo", attacked, "oci", "pull", f"oci:{layout.write(tmp_path / 'layout')}", "bad", status=5)
    assert digest(blob)[7:] in error or digest(SMALL) in error
    assert left_over(attacked) == []
