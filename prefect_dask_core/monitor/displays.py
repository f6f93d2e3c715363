"""Displays of runs: how a flow run looks in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prefect_dask_core.displays import chip, counts_html, table_html, text
from prefect_dask_core.monitor.palette import ORDER
from prefect_dask_core.monitor.summary import (
    RunSummary,
    TaskSummary,
    told_by,
)
from prefect_dask_core.monitor.texts import duration

#: Most failures, and most rows, of a table in a notebook.
MOST_FAILURES: Final = 5
MOST_ROWS: Final = 30


def run_html(summary: RunSummary) -> str:
    """A run as HTML: how it ended, its tasks, and what failed first."""
    state = summary.state
    message = f" {text(told_by(state))}" if state.message else ""
    head = (
        f"<div><b>{text(summary.name)}</b> {chip(state)} in "
        f"{duration(summary.seconds)}.{message}</div>"
    )
    failures = "".join(
        f"<div>{chip(failure.state)} <b>{text(failure.name)}</b> "
        f"{text(told_by(failure.state))}</div>"
        for failure in summary.failures[:MOST_FAILURES]
    )
    more = summary.failed + summary.refused - MOST_FAILURES
    rest = f"<div>and {more:,} more</div>" if more > 0 else ""
    return f"{head}{tasks_html(summary.tasks)}{failures}{rest}"


def tasks_html(tasks: Sequence[TaskSummary]) -> str:
    """Tasks of a run as a table."""
    rows = [
        (
            f"<b>{text(task.name)}</b>",
            f"{task.runs:,}",
            counts_html({name: task.counts[name] for name in ORDER}),
            duration(task.longest) if task.is_timed else "",
        )
        for task in tasks[:MOST_ROWS]
    ]
    if len(tasks) > MOST_ROWS:
        rows.append((f"and {len(tasks) - MOST_ROWS:,} more tasks", "", "", ""))
    return table_html(("task", "runs", "states", "longest"), rows)
