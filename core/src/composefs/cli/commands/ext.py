"""``cfsctl ext``: the extensions that are installed, and what they can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from composefs.cli.complete import ExtensionName
from composefs.cli.frame import Command, Example, Group
from composefs.cli.output import line, print_json, table

if TYPE_CHECKING:
    from composefs.ext.discovery import Extension

__all__ = ["command"]


@click.group(cls=Group)
def command() -> None:
    """Show the installed extensions."""


@command.command("list", cls=Command, examples=[Example("cfsctl ext list"), Example("cfsctl ext list --json")])
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_(as_json: bool) -> None:
    """List all extensions found, also those that are shadowed or rejected, with the reason."""
    from composefs.ext import discovery

    found = discovery.list_all()
    if as_json:
        rows = [
            {
                "name": each.name,
                "state": each.state,
                "version": each.extension.manifest.version if each.extension else None,
                "summary": each.extension.manifest.summary if each.extension else None,
                "executable": str(each.executable),
                "reason": each.reason,
            }
            for each in found
        ]
        print_json({"extensions": rows})
    elif found:
        table(
            ("NAME", "STATE", "VERSION", "EXECUTABLE", "REASON"),
            [
                (
                    each.name,
                    each.state,
                    each.extension.manifest.version if each.extension else "-",
                    str(each.executable),
                    each.reason or "",
                )
                for each in found
            ],
        )
    else:
        line("No extensions found")


@command.command(cls=Command, examples=[Example("cfsctl ext show ostree")])
@click.argument("name", type=ExtensionName())
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show an extension: where it is, what its commands are, what it may touch."""
    from composefs.ext import discovery

    extension = discovery.find(name)
    if as_json:
        print_json({"executable": str(extension.executable), "manifest": _document(extension.manifest)})
    else:
        _show(extension)


def _document(value: object) -> object:
    """Turn the manifest's records into objects again, with all defaults."""
    if isinstance(value, tuple):
        if hasattr(value, "_asdict"):
            return {name: _document(each) for name, each in value._asdict().items()}
        return [_document(each) for each in value]
    return value


def _show(extension: Extension) -> None:
    manifest = extension.manifest
    facts = (
        ("name", manifest.name),
        ("summary", manifest.summary),
        ("version", manifest.version),
        ("package", manifest.package),
        ("executable", str(extension.executable)),
        ("protocol", ", ".join(map(str, manifest.protocol))),
        ("permissions", ", ".join(manifest.permissions)),
        ("environment", ", ".join(manifest.environment)),
        ("streams", ", ".join(f"{prefix}*" for prefix in manifest.streams)),
        ("refs", ", ".join(f"{refs.dir}/ ({refs.encoding})" for refs in manifest.refs)),
        ("reads", ", ".join(manifest.reads)),
        ("execs", ", ".join(manifest.execs)),
    )
    for label, value in facts:
        line(f"{label + ':':<12} {value or '-'}")
    line("")
    table(
        ("COMMAND", "REPOSITORY", "SUMMARY"),
        [(" ".join(each.name), each.repository, each.summary) for each in manifest.commands],
    )
