"""Report columns: what the plots of a report draw, as plain columns.

Of a run with some thousands of task runs each is drawn; of a larger one what is drawn
are bins, so that a million children make a page no larger than a thousand do.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prefect_dask_core.engine.codes import (
    CODE_BY_STATE,
    STATE_BY_CODE,
    USUAL_ATTEMPTS,
)
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.views import RunView
from prefect_dask_core.monitor.palette import COLOR_BY_CODE, COLORS, worst
from prefect_dask_core.monitor.summary import labels_of
from prefect_dask_core.states import Crashed

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Ints = np.ndarray[Any, np.dtype[np.int64]]

_CRASHED: Final = CODE_BY_STATE[Crashed]
#: Most task runs that are drawn one by one.
MOST_BARS: Final = 4_000
#: Bins of a timeline, and most rows of one.
BINS: Final = 240
MOST_ROWS: Final = 40
#: Most waits and crashes that are marked one by one.
MOST_MARKS: Final = 2_000
#: Where task runs stand that no worker of a cluster ran.
HERE: Final = "this process"
OTHERS: Final = "others"

Columns = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Runs:
    """All task runs that began, as columns of one length.

    Parameters
    ----------
    tasks, workers : tuple of str
        Names that `task` and `worker` are positions in.
    task, worker : array of int
        Of each run.
    begin, end : array of float
        Seconds since the begin of the flow run.
    code : array of int
        Code of its state.
    node, index : array of int
        Number of its node, and its index there; -1 for a run without children.
    attempts : array of int
        Attempts that it made.
    names : tuple of str
        What nodes are called, by number.
    waits : tuple of (int, float, float)
        Position of a run, and begin and end of a wait of it for a further attempt.
    lost : tuple of (int, int, float, str)
        Of what crashed before it could tell of its begin: task, worker that died with
        it, -1 where that is not known, when that was noticed, and name.
    """

    tasks: tuple[str, ...]
    workers: tuple[str, ...]
    task: Ints
    worker: Ints
    begin: Floats
    end: Floats
    code: Ints
    node: Ints
    index: Ints
    attempts: Ints
    names: tuple[str, ...]
    waits: tuple[tuple[int, float, float], ...]
    lost: tuple[tuple[int, int, float, str], ...] = ()

    def __len__(self) -> int:
        return len(self.begin)

    def name(self, position: int) -> str:
        """Name of a run, a child as ``"load[3]"``."""
        index = int(self.index[position])
        name = self.names[int(self.node[position])]
        return name if index < 0 else f"{name}[{index}]"


def runs_of(view: RunView) -> Runs:
    """Task runs of a flow run as columns; what never began is left out.

    What the package made itself is left out too. A worker is told by its address.
    """
    import numpy as np

    tasks: dict[str, int] = {}
    workers: dict[str, int] = {}
    kinds: tuple[Any, ...] = (int, int, float, float, int, int, int, int)
    columns: list[list[Any]] = [[] for _ in kinds]
    waits: list[tuple[int, float, float]] = []
    lost: list[tuple[int, int, float, str]] = []
    names = tuple(labels_of(view.nodes))
    usual = np.array(USUAL_ATTEMPTS)
    size, origin = 0, view.info.begin
    for node in view.nodes:
        if node.helper:
            continue
        task = tasks.setdefault(node.name, len(tasks))
        mapped = view.children(node.number) is not None
        for segment in list(view.segments(node.number)):
            count = len(segment)
            begin = np.frombuffer(segment.begins, dtype=float) - origin
            end = np.frombuffer(segment.ends, dtype=float) - origin
            where = segment.worker or HERE
            ran = np.frombuffer(segment.begins, dtype=float) > 0.0
            for when, name in _lost(segment, ran, names[node.number], mapped):
                died = segment.worker
                at = -1 if died is None else workers.setdefault(died, len(workers))
                lost.append((task, at, when - origin, name))
            if not ran.any():
                continue
            worker = workers.setdefault(where, len(workers))
            index = np.arange(segment.start, segment.stop) if mapped else [-1]
            codes = np.frombuffer(segment.codes, dtype=np.uint8).astype(int)
            attempts = usual[codes]
            for offset, made in segment.attempts.items():
                attempts[offset] = made
            # Where each of them stands once those that never began are left out.
            positions = size + np.cumsum(ran) - 1
            for offset, spans in (segment.waits or {}).items():
                place = int(positions[offset])
                waits += [(place, a - origin, b - origin) for a, b in spans]
            found = (
                np.full(count, task),
                np.full(count, worker),
                begin,
                np.maximum(begin, end),
                codes,
                np.full(count, node.number),
                np.asarray(index),
                attempts,
            )
            for column, values in zip(columns, found, strict=True):
                column.append(values[ran])
            size += int(ran.sum())
    joined: list[Any] = [
        np.concatenate(parts) if parts else np.zeros(0, dtype=kind)
        for parts, kind in zip(columns, kinds, strict=True)
    ]
    task_of, worker_of, begins, ends, codes, nodes, indices, made_attempts = joined
    return Runs(
        tuple(tasks),
        tuple(workers),
        task_of,
        worker_of,
        begins,
        ends,
        codes,
        nodes,
        indices,
        made_attempts,
        names,
        tuple(waits),
        tuple(lost),
    )


def _lost(
    segment: Segment, ran: Any, name: str, mapped: bool
) -> list[tuple[float, str]]:
    """What of a segment crashed before it told of its begin, and when."""
    found = []
    for offset in segment.details if _CRASHED in segment.codes else ():
        when = segment.ends[offset] or segment.details[offset].timestamp
        if segment.codes[offset] == _CRASHED and not ran[offset] and when:
            label = f"{name}[{segment.start + offset}]" if mapped else name
            found.append((when, label))
    return found


# -- timeline ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a timeline draws.

    Parameters
    ----------
    rows : tuple of str
        Names of the rows, from top to bottom.
    bars : dict of str to list
        Columns ``left``, ``right`` (seconds), ``bottom``, ``top``, ``color``, ``name``,
        ``state``, ``attempts``, ``place``: a run each, or the runs of a bin.
    waits : dict of str to list
        Columns ``left``, ``right``, ``y``, ``name``: a wait each.
    crashes : dict of str to list
        Columns ``x``, ``y``, ``name``: a crash each.
    binned : bool
        Whether a bar stands for all runs of a bin: it is as high as threads were busy.
    """

    rows: tuple[str, ...]
    bars: Columns
    waits: Columns
    crashes: Columns
    binned: bool


def timeline(runs: Runs, by_worker: bool) -> Timeline:
    """A timeline with one row per task, or per worker.

    Parameters
    ----------
    runs : Runs
        The runs.
    by_worker : bool
        Whether rows are workers.
    """
    names = runs.workers if by_worker else runs.tasks
    row, rows = _rows(names, runs.worker if by_worker else runs.task)
    binned = len(runs) > MOST_BARS
    if binned:
        bars, place = _bins(runs, row, rows), None
    else:
        bars, place = _bars(runs, row)
    crashes = _crashes(runs, row, place)
    shown = {name: number for number, name in enumerate(rows)}
    for task, worker, when, name in runs.lost[:MOST_MARKS]:
        if by_worker and worker < 0:
            continue
        label = runs.workers[worker] if by_worker else runs.tasks[task]
        crashes["x"].append(round(when, 4))
        crashes["y"].append(-shown.get(label, len(rows) - 1) - 0.5)
        crashes["name"].append(name)
    return Timeline(rows, bars, _waits(runs, row, place), crashes, binned)


def _rows(names: Sequence[str], of: Ints) -> tuple[Ints, tuple[str, ...]]:
    """Row of each run; those that are too many share the last."""
    import numpy as np

    if len(names) <= MOST_ROWS:
        return of, tuple(names)
    busiest = np.argsort(-np.bincount(of, minlength=len(names)), kind="stable")
    kept = sorted(int(n) for n in busiest[: MOST_ROWS - 1])
    row = np.full(len(names), MOST_ROWS - 1)
    row[kept] = np.arange(len(kept))
    return row[of], (*(names[n] for n in kept), f"{len(names) - len(kept)} {OTHERS}")


def lanes_of(begin: Sequence[float], end: Sequence[float]) -> list[int]:
    """The lowest lane for each span in which no other is at the same time.

    Examples
    --------
    >>> lanes_of([0.0, 1.0, 2.0, 5.0], [3.0, 2.0, 4.0, 6.0])
    [0, 1, 1, 0]
    """
    lanes = [0] * len(begin)
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    for position in sorted(range(len(begin)), key=lambda n: (begin[n], n)):
        while busy and busy[0][0] <= begin[position]:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        lanes[position] = lane
        heapq.heappush(busy, (end[position], lane))
    return lanes


#: Position of a run -> bottom and top of its bar.
_Places = list[tuple[float, float]]


def _bars(runs: Runs, row: Ints) -> tuple[Columns, _Places]:
    """A bar for each run; those of a row that overlap in time lie below each other."""
    places: _Places = [(0.0, 0.0)] * len(runs)
    for number in range(int(row.max()) + 1 if len(row) else 0):
        members = [int(n) for n in (row == number).nonzero()[0]]
        lanes = lanes_of(runs.begin[members].tolist(), runs.end[members].tolist())
        height = 0.84 / (max(lanes, default=0) + 1)
        for member, lane in zip(members, lanes, strict=True):
            top = -number - 0.08 - lane * height
            gap = 0.1 * height
            places[member] = top - height + gap, top
    positions = range(len(runs))
    bars: Columns = {
        "left": _rounded(runs.begin),
        "right": _rounded(runs.end),
        "bottom": [round(bottom, 4) for bottom, _ in places],
        "top": [round(top, 4) for _, top in places],
        "color": [COLOR_BY_CODE[code] for code in runs.code],
        "name": [runs.name(position) for position in positions],
        "state": [STATE_BY_CODE[code].__name__ for code in runs.code],
        "attempts": runs.attempts.tolist(),
        "place": [runs.workers[worker] for worker in runs.worker],
    }
    return bars, places


def _bins(runs: Runs, row: Ints, rows: Sequence[str]) -> Columns:
    """A bar for each row and span of time, as high as threads were busy."""
    import numpy as np

    edges = np.linspace(0.0, max(float(runs.end.max()), 1e-9), BINS + 1)
    bars: Columns = {
        key: []
        for key in (
            *("left", "right", "bottom", "top", "color"),
            *("name", "state", "attempts", "place"),
        )
    }
    for number, name in enumerate(rows):
        mine = row == number
        begin, end, code = runs.begin[mine], runs.end[mine], runs.code[mine]
        busy = busy_in(begin, end, edges) / np.diff(edges)
        ended = np.clip(np.searchsorted(edges, end, side="right") - 1, 0, BINS - 1)
        counts = np.zeros((BINS, len(STATE_BY_CODE)), dtype=int)
        np.add.at(counts, (ended, code), 1)
        most = max(float(busy.max()), 1e-9)
        for position in np.flatnonzero((busy > 1e-6) | (counts.sum(axis=1) > 0)):
            told = {
                STATE_BY_CODE[found].__name__: int(counts[position, found])
                for found in np.flatnonzero(counts[position])
            }
            kind = worst(told) if told else "Running"
            height = max(0.06, 0.84 * float(busy[position]) / most)
            bars["left"].append(round(float(edges[position]), 4))
            bars["right"].append(round(float(edges[position + 1]), 4))
            bars["bottom"].append(-number - 0.92)
            bars["top"].append(round(-number - 0.92 + height, 4))
            bars["color"].append(COLORS[kind])
            bars["name"].append(name)
            ends = ", ".join(f"{count:,} {found}" for found, count in told.items())
            bars["state"].append(ends or "none ended")
            bars["attempts"].append("")
            bars["place"].append(f"{float(busy[position]):.2f} busy at a time")
    return bars


def busy_in(begin: Floats, end: Floats, edges: Floats) -> Floats:
    """Seconds that spans of time have in each bin, added up.

    Examples
    --------
    >>> import numpy as np
    >>> spans = np.array([0.0, 1.0]), np.array([3.0, 2.0])
    >>> busy_in(*spans, np.array([0.0, 1.0, 2.0, 4.0])).tolist()
    [1.0, 2.0, 1.0]
    """
    import numpy as np

    def until(times: Floats) -> Floats:
        """For each edge, the seconds by which it is after each time, added up."""
        ordered = np.sort(times)
        sums = np.concatenate(([0.0], np.cumsum(ordered)))
        before = np.searchsorted(ordered, edges)
        found: Floats = edges * before - sums[before]
        return found

    return np.diff(until(begin) - until(end))


def _waits(runs: Runs, row: Ints, places: _Places | None) -> Columns:
    found: Columns = {"left": [], "right": [], "y": [], "name": []}
    for position, begin, end in runs.waits[:MOST_MARKS]:
        found["left"].append(round(begin, 4))
        found["right"].append(round(end, 4))
        found["y"].append(_middle(position, row, places))
        found["name"].append(runs.name(position))
    return found


def _crashes(runs: Runs, row: Ints, places: _Places | None) -> Columns:
    found: Columns = {"x": [], "y": [], "name": []}
    for position in (runs.code == _CRASHED).nonzero()[0][:MOST_MARKS]:
        found["x"].append(round(float(runs.end[position]), 4))
        found["y"].append(_middle(int(position), row, places))
        found["name"].append(runs.name(int(position)))
    return found


def _middle(position: int, row: Ints, places: _Places | None) -> float:
    if places is None:
        return float(-int(row[position]) - 0.08)
    return round(sum(places[position]) / 2, 4)


def _rounded(values: Floats) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


# -- durations ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Durations:
    """How long runs of a task took, in seconds; of those that ran at all."""

    task: str
    runs: int
    least: float
    low: float
    median: float
    high: float
    most: float
    total: float


def durations(runs: Runs) -> list[Durations]:
    """How long runs took: the extremes, the quartiles and the sum, by task."""
    import numpy as np

    found = []
    seconds = runs.end - runs.begin
    for number, name in enumerate(runs.tasks):
        mine = seconds[runs.task == number]
        if len(mine):
            least, low, median, high, most = np.percentile(mine, (0, 25, 50, 75, 100))
            values = (least, low, median, high, most, mine.sum())
            found.append(Durations(name, len(mine), *map(float, values)))
    return found
