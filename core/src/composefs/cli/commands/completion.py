"""``cfsctl completion``: the script that makes a shell complete cfsctl's commands, options, refs and images."""

from __future__ import annotations

import click

from composefs.cli.frame import Command, Example
from composefs.cli.output import write

__all__ = ["command"]

# click's own, but for words with a colon or an equals sign (REMOTE:REF, --repo=PATH): readline takes them apart there,
# and puts what we answer behind the last one.
_BASH = r"""%(complete_func)s() {
    local IFS=$'\n'
    local response type value word kept
    local words=() is_open=
    local breaks=${COMP_WORDBREAKS//[^:=]/}

    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ $is_open || ( $breaks && $word == ["$breaks"]* && ${#words[@]} -gt 0 ) ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        [[ $breaks && $word == *["$breaks"] ]] && is_open=1 || is_open=
    done
    word=${words[-1]}
    kept=
    [[ $breaks ]] && kept=${word%%"${word##*["$breaks"]}"}

    response=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) %(complete_var)s=bash_complete $1)

    for word in $response; do
        IFS=',' read -r type value <<< "$word"

        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("${value#"$kept"}")
            [[ $value == *= ]] && compopt -o nospace
        fi
    done

    return 0
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""


@click.command(
    cls=Command,
    examples=[
        Example('eval "$(cfsctl completion bash)"', "In ~/.bashrc."),
        Example("source <(cfsctl completion zsh)", "In ~/.zshrc, behind compinit."),
        Example("cfsctl completion fish | source", "In ~/.config/fish/config.fish."),
    ],
)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL: bash, zsh or fish."""
    from click.shell_completion import get_completion_class

    from composefs.cli.main import COMPLETE_VARIABLE, PROGRAM, root

    generator = get_completion_class(shell)
    assert generator is not None
    script = generator(root, {}, PROGRAM, COMPLETE_VARIABLE)
    text = _BASH % script.source_vars() if shell == "bash" else script.source()
    # click's script for fish cuts names and descriptions off at their first comma.
    write(text.replace('(string split ","', '(string split -m 1 ","').encode())
