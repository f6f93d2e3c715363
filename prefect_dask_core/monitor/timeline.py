"""Timeline: the bars of a run as the columns of a plot, by worker or by task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from prefect_dask_core.monitor.bars import Bar, Row
from prefect_dask_core.monitor.columns import Columns
from prefect_dask_core.monitor.runs import Run
from prefect_dask_core.monitor.texts import duration, short_address

#: Colours of tasks, in turn: those of Okabe and Ito, but for vermilion and black, which
#: say that something went wrong.
TASK_COLORS: Final = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#f0e442",
    "#8c6bb1",
)
#: Rows that are told apart; what is beyond shares the last one.
MOST_ROWS: Final = 120
#: Part of a row's height that is taken by its bars.
FILLED: Final = 0.8


class Timeline(NamedTuple):
    """What the plot shows. Times are seconds since the run began.

    Parameters
    ----------
    bars, waits : Columns
        ``left``, ``right``, ``bottom``, ``top``, and what is told of each.
    retries, failures, deaths : Columns
        Marks: ``x``, ``y``, and what is told of each.
    labels : dict of float to str
        Label by the place of its row.
    rows : int
        Number of rows.
    colors : dict of str to str
        Colour by the name of its task, in the order of the flow.
    """

    bars: Columns
    waits: Columns
    retries: Columns
    failures: Columns
    deaths: Columns
    labels: dict[float, str]
    rows: int
    colors: dict[str, str]


_BAR: Final = (
    "left",
    "right",
    "bottom",
    "top",
    "color",
    "task",
    "what",
    "seconds",
    "worker",
)
_WAIT: Final = ("left", "right", "bottom", "top", "task", "seconds", "worker")
_MARK: Final = ("x", "y", "what", "worker")


def timeline(run: Run | None, by_task: bool) -> Timeline:
    """What the plot shows of a run.

    Parameters
    ----------
    run : Run or None
        The run, if there is one.
    by_task : bool
        Whether there is a row per task, and not per thread of a worker.
    """
    bars = _Rows(_BAR)
    waits = _Rows(_WAIT)
    retries, failures, deaths = _Rows(_MARK), _Rows(_MARK), _Rows(_MARK)
    if run is None or run.begun is None:
        return Timeline(
            bars.columns,
            waits.columns,
            retries.columns,
            failures.columns,
            deaths.columns,
            {},
            0,
            {},
        )
    start = run.begun.begin
    found = list(run.bars)
    place_of, labels = _by_task(run, found) if by_task else _by_worker(found)
    other = _row_of_others(run, found, labels, by_task)
    for row, bar in found:
        center = -place_of(row)
        task = run.tasks[row.task].name if 0 <= row.task < len(run.tasks) else "?"
        left, right = bar.begin - start, bar.end - start
        where = short_address(row.worker) or "several workers"
        if not row.of:
            edges = (center - FILLED / 2, center + FILLED / 2)
            seconds = duration(bar.end - bar.begin)
            waits.add(left, right, *edges, task, seconds, where)
            continue
        bottom, top = _share(center, row, by_task)
        color = TASK_COLORS[row.task % len(TASK_COLORS)]
        told = _told(bar), duration(bar.end - bar.begin), where
        bars.add(left, right, bottom, top, color, task, *told)
        middle = (bottom + top) / 2
        if bar.retries:
            text = f"{bar.retries:,} more attempts of {task}"
            retries.add((left + right) / 2, middle, text, where)
        if bar.failures:
            failures.add(right, middle, f"{bar.failures:,} failed of {task}", where)
    for death in sorted(run.deaths):
        rows = [place_of(row) for row, _ in found if row.worker == death.worker]
        y = -_row_of_task(run, death.tasks) if by_task else -min(rows, default=other)
        told_of = f"{death.reason} ({death.tasks})"
        deaths.add(death.time - start, y, told_of, short_address(death.worker))
    ticks = {-float(place): text for place, text in enumerate(labels)}
    return Timeline(
        bars.columns,
        waits.columns,
        retries.columns,
        failures.columns,
        deaths.columns,
        ticks,
        max(len(labels), 1),
        {
            run.tasks[task].name: TASK_COLORS[task % len(TASK_COLORS)]
            for task in sorted({row.task for row, _ in found if row.of})
            if task >= 0
        },
    )


class _Rows:
    """Columns that are filled row by row."""

    def __init__(self, names: Iterable[str]) -> None:
        self.columns: Columns = {name: [] for name in names}

    def add(self, *values: Any) -> None:
        """Add a row."""
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)


def _told(bar: Bar) -> str:
    several = f"{bar.blocks:,} blocks, " if bar.blocks > 1 else ""
    return f"{several}{bar.children:,} task run{'s' if bar.children != 1 else ''}"


def _share(center: int, row: Row, by_task: bool) -> tuple[float, float]:
    """Bottom and top of a bar: nodes that take turns share the height of a row."""
    if by_task or row.of <= 1:
        return center - FILLED / 2, center + FILLED / 2
    height = FILLED / row.of
    top = center + FILLED / 2 - row.position * height
    return top - height, top


def _by_task(run: Run, found: list[tuple[Row, Bar]]) -> tuple[Any, list[str]]:
    used = sorted({row.task for row, _ in found if row.task >= 0})
    place = {task: min(n, MOST_ROWS) for n, task in enumerate(used)}
    labels = [run.tasks[task].name for task in used[:MOST_ROWS]]
    if used[MOST_ROWS:]:
        labels.append("others")
    return (lambda row: place.get(row.task, 0)), labels


def _row_of_task(run: Run, names: str) -> int:
    used = sorted({row.task for row, _ in run.bars if row.task >= 0})
    for place, task in enumerate(used[:MOST_ROWS]):
        if run.tasks[task].name in names:
            return place
    return 0


def _row_of_others(
    run: Run, found: list[tuple[Row, Bar]], labels: list[str], by_task: bool
) -> int:
    """Row of workers that died before anything ended on them; it may be a new one."""
    shown = {row.worker for row, _ in found}
    if by_task or all(death.worker in shown for death in run.deaths):
        return 0
    if len(labels) <= MOST_ROWS:  # else the last row is one of others already
        labels.append("other workers")
    return len(labels) - 1


def _by_worker(found: list[tuple[Row, Bar]]) -> tuple[Any, list[str]]:
    """Rows per thread; threads of a worker that do not overlap share one.

    A thread that waits for a retry leaves the pool of its worker, which begins another
    one in its place, so there are more threads than places.
    """
    lives: dict[tuple[str, int], tuple[float, float]] = {}
    for row, bar in found:
        key = row.worker, row.thread
        begin, end = lives.get(key, (bar.begin, bar.end))
        lives[key] = min(begin, bar.begin), max(end, bar.end)
    slots: dict[str, list[float]] = {}
    slot_of: dict[tuple[str, int], int] = {}
    for key, (begin, end) in sorted(lives.items(), key=lambda item: item[1]):
        ends = slots.setdefault(key[0], [])
        free = next((n for n, last in enumerate(ends) if last <= begin), len(ends))
        if free == len(ends):
            ends.append(end)
        ends[free] = end
        slot_of[key] = free
    labels: list[str] = []
    first: dict[str, int] = {}
    for worker in sorted(slots):
        first[worker] = len(labels)
        name = short_address(worker) or "all workers"
        labels += [name] + [""] * (len(slots[worker]) - 1)
    kept = labels[:MOST_ROWS]
    if labels[MOST_ROWS:]:
        kept.append("others")

    def place_of(row: Row) -> int:
        return min(first[row.worker] + slot_of[row.worker, row.thread], MOST_ROWS)

    return place_of, kept
