"""A correct little extension, each step a method: the broken ones beside it say only what they do otherwise."""

import json
import os
import sys


class Refused(Exception):  # noqa: N818
    """The core answered a call with an error, or cancelled; args[0] is the error object."""


class Extension:
    last_id = 0
    features = ()

    def write(self, data):
        while data:
            data = data[os.write(1, data) :]

    def line(self, **members):
        return json.dumps({"jsonrpc": "2.0", **members}).encode() + b"\n"

    def send(self, **members):
        self.write(self.line(**members))

    def notify(self, method, **params):
        self.send(method=method, params=params)

    def receive(self):
        """The next message that is no notification."""
        for line in iter(sys.stdin.readline, ""):
            message = json.loads(line)
            if message.get("method") == "cancel":
                raise Refused({"code": -32000, "message": "cancelled", "data": {"kind": "cancelled"}})
            if "id" in message:
                return message
        sys.exit(0)

    def call(self, method, **params):
        self.last_id += 1
        self.send(id=self.last_id, method=method, params=params)
        answer = self.receive()
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["result"]

    def stage(self, name, text):
        with open(name, "w") as file:
            file.write(text)
        return name

    def put(self, name):
        """Have the core store a staged file."""
        return self.put_rows({"name": name})[0]

    def put_rows(self, *rows):
        """Have the core store what the rows say; return the ids."""
        stored = self.call("object.put", files=list(rows))["objects"]
        for error in (row["error"] for row in stored if "error" in row):
            raise Refused({"code": -32000, "message": error["message"], "data": {"kind": error["kind"]}})
        return [row["id"] for row in stored]

    def put_stream(self, *ids, **more):
        refs = {"chunks": list(range(len(ids))), "object_refs": list(ids)}
        return self.call("stream.put", content_type="62726f6b656e2121", **refs, **more)["id"]

    def publish(self, stream):
        self.call(
            "publish",
            streams=[{"name": f"{self.name}-1", "id": stream, "if_exists": "replace"}],
            refs=[{"name": f"{self.name}/latest", "target": f"{self.name}-1"}],
        )

    def welcome(self, message):
        """Answer initialize."""
        if 1 not in message["params"]["versions"]:
            error = {"code": -32000, "message": "version 1 only", "data": {"kind": "unsupported"}}
            self.send(id=message["id"], error=error)
        else:
            self.picked = [each for each in self.features if each in message["params"]["features"]]
            self.send(id=message["id"], result={"version": 1, "features": self.picked})

    def run(self):
        """Do the command's work, and return its result."""
        stream = self.put_stream(self.put(self.stage("text", "hello\n")))
        self.publish(stream)
        self.notify("output", text=f"{stream}\n")
        return {"id": stream}

    def answer(self, result):
        self.send(id=self.request["id"], result=result)

    def main(self):
        message = self.receive()
        self.name = message["params"]["extension"]
        self.repository = message["params"]["repository"]
        self.welcome(message)
        self.request = self.receive()
        try:
            self.answer(self.run())
        except Refused as refusal:
            self.send(id=self.request["id"], error=refusal.args[0])
        self.end()

    def end(self):
        sys.stdin.read()  # nothing but a late cancel, and then the end
