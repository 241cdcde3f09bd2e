"""What the pages name is there: links and anchors, files, commands with their options; and their tables are whole."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import get_args

import pytest
from click.testing import CliRunner

from composefs.cli.main import root
from composefs.graph.problem import Kind
from composefs.meta import Meta
from support.ostree_pull import LIBEXEC

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for pattern in ("*.md", "core/*.md", "extensions/*/*.md", "samples/**/*.md", "docs/**/*.md")
    for page in ROOT.glob(pattern)
)
# Commands of extensions that the pages bring into being.
SAMPLES = {"hello", "shfetch", "sums", "tar", "zip", "cpio"}


def code_and_prose(text: str) -> tuple[list[str], str]:
    """The lines of a page's code blocks, fenced or indented, and what is left without them."""
    code, prose, fenced = [], [], False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            code.append(line.strip())
        else:
            prose.append(line)
    return code, "\n".join(prose)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    _, prose = code_and_prose(page.read_text())
    headings = re.findall(r"^#+ (.*)", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """The links of a page to this source: as they are written, and the file and the anchor they lead to."""
    _, prose = code_and_prose(page.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose)):
        path, _, anchor = link.partition("#")
        if "://" not in link:
            yield link, (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    found = links(ROOT / name)
    assert [link for link, to, anchor in found if not to.exists() or (anchor and anchor not in anchors(to))] == []


def test_readers_find_every_page() -> None:
    found, seen = [ROOT / "README.md"], set[Path]()
    while found:
        page = found.pop()
        seen.add(page)
        inner = (to / "README.md" if to.is_dir() else to for _, to, _ in links(page))
        found += [to for to in inner if to.suffix == ".md" and to.exists() and to not in seen]
    assert [name for name in PAGES if name.startswith("docs/") and ROOT / name not in seen] == []


@pytest.mark.parametrize("name", PAGES)
def test_files_of_this_source_are_there(name: str) -> None:
    _, prose = code_and_prose((ROOT / name).read_text())
    named = set(re.findall(r"(?<![\w/.~-])(?:tests|benchmarks|samples|extensions|docs)/[\w./*-]*\w", prose))
    assert [each for each in named if not any(ROOT.glob(each))] == []


@pytest.mark.parametrize(
    ("page", "source"),
    [
        ("ostree", "extensions/ostree/src/composefs_ostree"),
        ("boot", "core/src/composefs/boot"),
        ("dumpfile", "core/src/composefs/dumpfile"),
        ("erofs", "core/src/composefs/erofs"),
    ],
)
def test_a_page_of_a_format_names_the_modules_that_read_it(page: str, source: str) -> None:
    _, _, after = (ROOT / f"docs/formats/{page}.md").read_text().partition("\n## Where it is in the code\n")
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`(.*?)`", after.partition("\n## ")[0]))))
    modules = {path.stem for path in (ROOT / source).rglob("*.py")} - {"__init__", "main"}
    assert modules - named == set()


def test_dependencies_are_those_that_the_wheels_ask_for() -> None:
    asked: dict[str, tuple[str, set[str]]] = {}
    for wheel in ("core", "extensions/sdk", "extensions/ostree", "extensions/oci"):
        project = tomllib.loads((ROOT / wheel / "pyproject.toml").read_text())["project"]
        for name, _, version in (each.partition(";")[0].partition(">=") for each in project["dependencies"]):
            asked.setdefault(name, (version, set()))[1].add(PurePosixPath(wheel).name)
    page = (ROOT / "docs/dependencies.md").read_text().partition("\n\nWith them come ")[0]
    rows = re.findall(r"^\| \[?([\w-]+)(?:\]\(\S+\) ≥ ([\d.]+))? \| ([\w, ]+) \|", page, re.MULTILINE)
    described = {name: (version, set(wheels.split(", "))) for name, version, wheels in rows if name != "package"}
    assert described == asked | {"composefs-ext": ("", asked["composefs-ext"][1])}  # which comes with them


def test_the_wheels_their_manifests_and_the_debian_packages_have_one_version() -> None:
    """As CHANGELOG.md says, and as debian/control asks for."""
    versions = {"debian/changelog": re.findall(r"^composefs \((.*)-", (ROOT / "debian/changelog").read_text())}
    for wheel in ("core", "extensions/sdk", "extensions/ostree", "extensions/oci"):
        for path in (ROOT / wheel).glob("src/*/__init__.py"):
            versions[str(path)] = re.findall(r'^__version__ = "(.*)"$', path.read_text(), re.MULTILINE)
        for path in (ROOT / wheel).glob("libexec/composefs/ext/*.json"):
            versions[str(path)] = [json.loads(path.read_text())["version"]]
        versions[wheel] = [tomllib.loads((ROOT / wheel / "pyproject.toml").read_text())["project"]["version"]]
    assert len(versions) == 11
    assert list(versions.values()) == [versions["core"]] * 11


def test_the_kinds_of_damage_are_those_that_fsck_tells() -> None:
    _, _, section = (ROOT / "docs/reliability.md").read_text().partition("\n| kind | means | remedy |\n")
    cells = [row.split("|")[1] for row in section.partition("\n\n")[0].splitlines()[1:]]
    assert sorted(re.findall(r"[a-z-]+", " ".join(cells))) == sorted(get_args(Kind))


def test_the_meta_json_that_is_shown_is_written_so() -> None:
    [block] = re.findall(r"^    \{\n(?:    .*\n)+", (ROOT / "docs/formats/repository.md").read_text(), re.MULTILINE)
    shown = textwrap.dedent(block).encode()
    assert Meta.parse(shown).serialize() == shown


@pytest.mark.parametrize("name", [name for name in PAGES if not name.startswith("samples/")])
def test_what_is_to_be_made_can_be(name: str) -> None:
    code, prose = code_and_prose((ROOT / name).read_text())
    asked = {
        match[1] for line in [*code, *re.findall(r"`(.*?)`", prose)] if (match := re.match(r"make ([a-z]+)", line))
    }
    assert asked <= set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(line: str) -> Iterator[list[str]]:
    """The words of each ``cfsctl`` in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[str] | None = None
    for word in [*lexer, ";"]:
        if found is not None and (set(word) <= set("();<>|&")):
            yield found
            found = None
        elif found is not None:
            found.append(word)
        elif PurePosixPath(word).name == "cfsctl":
            found = []


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each ``cfsctl`` that a page shows whole: not what stands for others, such as NAME or […]."""
    code, prose = code_and_prose(text)
    for line in [*code, *re.findall(r"`((?:cfsctl|COMPOSEFS_EXT_PATH=)[^`]*)`", prose)]:
        if not re.search(r"\bcfsctl [a-z-]", line) or "[" in line.partition("'")[0]:
            continue
        for words in commands(line):
            if not words[0].isupper():
                yield [word for word in words if word != "…"]


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_their_options_are_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(LIBEXEC))
    wrong = []
    for words in command_lines((ROOT / name).read_text()):
        if SAMPLES.intersection(words):
            continue
        # --help is obeyed when all words have been read, and before they are checked against the repository.
        at = words.index("--") if "--" in words else len(words)
        said = CliRunner().invoke(root, [*words[:at], "--help", *words[at:]])
        if said.exit_code:
            wrong.append((" ".join(words), str(said.exception or said.output)))
    assert wrong == []
