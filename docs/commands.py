"""Write docs/shell.md, the page of all commands, from what `interp --help` tells.

python docs/commands.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from interp.cli import app

HEAD = """# The shell

<!-- Made by `make docs` from the commands themselves: change those, not this page. -->

Results are on stdout, and everything else is on stderr. With `--json` stdout is one JSON document
and nothing else, from every command. In a pipe there are no colours and no progress bars;
`NO_COLOR=1` takes the colours away on a terminal too, `INTERP_PROGRESS=0` the bars, also in
notebooks.

| exit code | what it says |
|---|---|
| 0 | done |
| 1 | an error, told in one sentence on stderr |
| 2 | wrong usage: an unknown option, a number out of range, options that do not go together |
| 130 | stopped by Ctrl-C (143: by SIGTERM), after a line that says what is kept |

With `--json`, stdout says `{"error": ..., "kind": ...}` of an error too, and nothing of a command
that was stopped. `interp verify` and `interp runs verify` end with 1 if something does not hold,
and so does a command whose output nobody reads any more.

`interp --install-completion` makes Tab complete commands, options, models, tasks, metrics, methods
and kinds of heads. `interp --debug COMMAND` shows the traceback of an error.
"""


def page() -> str:
    """The whole page, as Markdown: the commands of each panel of `interp --help` together."""
    commands: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    panels = dict.fromkeys(command.rich_help_panel for command in commands.values())
    parts = [HEAD]
    for panel in panels:
        parts.append(f"## {panel}\n")
        inside = {name: each for name, each in commands.items() if each.rich_help_panel == panel}
        parts += _commands(inside, "interp")
    return "\n".join(parts)


def _commands(commands: dict[str, Any], words: str) -> Iterator[str]:
    for name, command in commands.items():
        if hasattr(command, "commands"):
            yield f"### `{words} {name}`\n\n{command.help}\n"
            yield from _commands(command.commands, f"{words} {name}")
        else:
            yield from _command(f"{words} {name}", command)


def _command(words: str, command: Any) -> Iterator[str]:
    context = command.make_context(words, [], resilient_parsing=True)
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    given = " ".join(_names(param).strip("`") for param in arguments)
    yield f"### `{' '.join(part for part in (words, given) if part)}`\n"
    yield f"{command.help}\n"
    if command.epilog:
        examples = "\n".join(command.epilog.splitlines()[1:])
        yield f"```sh\n{examples}\n```\n"
    yield "| | |\n|---|---|"
    for param in (*arguments, *(each for each in command.params if each not in arguments)):
        yield f"| {_names(param)} | {_meaning(param, context)} |"
    yield ""


def _names(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"`{param.metavar or param.name.upper()}`"
    return ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))


def _meaning(param: Any, context: Any) -> str:
    """What the help says, and the default if there is one."""
    text = (param.help or "").replace("|", r"\|")
    default = param.get_default(context)
    if param.required:
        return f"{text} Required."
    if default is None or default is False:
        return text
    if default is True:
        default = param.opts[0]
    return f"{text} Default: `{default}`."


if __name__ == "__main__":
    Path(__file__).with_name("shell.md").write_text(page(), encoding="utf-8")
