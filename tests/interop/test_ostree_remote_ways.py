"""The way to a remote: nginx with TLS, clients' certificates, passwords and tokens; proxies, mirrors, limits."""

from __future__ import annotations

import os
import re
import shutil
from hashlib import sha256
from pathlib import Path
from time import monotonic

import pytest

from support.commands import TIMEOUT, cfsctl, run
from support.nginx import Certificates, nginx
from support.ostree_pull import Target, extensions
from support.ostree_repo import BRANCH, make_repo
from support.peers import require
from support.proxy import proxy
from support.remotes import cache_files, certificates, machine, pulls, remote, source
from support.server import Fault, Server, reserved_port, serve

__all__ = ["certificates", "extensions", "machine", "source"]

pytestmark = pytest.mark.usefixtures("extensions")


def test_certificates(tmp_path: Path, target: Target, source: Path, certificates: Certificates, machine: Path) -> None:
    tls = [f"--set=tls-ca-path={certificates.ca}"]
    client = [
        f"--set=tls-client-{name}-path={path}" for name, path in zip(("cert", "key"), certificates.client, strict=True)
    ]
    with nginx(tmp_path / "nginx", source, certificates=certificates, clients=True) as server:
        remote(target, server.url, *tls, *client)
        pulls(target, "o", BRANCH)
        requests = server.log()
        assert {request[1] for request in requests} == {"CN=client"}
        assert {request[2] for request in requests} == {"HTTP/2.0"}
        assert len({request[3] for request in requests}) > 10

        (tmp_path / "token").write_text("s3cr3t")
        words = ("--set=http2=false", f"--set=http-bearer-token-file={tmp_path}/token")
        remote(target, server.url, *tls, *client, *words)
        target.ostree("remote", "refs", "o")
        assert server.log()[-1][2] == "HTTP/1.1"
        assert server.log()[-1][6] == "Bearer s3cr3t"

        remote(target, server.url, *client, "--set=tls-permissive=true")
        target.ostree("remote", "refs", "o")
        remote(target, server.url, f"--set=tls-ca-path={certificates.other}", *client)
        assert "tls-ca-path" in pulls(target, "o", BRANCH, status=6)
        remote(target, server.url, *client)
        assert "tls-ca-path" in pulls(target, "o", BRANCH, status=6)
        remote(target, server.url, *tls)
        assert "the server wants a client certificate" in pulls(target, "o", BRANCH, status=6)
        half = f"url={server.url}\ntls-ca-path={certificates.ca}\ntls-client-cert-path={certificates.client[0]}\n"
        (machine / "half.conf").write_text(f'[remote "half"]\n{half}gpg-verify=false\n')
        assert "tls-client-key-path" in pulls(target, "half", BRANCH, status=5)
        remote(target, server.url, *tls, client[0], f"--set=tls-client-key-path={tmp_path}/none")
        assert f"{tmp_path}/none" in pulls(target, "o", BRANCH, status=3)


def test_passwords(tmp_path: Path, target: Target, source: Path) -> None:
    users, secret, netrc = tmp_path / "users", tmp_path / "secret", tmp_path / "netrc"
    run(require("htpasswd"), "-bc", users, "user", "hunter2:é")
    with nginx(tmp_path / "nginx", source, f"auth_basic x; auth_basic_user_file {users};") as server:
        assert "netrc" in pulls(target, server.url, BRANCH, status=6)
        secret.write_text("user:hunter2:é\n")
        remote(target, server.url, f"--set=http-basic-auth-file={secret}")
        pulls(target, "o", BRANCH)
        assert server.log()[-1][0] == "user"
        said = cfsctl("-vv", "--trace", "--repo", target.path, "ostree", "pull", "o", BRANCH).stderr
        assert '"o"' in said
        assert "hunter2" not in said
        target.ostree("untag", f"o:{BRANCH}")
        secret.write_text("user:wrong")
        assert "401" in pulls(target, "o", BRANCH, status=6)
        assert b"hunter2" not in b"".join(path.read_bytes() for path in target.path.rglob("*") if path.is_file())

        netrc.write_text("machine localhost login user password hunter2:é\n")
        netrc.chmod(0o644)
        assert f"chmod 600 {netrc}" in pulls(target, server.url, BRANCH)
        netrc.chmod(0o600)
        assert "chmod" not in pulls(target, server.url, BRANCH)
        shutil.copy(netrc, tmp_path / ".netrc")
        usual = {name: value for name, value in os.environ.items() if name not in ("NETRC", "COMPOSEFS_EXT_READ")}
        pulls(target, server.url, BRANCH, env=usual | {"HOME": str(tmp_path)})
        netrc.write_text("machine elsewhere login user password hunter2:é\n")
        pulls(target, server.url, BRANCH, status=6)
        for text, message in (("rubbish", "USER:PASSWORD"), ("a:b\nc", "USER:PASSWORD"), ("x" * 70_000, "longer")):
            secret.write_text(text)
            assert message in pulls(target, "o", BRANCH, status=5)
        secret.write_text("user:hunter2:é")
        confined = {name: value for name, value in os.environ.items() if name != "COMPOSEFS_EXT_READ"}
        assert f"--ext-read {secret}" in pulls(target, "o", BRANCH, status=7, env=confined)
        secret.unlink()
        assert str(secret) in pulls(target, "o", BRANCH, status=3)


def test_tokens_and_headers(tmp_path: Path, target: Target, source: Path) -> None:
    token, headers = tmp_path / "token", tmp_path / "headers"
    token.write_text("s3cr3t\n")
    headers.write_text("# for the cache\n\nX-Key: k3y\n")
    gate = 'if ($http_authorization != "Bearer s3cr3t") { return 401; } if ($http_x_key != "k3y") { return 402; }'
    with nginx(tmp_path / "nginx", source, gate) as server:
        remote(target, server.url, f"--set=http-bearer-token-file={token}")
        assert "402" in pulls(target, "o", BRANCH, status=6)
        pulls(target, "o", BRANCH, f"--http-header-file={headers}")
        words = ("-vv", "--trace", "--repo", target.path, "ostree", "pull", "o")
        for ref, status in ((BRANCH, 0), ("none", 3)):
            said = cfsctl(*words, ref, f"--http-header-file={headers}", status=status)
            assert not re.search("s3cr3t|k3y", said.stdout + said.stderr)
        remote(target, server.url, f"--set=http-bearer-token-file={token}", f"--set=http-headers-file={headers}")
        pulls(target, "o", BRANCH)
        for text in ("two words", "two\nlines", "é", ""):
            token.write_text(text)
            assert "token" in pulls(target, "o", BRANCH, status=5)
        token.write_text("s3cr3t")
        for text, line in (("no header", "line 1 "), ("X-Key: k3y\n" * 101, "line 101 ")):
            headers.write_text(text)
            assert line in pulls(target, "o", BRANCH, status=5)


def test_credentials_go_nowhere_else(tmp_path: Path, target: Target, source: Path) -> None:
    token, headers = tmp_path / "token", tmp_path / "headers"
    token.write_text("s3cr3t")
    headers.write_text("X-Key: k3y\n")
    with nginx(tmp_path / "other", source) as other:
        elsewhere = other.url.replace("localhost", "127.0.0.1")
        with nginx(tmp_path / "nginx", source, f"rewrite ^ {elsewhere}$uri redirect;") as server:
            remote(target, server.url, f"--set=http-bearer-token-file={token}")
            pulls(target, "o", BRANCH)
            assert {request[6] for request in server.log()} == {"Bearer s3cr3t"}
            assert {request[6] for request in other.log()} == {"-"}
            remote(target, server.url, f"--set=http-headers-file={headers}")
            told = pulls(target, "o", BRANCH, status=6)
            assert "HTTP status 302 (the server redirects and does not say where, or to where headers of a file" in told
            assert {request[5] for request in other.log()} == {"-"}
            headers.write_text("Authorization: Bearer s3cr3t\n")
            pulls(target, "o", BRANCH)
            assert {request[6] for request in server.log()} == {"Bearer s3cr3t", "-"}
            assert {request[6] for request in other.log()} == {"-"}
        mirrors = tmp_path / "mirrors"
        mirrors.mkdir()
        with nginx(tmp_path / "third", mirrors) as server:
            remote(target, f"mirrorlist={server.url}/list", f"--set=http-bearer-token-file={token}")
            for mirror in (elsewhere, other.url):  # of another name, and of another port alone
                (mirrors / "list").write_text(f"{mirror}\n")
                pulls(target, "o", BRANCH)
            assert {request[6] for request in server.log()} == {"Bearer s3cr3t"}
            assert {request[6] for request in other.log()} == {"-"}


def test_a_redirect_does_not_lead_out_of_tls(
    tmp_path: Path, target: Target, source: Path, certificates: Certificates
) -> None:
    with nginx(tmp_path / "plain", source) as plain:
        rewrite = f"rewrite ^ {plain.url}$uri redirect;"
        with nginx(tmp_path / "nginx", source, rewrite, certificates=certificates) as server:
            remote(target, server.url, f"--set=tls-ca-path={certificates.ca}")
            told = pulls(target, "o", BRANCH, status=6)
            assert "from https to https alone" in told
        assert plain.log() == []


def test_a_client_certificate_is_shown_to_mirrors(
    tmp_path: Path, target: Target, source: Path, certificates: Certificates
) -> None:
    theirs = make_repo(tmp_path / "theirs")
    pair = zip(("cert", "key"), certificates.client, strict=True)
    words = [f"--set=tls-ca-path={certificates.ca}", *(f"--set=tls-client-{name}-path={path}" for name, path in pair)]
    (tmp_path / "lists").mkdir()
    with nginx(tmp_path / "other", source, certificates=certificates, clients=True) as other:
        (tmp_path / "lists" / "list").write_text(f"{other.url}\n")
        with nginx(tmp_path / "nginx", tmp_path / "lists", certificates=certificates) as server:
            url = f"mirrorlist={server.url}/list"
            run(require("ostree"), "remote", "add", f"--repo={theirs}", "--no-gpg-verify", *words, "o", url)
            run("ostree", "pull", f"--repo={theirs}", "o", BRANCH)
            by_ostree = len(other.log())
            remote(target, url, *words)
            pulls(target, "o", BRANCH)
        assert len(other.log()) > by_ostree > 5
        assert {request[1] for request in other.log()} == {"CN=client"}


def test_proxies(target: Target, source: Path) -> None:
    with serve(source) as server, proxy() as (url, asked):
        pulls(target, server.url, BRANCH, env=os.environ | {"http_proxy": url})
        assert sorted(asked) == sorted(f"GET {server.url}{path}" for path in server.requests)
        assert len(asked) > 10
        asked.clear()
        pulls(target, server.url, BRANCH, env=os.environ | {"http_proxy": url, "no_proxy": "127.0.0.1"})
        assert asked == []
        remote(target, server.url, f"--set=proxy={url}")
        pulls(target, "o", BRANCH)
        assert len(asked) > 10
        remote(target, server.url, "--set=proxy=http://127.0.0.1:1")
        assert "127.0.0.1" in pulls(target, "o", BRANCH, status=6)


def test_tls_through_a_proxy_that_wants_a_password(
    tmp_path: Path, target: Target, source: Path, certificates: Certificates
) -> None:
    with (
        nginx(tmp_path / "nginx", source, certificates=certificates) as server,
        proxy("user:hunter2") as (url, asked),
    ):
        remote(target, server.url, f"--set=tls-ca-path={certificates.ca}")
        environment = os.environ | {"https_proxy": url.replace("//", "//user:hunter2@")}
        said = pulls(target, "o", BRANCH, env=environment)
        assert set(asked) == {f"CONNECT {server.url.removeprefix('https://')}"}
        assert len(server.log()) > 10
        refused = pulls(target, "o", BRANCH, status=6, env=os.environ | {"https_proxy": url})
        assert "the proxy wants to know who you are" in refused
        wrong = os.environ | {"https_proxy": url.replace("//", "//user:hunter3@")}
        refused = pulls(target, "o", BRANCH, status=6, env=wrong)
        assert "hunter" not in said + refused


@pytest.mark.parametrize(("whose", "beyond"), [("machine localhost", "-"), ("default", "Basic b3RoZXI6d29yZA==")])
def test_which_login_goes_where(tmp_path: Path, target: Target, source: Path, whose: str, beyond: str) -> None:
    """What the remote's file says goes to its host alone, in the place of what netrc has for it; ``default`` is all."""
    (tmp_path / "netrc").write_text(f"{whose} login other password word\n")
    (tmp_path / "secret").write_text("user:hunter2")
    with nginx(tmp_path / "store", source) as store:
        elsewhere = f"location /objects/ {{ return 302 {store.url.replace('localhost', '127.0.0.1')}$request_uri; }}"
        with nginx(tmp_path / "nginx", source, elsewhere) as server:
            remote(target, server.url, f"--set=http-basic-auth-file={tmp_path}/secret")
            pulls(target, "o", BRANCH)
            assert {line[6] for line in server.log()} == {"Basic dXNlcjpodW50ZXIy"}
            assert {line[6] for line in store.log()} == {beyond}


def test_paths_and_hosts_that_are_not_ascii(
    tmp_path: Path, target: Target, source: Path, certificates: Certificates
) -> None:
    home = tmp_path / "jörg"
    home.mkdir()
    (home / ".netrc").write_text("machine 127.0.0.1 login user password hunter2\n")
    shutil.copy(certificates.ca, home / "authority")
    environment = os.environ | {"HOME": str(home)}
    with nginx(tmp_path / "nginx", source, certificates=certificates) as server:
        remote(target, server.url, f"--set=tls-ca-path={home}/authority")
        pulls(target, "o", BRANCH, env=environment)
        pulls(target, server.url, BRANCH, env=environment | {"SSL_CERT_FILE": f"{home}/authority"})
        (home / "headers").write_text("X-Name: ö\n")
        remote(target, server.url, "--set=tls-permissive=true", f"--set=http-headers-file={home}/headers")
        pulls(target, "o", BRANCH, env=environment)
        remote(target, server.url, "--set=proxy=ö.invalid:1")
        said = pulls(target, "o", BRANCH, status=6, env=environment | {"COMPOSEFS_OSTREE_RETRIES": "0"})
        assert "Could not resolve proxy" in said


@pytest.mark.parametrize("given", ["foo://user:hunter2@h", "http://user:hunter2@h:99999", "http://user:hunter2@[::1"])
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(target: Target, source: Path, given: str) -> None:
    with serve(source) as server:
        environment = {"http_proxy": given, "COMPOSEFS_OSTREE_RETRY_DELAY": "2"}
        said = pulls(target, server.url, BRANCH, status=6, env=os.environ | environment)
        assert server.count() == 0
    assert "trying again" not in said
    assert f"{server.url}/config: the URL of the proxy cannot be used (" in said
    assert "socks5h: see the remote's proxy setting, or http_proxy" in said
    assert "hunter2" not in said


def test_objects_from_elsewhere(tmp_path: Path, target: Target, source: Path) -> None:
    with serve(source) as metadata, serve(source) as content:
        remote(target, metadata.url, f"--contenturl={content.url}")
        pulls(target, "o", BRANCH)
        assert sorted(Path(path).suffix or path for path in metadata.requests) == [".commitmeta", "/config", "/summary"]
        ours = {path for path in content.requests if not path.startswith("/delta-indexes/")}
        assert len(ours) > 10
        for server in (metadata, content):
            server.forgive()
        theirs = make_repo(tmp_path / "theirs")
        run(
            "ostree",
            "remote",
            "add",
            f"--repo={theirs}",
            "--no-gpg-verify",
            f"--contenturl={content.url}",
            "o",
            metadata.url,
        )
        run("ostree", "pull", f"--repo={theirs}", "o", BRANCH)
        assert set(content.requests) == ours
        assert metadata.count("/objects/*") == metadata.count("*.commitmeta") == 1
        assert metadata.count("/deltas/*") == 0


def test_places_of_objects_need_not_have_a_config(target: Target, source: Path) -> None:
    with serve(source) as metadata, serve(source) as first, serve(source) as second:
        for place in (first, second):
            place.fault("/config", Fault(status=403))  # as object stores say that there is none
        metadata.fault("/list", Fault(status=200, body=f"{first.url}\n{second.url}\n".encode()))
        remote(target, metadata.url, f"--contenturl=mirrorlist={metadata.url}/list")
        assert "next mirror" not in pulls(target, "o", BRANCH)
        assert first.count("*.filez") > 0
        assert second.count("*.filez") == 0


def test_mirrors_fail_over(tmp_path: Path, target: Target, source: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    with serve(source) as good, serve(source) as bad, serve(lists) as server:
        (lists / "config").write_text("<html>welcome</html>\n")
        places = f"http://127.0.0.1:1/\n{server.url}\n{bad.url}\nftp://h/\n{good.url}/\n"
        (lists / "list").write_text(f"# mirrors\n{places}")
        remote(target, f"mirrorlist={server.url}/list")
        said = pulls(target, "o", BRANCH)
        assert "127.0.0.1:1/config" in said
        assert "not the config of an ostree repository; trying the next mirror" in said
        # What one mirror lacks, another may have.
        assert good.count() == good.count("*.commitmeta") + good.count("*.index") == 2
        bad.fault("*.filez", Fault(status=503))
        bad.fault("*.dirtree", Fault(status=404))
        pulls(target, "o", BRANCH)
        assert good.count("*.filez") > 5
        assert good.count("*.dirtree") > 1
        for mirror in (good, bad):
            mirror.fault("*.filez", Fault(status=503))
        assert "503" in pulls(target, "o", BRANCH, status=6)
        (lists / "list").write_text("<html>\n")
        assert "list: this is a web page, not the file that was asked for (" in pulls(target, "o", BRANCH, status=5)
        (lists / "list").unlink()
        assert "list: not found" in pulls(target, "o", BRANCH, status=3)


def test_a_mirror_that_breaks_makes_no_file_needed(tmp_path: Path, target: Target, source: Path) -> None:
    """A commit need not have signatures: what the other mirror has not got is not there."""
    with serve(source) as broken, serve(source) as good, serve(tmp_path) as server:
        (tmp_path / "list").write_text(f"{broken.url}\n{good.url}\n")
        remote(target, f"mirrorlist={server.url}/list")
        for path in ("/objects/*", "/delta-indexes/*", "/summary*"):
            broken.fault(path, Fault(status=503))
        pulls(target, "o", BRANCH)
        assert broken.count("/config") == good.count("*.commitmeta") == 1


@pytest.fixture
def silent(tmp_path: Path, source: Path) -> list[str]:
    """The names of twelve mirrors below ``root``, beside ``good``."""
    root = tmp_path / "root"
    shutil.copytree(source, root / "good")
    names = [f"silent{number:02}" for number in range(12)]
    for name in names:
        (root / name).symlink_to("good")
    return names


def pulls_impatiently(
    target: Target, server: Server, *names: str, status: int = 0, seconds: int, retries: int = 0
) -> str:
    """Pull from a remote whose list of mirrors has these names; return what was said."""
    (server.directory / "list").write_text("".join(f"{server.url}/{name}\n" for name in names))
    impatient = {"COMPOSEFS_OSTREE_RETRIES": str(retries), "COMPOSEFS_OSTREE_LOW_SPEED_TIME": str(seconds)}
    server.requests.clear()
    return pulls(target, "o", BRANCH, status=status, env=os.environ | impatient)


@pytest.mark.parametrize("where", ["url", "contenturl"])
def test_mirrors_that_are_silent_from_the_start(tmp_path: Path, target: Target, silent: list[str], where: str) -> None:
    """There is no need to wait for one before the next is asked, and the first that answers is taken."""
    with serve(tmp_path / "root") as server:
        server.fault("/silent*", Fault(until=lambda: False))
        listed = f"mirrorlist={server.url}/list"
        remote(target, *((listed,) if where == "url" else (f"{server.url}/good", f"--contenturl={listed}")))
        said = pulls_impatiently(target, server, *silent[:7], "good", seconds=10)
        for name in silent[:7]:
            assert f"{server.url}/{name}/config: no answer for 1 s; trying the next mirror too" in said
        assert server.count("/silent*") == server.count("/silent*/config") == 7
        said = pulls_impatiently(target, server, *silent[:3], status=6, seconds=2)
        assert f"cfsctl: {server.url}/silent00/config: " in said
        assert server.count("/silent*/config") == 3


def test_one_mirror_is_silent_and_the_next_ones_fail(tmp_path: Path, target: Target, silent: list[str]) -> None:
    """Of the silent one it is told once, and of those that fail why they do."""
    with serve(tmp_path / "root") as server:
        server.fault("/silent*", Fault(until=lambda: False))
        remote(target, f"mirrorlist={server.url}/list")
        said = pulls_impatiently(target, server, silent[0], "none", "neither", "good", seconds=20)
        assert said.count("/silent00/config: no answer for 2 s; trying the next mirror too") == 1
        for name in ("none", "neither"):
            assert f"/{name}/config: not found" in said


def test_mirrors_that_fall_silent(tmp_path: Path, target: Target, silent: list[str]) -> None:
    """Each is waited for once, whatever it is asked for, and no more than five of them."""
    with serve(tmp_path / "root") as server:
        server.fault("/silent*/config", Fault())
        server.fault("/silent*", Fault(until=lambda: False))
        remote(target, f"mirrorlist={server.url}/list")
        said = pulls_impatiently(target, server, *silent, "good", status=6, seconds=2)
        assert f"cfsctl: {server.url}/silent" in said
        # Which five depends on who was asked for the config when others did not answer at once.
        asked = [path for path in server.requests if path != "/list" and not path.endswith("/config")]
        assert len(asked) == len(set(asked)) == 5
        assert {Path(path).name for path in asked} == {"summary"}
        pulls_impatiently(target, server, "good", silent[0], seconds=10)
        # Once, although more than one file is not there.
        assert server.count("/silent*") - server.count("/silent*/config") == 1
        assert server.count("/good/*.commitmeta") == server.count("/good/*.index") == 1


def test_mirrors_that_fall_silent_one_after_the_other(tmp_path: Path, target: Target, silent: list[str]) -> None:
    """As long as others bring what they did not, there is no end to how many may."""
    with serve(tmp_path / "root") as server:
        for path in ("summary", "*.commitmeta", "*.index", "*.commit", "*.dirtree", "*.dirmeta"):
            server.fault(f"/*/{path}", Fault(until=lambda: False), times=1)
        remote(target, f"mirrorlist={server.url}/list")
        pulls_impatiently(target, server, *silent, seconds=2)


def test_a_mirror_that_is_slow_to_its_first_answer_is_the_last(
    tmp_path: Path, target: Target, silent: list[str]
) -> None:
    """It is asked for what the others fail to bring, and not for what they lack."""
    with serve(tmp_path / "root") as server:
        slow = silent[0]
        server.fault(f"/{slow}/config", Fault(until=lambda: server.count("/good/summary") > 0))
        for path in ("*.filez", "*.commit"):
            server.fault(f"/good/{path}", Fault(status=503))
        remote(target, f"mirrorlist={server.url}/list")
        said = pulls_impatiently(target, server, slow, "good", seconds=10)
        assert f"/{slow}/config: no answer for 1 s; trying the next mirror too" in said
        assert server.count(f"/{slow}/*.filez") == server.count("/good/*.filez") > 5
        assert server.count(f"/{slow}/*.commitmeta") == 0


def test_a_mirror_that_was_late_is_tried_no_more_often_than_others(
    tmp_path: Path, target: Target, silent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPOSEFS_OSTREE_RETRY_DELAY", "0.01")
    with serve(tmp_path / "root") as server:
        slow = silent[0]
        server.fault(f"/{slow}/config", Fault(until=lambda: server.count("/good/summary") > 0))
        server.fault("/*/*.commit", Fault(status=503))
        remote(target, f"mirrorlist={server.url}/list")
        assert "HTTP status 503" in pulls_impatiently(target, server, slow, "good", status=6, seconds=10, retries=5)
        assert server.count(f"/{slow}/*.commit") == server.count("/good/*.commit") == 2


def test_mirrors_that_limit_the_rate(
    tmp_path: Path, target: Target, silent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said to help there does."""
    monkeypatch.setenv("COMPOSEFS_OSTREE_RETRY_DELAY", "0.01")
    with serve(tmp_path / "root") as server:
        remote(target, f"mirrorlist={server.url}/list")
        server.fault("/*/*.commit", Fault(status=503), times=8)
        said = pulls_impatiently(target, server, silent[0], "good", status=6, seconds=10, retries=5)
        assert "(2 attempts) (the server has a problem; try again later, or more often: --network-retries=N)" in said
        assert server.count("/*/*.commit") == 4
        pulls(target, "o", BRANCH, "--network-retries=4")
        assert server.count(f"/{silent[0]}/*.commit") == 7


def test_mirrors_that_are_not_there(tmp_path: Path, target: Target, silent: list[str]) -> None:
    with serve(tmp_path / "root") as server, reserved_port() as port:
        remote(target, f"mirrorlist={server.url}/list")
        (tmp_path / "root/list").write_text("".join(f"http://127.0.0.1:{port}/{name}\n" for name in silent[:2]))
        for option, attempts in (((), 2), (("--network-retries=2",), 3)):
            told = pulls(target, "o", BRANCH, *option, status=6).splitlines()[-1]
            assert told.startswith(f"cfsctl: http://127.0.0.1:{port}/{silent[0]}/config: ")  # the best one's word
            assert f" ({attempts} attempts) (check the URL" in told


METALINK = """<metalink version="3.0"><files><file name="summary"><size>{size}</size><verification>
<hash type="sha256">{digest}</hash></verification><resources>
<url>{one}/summary</url><url>{two}/summary</url></resources></file></files></metalink>"""


def test_metalinks(tmp_path: Path, target: Target, source: Path) -> None:

    lists = tmp_path / "lists"
    lists.mkdir()
    summary = (source / "summary").read_bytes()
    with serve(source) as one, serve(source) as two, serve(lists) as server:

        def write(data: bytes) -> None:
            text = METALINK.format(size=len(data), digest=sha256(data).hexdigest(), one=one.url, two=two.url)
            (lists / "metalink.xml").write_text(text)

        write(summary)
        link = f"metalink={server.url}/metalink.xml"
        remote(target, link)
        pulls(target, "o", BRANCH)
        assert two.count() == two.count("*.commitmeta") + two.count("*.index") == 2
        cfsctl("--repo", target.path, "gc")
        one.fault("/summary", Fault(body=summary[:-1] + b"\xff"))
        one.requests.clear()
        target.ostree("remote", "refs", "o")
        assert one.count("/summary") == 0  # what is kept is the right one
        remote(target, link, "--set=gpg-verify-summary=true")
        assert "no GPG signature" in target.ostree("remote", "refs", "o", status=5).stderr  # and yet not signed
        remote(target, link)
        two.requests.clear()
        for kept in cache_files("summary-*"):
            kept.unlink()
        assert "next mirror" in pulls(target, "o", BRANCH)
        assert two.count("/summary") == 1
        write(summary + b"x")
        assert cache_files("summary-*")  # which is not the right one any more
        assert "metalink" in pulls(target, "o", BRANCH, status=5)
        for kept in cache_files("summary-*"):
            kept.unlink()
        assert "metalink" in pulls(target, "o", BRANCH, status=5)
        # Who hides it does not get to say what the ref is.
        one.forgive()
        for mirror in (one, two):
            mirror.fault("/summary", Fault(status=404))
        assert "although the metalink tells of one" in pulls(target, "o", BRANCH, status=3)
        assert one.count("/refs/*") + two.count("/refs/*") == 0
        (lists / "metalink.xml").write_text('<!DOCTYPE metalink [<!ENTITY a "b">]><metalink/>')
        assert "document type" in pulls(target, "o", BRANCH, status=5)


# Bounds

LOW_SPEED = "--low-speed-time-seconds="


def test_how_fast_and_over_how_many_connections(target: Target, source: Path) -> None:

    size = sum(path.stat().st_size for path in (source / "objects").rglob("*.filez"))
    with serve(source) as server:
        start = monotonic()
        pulls(target, server.url, BRANCH, f"--limit-rate={size // 2}")
        assert monotonic() - start > 1.5
        before = server.connections
        pulls(target, server.url, BRANCH, "--max-connections=3")
        assert server.count("*.commitmeta") == 2  # which is not there: its connection is used again all the same
        assert server.connections - before <= 3
        for arguments in (["--limit-rate=fast"], ["--max-connections=1"], ["--timeout=0"]):
            pulls(target, server.url, BRANCH, *arguments, status=2)


def test_what_is_damaged_is_told_while_the_rate_is_limited(tmp_path: Path, target: Target, source: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(source, damaged, symlinks=True)
    largest = max((damaged / "objects").rglob("*.filez"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[8 + int.from_bytes(data[:4], "big")] = 0xFF  # behind the header: no deflate stream begins so
    largest.write_bytes(data)
    with serve(damaged) as server:
        errors = pulls(target, server.url, BRANCH, f"--limit-rate={len(data)}", status=5)
        assert f"{server.url}/{largest.relative_to(damaged)}" in errors


def test_what_takes_too_long_is_given_up(target: Target, source: Path) -> None:

    with serve(source) as server:
        server.fault("*.dirtree", Fault(stall=True, keep=1))
        # By the other limit it would end after the time in which this command has to end.
        assert "dirtree" in pulls(target, server.url, BRANCH, "--timeout=5", f"{LOW_SPEED}{2 * TIMEOUT}", status=6)
        assert server.count("*.dirtree") == 1  # it had all the time that it may have, and is not tried again


def test_a_server_that_drips(target: Target, source: Path) -> None:
    with serve(source) as server:
        server.fault("*.filez", Fault(drip=4000))  # so that the largest would take a minute, and come in
        assert "filez" in pulls(target, server.url, BRANCH, "--timeout=5", "--network-retries=0", status=6)
        slow = ("--low-speed-limit-bytes=100000", f"{LOW_SPEED}4", "--network-retries=0")
        assert "filez" in pulls(target, server.url, BRANCH, *slow, status=6)
        # The server does not become faster by being allowed no more than it could not do anyway.
        assert "filez" in pulls(target, server.url, BRANCH, *slow, "--limit-rate=200k", status=6)


def test_what_is_slow_because_the_rate_is_limited_is_not_given_up(target: Target, source: Path) -> None:
    size = sum(path.stat().st_size for path in (source / "objects").rglob("*.filez"))
    with serve(source) as server:
        slow = (f"--low-speed-limit-bytes={size}", f"{LOW_SPEED}1")
        # Many attempts, as the machine may be slow for a second, too; what is called slow for its rate is so each time.
        pulls(target, server.url, BRANCH, *slow, f"--limit-rate={size // 3}", "--network-retries=100")


def test_a_server_says_when_to_come_back(target: Target, source: Path) -> None:

    with serve(source) as server:
        server.fault("/summary", Fault(status=503, headers=(("Retry-After", "2"),)), times=1)
        start = monotonic()
        assert "trying again in 2 s" in pulls(target, server.url, BRANCH)
        assert monotonic() - start > 2
        server.fault("/summary", Fault(status=429, headers=(("Retry-After", "86400"),)))
        server.requests.clear()
        assert "429" in pulls(target, server.url, BRANCH, status=6)
        assert server.count("/summary") == 1
