"""The command that shows a run: ``dask flow show``."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click

from prefect_dask_core.commands.ledgers import (
    is_lost,
    ledger_option,
    opened,
    table,
    told_state,
    told_time,
)
from prefect_dask_core.ledger import DetailRecord, LedgerRun
from prefect_dask_core.monitor.recorded_run import recorded_run
from prefect_dask_core.monitor.summary import labels_of, lines_of, summarize
from prefect_dask_core.monitor.texts import duration
from prefect_dask_core.states import State


@click.command(name="show")
@click.argument("run", metavar="RUN")
@click.option(
    "--failures",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Failures to show with their tracebacks.",
)
@ledger_option
def command(run: str, failures: int, ledger: str | None) -> None:
    """Show what the ledger knows of a run.

    RUN is the id of a run, as `dask flow runs` lists it: its first characters will do.
    """
    with opened(ledger) as found:
        for line in _lines(found.run(run), failures):
            click.echo(line)


def _lines(run: LedgerRun, failures: int) -> Iterator[str]:
    record = run.record
    now = time.time()
    yield f"run {record.id}"
    view = recorded_run(run, is_lost=is_lost(record, now))
    yield from _facts(run, view.info.begin)
    yield ""
    final = view.state or State()
    end = now if final.name == "Running" else record.end or record.seen
    yield from lines_of(summarize(view, final, end))
    if record.attempt > 1:
        took = duration(record.seconds(now if final.name == "Running" else None))
        yield ""
        yield f"{record.attempt} attempts took {took} together"
        yield from _attempts(run, now)
    shown = run.failures()
    slugs = [node.slug for node in view.nodes]
    names = dict(zip(slugs, labels_of(view.nodes), strict=True))
    for slug, detail in shown[:failures]:
        yield ""
        yield from _failure(names[slug], detail)
    if len(shown) > failures:
        more = len(shown) - failures
        yield f"\n{more:,} more: --failures {len(shown)} shows all."


def _facts(run: LedgerRun, begin: float) -> Iterator[str]:
    record = run.record
    facts = {
        "name": record.name if record.name != record.id else None,
        "flow": record.flow + (f", version {record.version}" * bool(record.version)),
        "defined in": record.source,
        "began": told_time(begin),
        "ran on": f"{record.runner}, from process {record.process} on {record.host}",
        "part of run": record.parent,
        "tags": ", ".join(record.tags),
        "logs": ", ".join(record.logs),
        "parameters": ", ".join(f"{k}={v}" for k, v in run.parameters_told.items()),
        "assets": ", ".join(f"{a.key} ({a.event})" for a in run.assets),
    }
    for name, value in facts.items():
        if value:
            yield f"  {name}: {value}"


def _attempts(run: LedgerRun, now: float) -> Iterator[str]:
    rows = []
    for attempt in run.attempts:
        last = attempt.number == run.record.attempt
        state = told_state(run.record, now) if last else attempt.state
        end = attempt.end
        if end is None:
            end = run.record.seen if state == "Lost" else now
        took = duration(max(0.0, end - attempt.begin))
        rows.append([str(attempt.number), state, told_time(attempt.begin), took])
    yield from table(["ATTEMPT", "STATE", "BEGAN", "TOOK"], rows)


def _failure(name: str, detail: DetailRecord) -> Iterator[str]:
    if detail.indexes:
        name = f"{name}[{detail.indexes}]"
    yield f"{name}: {detail.name}: {detail.message or ''}".rstrip(": ")
    if detail.traceback:
        yield from (f"  {line}" for line in detail.traceback.splitlines())
