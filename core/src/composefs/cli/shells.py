"""What the shells are told: as click tells them, but the whole word where an option and its value are one.

Behind ``--OPTION=`` click answers with what can stand there alone.  zsh puts that in the place of the word, and fish
does not find the word's beginning in it; bash's script takes away what readline keeps (commands/completion.py).
"""

from __future__ import annotations

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

__all__ = ["register"]


class _Whole(ShellComplete):
    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        found = super().get_completions(args, incomplete)
        option, sign, _ = incomplete.partition("=")
        if sign and option.startswith("-"):
            for item in found:
                if item.type == "plain":
                    item.value = f"{option}={item.value}"
        return found


def register() -> None:
    """Have click do so."""
    for each in (BashComplete, ZshComplete, FishComplete):
        add_completion_class(type(each.__name__, (_Whole, each), {}))
