"""Hostile settings of remotes, and servers of hostile summaries, mirror lists and metalinks, by the command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.commands import limit_memory
from support.ostree_pull import Target, extensions
from support.ostree_repo import BRANCH
from support.remotes import machine, remote, source
from support.server import Fault, serve

__all__ = ["extensions", "machine", "source"]

pytestmark = pytest.mark.usefixtures("extensions")


def refused(target: Target, *arguments: str, status: int) -> str:
    """Run a command that must fail with one line, and name nothing."""
    names = target.names()
    done = target.ostree(*arguments, status=status, preexec_fn=limit_memory)
    assert (done.stdout, target.names(), target.left_over()) == ("", names, [])
    assert done.stderr.count("\n") == 1, done.stderr
    assert len(done.stderr) < 1000
    return done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["a/b", "http://h"],
        ["..", "http://h"],
        ["-x", "http://h"],
        ["a\nb", "http://h"],
        ["a" * 300, "http://h"],
        ["a", "http://h/\r\nX-Evil: 1"],
        ["a", "http://h/ x"],
        ["a", "file://h/repo\n"],
        ["a", "mirrorlist=file:///h"],
        ["a", "http://h", "--contenturl=file:///h"],
        ["a", "http://h", "../../etc/passwd"],
        ["a", "http://h", "--contenturl=http://h\nX: 1"],
        ["a", "http://h", "--set=proxy=http://h\nX: 1"],
        ["a", "http://h", "--set=x\ny=1"],
        ["a", "http://h", "--set=[remote=1"],
        ["a", "http://h", "--set=gpg-keyring=AAAA"],
        ["a", "http://h", "--set=tls-ca-path=relative"],
        ["a", "http://h", "--set=gpg-verify=perhaps"],
        ["a", "http://h", "--set=branches=ok;../x"],
        ["a", "http://h", "--sign-verify=ed25519=inline:AAAA"],
        ["a", "http://h", "--sign-verify=spki=inline:no base64"],
        ["a", "http://h", "--sign-verify=rsa=file:/key"],
        ["a", "http://h", "--sign-verify=spki=file:/one", "--sign-verify=spki=file:/two"],
        ["a", "http://h", "--set=#x=1"],
        ["a", "http://h", f"--set=x={'y' * 70_000}"],
        ["a", "http://h", "--set=sign-verify-summary=ed25519", "--set=verification-ed25519-key=x"],
        ["a", "http://h", "--collection-id=../x"],
    ],
)
def test_settings_that_are_not_taken(target: Target, words: list[str]) -> None:
    refused(target, "remote", "add", *(["--"] if words[0] == "-x" else []), *words, status=2)
    assert target.json("remote", "list") == {"remotes": []}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b'[remote "o"]\nurl=http://h\0\n', 5),
        (b'[remote "o"]\nurl=http://127.0.0.1:1/\\r\\nX-Evil: 1\n', 2),
        (b'[remote "o"]\nurl=http://127.0.0.1:1/ x\n', 2),
        (b'[remote "o"]\nurl=gopher://127.0.0.1:1/\n', 2),
        (b'[remote "o"]\nurl=file://127.0.0.1/x\n', 2),
        (b'[remote "o"]\nurl=http://127.0.0.1:1/\nproxy=\\n\n', 6),
        (b'[remote "o"]\nurl=http://127.0.0.1:1/\nproxy=http://\xc3\xa4.invalid:1\n', 6),
        (b'[remote "o"]\nurl=http://127.0.0.1:1/\nhttp-headers-file=/dev/zero\n', 2),
        (b'[remote "o"]\nurl=http://127.0.0.1:1/\ntls-client-cert-path=pkcs11:x\ntls-client-key-path=y\n', 9),
        (
            b'[remote "o"]\nurl=http://127.0.0.1:1/\nhttp-basic-auth-file=/dev/null\nhttp-bearer-token-file=/dev/null\n',
            5,
        ),
        (b'[remote "o/../../x"]\nurl=http://h\n', 3),
        (b"[" * 5_000_000, 5),
        (b'[remote "o"]\n' + b"\xff=1\n", 5),
    ],
)
def test_files_of_settings_that_are_refused(target: Target, machine: Path, text: bytes, status: int) -> None:
    (machine / "o.conf").write_bytes(text)
    refused(target, "pull", "o", BRANCH, status=status)


def test_a_named_pipe_among_the_files_of_settings(target: Target, machine: Path) -> None:
    os.mkfifo(machine / "o.conf")
    assert str(machine / "o.conf") in refused(target, "remote", "list", status=5)


@pytest.mark.parametrize("key", ["tls-ca-path", "tls-client-cert-path", "tls-client-key-path", "http-headers-file"])
def test_a_named_pipe_in_a_setting(target: Target, tmp_path: Path, key: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    settings = {key: tmp_path / "pipe"}
    if key.startswith("tls-client-"):
        (tmp_path / "text").write_text("nothing\n")
        settings = {f"tls-client-{each}-path": tmp_path / "text" for each in ("cert", "key")} | settings
    remote(target, "https://127.0.0.1:1", *(f"--set={name}={path}" for name, path in settings.items()))
    assert f"{tmp_path}/pipe: it is not a regular file" in refused(target, "pull", "o", BRANCH, status=2)


def test_a_netrc_file_that_cannot_be_read(
    target: Target, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with serve(source) as server:
        monkeypatch.setenv("NETRC", str(tmp_path / "pipe"))
        told = refused(target, "pull", server.url, BRANCH, status=2)
        assert f"{tmp_path}/pipe: it is not a regular file (NETRC, else ~/.netrc, has to name one)" in told
        monkeypatch.setenv("NETRC", os.path.relpath(__file__))
        assert "NETRC has to name its file by the absolute path" in target.ostree("pull", server.url, BRANCH).stderr
        monkeypatch.setenv("NETRC", os.devnull)
        assert target.ostree("pull", server.url, BRANCH).stderr == ""


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
HEADER = b"X-Header: " + b"y" * 1000 + b"\r\n"
ANSWERS: dict[str, tuple[bytes, bytes, str]] = {
    "no HTTP": (b"220 mail.example.com ESMTP\r\n", b"", ""),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n" + HEADER + b"\r\n", "response headers"),
    "headers": (OK, HEADER, "response headers"),
    "one header": (OK + b"X-Header: ", b"y" * 10_000, "a line in the header of its answer is too long"),
    "trailers": (CHUNKED + b"0\r\n", HEADER, "response headers"),
    "a chunk larger than all": (CHUNKED + b"ffffffffffffffff0\r\n", b"", "chunk"),
    "less than nothing": (OK + b"Content-Length: -5\r\n\r\n", b"x", "Content-Length"),
    "two lengths": (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"x", "Content-Length"),
    "a part": (
        b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-0/1\r\nContent-Length: 1\r\n\r\nx",
        b"",
        "HTTP status 206",
    ),
    "NUL": (OK + b"X-Header: a\0b\r\n\r\n", b"x", "header"),
}


@pytest.mark.parametrize("path", ["/config", "*.filez"])
@pytest.mark.parametrize("case", ANSWERS)
def test_answers_of_no_web_server(target: Target, source: Path, case: str, path: str) -> None:
    first, others, reason = ANSWERS[case]
    with serve(source) as server:
        server.fault(path, Fault(raw=(first, others)))
        told = refused(target, "pull", server.url, BRANCH, status=6)
        assert server.url in told
        assert reason in told
        assert "curl error" not in told


def test_what_does_not_speak_http_is_told(target: Target, source: Path) -> None:
    with serve(source) as server:
        server.fault("/config", Fault(raw=(b"220 mail.example.com ESMTP\r\n", b"")))
        assert "(what answers there does not speak HTTP" in refused(target, "pull", server.url, BRANCH, status=6)


SERVED = {
    "a summary of a gigabyte": (
        "/summary",
        Fault(body=bytes(129 << 20), headers=(("Content-Length", str(1 << 30)),)),
        "",
        "longer than",
    ),
    "a redirect without end": ("/summary", Fault(status=302, headers=(("Location", "/summary"),)), "", "redirects"),
    "a redirect to a file": ("/config", Fault(status=302, headers=(("Location", "file:///etc/passwd"),)), "", "file"),
    "a redirect to FTP": ("/config", Fault(status=302, headers=(("Location", "ftp://127.0.0.1:1/"),)), "", '"ftp"'),
    "an endless mirror list": ("/list", Fault(status=200, body=b"http://h/\n" * 200_000), "mirrorlist=", "longer than"),
    "an endless metalink": (
        "/list",
        Fault(status=200, body=b"<metalink>" + b" " * (2 << 20)),
        "metalink=",
        "longer than",
    ),
    "a deep metalink": ("/list", Fault(status=200, body=b"<metalink>" + b"<a>" * 100_000), "metalink=", "nested"),
    "a metalink of entities": (
        "/list",
        Fault(
            status=200,
            body=b'<!DOCTYPE metalink [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><metalink>&b;</metalink>',
        ),
        "metalink=",
        "document type",
    ),
    "a mirror list of files": (
        "/list",
        Fault(status=200, body=b"file:///etc\n/etc\n"),
        "mirrorlist=",
        "no line of the mirror list",
    ),
    "signatures that are none": ("*.commitmeta", Fault(status=200, body=b"rubbish!"), "", "(the source is damaged or"),
    "an index that is a bomb": ("/summary.idx", Fault(status=200, body=bytes(129 << 20)), "", "longer than"),
}


@pytest.mark.parametrize("case", SERVED)
def test_what_servers_send(target: Target, source: Path, case: str) -> None:
    path, fault, kind, reason = SERVED[case]
    ref = "app/a/x86_64/b" if "idx" in path else BRANCH
    with serve(source) as server:
        server.fault(path, fault)
        remote(target, f"{kind}{server.url}/list" if kind else server.url)
        done = target.ostree("pull", "o", ref, status=None)
        assert done.returncode in (5, 6, 7, 8, 9), done
        assert reason in done.stderr
        assert target.left_over() == []
        assert server.count(path) <= 12
