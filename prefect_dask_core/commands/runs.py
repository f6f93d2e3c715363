"""The command that lists runs: ``dask flow runs``."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict

import click

from prefect_dask_core.commands.ledgers import (
    SHOWN,
    ledger_option,
    opened,
    table,
    told_state,
    told_time,
)
from prefect_dask_core.ledger import RunRecord
from prefect_dask_core.monitor.summary import counts_text
from prefect_dask_core.monitor.texts import duration
from prefect_dask_core.recording import NAMES


@click.command(name="runs")
@click.option("--flow", "flow", metavar="NAME", help="Only runs of this flow.")
@click.option(
    "--state",
    type=click.Choice(sorted({*NAMES, "Running", "Lost"}), case_sensitive=False),
    metavar="STATE",
    help="Only runs in this state, as Failed.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many at most.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@ledger_option
def command(
    flow: str | None, state: str | None, limit: int, as_json: bool, ledger: str | None
) -> None:
    """List the flow runs of a ledger, the latest first.

    A run that was resumed began with its first attempt and ended with its last one; it
    took as long as all of its attempts together, without the time between them.

    A run whose client died before it ended is Lost; `dask flow resume` goes on with it.
    """
    with opened(ledger) as found:
        # A lost run is one that is written down as running.
        written = "Running" if state == "Lost" else state
        records = found.runs(flow=flow, state=written, limit=None if state else limit)
    now = time.time()
    shown = [r for r in records if state is None or told_state(r, now) == state]
    shown = shown[:limit]
    if as_json:
        for record in shown:
            click.echo(json.dumps({**asdict(record), "state": told_state(record, now)}))
        return
    if not shown:
        click.echo("no runs")
        return
    head = ["RUN", "FLOW", "STATE", "BEGAN", "ENDED", "TOOK", "ATTEMPTS", "TASK RUNS"]
    for line in table(head, [_row(record, now) for record in shown]):
        click.echo(line)


def _row(record: RunRecord, now: float) -> list[str]:
    state = told_state(record, now)
    return [
        record.id[:SHOWN],
        record.flow,
        state,
        told_time(record.begin),
        "" if record.end is None else told_time(record.end),
        duration(record.seconds(now if state == "Running" else None)),
        str(record.attempt),
        counts_text(Counter(record.counts)),
    ]
