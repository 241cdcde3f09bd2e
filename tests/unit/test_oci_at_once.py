"""What pulls and copies of an image make of it when somebody else publishes another version of it meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from composefs_ext import Request
from composefs_ext.errors import ConflictError
from composefs_ext.testing import MemoryCore
from composefs_oci import referrers
from composefs_oci.commands import copy, tags
from composefs_oci.commands.pull import pull
from composefs_oci.documents import config_refs, put_document
from composefs_oci.held import open_config, read_document
from composefs_oci.names import CONFIG, config_stream, manifest_stream, referrer_ref, tag_ref
from composefs_oci.receiving import Receiver
from composefs_oci.variants import BOOT_PREFIX
from support.oci_layout import simple

if TYPE_CHECKING:
    from pathlib import Path

    from composefs_ext import Core
    from composefs_ext.rows import Published


class Others:
    """Somebody else who so many ``times`` adds a bootable image to a config, each under another key."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.keys: list[str] = []

    def step_in(self, core: Core, digest: str) -> None:
        if not self.left:
            return
        self.left -= 1
        self.keys.append(f"{BOOT_PREFIX}.{len(self.keys)}")
        config = open_config(core, digest)
        images = config.images | {self.keys[-1]: next(iter(config.images.values()))}
        document = read_document(core, config.id, digest)
        stream, _ = put_document(core, CONFIG, document, config_refs(config.layers, images))
        core.publish(streams=[{"name": config_stream(digest), "id": stream, "if_exists": "replace"}]).result()


def run(path: Path, command: str, monkeypatch: pytest.MonkeyPatch, others: Others) -> None:
    """Pull an image, and pull or copy it again while the others do what they do, which must be kept."""
    name = f"oci:{simple().write(path / 'layout')}"

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        digest = pull(Request({"command": ["pull"], "arguments": {"image": name}}), core)["config"]
        publish, names = Receiver._publish, copy._names

        def slow_publish(receiver: Receiver, *rest: Any) -> Published:
            others.step_in(core, digest)
            return publish(receiver, *rest)

        def slow_names(*arguments: Any) -> Any:
            rows = names(*arguments)
            others.step_in(core, digest)
            return rows

        monkeypatch.setattr(Receiver, "_publish", slow_publish)
        monkeypatch.setattr(copy, "_names", slow_names)
        copied = SimpleNamespace(result=lambda: {"objects": 0, "size": 0, "present": 0})
        monkeypatch.setattr(core, "repo_copy", lambda *_, **__: copied)  # from itself
        again = Request({"command": [command], "arguments": {"image": name, "from": "itself"}})
        try:
            return (pull if command == "pull" else copy.copy)(again, core)
        finally:
            assert set(others.keys) <= set(open_config(core, digest).images)

    MemoryCore(path, algorithm="sha256").run(handler, [command])


@pytest.mark.parametrize("command", ["pull", "copy"])
def test_others_who_have_made_more_of_the_image(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    others = Others(4)
    run(tmp_path, command, monkeypatch, others)
    assert others.left == 0


@pytest.mark.parametrize("command", ["pull", "copy"])
def test_others_who_do_not_cease(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    others = Others(6)
    with pytest.raises(ConflictError):
        run(tmp_path, command, monkeypatch, others)
    assert others.left == 1


@pytest.mark.parametrize("is_pulled", [False, True], ids=["let go of", "pulled"])
@pytest.mark.parametrize("command", ["pull", "copy", "tag", "untag"])
def test_others_who_let_go_of_an_image_or_pull_it(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch, *, is_pulled: bool
) -> None:
    """What refers to it is removed once, and who comes second has nothing to complain of; with a new tag it stays."""
    image, app, subject = f"oci:{simple().write(tmp_path / 'layout')}", tag_ref("app"), "sha256:" + "0" * 64
    old, ref = manifest_stream(subject), referrer_ref(subject, subject)
    kept = [tag_ref("other"), ref] if is_pulled else []

    def handler(_request: Request, core: Core) -> None:
        pulled = pull(Request({"command": ["pull"], "arguments": {"image": image}}), core)
        core.publish(
            streams=[{"name": old, "id": pulled["verity"]}], refs=[{"name": each, "target": old} for each in (app, ref)]
        ).result()
        left = referrers._left

        def slow(*rest: Any, **options: Any) -> list[tuple[str, str]]:
            found = left(*rest, **options)
            if is_pulled:
                core.publish(refs=[{"name": each, "target": old} for each in kept]).result()
            else:
                core.publish(remove_refs=[referrer_ref(*pair) for pair in found]).result()
            return found

        monkeypatch.setattr(referrers, "_left", slow)
        copied = SimpleNamespace(result=lambda: {"objects": 0, "size": 0, "present": 0})
        monkeypatch.setattr(core, "repo_copy", lambda *_, **__: copied)
        arguments = {"image": image, "from": "itself", "digest": image, "name": "app"}
        commands = {"pull": pull, "copy": copy.copy, "tag": tags.tag, "untag": tags.untag}
        commands[command](Request({"command": [command], "arguments": arguments}), core)
        named = {row["name"]: row["target"] for row in core.ref_list().result()}
        now = manifest_stream(pulled["manifest"])
        moved = {} if command == "untag" else {app: now}
        assert named == {tag_ref(image): now} | moved | dict.fromkeys(kept, old)

    MemoryCore(tmp_path, algorithm="sha256").run(handler, [command])


@pytest.mark.parametrize("by", ["a pull of what it refers to", "a new tag and a gc"])
def test_others_who_need_what_refers_to_an_artifact(tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of it stays, below whatever has got a tag; what a gc has taken meanwhile is nobody's mistake."""
    image = f"oci:{simple().write(tmp_path / 'layout')}"
    subject, signature, note, other = (f"sha256:{digit * 64}" for digit in "0123")
    of_signature = {referrer_ref(signature, each): manifest_stream(each) for each in (note, other)}
    if by == "a new tag and a gc":
        new = of_signature | {tag_ref("new"): manifest_stream(signature)}
    else:
        above = {tag_ref("app"): manifest_stream(subject), referrer_ref(subject, signature): manifest_stream(signature)}
        new = of_signature | above
    memory = MemoryCore(tmp_path, algorithm="sha256")

    def handler(_request: Request, core: Core) -> None:
        def set_refs(refs: dict[str, str]) -> None:
            core.publish(refs=[{"name": name, "target": target} for name, target in refs.items()]).result()

        pulled = pull(Request({"command": ["pull"], "arguments": {"image": image}}), core)
        names = [manifest_stream(each) for each in (subject, signature, note, other)]
        core.publish(streams=[{"name": name, "id": pulled["verity"]} for name in names]).result()
        set_refs(of_signature | {tag_ref("mine"): manifest_stream(signature)})
        left = referrers._left

        def slow(*rest: Any, **options: Any) -> list[tuple[str, str]]:
            found = left(*rest, **options)
            set_refs(new)
            if by == "a new tag and a gc":
                del memory.stream_names[manifest_stream(note)], new[referrer_ref(signature, note)]
            monkeypatch.setattr(referrers, "_left", left)
            return found

        monkeypatch.setattr(referrers, "_left", slow)
        tags.untag(Request({"command": ["untag"], "arguments": {"name": "mine"}}), core)
        assert memory.refs == new | {tag_ref(image): manifest_stream(pulled["manifest"])}

    memory.run(handler, ["untag"])
