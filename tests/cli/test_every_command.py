"""What holds for every command of the command line: --json, completion, and their places in docs/commands.md.

The commands come from walking the command line itself, built-in ones and those of the manifests, so that a new command
without --json, or with a word that could be completed and is not, fails here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from composefs.cli.complete import _Completed
from composefs.cli.main import root
from support.commands import cfsctl, completions, run
from support.gpg import Gnupg
from support.oci_images import init, pull
from support.oci_layout import MANIFEST, Layout, tar
from support.ostree_pull import LIBEXEC, extensions
from support.ostree_repo import BRANCH, commit, make_repo, make_tree, update_summary

__all__ = ["extensions"]

pytestmark = pytest.mark.usefixtures("extensions")

WITHOUT_JSON = {
    "cat": "writes the bytes of a stream or of files",
    "completion": "writes a script",
    "create-dumpfile": "writes composefs-dump(5) text",
    "mount": "prints nothing",
    "umount": "prints nothing",
    "transaction": "prints nothing",
    "ref remove": "prints nothing",
}

# Words that nobody here knows the candidates of: free text, new names, and what is in another repository, on another
# machine, in an image or among somebody's keys.
FREE = {
    "ext check words",
    *(f"ostree {command} --subpath" for command in ("pull", "pull-local")),
    *(f"ostree {command} --sign-key" for command in ("pull", "pull-local", "sign", "apply-delta")),
    *(f"ostree {command} --limit-rate" for command in ("pull", "list-refs", "remote refs")),
    *(f"ostree {command} --gpg-sign" for command in ("commit", "sign", "export")),
    *("ostree sign --delete", "ostree list-refs url", "ostree list-refs --subset", "ostree remote refs --subset"),
    *(f"ostree commit --{option}" for option in ("subject", "body", "parent", "timestamp", "add-metadata")),
    *("ostree commit --add-metadata-string", "ostree commit --add-detached-metadata-string"),
    *(f"ostree commit --{option}" for option in ("keep-metadata", "collection-id", "tar-pathname-filter")),
    *(f"ostree remote add {word}" for word in ("url", "branches", "--set", "--sign-verify", "--contenturl")),
    *("ostree remote add --collection-id", "ostree remote add --custom-backend"),
    *(f"oci {command} image" for command in ("pull", "list-tags", "list-referrers", "copy")),
    *("oci pull --platform", "oci list-referrers --platform", "oci import-layer digest"),
    *("oci prepare-boot --entry-id", "oci prepare-boot --cmdline"),
}


class Leaf(NamedTuple):
    """A command: its words and what click knows of it."""

    words: str
    command: click.Command

    @property
    def has_json(self) -> bool:
        return any("--json" in parameter.opts for parameter in self.command.params)


def leaves(group: click.Group, context: click.Context, *path: str) -> Iterator[Leaf]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from leaves(command, click.Context(command, parent=context), *path, name)
        else:
            yield Leaf(" ".join((*path, name)), command)


def every_command() -> list[Leaf]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPOSEFS_EXT_PATH", str(LIBEXEC))
        return list(leaves(root, click.Context(root)))


LEAVES = every_command()


def words_of(leaf: Leaf) -> Iterator[tuple[str, click.Parameter]]:
    """Each operand and option that takes a word, with its name in FREE."""
    for parameter in leaf.command.params:
        if isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count):
            continue
        long = next((each for each in parameter.opts if each.startswith("--")), parameter.name)
        yield f"{leaf.words} {long}", parameter


COMPLETED = {
    name: (leaf, parameter)
    for leaf in LEAVES
    for name, parameter in words_of(leaf)
    if isinstance(parameter.type, _Completed)
}


# --json


def test_there_are_commands_of_the_core_and_of_both_extensions() -> None:
    names = {leaf.words for leaf in LEAVES}
    assert names >= {"gc", "ref list", "ostree pull", "ostree remote add", "oci pull"}
    assert len(names) > 60


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.words)
def test_what_prints_facts_has_json(leaf: Leaf) -> None:
    assert leaf.has_json != (leaf.words in WITHOUT_JSON)
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
    section = page.partition(f"\n## cfsctl {leaf.words}\n")[2].partition("\n## ")[0]
    assert section
    assert ("| `--json` |" in section) == leaf.has_json


class World(NamedTuple):
    """What commands are tried on: a repository with images, commits and a remote, and sources to pull from."""

    path: Path
    names: dict[str, str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    path = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPOSEFS_EXT_PATH", str(LIBEXEC))
        return World(path, make_world(path))


def make_world(path: Path) -> dict[str, str]:
    tree = make_tree(path / "tree", files=3)
    source = make_repo(path / "source")
    first = commit(source, tree)
    (tree / "usr" / "new").write_bytes(b"new" * 1000)
    second = commit(source, tree)
    cfsctl("ostree", "list-refs", "--path", source)
    update_summary(source)
    layout = Layout()
    image = layout.image(tar(a=b"one" * 100), tar(b=bytes(5000)))
    layout.add(image, "latest")
    document = {"mediaType": MANIFEST, "artifactType": "application/vnd.example.signature"}
    blobs = {
        "config": layout.blob("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [layout.blob("application/octet-stream", b"signature")],
        "subject": {key: image[key] for key in ("mediaType", "digest", "size")},
    }
    layout.add(layout.document(MANIFEST, document | blobs))
    layout.write(path / "layout")
    (path / "layer.tar").write_bytes(tar(c=b"three" * 100))
    (path / "bootable" / "usr").mkdir(parents=True)
    for directory in ("boot", "sysroot"):
        (path / "bootable" / directory).mkdir()
    repo = init(path / "repo")

    def in_repo(*arguments: str | Path) -> str:
        return cfsctl("--repo", repo, *arguments).stdout

    in_repo("create-image", tree, "os/2")
    (tree / "usr" / "new").unlink()
    in_repo("create-image", tree, "os/1")
    in_repo("ostree", "remote", "add", "o", f"file://{source}", "--no-gpg-verify")
    in_repo("ostree", "pull-local", "--remote=o", source, f"{BRANCH}@{first}")
    in_repo("ostree", "tag", first, "mine")
    facts = pull(repo, f"oci:{path}/layout:latest", "app:1", "--referrers")
    layers = json.loads(in_repo("oci", "inspect", "app:1", "--json"))
    diff_id = json.loads(layers["config"])["rootfs"]["diff_ids"][0]
    with (path / "layer.tar").open("rb") as layer:
        digest = "sha256:" + hashlib.sha256((path / "layer.tar").read_bytes()).hexdigest()
        cfsctl("--repo", repo, "oci", "import-layer", digest, "base/one", stdin=layer)
    empty = in_repo("create-image", make_tree(path / "small", files=1)).strip().partition(":")[2]
    (path / "erofs").write_bytes((repo / "objects" / empty[:2] / empty[2:]).read_bytes())
    in_repo("gc")
    delta = ("static-delta", "generate", "--empty", "--inline", "--min-fallback-size=0", f"--to={second}")
    run("ostree", f"--repo={source}", *delta, f"--filename={path}/delta")
    shutil.copytree(repo, path / "other", symlinks=True)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    raw = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    (path / "key").write_text(base64.b64encode(raw).decode())
    (path / "key").chmod(0o600)
    with closing(Gnupg(path)) as gpg:
        (path / "key.gpg").write_bytes(gpg.export(gpg.make_key("Test <test@example.com>")))
    return {"first": first, "second": second, "manifest": facts["manifest"], "diff_id": diff_id, "digest": digest}


# A command line for each command; "<FILE" is its standard input.
LINES = {
    "init": "init --insecure fresh",
    "create-image": "create-image ../tree os/3",
    "compute-id": "compute-id ../tree",
    "compute-karg": "compute-karg ../bootable",
    "images": "images --no-trunc",
    "image-objects": "image-objects refs/os/1",
    "ls": "ls --long refs/os/1 /usr/share",
    "dump-files": "dump-files --backing-path-only refs/os/1 /usr/bin/tool",
    "diff": "diff refs/os/1 refs/os/2",
    "gc": "gc --dry-run",
    "import-image": "import-image os/4 <../erofs --allow-missing",
    "copy": "copy --from ../other ostree/mine os/1",
    "du": "du",
    "fsck": "fsck",
    "ref list": "ref list",
    "ext list": "ext list",
    "ext show": "ext show oci",
    "ostree pull": "ostree pull o:test/main --depth=1",
    "ostree pull-local": "ostree pull-local ../source test/main",
    "ostree commit": "ostree commit --tree=dir=../small --branch=new --timestamp=@1",
    "ostree sign": "ostree sign mine --sign-from-file=../key",
    "ostree export": "ostree export mine exported",
    "ostree list-refs": "ostree list-refs --path ../source",
    "ostree remote add": "ostree remote add p http://127.0.0.1:1/repo",
    "ostree remote list": "ostree remote list --show-urls",
    "ostree remote show": "ostree remote show o",
    "ostree remote gpg-import": "ostree remote gpg-import o ../key.gpg",
    "ostree remote delete": "ostree remote delete o",
    "ostree remote refs": "ostree remote refs o --revision",
    "ostree images": "ostree images",
    "ostree log": "ostree log mine",
    "ostree inspect": "ostree inspect mine",
    "ostree dump": "ostree dump mine",
    "ostree compute-id": "ostree compute-id mine",
    "ostree tag": "ostree tag mine other",
    "ostree untag": "ostree untag mine",
    "ostree apply-delta": "ostree apply-delta ../delta",
    "ostree fsck": "ostree fsck",
    "oci pull": "oci pull oci:../layout:latest app:2",
    "oci list-tags": "oci list-tags oci:../layout",
    "oci list-referrers": "oci list-referrers oci:../layout:latest",
    "oci images": "oci images",
    "oci inspect": "oci inspect app:1",
    "oci tag": "oci tag app:1 app:2",
    "oci untag": "oci untag app:1",
    "oci referrers": "oci referrers app:1",
    "oci layer": "oci layer {diff_id}",
    "oci import-layer": "oci import-layer {digest} base/two <../layer.tar",
    "oci dump": "oci dump app:1",
    "oci compute-id": "oci compute-id app:1",
    "oci copy": "oci copy app:1 --from ../other --name app:3",
    "oci fsck": "oci fsck",
}
# Commands that need more than a line: a kernel that mounts, fs-verity, a bootable image, minutes.  Each has tests of
# its own with --json.
ELSEWHERE = {"verity enable", "ext check", "ostree mount", "oci mount", "oci prepare-boot"}
# Commands whose text is content, not facts; --json tells how much there is.
CONTENT = {"ostree dump", "oci dump", "oci layer"}
# Text that says in words or in larger units what JSON has as numbers and booleans.
IN_WORDS = r"\d[\d.]* [KMGT]iB|\d{4}-\d\d-\d\d[ T][\d:.]+( UTC| \+0000|Z)?|composefs(\.digest)?=\S+"


def test_each_command_with_json_is_tried() -> None:
    assert {*LINES, *ELSEWHERE} == {leaf.words for leaf in LEAVES if leaf.has_json}


@pytest.mark.parametrize("words", LINES)
def test_json_has_the_facts_of_the_text(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_READ", str(world.path))
    monkeypatch.setenv("COMPOSEFS_OSTREE_REMOTES", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def tried(*options: str) -> str:
        # Each in a copy of the repository, in a directory of the same depth: the same words, the same answer.
        place = world.path / "work"
        shutil.copytree(world.path / "repo", place / "repo", symlinks=True)
        try:
            arguments = [word.format_map(world.names) for word in LINES[words].split()]
            stdin = [word for word in arguments if word.startswith("<")]
            arguments = [word for word in arguments if not word.startswith("<")]
            first = [] if words == "init" else ["--repo", "repo"]
            with open(place / stdin[0][1:] if stdin else os.devnull, "rb") as given:
                return cfsctl(*first, *arguments, *options, cwd=place, stdin=given).stdout
        finally:
            shutil.rmtree(place)

    document = json.loads(tried("--json"))
    assert isinstance(document, dict)
    text = tried()
    if words in CONTENT:
        assert text
        assert document
        return
    typed = LINES[words].split()
    if words == "du":  # what is shared is the rest
        typed += [str(each["size"] - each["alone_size"]) for each in document["holdings"]]
    assert [each for each in missing(text, document) if each not in typed] == []


def missing(text: str, document: dict[str, Any]) -> list[str]:
    """The words of a text with digits, slashes or @ in them (ids, names, paths, numbers) that a document lacks."""
    has = "\n".join(every_value(document))
    if text.startswith("{"):
        # What is JSON without --json too.
        text = " ".join(every_value(json.loads(text)))
    text = re.sub(IN_WORDS, "", text)
    text = re.sub(r"\b(\d+)/(\d+) ok", r"\1 \2", text)
    words = [word.strip(":,;()'\"") for word in re.split(r"[\s=]+", text)]
    facts = {part for word in words for part in word.split(",") if re.search(r"[0-9/@]", part)}
    return sorted(fact for fact in facts if fact not in has and fact.partition(":")[2] not in has.split("\n"))


def every_value(document: object) -> Iterator[str]:
    if isinstance(document, dict):
        for name, value in document.items():
            yield name
            yield from every_value(value)
    elif isinstance(document, list):
        yield str(len(document))  # texts count
        for value in document:
            yield from every_value(value)
    else:
        yield str(document)


# Completion


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.words)
def test_a_word_is_completed_or_free(leaf: Leaf) -> None:
    for name, parameter in words_of(leaf):
        is_text = isinstance(parameter.type, click.types.StringParamType | click.types.UnprocessedParamType)
        assert (is_text and parameter._custom_shell_complete is None) == (name in FREE), name


def test_no_free_word_is_gone() -> None:
    assert {name for leaf in LEAVES for name, _ in words_of(leaf)} >= FREE


EXPECTED = {
    "image": {"refs/os/1", "refs/os/2", "ostree/mine", "oci/app:1"},
    "ostree": {"mine", f"o:{BRANCH}"},
    "ostree-remotes": {"o"},
    "oci": {"app:1"},
    "oci-layers": {"base/one"},
    "any": {"os/1", "ostree/mine", "oci/app:1", "ostree-remotes/o"},
}


def expected(parameter: click.Parameter) -> set[str]:
    """What a word can become, at least."""
    kind = type(parameter.type).__name__
    if kind == "StreamRef":
        directories = [directory for directory, _ in parameter.type._directories]  # type: ignore[attr-defined]
        return set().union(*(EXPECTED.get(directory, set()) for directory in directories))
    if kind == "ExtensionName":
        return {"oci", "ostree"}
    if kind == "StreamOrImageName":
        return {"refs/oci/app:1", "refs/ostree/mine"} | EXPECTED["image"]
    return {"ImageName": EXPECTED["image"], "ImageRef": {"os/1", "os/2"}}.get(kind, EXPECTED["any"])


@pytest.mark.parametrize(("leaf", "parameter"), COMPLETED.values(), ids=COMPLETED)
def test_the_entry_of_the_shells_completes(world: World, leaf: Leaf, parameter: click.Parameter) -> None:
    before = ["--repo", str(world.path / "repo"), *leaf.words.split()]
    if leaf.words == "copy":
        before = ["--repo", "none", "copy", "--from", str(world.path / "repo")]
    if isinstance(parameter, click.Option):
        before.append(parameter.opts[-1])
    else:
        operands = [each for each in leaf.command.params if not isinstance(each, click.Option)]
        before += ["x"] * operands.index(parameter)
    assert set(completions(*before, "")) >= expected(parameter)
