"""The mistakes that authors of extensions make, and what the conformance kit tells them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from support.kit import made

if TYPE_CHECKING:
    from pathlib import Path

MISTAKES = {
    "a read takes whole messages": (
        1,
        """
        def receive(self):
            while True:
                for message in map(json.loads, os.read(0, 1 << 20).splitlines()):
                    if "id" in message:
                        return message
        """,
        r"(initialize|run) is not answered: .*JSONDecodeError",
    ),
    "a notification is taken for an answer": (
        9,
        """
        def put(self, name):
            self.send(id=901, method="object.put", params={"files": [{"name": name}]})
            return json.loads(input()).get("result", {"objects": [{"id": ""}]})["objects"][0]["id"]
        """,
        r"an unknown notification after run: stream.put: params.object_refs\[0\]: '' is not an id .* \(P-18\)",
    ),
    "a row without an id has an empty one": (
        32,
        """
        def put(self, name):
            return self.call("object.put", files=[{"name": name}])["objects"][0].get("id", "")
        """,
        r"a file that the core refuses: stream.put: params.object_refs\[0\]: '' is not an id .* \(P-18\)",
    ),
    "an error has an empty result": (
        35,
        """
        def call(self, method, **params):
            try:
                return super().call(method, **params)
            except Refused:
                return {"objects": [{"id": ""}], "id": ""}
        """,
        r"object.put refused: no_space: stream.put: params.object_refs\[0\]: '' is not an id .* \(P-18\)",
    ),
    "a call that there is not": (
        42,
        """
        def run(self):
            try:
                self.call("object.add", files=["text"])
            except Refused:
                raise Refused({"code": 1, "message": "it does not work", "data": {"kind": "other"}})
        """,
        "an ordinary run: the command fails: it does not work; before that, object.add was answered: there is no call",
    ),
    "an object is published as a stream": (
        21,
        """
        def put_stream(self, object):
            return object
        """,
        "publish: invalid: stream [0-9a-f]{64}: too short for a splitstream",
    ),
    "a chunk is counted from 1": (
        43,
        """
        def put_stream(self, object):
            return self.call("stream.put", content_type="62726f6b656e2121", object_refs=[object], chunks=[1])["id"]
        """,
        "stream.put: invalid: a chunk names object reference 1 of 1",
    ),
    "an image that only its stream knows": (
        27,
        """
        def put_stream(self, object):
            with open("dump", "w") as dump:
                dump.write("/ 0 40755 2 0 0 0 0.0 - - -\\n")
            image = self.call("image.put", dump="dump")["id"]
            return super().put_stream(object, named_refs=[["composefs.image", image]])
        """,
        "the image [0-9a-f]+ is in no images of publish, only in a stream: nobody can mount it",
    ),
    "a name of somebody else": (
        23,
        """
        def publish(self, stream):
            self.call("publish", streams=[{"name": "greeting", "id": stream}])
        """,
        r"publish: permission: stream greeting does not belong to extension made \(its streams begin with made-\)",
    ),
    "two of what excludes one another": (
        43,
        """
        def put(self, name):
            self.call("stream.get", name="a", ref="b")
        """,
        "stream.get: params: not exactly one of name, id, ref is given",
    ),
    "a line break in a text": (
        1,
        """
        def put(self, name):
            self.write(self.line(method="log", params={"level": "info", "message": "@"}).replace(b"@", b"two\\nlines"))
            return super().put(name)
        """,
        r"a line is not JSON in UTF-8: .* \(in a string, a newline is \\n\)",
    ),
    "no parameters": (
        3,
        """
        def put(self, name):
            self.send(id=7, method="stream.list")
            self.receive()
            return super().put(name)
        """,
        "the params of stream.list are no object: without any they are {}",
    ),
    "parameters by their places": (
        43,
        """
        def put(self, name):
            self.send(id=7, method="stream.list", params=["a"])
            self.receive()
            return super().put(name)
        """,
        "the params of stream.list are no object: without any they are {}",
    ),
    "a number of bytes is no integer": (
        43,
        """
        def put(self, name):
            return self.call("object.put", files=[{"name": name, "size": 6.0}])["objects"][0]["id"]
        """,
        r"object.put: params.files\[0\].size: 6.0 is not of type 'integer'",
    ),
    "a line begins as files do elsewhere": (
        1,
        """
        def line(self, **members):
            return b"\\xef\\xbb\\xbf" + super().line(**members)
        """,
        "a line begins with a byte order mark",
    ),
    "an empty line": (
        1,
        """
        def line(self, **members):
            return super().line(**members) + b"\\n"
        """,
        "a line is empty",
    ),
    "a newline between messages only": (
        1,
        """
        def put(self, name):
            self.write(self.line(method="x-1", params={}).rstrip())
            return super().put(name)
        """,
        "a line has more than one message, or has more behind it: Extra data: ",
    ),
    "both a result and an error": (
        3,
        """
        def answer(self, result):
            error = {"code": 0, "message": "none", "data": {"kind": "other"}}
            self.send(id=self.request["id"], result=result, error=error)
        """,
        "an answer has both a result and an error",
    ),
    "an id that went through a float": (
        6,
        """
        def answer(self, result):
            self.send(id=float(self.request["id"]), result=result)
        """,
        "an answer has the id 2.0, which is no integer",
    ),
    "run is answered twice": (
        26,
        """
        def answer(self, result):
            self.write(2 * self.line(id=self.request["id"], result=result))
        """,
        "(run was answered twice|something was written after the answer to run)",
    ),
    "standard output is closed instead of run answered": (
        30,
        """
        def answer(self, result):
            os.close(1)
            time.sleep(3600)
        """,
        "run is not answered: extension made closed its standard output without a result, and did not end until it was "
        "killed by SIGTERM",
    ),
    "lines of a dump end as elsewhere": (
        19,
        """
        def put(self, name):
            with open("dump", "w") as dump:
                dump.write("/ 0 40755 2 0 0 0 0.0 - - -\\r\\n")
            self.call("image.put", dump="dump")
        """,
        "image.put: invalid: dump line 1: /: DIGEST is not 64 hexadecimal digits",
    ),
    "a path in a dump that is not absolute": (
        19,
        """
        def put(self, name):
            stored = super().put(name)
            with open("dump", "w") as dump:
                dump.write("/ 0 40755 2 0 0 0 0.0 - - -\\nfile 0 100644 1 0 0 0 0.0 - - -\\n")
            self.call("image.put", dump="dump")
            return stored
        """,
        "image.put: dump, line 2: PATH is file, which does not begin with /",
    ),
    "a size in a dump that the file has not": (
        20,
        """
        def put(self, name):
            stored = super().put(name)
            with open("dump", "w") as dump:
                dump.write("/ 0 40755 2 0 0 0 0.0 - - -\\n")
                dump.write(f"/file 7 100644 1 0 0 0 0.0 {stored[:2]}/{stored[2:]} - {stored}\\n")
            self.call("image.put", dump="dump")
            return stored
        """,
        "image.put: corrupt: the dump says that a file has 7 bytes, and its object [0-9a-f]{64} has 6",
    ),
    "a line of a dump that ends early": (
        19,
        """
        def put(self, name):
            stored = super().put(name)
            with open("dump", "w") as dump:
                dump.write("/ 0 40755 2 0 0 0 0.0 - - -\\n/link 4 120777 1 0 0 0 0.0 file\\n")
            self.call("image.put", dump="dump")
            return stored
        """,
        "image.put: dump, line 2: 9 columns, not 11: what is not there is -",
    ),
    "an answer is waited for that nobody gives": (
        30,
        """
        def put(self, name):
            self.notify("objects.put", files=[{"name": name}])
            return self.receive()["result"]["objects"][0]["id"]
        """,
        r"run is not answered: for 0.6 seconds nothing came, and all of it slept \(.*\); it has read all that it was "
        r"sent, up to run, and has no call to be answered, as its objects.put had no id \(does it flush ",
    ),
    "an answer is not read": (
        30,
        """
        def put(self, name):
            self.send(id=901, method="object.put", params={"files": [{"name": name}]})
            time.sleep(3600)
        """,
        r"run is not answered: for 0.6 seconds .*; it has not read what it was sent, \d+ bytes up to the answer to "
        r"object.put \(",
    ),
    "a refusal is waited out": (
        35,
        """
        def publish(self, stream):
            try:
                super().publish(stream)
            except Refused:
                super().receive()
        """,
        r"publish refused: corrupt: run is not answered: for 0.6 seconds .* up to the error for publish, and has no ",
    ),
    "a cache is counted on": (
        30,
        """
        def welcome(self, message):
            super().welcome(message)
            open(message["params"]["cache"] + "/etag", "w").close()
        """,
        r"run is not answered: extension made exited with status 1 without a result; it wrote: .*TypeError",
    ),
    "it says what is wrong, and then where": (
        30,
        """
        def put(self, name):
            os.write(2, b"Error: no such thing\\n" + b"    at work (/some/where)\\n" * 40)
            os._exit(1)
        """,
        r"run is not answered: extension made exited with status 1 without a result; it wrote: Error: no such thing\n",
    ),
    "something else is waited for": (
        30,
        """
        def put(self, name):
            subprocess.run(["sleep", "3600"])
        """,
        r"run is not answered: for 0.6 seconds nothing came, and all of it slept \(python3, sleep\); it has read all ",
    ),
    "a list where a message should be": (
        1,
        """
        def put(self, name):
            self.write(b"[]\\n")
            return super().put(name)
        """,
        "a message is not an object",
    ),
    "lists in lists without end": (
        4,
        """
        def put(self, name):
            self.write(b'{"jsonrpc": "2.0", "method": "x-1", "params": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\\n")
            return super().put(name)
        """,
        "a message is nested too deep",
    ),
    "a method by its number": (
        3,
        """
        def put(self, name):
            self.send(method=7, params={})
            return super().put(name)
        """,
        "the method of a call is not a string",
    ),
    "an answer that is a list": (
        3,
        """
        def answer(self, result):
            self.send(id=self.request["id"], result=[result])
        """,
        "the answer to run has neither an error nor an object as result",
    ),
    "a call as the first message": (
        6,
        """
        def welcome(self, message):
            self.send(id=1, method="stream.list", params={})
            super().welcome(message)
        """,
        "stream.list was called before initialize was answered",
    ),
    "a notification with an id of null": (
        6,
        """
        def put(self, name):
            self.send(id=None, method="log", params={"level": "info", "message": "here"})
            return super().put(name)
        """,
        "the id of a call of log is not an integer",
    ),
    "an id that is a word": (
        6,
        """
        def put(self, name):
            self.send(id="first", method="stream.list", params={})
            self.receive()
            return super().put(name)
        """,
        "the id of a call of stream.list is not an integer",
    ),
    "a feature that there is not": (
        25,
        """
        def welcome(self, message):
            self.send(id=message["id"], result={"version": 1, "features": ["colours"]})
        """,
        r"features \['colours'\] were picked; on offer are \['result_file', ",
    ),
    "an exit status of its own": (
        41,
        """
        def run(self):
            return {**super().run(), "status": 3}
        """,
        "status is 3, neither 0 nor 1",
    ),
    "a draft that was not picked": (
        10,
        """
        def put(self, name):
            try:
                self.call("image.draft", draft="tree", part=self.stage("part", ""))
            except Refused:
                return super().put(name)
        """,
        "image.draft: draft is a field of the feature drafts, which was not picked",
    ),
    "sizes that were not picked": (
        10,
        """
        def publish(self, stream):
            self.call("stream.get", id=stream, sizes_into="sizes")
            super().publish(stream)
        """,
        "stream.get: sizes_into is a field of the feature sizes, which was not picked",
    ),
    "more done than there is": (
        40,
        """
        def put(self, name):
            self.notify("progress", kind="started", id="files", label="files", total=1)
            self.notify("progress", kind="progress", id="files", done=2, total=1)
            return super().put(name)
        """,
        "progress of files is 2 of 1",
    ),
    "a file that is larger than ranges are": (
        45,
        """
        def welcome(self, message):
            self.send(id=message["id"], result={"version": 1, "features": ["packs"]})

        def put(self, name):
            with open("pack", "w") as pack:
                pack.truncate((256 << 10) + 1)
            self.call("object.put", files=[{"name": "pack", "offset": 0, "size": (256 << 10) + 1}])
            return super().put(name)
        """,
        r"object.put: the range 0\+262145 of pack is larger than 262144",
    ),
    "a list as the result in a file": (
        44,
        """
        def welcome(self, message):
            self.send(id=message["id"], result={"version": 1, "features": ["result_file"]})

        def answer(self, result):
            super().answer({"result_file": self.stage("result", "[]")})
        """,
        "the answer to run: result_file: result holds no object",
    ),
    "a refusal is told as something else": (
        35,
        """
        def put(self, name):
            try:
                return super().put(name)
            except Refused:
                raise Refused({"code": 1, "message": "no", "data": {"kind": "usage"}})
        """,
        "object.put refused: no_space: run is answered with the kind usage, not no_space",
    ),
    "the last line of a dump, without its end": (
        19,
        """
        def put(self, name):
            stored = super().put(name)
            with open("dump", "w") as dump:
                dump.write("/ 0 40755 2 0 0 0 0.0 - - -\\nfile 0 100644 1 0 0 0 0.0 - - -")
            self.call("image.put", dump="dump")
            return stored
        """,
        "image.put: dump, line 2: PATH is file, which does not begin with /",
    ),
    "a run that nobody cancelled is": (
        42,
        """
        def run(self):
            raise Refused({"code": 1, "message": "no more", "data": {"kind": "cancelled"}})
        """,
        "an ordinary run: the command fails: no more",
    ),
    "it works once only": (
        42,
        """
        def publish(self, stream):
            if self.call("ref.list", prefix=f"{self.name}/")["refs"]:
                raise Refused({"code": 1, "message": "there are refs", "data": {"kind": "invalid"}})
            super().publish(stream)
        """,
        "the same again, where it was published: the command fails: there are refs",
    ),
    "a time of now": (
        27,
        """
        def publish(self, stream):
            with open("dump", "w") as dump:
                dump.write(f"/ 0 40755 2 0 0 0 {time.time_ns()}.0 - - -\\n")
            image = self.call("image.put", dump="dump")["id"]
            self.call("publish", images=[{"id": image, "ref": "made/image"}])
            super().publish(stream)
        """,
        "images that are published are not the same in two runs: ",
    ),
    "a content type by chance": (
        27,
        """
        def put_stream(self, object):
            return self.call("stream.put", content_type=os.urandom(8).hex(), object_refs=[object])["id"]
        """,
        "the content_type of streams is not the same in two runs: ",
    ),
    "an error in several lines": (
        35,
        """
        def put(self, name):
            try:
                return super().put(name)
            except Refused as refusal:
                raise Refused({**refusal.args[0], "message": "it does not work\\n  at all"})
        """,
        "the message of an error has more than one line",
    ),
}
"""What authors do, the rule that it breaks, and what they are told."""
TRIED_WITH = {27: (8,)}
"""A rule that is looked at in the runs for another one only."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_who_makes_a_mistake_is_told_the_rule_and_what_was_seen(installed: Path, mistake: str) -> None:
    rule, methods, told = MISTAKES[mistake]
    report = made(installed, methods, rule, *TRIED_WITH.get(rule, ()))
    assert {each.rule for each in report.findings} == {rule}, report.findings
    assert re.match(told, report.findings[0].message, re.DOTALL), report.findings[0].message
