"""What pulls, ``sign`` and ``remote add`` make of it when somebody else has published the same, or something else."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from composefs_ext import Request
from composefs_ext.errors import ConflictError
from composefs_ext.testing import MemoryCore
from composefs_ostree.commands.sign import sign_held
from composefs_ostree.formats.commit_stream import Entry, partial_name
from composefs_ostree.formats.objects import Commit, make_commit
from composefs_ostree.held import storing, streams
from composefs_ostree.held.storing import put_commit
from composefs_ostree.pulling.publishing import publish
from composefs_ostree.remotes import store
from composefs_ostree.remotes.record import parse_remotes
from composefs_ostree.signatures.detached import parse_detached, signatures_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composefs_ext import Core
    from composefs_ext.rows import RefUpdate, StreamName

COMMIT = "ab" * 32
NAME = f"ostree-commit-{COMMIT}"


def put(core: Core, content: bytes) -> str:
    inline = core.staging.write(content)
    return core.stream_put("0" * 16, chunks=[-len(content)], inline=inline).result()["id"]


def pull_beside(core: Core, made: bytes, by_another: bytes) -> dict[str, str]:
    """Replace what is held of a commit, when another pull has replaced it since."""
    before = put(core, b"a part")
    core.publish(streams=[{"name": NAME, "id": before, "if_exists": "fail"}]).result()
    row: StreamName = {"name": NAME, "id": put(core, made), "if_exists": "replace", "expect": before}
    core.publish(streams=[{"name": NAME, "id": put(core, by_another), "if_exists": "replace"}]).result()
    return publish(core, [row], [], {})


def test_a_pull_that_has_completed_the_same_commit(tmp_path: Path) -> None:
    def handler(_request: Request, core: Core) -> dict[str, Any]:
        assert pull_beside(core, b"the whole", b"the whole") == {NAME: put(core, b"the whole")}
        return {}

    MemoryCore(tmp_path).run(handler, ["pull"])


def test_a_pull_that_has_made_something_else_of_a_commit(tmp_path: Path) -> None:
    def handler(_request: Request, core: Core) -> dict[str, Any]:
        with pytest.raises(ConflictError, match=f"commit {COMMIT} was changed by somebody else") as caught:
            pull_beside(core, b"the whole", b"another part")
        assert "again" in (caught.value.hint or "")
        return {}

    MemoryCore(tmp_path).run(handler, ["pull"])


@pytest.mark.parametrize("target", [NAME, "ostree-commit-" + "cd" * 32], ids=["the same", "another"])
def test_a_ref_that_somebody_has_set_meanwhile(tmp_path: Path, target: str) -> None:
    """To the commit that is pulled, or to another one."""

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        stream = put(core, b"the whole")
        core.publish(
            streams=[{"name": name, "id": stream} for name in {NAME, target}],
            refs=[{"name": "ostree/main", "target": target}],
        ).result()
        refs: dict[str, RefUpdate] = {"main": {"name": "ostree/main", "target": NAME, "expect": None}}
        if target == NAME:
            assert publish(core, [], [], refs) == {}
        else:
            with pytest.raises(ConflictError, match="ref 'main' was changed by somebody else during the pull") as told:
                publish(core, [], [], refs)
            assert "run the command again to set it to what the source has now" in (told.value.hint or "")
        return {}

    core = MemoryCore(tmp_path)
    core.run(handler, ["pull"])
    assert core.refs == {"ostree/main": target}


class Signers:
    """A commit whose object is here, and who signs it: each with a key of a number, in a file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.data = make_commit(Commit({}, None, "", "", 0, bytes(32), bytes(32)))
        self.commit = sha256(self.data).digest()

    def hold(self, core: Core) -> None:
        stream = put_commit(core, self.commit, {self.commit: Entry(self.data, None)}, subpaths=())
        core.publish(streams=[{"name": partial_name(self.commit), "id": stream}]).result()

    def sign(self, core: Core, number: int) -> list[dict[str, Any]]:
        """Sign with the key of a number, and return what is told of all signatures."""
        secret = self._key(number)
        file = self._directory / f"secret{number}"
        file.write_bytes(base64.b64encode(secret.private_bytes_raw() + secret.public_key().public_bytes_raw()))
        arguments = {"ref": self.commit.hex(), "sign_from_file": [str(file)]}
        return list(sign_held(Request({"command": ["sign"], "arguments": arguments}), core)["signatures"])

    def signatures(self, core: Core) -> list[bytes]:
        _, stream = streams.open_commit(core, partial_name(self.commit), partial=True)
        metadata = parse_detached(streams.detached_metadata(core, stream.named_refs), "here")
        return signatures_in(metadata, "ed25519")

    def made_by(self, *numbers: int) -> list[bytes]:
        return [self._key(number).sign(self.data) for number in numbers]

    def _key(self, number: int) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def sign_beside(
    directory: Path, monkeypatch: pytest.MonkeyPatch, times: int, then: Callable[[Core, Signers], None]
) -> None:
    """Let so many others sign, one after the other, each between a look at the signatures and the change of them."""
    signers, others, original = Signers(directory), list(range(2, times + 2)), storing.put_again

    def put_again(core: Core, *rest: Any) -> str:
        if others:
            with monkeypatch.context() as context:
                context.setattr(storing, "put_again", original)
                signers.sign(core, others.pop(0))
        return original(core, *rest)

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        signers.hold(core)
        monkeypatch.setattr(storing, "put_again", put_again)
        then(core, signers)
        return {}

    MemoryCore(directory).run(handler, ["sign"])


def test_others_who_sign_the_same_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def then(core: Core, signers: Signers) -> None:
        assert len(signers.sign(core, 1)) == 3
        assert signers.signatures(core) == signers.made_by(2, 3, 1)

    sign_beside(tmp_path, monkeypatch, 2, then)


def test_others_who_do_not_cease_to_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def then(core: Core, signers: Signers) -> None:
        with pytest.raises(
            ConflictError, match=f"commit {signers.commit.hex()} was changed by others 16 times"
        ) as error:
            signers.sign(core, 1)
        assert "again" in (error.value.hint or "")
        assert signers.signatures(core) == signers.made_by(*range(2, 18))

    sign_beside(tmp_path, monkeypatch, 20, then)


def test_a_remote_that_somebody_has_added_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(_request: Request, core: Core) -> dict[str, Any]:
        first, second = (
            parse_remotes(f'[remote "origin"]\nurl=http://{host}/\n'.encode(), "here")[0] for host in ("one", "two")
        )
        assert store.save_remote(core, first, replace=False)
        with monkeypatch.context() as context:
            context.setattr(store, "own_remote", lambda *_arguments: None)  # nobody had when this one looked
            assert not store.save_remote(core, second, replace=False)
        assert store.find_remote(core, "origin").settings["url"] == "http://one/"
        return {}

    MemoryCore(tmp_path).run(handler, ["remote", "add"])


def test_a_remote_that_is_replaced_is_none_that_somebody_has_added(tmp_path: Path) -> None:
    remote = parse_remotes(b'[remote "origin"]\nurl=http://one/\n', "here")[0]

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        with pytest.raises(ConflictError, match="whatever it minds"):
            store.save_remote(core, remote, replace=True)
        return {}

    core = MemoryCore(tmp_path)
    core.refuse["publish"] = ConflictError("whatever it minds")
    core.run(handler, ["remote", "add"])
