"""Key files, and the remotes in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composefs_ext.errors import FormatError, PermissionDeniedError, UnsupportedError, UsageError
from composefs_ostree.formats.keyfile import as_boolean, as_list, escape, is_key, parse_keyfile, unescape, write_keyfile
from composefs_ostree.remotes.record import Remote, check_remote_name, parse_remotes, remote_file

FILE = b"""# comment
[core]
repo_version=1

[remote "a"]
  url = http://a  \r
branches=b1;b2;
xa.\xc3\xbc=\\sx\\n
[other]
x=y=z
x[de@euro]=w
x[]=v
x[a.b-\xc3\xbc_2]=u
[remote "a"]
url=http://b
[remote "not/a/name"]
url=http://c
"""


def test_sections_keys_and_values() -> None:
    assert parse_keyfile(FILE) == {
        "core": {"repo_version": "1"},
        'remote "a"': {"url": "http://b", "branches": "b1;b2;", "xa.ü": "\\sx\\n"},
        "other": {"x": "y=z", "x[de@euro]": "w", "x[]": "v", "x[a.b-ü_2]": "u"},
        'remote "not/a/name"': {"url": "http://c"},
    }
    assert parse_keyfile(b"") == {}
    assert parse_keyfile(b"[a]\nb = c \t\n") == {"a": {"b": "c \t"}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"key=value", "line 1"),
        (b"[a]\nrubbish", "line 2"),
        (b"[a]\n=value", "line 2"),
        (b"[a]\nk[x=value", "line 2"),
        (b"[a]\nk[x]y=value", "line 2"),
        (b"[a]\nk[x y]=value", "line 2"),
        (b"[a]\nk[a+b]=value", "line 2"),
        (b"[a]\nk[x[y]=value", "line 2"),
        (b"[a]\nk[x]]=value", "line 2"),
        (b"[a]\nk [x]=value", "line 2"),
        (b"[a]\n[x]=value", "line 2"),
        (b"[ab", "line 1"),
        (b"[a[b]", "line 1"),
        (b"[a\x01]", "line 1"),
        (b"[a]\nk=\xff", "UTF-8"),
        (b"[a]\nk=v\0", "a NUL"),
        (b"".join(b"[%d]\n" % number for number in range(10_001)), "more than 10000"),
    ],
)
def test_malformed_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_keyfile(data)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_what_is_written_is_read(value: str) -> None:
    data = write_keyfile({"s": {"key": escape(value)}, "t": {}})
    assert unescape(parse_keyfile(data)["s"]["key"]) == value


@given(st.binary(max_size=200) | st.text('[]=#\\s \n"remote abc', max_size=200).map(str.encode))
def test_nothing_but_the_one_error_comes_out(data: bytes) -> None:
    try:
        for remote in parse_remotes(data, "x"):
            assert parse_remotes(remote_file(remote), "x") == [remote._replace(origin="x")]
    except FormatError:
        pass


def test_values() -> None:
    assert [as_boolean(word) for word in ("true", "1 ", "false", "0")] == [True, True, False, False]
    for word in ("TRUE", "yes", "", " true"):
        with pytest.raises(FormatError, match="boolean"):
            as_boolean(word)
    assert as_list("a; b;;c") == ("a", "b", "c")
    with pytest.raises(FormatError, match="escape"):
        unescape("\\q")


def test_remotes() -> None:
    (remote,) = parse_remotes(FILE, "/etc/x.conf", "/ostree/repo")
    assert remote.settings == {"url": "http://b", "branches": "b1;b2;", "xa.ü": " x\n"}
    assert (remote.place, remote.branches, remote.contenturl) == ("http://b", ("b1", "b2"), None)
    assert (remote.origin, remote.directory, remote.collection_id) == ("/etc/x.conf", "/ostree/repo", None)
    kept = remote._replace(keyring=b"\x99\x01")
    assert parse_remotes(remote_file(kept), "x") == [kept._replace(origin="x", directory=None)]
    with pytest.raises(FormatError, match=r"x: gpg-keyring is not base64"):
        parse_remotes(b'[remote "a"]\ngpg-keyring=?', "x")
    with pytest.raises(FormatError, match="http2 of remote 'a'"):
        Remote("a", {"http2": "maybe"}).boolean("http2", True)


def test_remotes_are_bounded() -> None:
    remotes = [b'[remote "r%d"]\nurl=http://h\n' % number for number in range(1001)]
    assert len(parse_remotes(b"".join(remotes[1:]), "x")) == 1000
    with pytest.raises(FormatError, match="x: it has more than 1000 remotes"):
        parse_remotes(b"".join(remotes), "x")


def test_what_a_vendor_has_to_say() -> None:
    Remote("a").check_pullable()
    with pytest.raises(PermissionDeniedError, match="please subscribe"):
        Remote("a", {"unconfigured-state": "please subscribe"}).check_pullable()
    with pytest.raises(UnsupportedError, match="fetcher"):
        Remote("a", {"custom-backend": "fetcher"}).check_pullable()


def test_keys() -> None:
    for key in ("a", "a b", "a#", "ü", "'"):
        assert is_key(key)
        assert parse_keyfile(write_keyfile({"s": {key: "v"}})) == {"s": {key: "v"}}
    for key in ("", "#a", " a", "a ", "a=", "[a", "a]", "a\n"):
        assert not is_key(key)


def test_names() -> None:
    assert check_remote_name("a.b-c_D") == "a.b-c_D"
    for name in ("", ".a", "-a", "a b", "a/b", 'a"', "a:b", "€", "a" * 300):
        with pytest.raises(UsageError):
            check_remote_name(name)
