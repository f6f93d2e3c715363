"""Columns: what the pages show of a run, as plain numbers, texts and lists.

Pure functions of what the scheduler knows of a run and of the time. The pages only lay
it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

from prefect_dask_core.engine.columns import STATE_BY_CODE
from prefect_dask_core.monitor.plugin import flow_of, state_of
from prefect_dask_core.monitor.runs import (
    NAMES,
    Failure,
    Run,
    TaskTally,
    rate_of,
    seconds_left,
    typical_seconds,
)

#: Columns of a table or plot: lists of one length, by name.
Columns = dict[str, list[Any]]

_NAMES_IN_ORDER: Final = (
    "Completed",
    "Cached",
    "Finished",
    "Looped",
    "Skipped",
    "Running",
    "Pending",
    "AwaitingRetry",
    "Paused",
    "Cancelled",
    "TriggerFailed",
    "TimedOut",
    "Failed",
    "Crashed",
)
#: Codes in the order in which they stand in a bar: what is fine first, the rest at the
#: end of the bar, where it is seen.
ORDER: Final = tuple(
    STATE_BY_CODE.index(cls)
    for cls in sorted(
        STATE_BY_CODE,
        key=lambda cls: _NAMES_IN_ORDER.index(cls.__name__),
    )
)
COLORS: Final = {cls.__name__: cls.color for cls in STATE_BY_CODE}
#: Colour of what has not ended.
OPEN_COLOR: Final = "#e4e8ec"
#: Rows of a table of tasks; further ones are told as one.
MOST_TASKS: Final = 200


# -- texts -------------------------------------------------------------------------


def duration_text(seconds: float | None) -> str:
    """A duration, as short as it can be read.

    Examples
    --------
    >>> [duration_text(s) for s in (0.00000142, 0.0042, 0.25, 7.04, 75, 4_000, 200_000)]
    ['1 µs', '4.2 ms', '250 ms', '7.0 s', '1:15 min', '1:06 h', '2 d 7 h']
    >>> duration_text(None)
    '-'
    """
    if seconds is None:
        return "-"
    if seconds < 0.000_1:
        return f"{1_000_000 * seconds:.0f} µs"
    if seconds < 0.01:
        return f"{1_000 * seconds:.1f} ms"
    if seconds < 1:
        return f"{1_000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}:{minutes:02d} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def rate_text(rate: float | None) -> str:
    """A rate per second.

    Examples
    --------
    >>> rate_text(12_345.6), rate_text(3.14159), rate_text(0.004), rate_text(None)
    ('12,346 /s', '3.1 /s', '14 /h', '-')
    """
    if rate is None:
        return "-"
    if rate >= 10:
        return f"{rate:,.0f} /s"
    if rate >= 0.1:
        return f"{rate:.1f} /s"
    return f"{3_600 * rate:.0f} /h"


def clock_text(when: float) -> str:
    """A time of the day, as UTC: the scheduler does not know where its reader is."""
    return datetime.fromtimestamp(when, timezone.utc).strftime("%H:%M:%S")


def progress_text(done: int, length: int, whole: bool) -> str:
    """How many of how many.

    Examples
    --------
    >>> progress_text(812, 2_000, True), progress_text(5, 5, False)
    ('812 / 2,000', '5 / 5 …')
    """
    return f"{done:,} / {length:,}{'' if whole else ' …'}"


def _rate(tallies: Sequence[TaskTally], now: float, over: bool) -> float | None:
    """The present rate; of what is over the mean rate while it ran."""
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


def run_columns(runs: Iterable[Run], now: float) -> Columns:
    """A row per run, the newest first."""
    rows = [_run_row(about_run(run, now), run) for run in reversed(list(runs))]
    return _transposed(rows, _RUN_COLUMNS)


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


def headline(run: Run | None, now: float) -> str:
    """One line on a run, in words."""
    if run is None:
        return "No flow has run on this scheduler yet."
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
        rate_text(_rate(tallies, now, over)) if length > 1 else "",
        "" if over or done == length else duration_text(seconds_left(tallies, now)),
        duration_text(typical),
        sum(tally.failed for tally in tallies),
        sum(tally.attempts for tally in tallies),
    )


# -- failures ----------------------------------------------------------------------


def label_of(run: Run, failure: Failure) -> str:
    """Name of what failed: its task, and its index if it is a child."""
    name = run.name_of(failure.node)
    return f"{name}[{failure.text.child:,}]" if failure.mapped else name


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
        for failure in run.failures()
    ]


def failure_columns(run: Run | None) -> Columns:
    """A row per failure that is kept; what lies with a trigger after its causes."""
    failures = list(run.failures()) if run is not None else []
    failures.sort(key=lambda f: NAMES[f.text.code] == "TriggerFailed")
    rows = [
        (
            label_of(run, failure),  # type: ignore[arg-type]
            NAMES[failure.text.code],
            COLORS[NAMES[failure.text.code]],
            failure.text.message,
            failure.worker.rpartition("://")[2],
            str(failure.text.attempts or ""),
            clock_text(failure.text.end) if failure.text.end else "",
            failure.text.arguments,
        )
        for failure in failures
    ]
    names = ("run", "state", "color", "message", "worker", "attempts", "end")
    return _transposed(rows, (*names, "arguments"))


def traceback_text(run: Run | None, label: str, state: str) -> str:
    """Everything that is known of one failure, for reading."""
    for failure in run.failures() if run is not None else ():
        text = failure.text
        if label_of(run, failure) == label and NAMES[text.code] == state:  # type: ignore[arg-type]
            plural = "s" if text.attempts != 1 else ""
            attempts = f" · {text.attempts} attempt{plural}" if text.attempts else ""
            where = f" on {failure.worker}" if failure.worker else ""
            lines = [f"{label} · {state}{attempts}{where}"]
            if text.arguments:
                lines.append(f"arguments: {text.arguments}")
            return "\n".join([*lines, "", text.trace or text.message])
    return ""


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
