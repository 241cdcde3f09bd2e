"""Metalinks and mirror lists, good and hostile."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composefs_ext.errors import CorruptError, FormatError
from composefs_ostree.remotes.metalink import parse_metalink
from composefs_ostree.remotes.mirrors import parse_mirror_list

SUMMARY = b"summary"
SHA256, SHA512 = (hashlib.new(name, SUMMARY).hexdigest() for name in ("sha256", "sha512"))

VERSION_3 = f"""<?xml version="1.0" encoding="utf-8"?>
<metalink version="3.0" xmlns="http://www.metalinker.org/" xmlns:mm0="http://fedorahosted.org/mirrormanager">
 <files>
  <file name="other"><size>1</size><resources><url protocol="http">http://bad/other</url></resources></file>
  <file name="summary">
   <mm0:timestamp>1</mm0:timestamp><size>{len(SUMMARY)}</size>
   <verification>
     <hash type="md5">00</hash><hash type="sha256">{SHA256}</hash><hash type="sha512">{SHA512}</hash>
   </verification>
   <mm0:alternates><mm0:alternate>
     <size>9</size><verification><hash type="sha512">{"0" * 128}</hash></verification>
   </mm0:alternate></mm0:alternates>
   <resources maxconnections="1">
     <url protocol="rsync" type="rsync">rsync://a/repo/summary</url>
     <url protocol="http" type="http" preference="100">http://a/repo/summary</url>
     <url protocol="https" type="https"> https://b/summary </url>
     <url protocol="http" type="http">http://c/repo/other</url>
   </resources>
  </file>
 </files>
</metalink>
"""
VERSION_4 = f"""<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="summary"><size>{len(SUMMARY)}</size>
<hash type="sha-256">{SHA256}</hash><url priority="1">http://a/repo/summary</url></file></metalink>"""


def test_both_versions_are_read() -> None:
    link = parse_metalink(VERSION_3.encode())
    assert link == (len(SUMMARY), "sha512", SHA512, ["http://a/repo", "https://b"])
    assert parse_metalink(VERSION_4.encode()) == (len(SUMMARY), "sha256", SHA256, ["http://a/repo"])
    second = '<file name="summary"><size>1</size><url>http://d/summary</url></file></metalink>'
    assert parse_metalink(VERSION_4.replace("</metalink>", second).encode()) == parse_metalink(VERSION_4.encode())
    many = "".join(f"<url>http://host{number}/summary</url>" for number in range(100))
    assert len(parse_metalink(VERSION_4.replace("</file>", f"{many}</file>").encode()).urls) == 64
    link.check(SUMMARY, "x")
    assert not link._replace(size=link.size + 1).is_of(SUMMARY)
    for summary in (b"summarY", b"summary2", b""):
        with pytest.raises(CorruptError, match="metalink"):
            link.check(summary, "http://a/repo/summary")


BOMB = """<!DOCTYPE metalink [<!ENTITY a "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>
<metalink><files><file name="summary"><size>&c;</size></file></files></metalink>"""
OUTSIDE = """<!DOCTYPE metalink [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<metalink><files><file name="summary"><size>&a;</size></file></files></metalink>"""


@pytest.mark.parametrize(
    "text",
    [
        "",
        VERSION_4.replace("<metalink", "<html").replace("</metalink", "</html"),
        "<metalink>",
        "<metalink/>",
        "rubbish",
        BOMB,
        OUTSIDE,
        "<!DOCTYPE metalink>" + VERSION_4,
        VERSION_4.replace("<file", "<a>" * 100 + "</a>" * 100 + "<file"),
        VERSION_4.replace("</file", "<note>" + "x" * 5000 + "</note></file"),
        VERSION_3.replace('encoding="utf-8"', 'encoding="no-such"'),
        VERSION_4.replace("summary</url>", "sumary</url>"),
        VERSION_4.replace(SHA256, SHA256[1:]),
        VERSION_4.replace("sha-256", "md5"),
        VERSION_4.replace(f"<size>{len(SUMMARY)}", "<size>-1"),
        VERSION_4.replace(f"<size>{len(SUMMARY)}", "<size>99999999999"),
        VERSION_4.replace(f"<size>{len(SUMMARY)}", "<size>" + "1" * 5000),
        VERSION_4.replace("http://a", "ftp://a"),
        VERSION_4.replace(SHA256, "&unknown;"),
    ],
)
def test_the_rest_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_metalink(text.encode())


@given(
    st.binary(max_size=300) | st.lists(st.sampled_from(VERSION_3.split()), max_size=40).map(" ".join).map(str.encode)
)
def test_nothing_but_the_one_error_comes_out(data: bytes) -> None:
    for parse in (parse_metalink, parse_mirror_list):
        with suppress(FormatError):
            parse(data)


def test_mirror_lists() -> None:
    text = b"# mirrors\n\nhttp://a/repo/\nftp://b/\nrubbish\n https://c \nhttp://a/repo\nhttp://d?x\n\xff\n"
    assert parse_mirror_list(text) == ["http://a/repo", "https://c"]
    assert len(parse_mirror_list(b"".join(b"http://host%d/\n" % number for number in range(1000)))) == 64
    for data in (b"", b"# nothing\n", b"<html>\n"):
        with pytest.raises(FormatError, match="mirror list"):
            parse_mirror_list(data)
