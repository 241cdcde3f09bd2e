"""``transforms``: what the core does to a dump's tree, through the protocol and against composefs-rs' recorded ids."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from composefs.digest import SHA256
from composefs.fsverity import digest_bytes
from support.calls import call
from support.commands import cfsctl
from support.hosting import Host
from support.vectors import DATA

KERNEL = b"k" * 100
KERNEL_ID = digest_bytes(KERNEL, SHA256).hex()
CONFIG = b"# a comment, so that this is no content of the dump itself but an object\nSELINUXTYPE=small\n"
CONFIG_ID = digest_bytes(CONFIG, SHA256).hex()
ALL = {"usr_to_root": True, "xattrs": "allowlist-only", "bootable": True}


def line(path: str, mode: str, object_id: str = "-", size: int = 0, content: str = "-", *xattrs: str) -> str:
    payload = "-" if object_id == "-" else f"{object_id[:2]}/{object_id[2:]}"
    return " ".join([path, str(size), mode, "1 0 0 0 7.5", payload, content, object_id, *xattrs]) + "\n"


def directories(*paths: str) -> list[str]:
    return [line(path, "40755") for path in paths]


DUMP = "".join(
    [
        *directories("/"),
        *directories("/boot"),
        line("/boot/vmlinuz", "100644", KERNEL_ID, len(KERNEL)),
        *directories("/etc", "/etc/selinux"),
        line("/etc/selinux/config", "100644", CONFIG_ID, len(CONFIG)),
        *directories("/etc/selinux/small", "/etc/selinux/small/contexts", "/etc/selinux/small/contexts/files"),
        line("/etc/selinux/small/contexts/files/file_contexts", "100644", "-", 13, r"/.*\x20a:b:file\n"),
        *directories("/run"),
        line("/run/x", "100644"),
        *directories("/sysroot"),
        line("/usr", "40700", "-", 0, "-", "user.a=1", "trusted.b=2"),
    ]
)


def stored(*contents: bytes) -> list[list[Any]]:
    """Steps that put objects."""
    names = [f"object{number}" for number in range(len(contents))]
    writes = [["write", name, content.decode()] for name, content in zip(names, contents, strict=True)]
    return [*writes, call("object.put", files=[{"name": name} for name in names])]


def transformed(host: Host, transforms: dict[str, Any]) -> dict[str, str]:
    """The dump after transforms: the rest of each line, by path."""
    [*_, text] = host.do(
        ["write", "dump", DUMP],
        *stored(CONFIG),
        call("image.dump", dump="dump", into="out", transforms=transforms),
        ["read", "out"],
    )
    return {path: rest for path, _, rest in (each.partition(" ") for each in text.splitlines())}


def test_each_transform_does_its_part(host: Host) -> None:
    """P-39."""
    plain = transformed(host, {})
    assert set(plain) == {each.split()[0] for each in DUMP.splitlines()}
    assert plain["/usr"].endswith(" trusted.b=2 user.a=1")
    root = transformed(host, {"usr_to_root": True})
    assert root["/"].split()[1:] == root["/usr"].replace("40700 2", f"40700 {root['/'].split()[2]}").split()[1:]
    assert "/run/x" not in root
    assert "/boot/vmlinuz" in root
    assert transformed(host, {"xattrs": "keep-user-xattrs"})["/usr"].endswith(" - user.a=1")
    assert transformed(host, {"xattrs": "allowlist-only"})["/usr"].endswith(" - - -")
    assert transformed(host, {"xattrs": "keep-all"}) == plain
    bootable = transformed(host, {"bootable": True})
    assert set(plain) - set(bootable) == {"/boot/vmlinuz"}
    assert {each for each in bootable if "security.selinux=a:b:file" not in bootable[each]} == set()
    assert transformed(host, ALL)["/"].split()[-1] == "security.selinux=a:b:file"


def test_put_digest_and_dump_agree_and_need_only_what_is_left(host: Host) -> None:
    """P-39, P-21: the kernel, which is dropped, is not in the repository."""
    steps = [
        ["write", "dump", DUMP],
        call("image.put", dump="dump", transforms=ALL),
        *stored(CONFIG),
        call("image.put", dump="dump"),
        call("image.digest", dump="dump", transforms=ALL),
        call("image.put", dump="dump", transforms=ALL),
        call("image.dump", dump="dump", into="out", transforms=ALL),
        call("image.digest", dump="out"),
    ]
    unread, _, without_kernel, digest, put, _, again = host.do(*steps)
    assert unread["data"]["kind"] == "missing_object"
    assert CONFIG_ID in unread["message"]
    assert without_kernel["data"]["kind"] == "missing_object"
    assert KERNEL_ID in without_kernel["message"]
    assert digest == put == again
    host.assert_clean()


def test_without_a_repository_there_is_nothing_to_read(host: Host) -> None:
    # Without a repository the algorithm is sha512.
    text = DUMP.replace(CONFIG_ID, "ab" * 64).replace(CONFIG_ID[2:], "ab" * 63).replace(f"{CONFIG_ID[:2]}/", "ab/")
    text = text.replace(KERNEL_ID, "cd" * 64).replace(KERNEL_ID[2:], "cd" * 63).replace(f"{KERNEL_ID[:2]}/", "cd/")
    plain, bootable = host.do(
        ["write", "dump", text],
        call("image.digest", dump="dump", transforms={"usr_to_root": True}),
        call("image.digest", dump="dump", transforms=ALL),
        command="none",
    )
    assert len(plain["id"]) == 128
    assert bootable["data"]["kind"] == "missing_object"


def test_the_path_of_what_cannot_be_read_is_told_as_it_is(host: Host) -> None:
    entry = line("/boot/loader/entries/é.conf", "100644", "cd" * 64, 100)
    above = directories("/", "/boot", "/boot/loader", "/boot/loader/entries", "/sysroot", "/usr")
    [refused] = host.do(
        ["write", "dump", "".join([*above, entry])],
        call("image.digest", dump="dump", transforms={"bootable": True}),
        command="none",
    )
    assert refused["message"].startswith("/boot/loader/entries/é.conf must be read")


@pytest.mark.parametrize(
    ("transforms", "kind"),
    [
        ([], "usage"),
        ({"usr_to_root": "yes"}, "usage"),
        ({"bootable": 1}, "usage"),
        ({"xattrs": "none"}, "usage"),
        ({"xattrs": None}, "usage"),
    ],
)
def test_transforms_that_are_refused(host: Host, transforms: Any, kind: str) -> None:
    for method in ("image.put", "image.digest", "image.dump"):
        [answer] = host.do(
            ["write", "dump", DUMP], call(method, dump="dump", into="out", transforms=transforms), strict=False
        )
        assert answer["data"]["kind"] == kind


def test_a_tree_that_cannot_be_transformed_answers_invalid(host: Host) -> None:
    text = "".join(each + "\n" for each in DUMP.splitlines() if not each.startswith("/sysroot"))
    [answer] = host.do(["write", "dump", text], call("image.put", dump="dump", transforms=ALL))
    assert answer["data"]["kind"] == "invalid"
    assert "/sysroot" in answer["message"]
    host.assert_clean()


@pytest.mark.root
@pytest.mark.parametrize("seed", [1, 2, 3, 5])
def test_ids_are_those_that_composefs_rs_gave_to_the_layers(host: Host, tmp_path: Path, seed: int) -> None:
    rows = json.loads((DATA / "boot.json").read_text())["oci"]
    recorded = next(row for row in rows if row["seed"] == seed)["sha256-v1"]
    tree = tmp_path / "tree"
    subprocess.run([sys.executable, DATA / "make_boot_layout.py", str(seed), tree, "--tree"], check=True)
    cfsctl("--repo", host.path, "create-image", "--no-propagate-usr-to-root", tree)  # for its objects
    dump = cfsctl("--repo", host.path, "create-dumpfile", "--no-propagate-usr-to-root", tree).stdout
    for xattrs, suffix in (("allowlist-only", ""), ("keep-user-xattrs", " keep-user-xattrs")):
        for bootable, mode in ((False, "plain"), (True, "bootable")):
            transforms = {"usr_to_root": True, "xattrs": xattrs, "bootable": bootable}
            [answer] = host.do(
                ["write", "dump", dump], call("image.digest", dump="dump", format=1, transforms=transforms)
            )
            assert answer["id"] == recorded[mode + suffix], transforms
