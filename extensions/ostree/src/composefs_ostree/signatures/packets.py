"""OpenPGP's framing: from a byte string to its packets, and out of ASCII armour.

Only what is needed to hand single packets and single certificates to a library: nothing is decompressed, and what does
not fit its frame is an error.  Source: RFC 9580, 4.2 (packet headers) and 6.2 (ASCII armour).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import NamedTuple

from composefs_ext.errors import FormatError

__all__ = ["PUBLIC_KEY", "SECRET_KEY", "SIGNATURE", "Packet", "dearmour", "dearmour_signature", "split"]

SIGNATURE = 2
SECRET_KEY = 5
PUBLIC_KEY = 6

# From a line up to the next one that begins so: of many beginnings without an end, each is looked at once.
_ARMOUR = re.compile(
    rb"^-----BEGIN PGP ([A-Z ]+)-----\r?\n((?:(?!-----)[^\n]*+\n)*+)-----END PGP \1-----", re.MULTILINE
)
_BEGIN = b"-----BEGIN PGP SIGNATURE-----"
_END = b"-----END PGP SIGNATURE-----"
_CHECKSUM = re.compile(rb"^=[A-Za-z0-9+/]{4}\s*$", re.MULTILINE)


class Packet(NamedTuple):
    """A packet: its type, and its bytes with the header."""

    tag: int
    data: bytes


def split(data: bytes) -> Iterator[Packet]:
    """Yield the packets; raise FormatError where the bytes are none."""
    position = 0
    while position < len(data):
        first = data[position]
        if not first & 0x80:
            raise FormatError(f"byte {position} does not begin an OpenPGP packet")
        tag = first & 0x3F if first & 0x40 else first >> 2 & 0x0F
        length, start = _new_length(data, position) if first & 0x40 else _old_length(data, position)
        end = start + length
        if end > len(data):
            raise FormatError(f"the OpenPGP packet at byte {position} is cut off")
        yield Packet(tag, data[position:end])
        position = end


def _new_length(data: bytes, position: int) -> tuple[int, int]:
    """Return length and start of the body of a packet with a header in OpenPGP's format."""
    size = data[position + 1 : position + 2]
    if size and size[0] < 192:
        return size[0], position + 2
    if size and size[0] < 224:
        return (size[0] - 192 << 8) + int.from_bytes(data[position + 2 : position + 3]) + 192, position + 3
    if size == b"\xff":
        return int.from_bytes(data[position + 2 : position + 6]), position + 6
    raise FormatError(f"the OpenPGP packet at byte {position} comes in parts, as only messages may")


def _old_length(data: bytes, position: int) -> tuple[int, int]:
    """Return length and start of the body of a packet with a header in the legacy format."""
    width = (1, 2, 4, 0)[data[position] & 3]
    if not width:
        raise FormatError(f"the OpenPGP packet at byte {position} has no length")
    start = position + 1 + width
    return int.from_bytes(data[position + 1 : start]), start


def dearmour(data: bytes) -> bytes:
    """Return the bytes of all armoured blocks, or ``data`` itself if there are none; raise FormatError.

    The checksum of a block is not looked at: RFC 9580 says not to, and parsing finds accidents too.
    """
    blocks = [_decode(match[2]) for match in _ARMOUR.finditer(data)]
    return b"".join(blocks) if blocks else data


def dearmour_signature(data: bytes) -> bytes:
    """Return the bytes of a signature that begins with its armour, any other as it is; raise FormatError."""
    if not data.startswith(_BEGIN):
        return data
    end = data.find(_END)
    if end < 0:
        raise FormatError("the ASCII armour is cut off")
    return _decode(data[len(_BEGIN) : end].removeprefix(b"\r").removeprefix(b"\n"))


def _decode(block: bytes) -> bytes:
    """Return the bytes of what stands between the first and the last line of armour."""
    headers, blank, body = block.replace(b"\r\n", b"\n").partition(b"\n\n")
    if block.startswith((b"\n", b"\r\n")):
        body = block
    elif not blank:
        body = headers
    try:
        return binascii.a2b_base64(_CHECKSUM.sub(b"", body))
    except binascii.Error as error:
        raise FormatError(f"malformed ASCII armour: {error}") from None
