"""Write man pages from docs/commands.md, so that they cannot say what the commands do not.

    python docs/make_manpages.py DIRECTORY

The page's sections become cfsctl(1) with all built-in commands, cfsctl-NAME(1) for each extension, and a page for each
standalone tool.  Only what make_commands.py writes is understood: headings, indented usage lines, paragraphs, tables of
options, and fenced examples.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE / "commands.md"
ADMINISTRATION = ("mount.composefs",)

STATUSES = {
    0: "Success.",
    1: "A check has found something wrong, or what failed is none of the following.",
    2: "The command line is wrong.",
    3: "What was named is not there.",
    4: "A name is taken, or somebody else uses the repository.",
    5: "Something is damaged, malformed, or not in the repository.",
    6: "A transfer failed.",
    7: "It is not allowed, or the repository cannot be written.",
    8: "The disk is full, or something is too large.",
    9: "That cannot be done here.",
    10: "An extension broke a rule, died, or did not start.",
    129: "The terminal was closed (SIGHUP).",
    130: "The user interrupted.",
    141: "Nobody reads the output any more (SIGPIPE).",
    143: "It was asked to end (SIGTERM).",
}
"""What docs/protocol.md says to authors of extensions in its table of errors, for users, and what signals end with."""

LAUNCHER = """.TH COMPOSEFS-EXT-{upper} 1 "" "composefs" "composefs"
.SH NAME
composefs-ext-{name} \\- the {name} extension of cfsctl
.SH DESCRIPTION
This is started by
.B cfsctl {name}
and talks to it over standard input and output; it is of no use by itself.
.SH SEE ALSO
.BR cfsctl-{name} (1)
"""


def text(line: str) -> str:
    """Escape a line of text, with code in bold and links as their words."""
    line = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line).replace("\\|", "|").replace("\\", "\\e").replace("-", "\\-")
    line = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", line)
    return "\\&" + line if line.startswith((".", "'")) else line


def body(lines: list[str]) -> Iterator[str]:
    """Turn the lines of a section into roff."""
    verbatim = False
    for line in lines:
        if line.startswith("```"):
            verbatim = not verbatim
            yield ".PP\n.nf" if verbatim else ".fi"
        elif verbatim:
            yield text(line)
        elif line.startswith("    "):
            yield f".PP\n.B {text(line.strip())}"
        elif line.startswith("| `"):
            name, _, meaning = line.strip("| ").partition("` |")
            yield f".TP\n.B {text(name.strip('`'))}\n{text(meaning.strip() or name.strip('`'))}"
        elif line.startswith("|"):
            continue
        elif line:
            yield text(line)
        else:
            yield ".PP"


def sections() -> Iterator[tuple[str, list[str]]]:
    """Yield the page's sections: the command's words, and the lines below."""
    title, lines = "", list[str]()
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            if title:
                yield title, lines
            title, lines = line[3:], []
        else:
            lines.append(line)
    yield title, lines


def summary(lines: list[str]) -> str:
    """Return the first sentence of a section, as a page's NAME has it."""
    first = next((line for line in lines if line and not line.startswith(("    ", "|", "`"))), "a command")
    return text(first.partition(". ")[0].rstrip(".")[0].lower() + first.partition(". ")[0].rstrip(".")[1:])


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    extensions = {json.loads(path.read_text())["name"] for path in HERE.parent.glob("extensions/*/libexec/*/*/*.json")}
    found: dict[str, list[str]] = {}
    for title, lines in sections():
        words = title.split()
        name = f"cfsctl-{words[1]}" if len(words) > 1 and words[1] in extensions else words[0]
        section = 8 if name in ADMINISTRATION else 1
        page = found.setdefault(f"{name}.{section}", [])
        if not page:
            page.append(f'.TH {name.upper()} {section} "" "composefs" "composefs"')
            page.append(f".SH NAME\n{text(name)} \\- {summary(lines)}\n.SH DESCRIPTION")
        else:
            page.append(f".SH {text(title)}")
        page += body(lines)
    texts = {name: "\n".join(lines) + "\n" for name, lines in found.items()}
    texts |= {
        f"composefs-ext-{name}.1": LAUNCHER.format(name=name, upper=name.upper()).replace("ext-", "ext\\-")
        for name in extensions
    }
    for name in extensions:
        texts[f"cfsctl-{name}.1"] += ".SH SEE ALSO\n.BR cfsctl (1)\n"
    see = ", ".join(f"\n.BR cfsctl\\-{name} (1)" for name in sorted(extensions)).replace(",", "")
    statuses = "".join(f".TP\n.B {status}\n{meaning}\n" for status, meaning in STATUSES.items())
    texts["cfsctl.1"] += f".SH EXIT STATUS\n{statuses}.SH SEE ALSO{see}\n"
    return texts


def main() -> None:
    """Write the pages."""
    directory = Path(sys.argv[1])
    for name, page in pages().items():
        (directory / name).write_text(page)


if __name__ == "__main__":
    main()
