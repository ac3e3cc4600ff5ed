"""The reference of the command line, made from the commands themselves.

`python -m pargo_export.cli.reference > docs/cli.md` writes it; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from pargo_export.cli.main import COMMANDS, cli

__all__ = ["command_reference"]

_HEAD = """\
# Command line

<!-- Made by `python -m pargo_export.cli.reference > docs/cli.md`; do not edit. -->

`python -m pargo_export` is the same as `pargo-export`.

Results go to standard output, progress, warnings and errors to standard error. The exit status is 0 if everything
that was asked for succeeded and every check passed, 1 if not, 2 for a wrong option, 130 after Ctrl-C.

These options belong to every command:

{shared}

Shell completion, for the current shell (put the line into its start-up file to keep it):

```sh
eval "$(_PARGO_EXPORT_COMPLETE=bash_source pargo-export)"   # bash 4.4 or newer
eval "$(_PARGO_EXPORT_COMPLETE=zsh_source pargo-export)"    # zsh
_PARGO_EXPORT_COMPLETE=fish_source pargo-export | source    # fish
```
"""
_NUM_SHARED = 4  # the options that PargoCommand adds at the end


def command_reference() -> str:
    """Return the reference as Markdown; it does not depend on the version of click."""
    context = click.Context(cli, info_name="pargo-export")
    commands = [cli.get_command(context, name) for name in COMMANDS]
    known = [item for command in commands if command is not None for item in _flatten(command)]
    shared = "\n".join(map(_describe, known[0][1].params[-_NUM_SHARED:]))
    return "\n".join([_HEAD.format(shared=shared), *("\n".join(_section(*item)) for item in known)])


def _flatten(command: click.Command, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield a command with its whole name; of a group, those in it."""
    name = f"{before}{command.name}"
    if not isinstance(command, click.Group):
        yield name, command
        return
    for inner in command.commands.values():
        yield from _flatten(inner, f"{name} ")


def _section(name: str, command: click.Command) -> Iterator[str]:
    own = command.params[:-_NUM_SHARED]
    arguments = [_argument(param) for param in own if isinstance(param, click.Argument)]
    yield f"## {name}\n"
    yield f"```\npargo-export {' '.join([name, *arguments, '[OPTIONS]'])}\n```\n"
    for paragraph in (command.help or "").split("\n\n"):
        yield " ".join(paragraph.split()) + "\n"
    options = [_describe(param) for param in own if isinstance(param, click.Option)]
    if options:
        yield "\n".join(options) + "\n"


def _argument(param: click.Argument) -> str:
    name = str(param.name).upper()
    return f"{name}..." if param.nargs == -1 else name


def _describe(param: click.Parameter) -> str:
    names = ", ".join(f"`{name}{_value(param)}`" for name in param.opts)
    text = param.help or "" if isinstance(param, click.Option) else ""
    if param.required:
        text += " Required."
    elif isinstance(param, click.Option) and param.show_default:
        text += f" Default: `{param.default}`."
    return f"- {names}: {text.strip()}"


def _value(param: click.Parameter) -> str:
    """What an option takes, as it is written on the command line."""
    if isinstance(param, click.Option) and param.is_flag:
        return ""
    if isinstance(param.type, click.Choice):
        return f" {'|'.join(map(str, param.type.choices))}"
    if param.metavar:
        return f" {param.metavar}"
    kinds = ((click.Path, "PATH"), (click.types.IntParamType, "N"), (click.types.FloatParamType, "X"))
    return f" {next((word for kind, word in kinds if isinstance(param.type, kind)), 'TEXT')}"


if __name__ == "__main__":
    click.echo(command_reference(), nl=False)
