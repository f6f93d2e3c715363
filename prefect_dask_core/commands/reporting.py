"""The command that writes the report of an earlier run: ``dask flow report``."""

from __future__ import annotations

from pathlib import Path

import click

from prefect_dask_core.config import default_ledger, ledger_url
from prefect_dask_core.errors import PrefectDaskCoreError
from prefect_dask_core.ledger import Ledger
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
@click.option("--ledger", help="Path or URL of the ledger, if it is another one.")
@click.option("--text", is_flag=True, help="Print a summary instead of the page.")
def command(run: str, output: Path, ledger: str | None, text: bool) -> None:
    """Write the report of a run in the ledger.

    RUN is its id, or the first characters of it. Neither the cluster nor the process
    of the run is needed.
    """
    place = ledger or ledger_url() or default_ledger()
    try:
        found = recorded_run(Ledger(place, must_exist=True).run(run))
    except PrefectDaskCoreError as error:
        raise click.UsageError(str(error)) from error
    click.echo(str(found) if text else str(found.report(output)))
