"""Write docs/commands.md from the command line itself, so that the page cannot say what the commands do not.

    python docs/make_commands.py [--check]

The built-in commands come from click, those of the extensions from their manifests in this checkout, both by way of
what ``cfsctl COMMAND --help`` shows.  With ``--check`` nothing is written, and the exit status is 1 if the page is old.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

HERE = Path(__file__).parent
PAGE = HERE / "commands.md"
LIBEXEC = HERE.parent / "libexec"
INTRODUCTION = """# Commands

For those who type commands: each one with all that it takes, as `cfsctl COMMAND --help` shows it.
[Global options](#cfsctl) come before the command. Exit statuses are listed in [protocol.md](protocol.md#errors).
`make docs` writes this page from the commands themselves.

With `--progress json` standard error has a JSON object a line: `{"event": "progress", "id", "kind", "done", "total",
"unit", "label"}`, as [the protocol](protocol.md#progress) has them and without what is not known, and for
warnings, with `-v` for more, `{"event": "log", "level", "message"}`. Lines that begin with `cfsctl:`, as errors do,
those of `--trace`, and what an extension writes there itself stay text.
"""


def spelling(parameter: click.Parameter) -> str:
    """How a parameter is written on the command line."""
    if isinstance(parameter, click.Argument):
        return parameter.get_usage_pieces(click.Context(click.Command("")))[0]
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    if isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count):
        return names
    if isinstance(parameter.type, click.Choice):
        return f"{names} {'|'.join(str(choice) for choice in parameter.type.choices)}"
    return f"{names} {parameter.metavar or parameter.type.name.upper()}"


def table(head: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Write how each thing is spelt and what it means; nothing where there are none."""
    if not rows:
        return
    yield f"| {head} | |\n|---|---|"
    for written, meaning in rows:
        spelt, told = (" ".join(text.split()).replace("|", "\\|") for text in (written, meaning))
        yield f"| `{spelt}` | {told} |"
    yield ""


def section(command: click.Command, path: list[str]) -> Iterator[str]:
    """Describe a command and those below it."""
    arguments = [spelling(each) for each in command.params if isinstance(each, click.Argument)]
    yield f"\n## {' '.join(path)}\n"
    words = [*path, "[OPTIONS]", *(["COMMAND", "…"] if isinstance(command, click.Group) else arguments)]
    yield f"    {' '.join(words)}\n"
    if command.help:
        yield inspect.cleandoc(command.help).replace("\b\n", "") + "\n"
    yield from table("argument", getattr(command, "arguments", ()))
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    yield from table(
        "option", [(spelling(option), (option.help or "") + " [required]" * option.required) for option in options]
    )
    examples = getattr(command, "examples", ())
    if examples:
        yield "```sh"
        for example in examples:
            if example.description:
                yield f"# {example.description}"
            yield example.command
        yield "```"


def commands(group: click.Group, context: click.Context, path: list[str]) -> Iterator[str]:
    """Describe all commands of a group, in the order in which --help lists them."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield from section(command, [*path, name])
        if isinstance(command, click.Group):
            yield from commands(command, click.Context(command, info_name=name, parent=context), [*path, name])


def tool(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Describe a standalone tool; what follows its options is shown as --help shows it."""
    yield f"\n## {parser.prog}\n"
    yield f"    {parser.usage}\n"
    yield f"{parser.description}\n"
    yield "| option | |\n|---|---|"
    for action in parser._actions:  # the only way to them
        names = ", ".join(action.option_strings)
        value = action.metavar if isinstance(action.metavar, str) and action.nargs != 0 else ""
        yield f"| `{' '.join(filter(None, (names, value)))}` | {action.help} |"
    yield ""
    yield f"```text\n{(parser.epilog or '').strip()}\n```"


def index(titles: Sequence[str]) -> Iterator[str]:
    """Link all sections: the core's commands, those of each extension, and the tools."""
    extensions = {manifest.stem for manifest in LIBEXEC.glob("*.json")}
    groups: dict[str, list[str]] = {}
    for title in titles:
        first, *rest = title.split()
        group = f"{first} {rest[0]}" if rest and rest[0] in extensions else first if first == "cfsctl" else "tools"
        if title != group:
            anchor = title.replace(".", "").replace(" ", "-")
            groups.setdefault(group, []).append(f"[{title.removeprefix(f'{group} ')}](#{anchor})")
    for group, links in groups.items():
        yield f"* {group}: {', '.join(links)}"


def page() -> str:
    """Return the text of the page."""
    os.environ["COMPOSEFS_EXT_PATH"] = str(LIBEXEC)
    from composefs.cli import composefs_info, mkcomposefs, mount_composefs
    from composefs.cli.main import root

    context = click.Context(root, info_name="cfsctl")
    lines = [*section(root, ["cfsctl"]), *commands(root, context, ["cfsctl"])]
    for parser in (mkcomposefs.parser, composefs_info.parser, mount_composefs.parser):
        lines += tool(parser())
    titles = [line.removeprefix("\n## ").rstrip() for line in lines if line.startswith("\n## ")]
    return "\n".join([INTRODUCTION, *index(titles), *lines]).replace("\n\n\n", "\n\n").rstrip() + "\n"


def main() -> int:
    """Write or check the page."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
        return 0
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    print(f"{PAGE} is not what the commands say; run: make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
