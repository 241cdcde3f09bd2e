"""Single layers, and images as trees: import-layer, layer, dump, compute-id, mount, prepare-boot."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from support.commands import CFSCTL, TIMEOUT, cfsctl, completions, the_error
from support.oci_images import init, pull
from support.oci_layers import run_generator
from support.oci_layout import Layout, digest, tar
from support.oci_odd import BOOT

LAYER = (
    tar(large=random.Random(4).randbytes(100_000), small=b"small", same=b"same" * 100, again=b"same" * 100)
    + b"\0" * 9000
)


def import_layer(repo: Path, data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    argv = [CFSCTL, "--repo", str(repo), "oci", "import-layer", *arguments]
    return subprocess.run(argv, input=data, capture_output=True, check=False, timeout=TIMEOUT)


def layer(repo: Path, *arguments: str) -> bytes:
    argv = [CFSCTL, "--repo", str(repo), "oci", "layer", *arguments]
    return subprocess.run(argv, capture_output=True, check=True, timeout=TIMEOUT).stdout


def test_a_layer_comes_back_byte_for_byte(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = digest(LAYER)
    done = import_layer(repo, LAYER, wanted, "base/layer 1")
    facts = json.loads(layer(repo, wanted, "--json"))
    assert done.stdout.decode() == f"sha256:{facts['verity']}\n"
    assert layer(repo, wanted) == layer(repo, f"@{wanted}") == layer(repo, "base/layer 1") == LAYER
    assert facts == {
        "diffId": wanted,
        "verity": facts["verity"],
        "size": len(LAYER),
        "entryCount": 5,
        "splitstream": {
            "externalObjects": 2,
            "externalSize": 100_800,
            "inlineSize": len(LAYER) - 100_800,
        },
    }
    lines = layer(repo, wanted, "--dumpfile").decode().splitlines()
    assert [line.split()[0] for line in lines] == ["/usr", "/usr/large", "/usr/small", "/usr/same", "/usr/again"]
    assert (repo / "streams/refs/oci-layers/base/layer 1").is_symlink()
    again = json.loads(import_layer(repo, LAYER, wanted, "--json").stdout)
    assert again == {"diff_id": wanted, "verity": facts["verity"], "name": None, "size": len(LAYER)}
    cfsctl("--repo", repo, "gc")
    assert layer(repo, "base/layer 1") == LAYER
    monkeypatch.chdir(repo.parent)
    assert completions("--repo", "repo", "oci", "layer", "base")[:1] == ["base/layer 1"]


def test_a_layer_that_is_another_one(repo: Path) -> None:
    done = import_layer(repo, LAYER, digest(b""), "name")
    assert (done.returncode, done.stdout) == (5, b"")
    assert digest(LAYER).encode() in done.stderr
    assert b"before compression" in done.stderr
    assert import_layer(repo, LAYER, "name").returncode == 2
    done = import_layer(repo, LAYER[:2000], digest(LAYER[:2000]))
    assert done.returncode == 5
    assert done.stderr.count(b"\n") == 1
    assert b"before compression" not in done.stderr, "it is the right one, and no archive"
    assert not list((repo / "streams").iterdir())


def test_an_attribute_that_is_empty(repo: Path) -> None:
    """POSIX takes a pax record without a value for none; but so GNU tar writes such an attribute."""
    member = tarfile.TarInfo("usr")
    member.type, member.pax_headers = tarfile.DIRTYPE, {"SCHILY.xattr.user.empty": ""}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member)
    import_layer(repo, made.getvalue(), digest(made.getvalue()))
    assert layer(repo, digest(made.getvalue()), "--dumpfile").endswith(b" user.empty=\n")


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_compressed_layer(repo: Path, compress: Callable[[bytes], bytes]) -> None:
    data = compress(LAYER)
    done = import_layer(repo, data, digest(data))
    assert (done.returncode, done.stdout) == (5, b"")
    assert digest(LAYER).encode() in done.stderr
    assert import_layer(repo, data, digest(LAYER)).returncode == 0
    assert layer(repo, digest(LAYER)) == LAYER


WINDOW = bytes.fromhex("28b52ffd 00 a8") + (1 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
"""A frame of zstd whose window has 2 GiB."""


@pytest.mark.parametrize(
    ("data", "status", "told"),
    [
        (gzip.compress(LAYER)[:-10], 5, "the gzip data is cut off"),
        (zstandard.compress(LAYER) + b"more", 5, "something else follows the zstd data"),
        (lzma.compress(LAYER), 9, "the layer is compressed with xz"),
        (WINDOW, 8, "the zstd data can be read with more than 128 MiB of memory only"),
    ],
    ids=["cut off", "more", "xz", "window"],
)
def test_a_layer_whose_compression_is_not_read(repo: Path, data: bytes, status: int, told: str) -> None:
    done = import_layer(repo, data, digest(LAYER))
    line = f"cfsctl: the archive on standard input: {told} (give it whole, as it is before compression)\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (status, b"", line)


def test_a_layer_without_a_name(repo: Path) -> None:
    refused = cfsctl("--repo", repo, "oci", "layer", "", status=2)
    assert "invalid value for 'DIFF_ID|NAME': an empty name" in refused.stderr
    none = digest(b"none")
    for options in ((), ("--dumpfile",), ("--json",)):
        told = the_error("--repo", repo, "oci", "layer", none, *options, status=3)
        assert told.startswith(f"cfsctl: no layer here is called '{none}' (cfsctl oci inspect --config IMAGE shows ")


def test_no_tar_on_a_terminal(repo: Path) -> None:
    import_layer(repo, LAYER, digest(LAYER))
    argv = [CFSCTL, "--repo", str(repo), "oci", "layer", digest(LAYER)]
    done = subprocess.run(
        ["script", "-qec", " ".join(argv), "/dev/null"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 7
    assert b"terminal" in done.stdout
    assert b"ustar" not in done.stdout


def test_a_reader_of_a_layer_that_has_enough(repo: Path) -> None:
    wanted = digest(LAYER)
    import_layer(repo, LAYER, wanted)
    argv = [CFSCTL, "--repo", str(repo), "oci", "layer", wanted]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 10) == LAYER[:10]
    process.stdout.close()
    assert (process.communicate(timeout=TIMEOUT)[1], process.returncode) == (b"", 141)


def test_trees_by_every_name(tmp_path: Path, repo: Path) -> None:
    """The recorded hashes and ids, by tag, manifest and config, in every mode."""
    row: dict[str, Any] = BOOT["oci"][0]
    run_generator("make_boot_layout.py", row["seed"], tmp_path / "layout")
    facts = pull(repo, f"oci:{tmp_path / 'layout'}", "os")
    told = row["sha256-v1"]
    modes = {
        "plain": [],
        "plain keep-user-xattrs": ["--xattrs=keep-user-xattrs"],
        "bootable": ["--bootable"],
        "bootable keep-user-xattrs": ["--bootable", "--xattrs=keep-user-xattrs"],
    }
    config = f"@{facts['config']}"
    verity = (repo / "streams" / f"oci-config-{facts['config']}").readlink()
    names = [["os"], [f"@{facts['manifest']}"], [config], [config, "".join(verity.parts[-2:])]]
    for names_of, (mode, options) in zip(names, modes.items(), strict=True):
        dump = cfsctl("--repo", repo, "oci", "dump", *names_of, *options).stdout
        assert hashlib.sha256(dump.encode("utf-8", "surrogateescape")).hexdigest() == told["dump sha256"][mode]
        assert cfsctl("--repo", repo, "oci", "compute-id", *names_of, *options).stdout == f"{told[mode]}\n"
    for command in ("dump", "compute-id"):
        told = the_error("--repo", repo, "oci", command, config, facts["verity"], status=5)
        assert "has the content type 66696e616d69636f" in told, "it is the manifest's stream"
    other = cfsctl("--repo", repo, "--erofs-version=2", "oci", "compute-id", "os").stdout
    assert other == f"{row['sha256-v2']['plain']}\n"


@pytest.mark.root
def test_mount(tmp_path: Path, repo: Path) -> None:
    source = f"oci:{tmp_path / 'layout'}"
    run_generator("make_boot_layout.py", 1, tmp_path / "layout")
    pull(repo, source, "os")
    for name in ("mnt", "up", "work"):
        (tmp_path / name).mkdir()
    mountpoint = tmp_path / "mnt"
    error = the_error("--repo", repo, "oci", "mount", "os", mountpoint, "--bootable", status=3)
    assert "--bootable" in error
    facts = pull(repo, source, "os", "--bootable")
    writable = ["--upperdir", str(tmp_path / "up"), "--workdir", str(tmp_path / "work"), "--read-write"]
    for name, options in (("os", []), (f"@{facts['manifest']}", ["--bootable"]), (f"@{facts['config']}", writable)):
        assert cfsctl("--repo", repo, "oci", "mount", name, mountpoint, *options).stdout == ""
        try:
            assert bool(list((mountpoint / "boot").iterdir())) == ("--bootable" not in options)
            if options == writable:
                (mountpoint / "usr/new").write_text("new")
        finally:
            subprocess.run(["umount", mountpoint], check=True)
    assert (tmp_path / "up/usr/new").read_text() == "new"


def test_preparing_the_boot(tmp_path: Path, repo: Path) -> None:
    run_generator("make_boot_layout.py", 1, tmp_path / "layout")
    source = f"oci:{tmp_path / 'layout'}"
    pull(repo, source, "os")
    boot, state = tmp_path / "boot", tmp_path / "state"
    command = ["--repo", str(repo), "oci", "prepare-boot", "os", "--bootdir", str(boot)]
    assert "--bootable" in the_error(*command, status=3)
    image = pull(repo, source, "os", "--bootable")["boot_image"]
    assert "is not a directory" in the_error(*command, status=3)
    boot.mkdir()
    options = ["--entry-id=os-1", "--cmdline=rw", "--cmdline=console=ttyS0", f"--statedir={state}"]
    assert "../x" in the_error(*command, "--entry-id=../x", status=2)
    facts = json.loads(cfsctl(*command, *options, "--json").stdout)
    karg = f"composefs.digest=?v1-sha256-12:{image}"
    assert (facts["image"], facts["karg"]) == (image, karg)
    entry = (boot / "loader/entries/os-1.conf").read_text().splitlines()
    [options_line] = [line for line in entry if line.startswith("options ")]
    assert options_line.split()[-3:] == [karg, "rw", "console=ttyS0"]
    lines = [line.split() for line in cfsctl("--repo", repo, "oci", "dump", "os").stdout.splitlines()]
    sizes = {(line[0].rpartition("/")[2], int(line[1])) for line in lines}
    for line in entry:
        key, _, value = line.partition(" ")
        if key in ("linux", "initrd"):
            data = (boot / value.lstrip("/")).read_bytes()
            assert value.startswith("/os-1/")
            assert (value.rpartition("/")[2], len(data)) in sizes
    assert sorted(path.name for path in (state / image).iterdir()) == ["etc", "var"]
    before = {path: path.read_bytes() for path in boot.rglob("*") if path.is_file()}
    cfsctl(*command, *options)
    assert {path: path.read_bytes() for path in boot.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("marker", [".wh.again", ".wh..wh..opq"])
def test_a_link_to_what_it_is_already_is_of_its_layer(repo: Path, tmp_path: Path, marker: str) -> None:
    archives = [io.BytesIO(), io.BytesIO()]
    for names, out in zip((["again"], ["again", marker]), archives, strict=True):
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name in ("first", "usr", *(f"usr/{each}" for each in names)):
                info = tarfile.TarInfo(name)
                if name == "usr":
                    info.type = tarfile.DIRTYPE
                elif name == "usr/again":
                    info.type, info.linkname = tarfile.LNKTYPE, "first"
                if name != "first" or out is archives[0]:
                    archive.addfile(info)
    layout = Layout()
    layout.add(layout.image(*(out.getvalue() for out in archives)), "odd")
    pull(repo, f"oci:{layout.write(tmp_path / 'layout')}:odd", "odd")
    assert cfsctl("--repo", repo, "ls", "oci/odd", "/usr").stdout.split() == ["again"]


@pytest.mark.parametrize(
    "compression", [bytes, gzip.compress, zstandard.ZstdCompressor().compress], ids=["none", "gzip", "zstd"]
)
def test_a_layer_is_inflated_as_its_first_bytes_say(tmp_path: Path, compression: Callable[[bytes], bytes]) -> None:
    """Whatever its media type says; and it is the same layer whichever way it comes."""
    layers = set()
    for number, ending in enumerate(("", "+gzip", "+zstd")):
        layout = Layout()
        layer_type = f"application/vnd.oci.image.layer.v1.tar{ending}"
        layout.add(layout.image(LAYER, layer_type=layer_type, compress=compression))
        made = init(tmp_path / str(number))
        pull(made, f"oci:{layout.write(tmp_path / f'layout{number}')}", "app")
        assert layer(made, digest(LAYER)) == LAYER
        layers.add(json.loads(layer(made, digest(LAYER), "--json"))["verity"])
    assert len(layers) == 1
    import_layer(init(tmp_path / "other"), LAYER, digest(LAYER), "other")
    assert layers == {json.loads(layer(tmp_path / "other", "other", "--json"))["verity"]}


@pytest.mark.parametrize("name", ["BZhistory", "P*M\x18x"])
def test_an_archive_is_one_whatever_its_first_name_begins_with(tmp_path: Path, repo: Path, name: str) -> None:
    """Such as the magic of bzip2, or of a skippable frame of zstd."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(name))
    layout = Layout()
    for compress in (bytes, gzip.compress):
        layout.add(layout.image(out.getvalue(), compress=compress))
    source = f"oci:{layout.write(tmp_path / 'layout')}"
    for number in range(2):
        made = init(tmp_path / str(number))
        pull(made, f"{source}:@{number}", "app")
        assert layer(made, digest(out.getvalue())) == out.getvalue()
