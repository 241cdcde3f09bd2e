"""An extension that asks the core for more than there is room or time for: a short call can ask for any length."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from composefs.errors import CancelledError
from composefs.ext.seen import Seen
from composefs.observe import sink
from composefs.protocol.limits import Limits
from support.calls import KIND, ROOT, call, put
from support.hosting import QUICK, Host, Recorder

MIB = 1 << 20
SMALL = Limits(staging_bytes=4 * MIB)
ONE_MIB = ["write-long", "big", "", "x" * 1024, 1024, ""]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def long_stream(host: Host, times: int) -> str:
    """Have a stream stored that has an object of 1 MiB again and again, and return its id."""
    stored = host.do(ONE_MIB, put("big"))[-1]["objects"][0]["id"]
    chunks = ["write", "chunks", "0\n" * times]
    put_stream = call("stream.put", content_type=KIND, chunks_file="chunks", object_refs=[stored])
    stream: str = host.do(chunks, put_stream)[-1]["id"]
    return stream


def interrupt(host: Host, name: str, largest: list[int], ended: threading.Event) -> None:
    """Note how large a staged file becomes; press Ctrl-C when it has 8 MiB."""
    pressed = False
    while not ended.is_set():
        for path in host.path.glob(f"staging/*/work/{name}"):
            try:
                largest.append(path.stat().st_size)
            except FileNotFoundError:
                continue
            if largest[-1] > 8 * MIB and not pressed:
                os.kill(os.getpid(), signal.SIGINT)
                pressed = True
        time.sleep(0.001)


def refused(answer: dict[str, Any], name: str) -> None:
    assert answer["data"]["kind"] == "too_large"
    assert answer["message"] == f"staged file {name} would have more than {4 * MIB} bytes"


def test_the_bytes_of_a_stream_of_gigabytes_do_not_fill_the_disk(host: Host) -> None:
    """P-17: 8 MB of chunks, which nothing counts as more, make a stream of 4 TiB."""
    stream = long_stream(host, 1000)
    answers = host.do(call("stream.cat", id=stream, into="whole"), ["list"], limits=SMALL)
    refused(answers[0], "whole")
    assert answers[1] == []


@pytest.mark.parametrize("of", ["dump", "image"])
def test_a_tree_again_and_again_does_not_fill_the_disk(host: Host, of: str) -> None:
    """P-17: 4,000,000 paths may be asked for, each of which is the whole tree."""
    lines = ROOT + "".join(f"/d{number} 0 40755 2 0 0 0 0.0 - - -\n" for number in range(1000))
    dump, paths = ["write", "dump", lines], ["write", "paths", '"/"\n' * 300]
    image = host.do(dump, call("image.put", dump="dump"))[-1]["id"]
    named = {"dump": "dump"} if of == "dump" else {"id": image}
    answers = host.do(dump, paths, call("image.dump", paths_file="paths", into="text", **named), ["list"], limits=SMALL)
    refused(answers[0], "text")
    assert answers[1] == ["dump", "paths"]


def test_an_object_of_any_size_is_not_copied(host: Host) -> None:
    """Where somebody put a file that is one hole, of which nothing is on the disk, in the place of an object."""
    [[row]] = [each["objects"] for each in host.do(["write", "a", "hello"], put("a"))]
    path = host.path / "objects" / row["id"][:2] / row["id"][2:]
    path.chmod(0o644)
    os.truncate(path, 1 << 30)
    answers = host.do(call("object.get", id=row["id"], into="copy"), ["list"], limits=SMALL)
    refused(answers[0], "copy")
    assert answers[1] == []


@pytest.mark.parametrize("objects", [100_000, 1])
def test_what_is_remembered_of_images_does_not_grow_with_their_number(objects: int) -> None:
    """They may differ in nothing but a time, and each have all objects of the repository."""
    seen = Seen(None)
    ids = set(map(str, range(objects)))
    for number in range(3000):
        seen.add_whole_image(str(number), set(ids) if number < 20 else {"0"})
        assert seen.objects_of(str(number)) == (ids if number < 20 else {"0"})
        assert sum(map(len, seen._objects.values())) <= 1 << 18
        assert len(seen._objects) <= 1000


def test_ctrl_c_ends_a_call_that_writes_gigabytes(host: Host) -> None:
    stream = long_stream(host, 3000)
    largest: list[int] = []
    ended = threading.Event()
    watcher = threading.Thread(target=interrupt, args=(host, "whole", largest, ended))
    watcher.start()
    try:
        with pytest.raises(CancelledError):
            host.do(call("stream.cat", id=stream, into="whole"), timeouts=QUICK)
    finally:
        ended.set()
        watcher.join()
    assert 8 * MIB < max(largest) < 3000 * MIB
    host.assert_clean()


class Printer(Recorder):
    """Presses Ctrl-C when the first piece of the output is printed."""

    @sink
    def output(self, data: bytes) -> None:
        if not self.outputs:
            os.kill(os.getpid(), signal.SIGINT)
        self.outputs.append(data)


def test_ctrl_c_ends_the_printing_of_a_long_file(host: Host) -> None:
    """A file of 64 GiB may be printed, of which nothing need be on the disk."""
    host.recorder = Printer()
    with pytest.raises(CancelledError):
        host.do(["write-long", "report", "", "x" * 1024, 65536, ""], call("output", file="report"), timeouts=QUICK)
    assert 0 < sum(map(len, host.recorder.outputs)) < MIB
    host.assert_clean()
