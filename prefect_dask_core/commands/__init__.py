"""Commands: what ``dask flow`` can do; each command is a module of this package."""

from __future__ import annotations

import importlib
from typing import Final

import click

#: The command and what it is for -> the module of this package that has it, as
#: ``command``. Loaded when it is called, so that help is there at once.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "run": ("running", "Run a flow of a file and say how it ended."),
    "runs": ("runs", "List the runs of a ledger."),
    "show": ("show", "Show what a ledger knows of a run."),
    "resume": ("resume", "Go on with a run that failed or died."),
    "report": ("reporting", "Write the report of a run in the ledger."),
    "visualize": ("visualizing", "Draw a flow of a file."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, `None` if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{COMMANDS[cmd_name][0]}")
        found: click.Command = module.command
        return found

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, told) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def flow() -> None:
    """Run flows of prefect_dask_core, and look at their runs."""
