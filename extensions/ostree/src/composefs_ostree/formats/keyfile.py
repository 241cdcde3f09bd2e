"""Key files, the format of ostree's configuration: sections of ``key=value`` lines.

A key that stands twice has its last value, as have sections.  Source: Desktop Entry Specification, "Basic format of the
file", and GLib's documentation of GKeyFile, which reads these files for ostree.
"""

from __future__ import annotations

from composefs_ext.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Sections = dict[str, dict[str, str]]
    """Values by section and key, as they are escaped in the file."""

__all__ = ["as_boolean", "as_list", "escape", "is_key", "parse_keyfile", "unescape", "write_keyfile"]

_ESCAPES = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_ESCAPED = r"(?s)\\(.?)"
_MAX_SECTIONS = 10_000


def parse_keyfile(data: bytes) -> Sections:
    """Return the values of a key file; raise FormatError with the line's number."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise FormatError("it is not UTF-8") from None
    if "\0" in text:
        raise FormatError("it is not text: it has a NUL")
    sections: Sections = {}
    section: dict[str, str] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r").lstrip()
        if not line.strip() or line.startswith("#"):
            continue
        heading = line.rstrip()
        if heading[0] == "[" and heading[-1] == "]" and _has_none_of("[]", heading[1:-1]):
            section = sections.setdefault(heading[1:-1], {})
            if len(sections) > _MAX_SECTIONS:
                raise FormatError(f"it has more than {_MAX_SECTIONS} sections")
            continue
        key, separator, value = line.partition("=")
        key = key.rstrip()
        if section is None or not separator or not (is_key(key) or _is_translation(key)):
            raise FormatError(f"line {number} is neither a section nor key=value: {line[:80]!a}")
        section[key] = value.lstrip(" \t")
    return sections


def write_keyfile(sections: Mapping[str, Mapping[str, str]]) -> bytes:
    """Return the key file of these sections; the values are escaped already."""
    lines: list[str] = []
    for section, values in sections.items():
        if lines:
            lines.append("")
        lines.append(f"[{section}]")
        lines += [f"{key}={value}" for key, value in values.items()]
    return "".join(f"{line}\n" for line in lines).encode()


def is_key(text: str) -> bool:
    """Tell whether a text can be a key: anything that a line can begin with and that ends before the ``=``."""
    return not text.startswith("#") and text == text.strip() and _has_none_of("=[]", text)


def _is_translation(text: str) -> bool:
    """Tell whether a text is a key with a locale behind it: ``KEY[LOCALE]``, which is another key than ``KEY``.

    GLib takes any letters and digits for a locale, with ``-``, ``_``, ``.`` and ``@`` among them, also none.
    """
    key, bracket, locale = text.partition("[")
    letters = (character for character in locale[:-1] if character not in "-_.@")
    return bracket != "" and is_key(key) and locale.endswith("]") and all(map(str.isalnum, letters))


def _has_none_of(characters: str, text: str) -> bool:
    """Tell whether a text has something, but none of these, nor a control character."""
    return text != "" and min(text) >= " " and not any(character in text for character in characters)


def escape(text: str) -> str:
    r"""Return a string as it stands in a file: ``\\``, control characters and leading blanks are escaped."""
    for letter, character in (("\\", "\\"), ("n", "\n"), ("r", "\r")):
        text = text.replace(character, f"\\{letter}")
    body = text.lstrip(" \t")
    lead = text[: len(text) - len(body)]
    return lead.replace(" ", "\\s").replace("\t", "\\t") + body


def unescape(value: str) -> str:
    """Return the string that a value stands for; raise FormatError for an escape that there is not."""
    if "\\" not in value:
        return value
    import re

    def character(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise FormatError(f"the value {value[:80]!a} has the unknown escape {match[0]!a}")
        return _ESCAPES[match[1]]

    return re.sub(_ESCAPED, character, value)


def as_boolean(value: str) -> bool:
    """Return the boolean that a value stands for: ``true``, ``1``, ``false`` or ``0``; else raise FormatError."""
    word = value.rstrip()
    if word not in ("true", "1", "false", "0"):
        raise FormatError(f"{value[:80]!a} is not a boolean: write true or false")
    return word in ("true", "1")


def as_list(value: str) -> tuple[str, ...]:
    """Split a value at semicolons, of which the last may be missing; empty elements do not count."""
    return tuple(part.strip() for part in value.split(";") if part.strip())
