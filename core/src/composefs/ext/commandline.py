"""What is to be run: a command of an extension, with the values for its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composefs.tuples import NamedTuple

if TYPE_CHECKING:
    from composefs.ext.discovery import Extension
    from composefs.ext.manifest import Command
    from composefs.protocol.wire import Message

__all__ = ["CommandLine"]


class CommandLine(NamedTuple):
    """``command`` is the manifest's; ``arguments`` are checked values, by the names they have there, paths absolute."""

    extension: Extension
    command: Command
    arguments: Message

    def __str__(self) -> str:
        return f"{self.extension.name} {' '.join(self.command.name)}"

    def typed(self, *kinds: str) -> set[str]:
        """Return the values that the user gave for arguments of these kinds."""
        values: set[str] = set()
        for argument in self.command.arguments:
            if argument.kind in kinds:
                value = self.arguments.get(argument.name)
                values.update(each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))
        return values
