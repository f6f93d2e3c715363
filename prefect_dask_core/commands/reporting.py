"""The command that writes the report of an earlier run: ``dask flow report``."""

from __future__ import annotations

from pathlib import Path

import click

from prefect_dask_core.commands.ledgers import is_lost, ledger_option, opened
from prefect_dask_core.commands.running import write_report
from prefect_dask_core.monitor.recorded_run import recorded_run


@click.command(name="report")
@click.argument("run")
@click.option(
    "--output",
    "-o",
    default=Path("report.html"),
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write.",
)
@click.option("--text", is_flag=True, help="Print a summary instead of the page.")
@ledger_option
def command(run: str, output: Path, text: bool, ledger: str | None) -> None:
    """Write the report of a run in the ledger.

    RUN is its id, or the first characters of it. Neither the cluster nor the process
    of the run is needed.
    """
    with opened(ledger) as found:
        recorded = found.run(run)
        view = recorded_run(recorded, is_lost=is_lost(recorded.record))
        if text:
            click.echo(str(view))
        else:
            write_report(view, output)
