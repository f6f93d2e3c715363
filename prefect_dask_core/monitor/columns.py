"""Columns: what the pages show of a run, as plain numbers, texts and lists.

Pure functions of what the scheduler knows of a run and of the time. The pages only lay
it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from prefect_dask_core.engine.codes import STATE_BY_CODE
from prefect_dask_core.monitor.failures import Failure
from prefect_dask_core.monitor.palette import COLORS, RANK_BY_CODE
from prefect_dask_core.monitor.plugin import flow_of, state_of
from prefect_dask_core.monitor.runs import Run
from prefect_dask_core.monitor.tallies import (
    NAMES,
    REFUSED,
    TaskTally,
    rate_of,
    seconds_left,
    typical_seconds,
)
from prefect_dask_core.monitor.texts import (
    clock_text,
    cut_label,
    duration,
    rate_text,
    short_address,
)

#: Columns of a table or plot: lists of one length, by name.
Columns = dict[str, list[Any]]

#: Codes in the order in which they stand in a bar: what is fine first, the rest at the
#: end of the bar, where it is seen.
ORDER: Final = tuple(sorted(range(len(STATE_BY_CODE)), key=lambda n: -RANK_BY_CODE[n]))
#: Colour of what has not ended.
OPEN_COLOR: Final = "#e4e8ec"
#: Rows of a table of tasks; further ones are told as one.
MOST_TASKS: Final = 200
#: Characters of the name of what failed; its index is told whole.
MOST_LABEL: Final = 26


# -- texts -------------------------------------------------------------------------


def duration_text(seconds: float | None) -> str:
    """A duration, if it is known."""
    return "-" if seconds is None else duration(seconds)


def progress_text(done: int, length: int, whole: bool) -> str:
    """How many of how many.

    Examples
    --------
    >>> progress_text(812, 2_000, True), progress_text(5, 5, False)
    ('812 / 2,000', '5 / 5 …')
    """
    return f"{done:,} / {length:,}{'' if whole else ' …'}"


def _rate(tallies: Sequence[TaskTally], now: float, over: bool) -> float | None:
    """The present rate; of what is over the mean rate while it ran.

    `None` where there is but one run: one has a duration, and no rate.
    """
    if sum(tally.length for tally in tallies) < 2:
        return None
    if not over:
        return rate_of(tallies, now)
    done = sum(tally.done for tally in tallies)
    begin = min((tally.begin for tally in tallies if tally.begin), default=0.0)
    seconds = max((tally.end for tally in tallies), default=0.0) - begin
    return done / seconds if done and begin and seconds > 0 else None


# -- all runs ----------------------------------------------------------------------


def seconds_of(run: Run, now: float) -> float | None:
    """How long a run has taken so far."""
    if run.begun is None:
        return None
    end = now if run.ended is None else run.ended.end
    return max(0.0, end - run.begun.begin)


def about_run(run: Run, now: float) -> dict[str, Any]:
    """What there is to say of a run in a few numbers, ready for JSON."""
    over = run.ended is not None
    return {
        "id": run.id,
        "flow": flow_of(run),
        "name": run.begun.name if run.begun is not None else "",
        "parent": run.begun.parent if run.begun is not None else "",
        "state": state_of(run),
        "message": run.ended.message if run.ended is not None else "",
        "begin": run.begun.begin if run.begun is not None else None,
        "end": run.ended.end if run.ended is not None else None,
        "seconds": seconds_of(run, now),
        "task_runs": run.length,
        "lengths_known": run.is_whole,
        "done": run.done,
        "failed": sum(tally.failed for tally in run.tasks),
        "retries": sum(tally.attempts for tally in run.tasks),
        "counts": run.counts(),
        "rate": _rate(run.tasks, now, over),
        "seconds_left": 0.0 if over else seconds_left(run.tasks, now),
        "worker_deaths": sum(not death.block for death in run.deaths),
    }


def about_tasks(run: Run, now: float) -> list[dict[str, Any]]:
    """What there is to say of each task of a run, ready for JSON."""
    over = run.ended is not None
    return [
        {
            "task": tally.name,
            "task_runs": tally.length,
            "lengths_known": not tally.unknown,
            "done": tally.done,
            "failed": tally.failed,
            "retries": tally.attempts,
            "counts": {
                NAMES[code]: count for code, count in sorted(tally.counts.items())
            },
            "rate": _rate([tally], now, over),
            "seconds_left": 0.0 if over else seconds_left([tally], now),
            "typical_seconds": typical_seconds(tally),
            "busy_seconds": tally.busy,
        }
        for tally in run.tasks
        if tally.nodes
    ]


class RunRows:
    """Rows of runs, the newest first; that of a run that has ended is made once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, tuple[Any, ...]]] = {}

    def columns(self, runs: Iterable[Run], now: float) -> Columns:
        """A row per run."""
        before, self._known = self._known, {}
        rows = []
        for run in runs:
            version, row = before.get(run.id, (-1, ()))
            if run.ended is None or version != run.version:
                row = _run_row(about_run(run, now), run)
            self._known[run.id] = run.version, row
            rows.append(row)
        return _transposed(rows[::-1], _RUN_COLUMNS)


_RUN_COLUMNS: Final = (
    "id",
    "flow",
    "run",
    "state",
    "color",
    "begin",
    "duration",
    "parts",
    "progress",
    "failed",
    "retries",
    "rate",
    "left",
)


def _run_row(about: Mapping[str, Any], run: Run) -> tuple[Any, ...]:
    begin = about["begin"]
    over = run.ended is not None
    name = about["name"]
    return (
        about["id"],
        about["flow"],
        about["id"][:8] if not name or name == about["id"] else name,
        about["state"],
        COLORS.get(about["state"], COLORS["Pending"]),
        "" if begin is None else clock_text(begin),
        duration_text(about["seconds"]),
        parts_of(run.tasks),
        progress_text(about["done"], about["task_runs"], about["lengths_known"]),
        about["failed"],
        about["retries"],
        rate_text(about["rate"]),
        "" if over else duration_text(about["seconds_left"]),
    )


def parts_of(tallies: Sequence[TaskTally]) -> str:
    """How much of some tasks has ended in which state, as the parts of a bar.

    Returns
    -------
    str
        ``"<percent>:<color>:<count> <state>"`` per part, joined by ``;``. Parts that
        are there have at least 1.5 %, so that one failure in a million is seen.
    """
    total = sum(tally.length for tally in tallies)
    counts = {
        code: n for code in ORDER if (n := sum(tally.counts[code] for tally in tallies))
    }
    whole = max(total, sum(counts.values()), 1)
    widths = {code: max(100 * count / whole, 1.5) for code, count in counts.items()}
    over = sum(widths.values()) - 100
    if over > 0:
        largest = max(widths, key=widths.__getitem__)
        widths[largest] -= over
    return ";".join(
        f"{width:.2f}:{STATE_BY_CODE[code].color}:{counts[code]:,} {NAMES[code]}"
        for code, width in widths.items()
    )


def headline(run: Run | None, now: float, asked: str = "") -> str:
    """One line on a run, in words.

    Parameters
    ----------
    run : Run or None
        The run; `None` if it is not known.
    now : float
        Seconds since the epoch.
    asked : str
        Id of the run that was asked for; empty if it was the newest.
    """
    if run is None:
        if not asked:
            return "No flow has run on this scheduler yet."
        return (
            f"Run {asked[:8]} is not known here: it ran elsewhere, or so many have "
            "ended since that it was forgotten."
        )
    about = about_run(run, now)
    progress = progress_text(about["done"], about["task_runs"], about["lengths_known"])
    parts = [about["state"], f"{progress} task runs", duration_text(about["seconds"])]
    if run.ended is None:
        parts.append(rate_text(about["rate"]))
        if about["seconds_left"] is not None:
            parts.append(f"about {duration_text(about['seconds_left'])} left")
    for state, count in about["counts"].items():
        if state != "Completed":
            parts.append(f"{count:,} {state}")
    if about["worker_deaths"]:
        plural = "s" if about["worker_deaths"] > 1 else ""
        parts.append(f"{about['worker_deaths']} worker{plural} died")
    return " · ".join(parts)


# -- tasks of a run ----------------------------------------------------------------


def task_columns(run: Run | None, now: float) -> Columns:
    """A row per task of a run, in the order of the flow."""
    tallies = [tally for tally in run.tasks if tally.nodes] if run is not None else []
    over = run is not None and run.ended is not None
    groups: list[tuple[str, list[TaskTally]]] = [
        (tally.name, [tally]) for tally in tallies[:MOST_TASKS]
    ]
    if tallies[MOST_TASKS:]:
        rest = tallies[MOST_TASKS:]
        groups.append((f"{len(rest):,} more tasks", rest))
    rows = [_task_row(name, group, now, over) for name, group in groups]
    return _transposed(rows, _TASK_COLUMNS)


_TASK_COLUMNS: Final = (
    "task",
    "parts",
    "progress",
    "rate",
    "left",
    "typical",
    "failed",
    "retries",
)


def _task_row(
    name: str, tallies: Sequence[TaskTally], now: float, over: bool
) -> tuple[Any, ...]:
    done = sum(tally.done for tally in tallies)
    length = sum(tally.length for tally in tallies)
    unknown = any(tally.unknown for tally in tallies)
    typical = typical_seconds(tallies[0]) if len(tallies) == 1 else None
    return (
        name,
        parts_of(tallies),
        progress_text(done, length, not unknown),
        rate_text(_rate(tallies, now, over)),
        "" if over or done == length else duration_text(seconds_left(tallies, now)),
        duration_text(typical),
        sum(tally.failed for tally in tallies),
        sum(tally.attempts for tally in tallies),
    )


# -- failures ----------------------------------------------------------------------


def label_of(run: Run, failure: Failure) -> str:
    """Name of what failed: its task, and its index if it is a child."""
    return f"{run.name_of(failure.node)}{_index_of(failure)}"


def _index_of(failure: Failure) -> str:
    return f"[{failure.text.child}]" if failure.mapped else ""


def texts_of_failures(run: Run) -> list[dict[str, Any]]:
    """The failures that are kept, ready for JSON."""
    return [
        {
            "run": label_of(run, failure),
            "state": NAMES[failure.text.code],
            "message": failure.text.message,
            "worker": failure.worker,
            "attempts": failure.text.attempts,
            "end": failure.text.end,
            "arguments": failure.text.arguments,
            "traceback": failure.text.trace,
        }
        for failure in run.failures
    ]


_FAILURE_COLUMNS: Final = (
    "run",
    "label",
    "state",
    "color",
    "message",
    "worker",
    "attempts",
    "end",
    "arguments",
)


def in_order(run: Run | None) -> list[Failure]:
    """Failures that are kept; what lies with a trigger after its causes."""
    found = list(run.failures) if run is not None else []
    return sorted(found, key=lambda failure: failure.text.code == REFUSED)


def failure_columns(run: Run | None) -> Columns:
    """A row per failure that is kept, as `in_order` has them."""
    rows: list[tuple[Any, ...]] = []
    if run is not None:
        rows = [_failure_row(run, failure) for failure in in_order(run)]
    return _transposed(rows, _FAILURE_COLUMNS)


def _failure_row(run: Run, failure: Failure) -> tuple[Any, ...]:
    text = failure.text
    state = NAMES[text.code]
    return (
        label_of(run, failure),
        cut_label(run.name_of(failure.node), _index_of(failure), MOST_LABEL),
        state,
        COLORS[state],
        text.message,
        short_address(failure.worker),
        str(text.attempts or ""),
        clock_text(text.end) if text.end else "",
        text.arguments,
    )


def traceback_text(run: Run, failure: Failure) -> str:
    """Everything that is known of one failure, for reading."""
    text = failure.text
    plural = "s" if text.attempts != 1 else ""
    attempts = f" · {text.attempts} attempt{plural}" if text.attempts else ""
    where = f" on {failure.worker}" if failure.worker else ""
    head = f"{label_of(run, failure)} · {NAMES[text.code]}{attempts}{where}"
    arguments = [f"arguments: {text.arguments}"] if text.arguments else []
    return "\n".join([head, *arguments, "", text.trace or text.message])


def _transposed(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> Columns:
    if not rows:
        return {name: [] for name in names}
    return {
        name: list(found)
        for name, found in zip(names, zip(*rows, strict=True), strict=True)
    }


# -- what has changed --------------------------------------------------------------


def changes(
    before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, list[tuple[int, Any]]], Columns] | None:
    """What to send so that columns become others.

    Returns
    -------
    tuple of dict and dict, or None
        New values of rows that are there by column, as pairs of row and value, and the
        columns of rows that were added. `None` if rows are fewer, or other columns: all
        has to be sent.

    Examples
    --------
    >>> changes({"done": [1, 2]}, {"done": [1, 5, 7]})
    ({'done': [(1, 5)]}, {'done': [7]})
    """
    if before.keys() != after.keys():
        return None
    count = len(next(iter(before.values()), ()))
    if len(next(iter(after.values()), ())) < count:
        return None
    patches = {}
    for name, values in after.items():
        old = before[name]
        changed = [
            (row, values[row]) for row in range(count) if values[row] != old[row]
        ]
        if changed:
            patches[name] = changed
    return patches, {name: list(values[count:]) for name, values in after.items()}
