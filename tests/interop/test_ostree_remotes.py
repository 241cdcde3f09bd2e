"""Remotes as the distribution's ostree has them: the same words, files, settings and refusals."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from support.commands import cfsctl, run
from support.gpg import Gnupg
from support.ostree_pull import Target, extensions
from support.ostree_repo import BRANCH, commit, make_repo, make_tree, update_summary
from support.peers import require
from support.remotes import machine, pulls, remote, source
from support.server import serve

__all__ = ["extensions", "machine", "source"]

pytestmark = pytest.mark.usefixtures("extensions")

SETTINGS = [
    ["plain", "http://h/repo", "os/a", "os/b"],
    ["link", "metalink=http://h/metalink.xml", "--no-gpg-verify"],
    ["both", "metalink=http://h/metalink.xml", "--set=url=http://h/repo"],
    ["mirrors", "mirrorlist=http://h/list", "--contenturl=http://content/", "--collection-id=org.example.Os"],
    ["odd", "http://h", "--set=xa.title=  two  words\\;", "--set=gpgkeypath=/a;/b", "--set=xa.ü=1"],
    ["tls", "https://h", "--set=tls-permissive=true", "--set=http2=false", "--set=proxy=http://p:3128"],
    ["other", "--custom-backend=fetcher"],
]


def sections(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(delimiters="=", comment_prefixes="#")
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections() if name != "core"}


def test_the_same_words_make_the_same_settings(tmp_path: Path, target: Target) -> None:
    theirs = make_repo(tmp_path / "theirs")
    for words in SETTINGS:
        run(require("ostree"), "remote", "add", f"--repo={theirs}", *words)
        target.ostree("remote", "add", *words)
    shown = "".join(target.ostree("remote", "show", words[0]).stdout for words in SETTINGS)
    assert sections(shown) == sections((theirs / "config").read_text())
    assert target.ostree("remote", "list").stdout.split() == sorted(words[0] for words in SETTINGS)
    listed = target.ostree("remote", "list", "-u").stdout.splitlines()
    urls = dict(line.split(maxsplit=1) for line in listed if "://" in line)
    assert urls["both"] == urls["link"] == "metalink=http://h/metalink.xml"
    for name, url in urls.items():
        if not url.startswith("metalink="):
            assert run("ostree", "remote", "show-url", f"--repo={theirs}", name).stdout.strip() == url


def test_what_ostree_writes_is_read(tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = make_repo(tmp_path / "theirs")
    for words in SETTINGS:
        run(require("ostree"), "remote", "add", f"--repo={theirs}", *words)
    monkeypatch.setenv("COMPOSEFS_OSTREE_REMOTES", str(theirs))
    facts = {remote["name"]: remote for remote in target.json("remote", "list")["remotes"]}
    assert sorted(facts) == sorted(words[0] for words in SETTINGS)
    assert all(remote["origin"] == f"{theirs}/config" for remote in facts.values())
    shown = "".join(target.ostree("remote", "show", words[0]).stdout for words in SETTINGS)
    assert sections(shown) == sections((theirs / "config").read_text())


def test_keys_with_a_locale_are_read_where_ostree_reads_them(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = make_repo(tmp_path / "theirs")
    plain = (theirs / "config").read_text()
    monkeypatch.setenv("COMPOSEFS_OSTREE_REMOTES", str(theirs))
    keys = {"x[de_AT.utf-8@a]": True, "x[é²中]": True, "x[]": True, "x[a+b]": False, "x[a b]": False, "x[a][b]": False}
    for key, is_taken in keys.items():
        (theirs / "config").write_text(f'{plain}[remote "a"]\nurl=http://h\n{key}=1\n')
        done = run(require("ostree"), "remote", "list", f"--repo={theirs}", status=None)
        assert (done.returncode == 0) == is_taken, key
        ours = target.ostree("remote", "list", status=None)
        assert (ours.returncode == 0, ours.stdout) == (is_taken, done.stdout), key


def test_the_same_is_refused(tmp_path: Path, target: Target) -> None:
    theirs = make_repo(tmp_path / "theirs")
    for arguments, status, is_refused in (
        (["add", "a", "http://h"], 0, False),
        (["add", "a", "http://h"], 4, True),
        (["add", "a", "http://h", "--if-not-exists"], 0, False),
        (["add", "a", "http://new", "--force"], 0, False),
        (["add", "a/b", "http://h"], 2, True),
        (["add", "a b", "http://h"], 2, True),
        (["add", "b"], 2, True),
        (["add", "b", "http://h", "--set=x"], 2, True),
        (["delete", "a"], 0, False),
        (["delete", "a"], 3, True),
        (["delete", "a", "--if-exists"], 0, False),
        (["refs", "a"], 3, True),
    ):
        done = run(require("ostree"), "remote", f"--repo={theirs}", *arguments, status=None)
        assert (done.returncode != 0) == is_refused, arguments
        target.ostree("remote", *arguments, status=status)
    assert target.json("remote", "list") == {"remotes": []}


def test_keys_stay_when_a_remote_is_replaced_as_in_ostree(tmp_path: Path, target: Target) -> None:
    gpg, theirs = Gnupg(tmp_path), make_repo(tmp_path / "theirs")
    fingerprints, paths = [], []
    for name in ("one", "two"):
        fingerprints.append(gpg.make_key(f"{name} <{name}@example.org>"))
        paths.append(tmp_path / f"{name}.gpg")
        paths[-1].write_bytes(gpg.export(fingerprints[-1]))
    words = ["add", "a", "http://h", "--force"]
    for more in ([f"--gpg-import={paths[0]}"], []):
        run(require("ostree"), "remote", f"--repo={theirs}", *words, *more)
        target.ostree("remote", *words, *more)
        listed = run("ostree", "remote", f"--repo={theirs}", "gpg-list-keys", "a").stdout
        [key] = target.json("remote", "show", "a")["keys"]
        assert f"Key: {key['fingerprint']}\n" in listed
    target.ostree("remote", *words, f"--gpg-import={paths[1]}")
    assert [key["fingerprint"] for key in target.json("remote", "show", "a")["keys"]] == [fingerprints[1]]


def test_a_remote_stays_until_it_is_deleted(target: Target) -> None:
    assert target.json("remote", "add", "a", "http://h") == {"name": "a", "added": True}
    assert target.json("remote", "add", "a", "http://i", "--if-not-exists") == {"name": "a", "added": False}
    cfsctl("--repo", target.path, "gc")
    assert target.json("remote", "show", "a")["settings"] == {"url": "http://h"}
    assert target.names()["streams/refs/ostree-remotes/a"] == "../../ostree-remote-a"
    # list-refs opens no repository, and says who does.
    assert "cfsctl ostree remote refs a " in target.ostree("list-refs", "a", status=3).stderr
    target.ostree("remote", "delete", "a")
    assert "cfsctl ostree remote list" in target.ostree("remote", "delete", "a", status=3).stderr
    cfsctl("--repo", target.path, "gc")
    assert target.names() == {}
    assert target.left_over() == []


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_damaged_remote_is_deleted_and_added_again(target: Target, is_gone: bool) -> None:
    target.ostree("remote", "add", "a", "http://h")
    file = (target.path / "streams/ostree-remote-a").resolve()
    file.chmod(0o644)
    if is_gone:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    for words in (("pull", "a", "main"), ("remote", "list"), ("remote", "add", "--force", "a", "http://h")):
        assert "cfsctl ostree remote delete a removes it" in target.ostree(*words, status=5).stderr
    target.ostree("remote", "delete", "a")
    target.ostree("remote", "add", "a", "http://h")
    assert cfsctl("--repo", target.path, "fsck").returncode == 0


def test_remotes_of_the_machine(target: Target, machine: Path, source: Path) -> None:
    (machine / "a.conf").write_text(f'[remote "here"]\nurl=file://{source}\ngpg-verify=false\n')
    (machine / "b.conf.bak").write_text('[remote "no"]\nurl=http://h\n')
    (machine / "c.conf").write_text(
        '[remote "here"]\nurl=http://second\n[remote "paid"]\nurl=http://h\nunconfigured-state=buy\n'
    )
    assert target.ostree("remote", "list").stdout == "here\npaid\n"
    listed = {row["name"]: (row["url"], row["origin"]) for row in target.json("remote", "list")["remotes"]}
    assert listed["here"] == (f"file://{source}", str(machine / "a.conf")), "the first counts"
    assert target.ostree("remote", "refs", "here").stdout == f"here:{BRANCH}\n"
    assert cfsctl("ostree", "list-refs", "here").stdout.splitlines()[1].startswith(BRANCH)
    pulls(target, f"here:{BRANCH}")
    assert "buy" in target.ostree("pull", "paid", BRANCH, status=7).stderr
    assert str(machine) in target.ostree("remote", "delete", "here", status=3).stderr
    target.ostree("remote", "add", "here", "http://own")
    assert target.json("remote", "show", "here")["settings"] == {"url": "http://own"}
    for number in range(1000):
        (machine / f"d{number:04}.conf").write_text("")
    (machine / "e.conf").write_text('[remote "last"]\nurl=http://h\n')
    assert target.ostree("remote", "list").stdout == "here\nlast\npaid\n"
    (machine / "a.conf").write_text("rubbish")
    assert "a.conf" in target.ostree("remote", "list", status=5).stderr


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ("url=URL\ngpg-verify=false ", 0),
        ("url=URL\ngpg-verify=0\nsign-verify=false ", 9),
        ("url=URL\ngpg-verify=", 2),
        ("url=URL\ngpg-verify=false\nunconfigured-state=", 7),
        ("url=URL\ngpg-verify=false\ncustom-backend=", 9),
        ("url=file:///none\ngpg-verify=false\nmetalink=http://127.0.0.1:1/summary", 6),
        ("url=URL\ngpg-verify=false\ncontenturl=http://127.0.0.1:1", 6),
        ("url=http://127.0.0.1:1\ngpg-verify=false\ncontenturl=URL", 6),
    ],
)
def test_a_pull_by_the_same_settings(
    tmp_path: Path, target: Target, machine: Path, source: Path, settings: str, status: int
) -> None:
    theirs = make_repo(tmp_path / "theirs")
    with serve(source) as server:
        text = f'[remote "o"]\n{settings}\n'.replace("URL", server.url)
        (machine / "o.conf").write_text(text)
        with (theirs / "config").open("a") as config:
            config.write(text)
        done = run(require("ostree"), "pull", f"--repo={theirs}", "o", BRANCH, status=None)
        assert (done.returncode != 0) == (status != 0)
        target.ostree("pull", "o", BRANCH, status=status)


def test_whose_remote_is_pulled_by_another_program_learns_where_that_is_said(target: Target) -> None:
    target.ostree("remote", "add", "o", "http://h", "--custom-backend=fetcher")
    told = target.ostree("pull", "o", BRANCH, status=9).stderr
    assert "'fetcher' (cfsctl ostree remote show o tells where it is configured)" in told
    assert "custom-backend=fetcher" in target.ostree("remote", "show", "o").stdout


def test_the_refs_of_a_remote_are_those_that_ostree_lists(tmp_path: Path, target: Target, source: Path) -> None:
    theirs = make_repo(tmp_path / "theirs")
    with serve(source) as server:
        run(require("ostree"), "remote", "add", f"--repo={theirs}", "--no-gpg-verify", "o", server.url)
        target.ostree("remote", "add", "--no-gpg-verify", "o", server.url)
        for flags in ([], ["--revision"]):
            expected = run("ostree", "remote", "refs", f"--repo={theirs}", *flags, "o").stdout
            assert target.ostree("remote", "refs", *flags, "o").stdout == expected


def test_secrets_are_not_taken_from_the_command_line(target: Target) -> None:
    for arguments in (
        ["http://user:hunter2@h/"],
        ["http://h", "--set=proxy=http://user:hunter2@p:80"],
        ["http://h", "--contenturl=mirrorlist=http://user:hunter2@h/list"],
        ["metalink=http://user:hunter2@h/list"],
    ):
        refused = target.ostree("remote", "add", "a", *arguments, status=2).stderr
        assert "password" in refused
        assert "hunter2" not in refused
        # A file's login would go to the server, and curl looks for none of proxies in netrc.
        assert ("all_proxy" if "=proxy=" in arguments[-1] else "netrc") in refused


@pytest.mark.parametrize("setting", ["http-basic-auth-file", "http-bearer-token-file", "http-headers-file"])
def test_a_file_of_secrets_that_is_not_there_is_told_with_its_setting(
    target: Target, tmp_path: Path, setting: str
) -> None:
    gone = tmp_path / "gone"
    target.ostree("remote", "add", "o", "http://127.0.0.1:9", f"--set={setting}={gone}")
    told = target.ostree("pull", "o", BRANCH, status=3).stderr
    assert told == f"cfsctl: {gone}: {setting} of remote 'o' cannot be read (see the composefs repository)\n"


@pytest.mark.parametrize("proxy", ["user:hunter2@p:80", "http://user:hunter2@p:80", "http://user:hunter2/hunter2@p:80"])
def test_the_passwords_of_the_machine_are_not_shown(target: Target, machine: Path, proxy: str) -> None:
    (machine / "a.conf").write_text(f'[remote "o"]\nurl=http://user:hunter2@h/a@b\nproxy={proxy}\n')
    for command in (["show", "o"], ["list", "--show-urls"], ["show", "o", "--json"], ["list", "--json"]):
        shown = target.ostree("remote", *command).stdout
        assert "http://h/a@b" in shown
        assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("setting", "status", "told"),
    [
        ("proxy=foo://h", 2, "http, https, socks, socks4, socks4a, socks5, socks5h)"),
        ("proxy=http://", 2, "[SCHEME://]HOST[:PORT]"),
        ("proxy=user:hunter2@[::1", 2, "[SCHEME://]HOST[:PORT]"),
        ("proxy=user@hunter2@h", 2, "[SCHEME://]HOST[:PORT]"),
        ("proxy=a host", 2, "[SCHEME://]HOST[:PORT]"),
        ("proxy=http://h:99999", 2, "[SCHEME://]HOST[:PORT]"),
        ("sign-verify=perhaps", 9, "true, false, or a list of ed25519 and spki"),
        ("sign-verify=ed25519", 2, "verification-ed25519-key"),
        ("sign-verify-summary=;", 2, "neither a boolean nor a list"),
        ("gpg-verify-summary=perhaps", 2, "true or false"),
        ("tls-permissive=perhaps", 2, "true or false"),
        ("http2=perhaps", 2, "true or false"),
    ],
)
def test_values_of_which_no_pull_could_make_sense(target: Target, setting: str, status: int, told: str) -> None:
    refused = target.ostree("remote", "add", "o", "http://h", f"--set={setting}", status=status).stderr
    assert told in refused
    assert setting.partition("=")[0] in refused
    assert "hunter2" not in refused
    assert target.ostree("remote", "list").stdout == ""


@pytest.mark.parametrize("proxy", ["", "h", "HTTP://user@h:3128", "https://h", "SOCKS5h://[::1]:1080", "socks://h/"])
def test_proxies_of_all_kinds_are_taken(target: Target, proxy: str) -> None:
    target.ostree("remote", "add", "o", "http://h", f"--set=proxy={proxy}")
    assert target.json("remote", "show", "o")["settings"]["proxy"] == proxy.replace("user@", "")


def test_the_branches_of_a_remote_are_what_a_pull_means(tmp_path: Path, target: Target) -> None:
    repo = make_repo(tmp_path / "repo")
    commits = {name: commit(repo, make_tree(tmp_path / name, seed=len(name), files=1), branch=name) for name in "ab"}
    commit(repo, tmp_path / "a", branch="c")
    update_summary(repo)
    theirs = make_repo(tmp_path / "theirs")
    with serve(repo) as server:
        target.ostree("remote", "add", "--no-gpg-verify", "o", server.url, "a", "b")
        pulled = target.json("pull", "o")["pulled"]
        assert {row["ref"]: row["commit"] for row in pulled} == {f"o:{name}": commits[name] for name in "ab"}
        run(require("ostree"), "remote", "add", f"--repo={theirs}", "--no-gpg-verify", "o", server.url, "a", "b")
        run("ostree", "pull", f"--repo={theirs}", "o")
        assert run("ostree", "refs", f"--repo={theirs}").stdout.split() == ["o:a", "o:b"]
        server.forgive()
        assert target.json("pull", "o:a")["files_fetched"] == 0
        assert server.count("*.filez") == server.count("*.commit") == 0
        remote(target, server.url)
        assert "; cfsctl ostree remote refs o lists them)" in target.ostree("pull", "o", status=2).stderr
        assert run("ostree", "pull", f"--repo={theirs}", "x:o", status=None).returncode != 0
    remote(target, "http://127.0.0.1:1")
    with serve(repo) as server:
        assert target.json("pull", "o", "a", "--url", server.url)["ref"] == "o:a"


def test_settings_that_we_do_not_know_are_kept(target: Target) -> None:
    words = ("--set=xa.title=A b", "--set=xa.noenumerate=true", "--set=com.example.Key=;;", "--set=x-é=\t\\n")
    remote(target, "http://h", *words)
    settings = target.json("remote", "show", "o")["settings"]
    assert {f"--set={key}={value}" for key, value in settings.items()} >= set(words)
