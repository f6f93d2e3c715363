"""Graph: the nodes of a run as boxes in layers, and the lines between them.

A mapped node is one box with counts. A flow of many nodes is drawn with one box per
task. Columns go from left to right, so that names can be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from prefect_dask_core.monitor.columns import OPEN_COLOR, ORDER, Columns
from prefect_dask_core.monitor.palette import COLORS
from prefect_dask_core.monitor.runs import MOST_NODES, Run
from prefect_dask_core.monitor.tallies import FAILED, NAMES, REFUSED
from prefect_dask_core.monitor.texts import cut
from prefect_dask_core.runners.telling import OPEN

#: Boxes that are drawn; a run with more nodes is drawn with a box per task.
MOST_BOXES: Final = 60
#: Boxes, of tasks, that are drawn at most.
MOST_TASKS: Final = 400
#: Rows of a column; what has more takes several columns.
MOST_ROWS: Final = 24
#: Columns that stand side by side; a picture with more is folded into bands of so many.
MOST_COLUMNS, IN_BAND = 12, 6
#: Rows that are free between two bands.
GAP: Final = 0.4
#: Characters of a name that fit into a box.
NAME_LENGTH: Final = 20


class Box(NamedTuple):
    """One box.

    Parameters
    ----------
    name : str
        Name of the task.
    mapped : bool
        Whether it stands for several task runs.
    length : int or None
        Task runs it stands for; `None` if not known yet.
    counts : mapping of int to int
        Ended ones by the code of their state.
    above : frozenset of int
        Boxes it reads.
    """

    name: str
    mapped: bool
    length: int | None
    counts: Mapping[int, int]
    above: frozenset[int]


class Picture(NamedTuple):
    """What the plot shows.

    Parameters
    ----------
    boxes : Columns
        ``x``, ``y`` (column and row, from the top left), and what is told of each.
    lines : Columns
        ``x0``, ``y0``, ``x1``, ``y1``.
    columns : int
        Width of the picture in boxes.
    rows : float
        Its height in boxes.
    by_task : bool
        Whether nodes of one task are one box.
    """

    boxes: Columns
    lines: Columns
    columns: int
    rows: float
    by_task: bool


def picture(run: Run | None) -> Picture:
    """The graph of a run."""
    if run is None or not run.node_count:
        return Picture(_columns({}, {}), _lines({}, {}), 1, 1, False)
    by_task = run.node_count > min(MOST_BOXES, MOST_NODES)
    boxes = _by_task(run) if by_task else _by_node(run)
    places = folded(layout({key: box.above for key, box in boxes.items()}))
    return Picture(
        _columns(boxes, places),
        _lines(boxes, places),
        1 + max((x for x, _ in places.values()), default=0),
        1 + max((y for _, y in places.values()), default=0.0),
        by_task,
    )


def _by_node(run: Run) -> dict[int, Box]:
    """A box per node, but for constants, which never run."""
    shown = [n for n in range(run.node_count) if not run.is_constant(n)]
    boxes = {}
    for node in shown:
        above = frozenset(
            n for n in run.upstream.get(node, ()) if not run.is_constant(n)
        )
        fan_out = run.fan_outs.get(node)
        if fan_out is not None:
            box = Box(run.name_of(node), True, fan_out.length, fan_out.counts, above)
        else:
            code = run.codes[node]
            counts = {} if code == OPEN else {code: 1}
            box = Box(run.name_of(node), False, 1, counts, above)
        boxes[node] = box
    return boxes


def _by_task(run: Run) -> dict[int, Box]:
    """A box per task, with an edge where one of its nodes reads one of another's."""
    above: dict[int, set[int]] = {}
    for node, upstream in run.upstream.items():
        task = run.task_number(node)
        if task is not None:
            read = {run.task_number(n) for n in upstream}
            above.setdefault(task, set()).update(n for n in read if n is not None)
    found = [n for n, tally in enumerate(run.tasks) if tally.nodes][:MOST_TASKS]
    shown = set(found)
    boxes = {}
    for number in found:
        tally = run.tasks[number]
        length = None if tally.unknown else tally.length
        others = frozenset(above.get(number, set()) & shown - {number})
        is_one = tally.nodes == 1 and length == 1
        boxes[number] = Box(tally.name, not is_one, length, tally.counts, others)
    return boxes


# -- where boxes stand -------------------------------------------------------------


def layout(above: Mapping[int, frozenset[int]]) -> dict[int, tuple[int, int]]:
    """Column and row of each box.

    A box stands to the right of all it reads, in the column after the last of them; in
    a column, boxes stand in the order of the middle of those they read, so that few
    lines cross.

    Examples
    --------
    >>> layout({0: frozenset(), 1: frozenset({0}), 2: frozenset({0, 1})})
    {0: (0, 0), 1: (1, 0), 2: (2, 0)}
    """
    column: dict[int, int] = {}
    for box in _in_order(above):
        # What reads itself by way of others, as tasks may, stands beside them.
        column[box] = 1 + max((column.get(n, -1) for n in above[box]), default=-1)
    layers: dict[int, list[int]] = {}
    for box, number in column.items():
        layers.setdefault(number, []).append(box)
    row: dict[int, int] = {}
    for number in sorted(layers):
        middle = {
            box: sum(row.get(n, 0) for n in above[box]) / max(1, len(above[box]))
            for box in layers[number]
        }
        for place, box in enumerate(
            sorted(layers[number], key=lambda b: (middle[b], b))
        ):
            row[box] = place
    return {box: (column[box], row[box]) for box in sorted(column)}


def folded(places: Mapping[int, tuple[int, int]]) -> dict[int, tuple[int, float]]:
    """The same places in a picture of a size that a browser can draw and people read.

    A column of very many boxes becomes several, and a long row of columns goes on in
    bands below each other, as text goes on in lines.

    Examples
    --------
    >>> found = folded({box: (box, 0) for box in range(20)})
    >>> found[5], found[6], found[12]
    ((5, 0.0), (0, 1.4), (0, 2.8))
    """
    heights: Counter[int] = Counter()
    for x, y in places.values():
        heights[x] = max(heights[x], y + 1)
    first: dict[int, int] = {}
    count = 0
    for x in sorted(heights):
        first[x] = count
        count += -(-heights[x] // MOST_ROWS)
    spread = {
        box: (first[x] + y // MOST_ROWS, y % MOST_ROWS)
        for box, (x, y) in places.items()
    }
    if count <= MOST_COLUMNS:
        return {box: (x, float(y)) for box, (x, y) in spread.items()}
    bands: Counter[int] = Counter()
    for x, y in spread.values():
        bands[x // IN_BAND] = max(bands[x // IN_BAND], y + 1)
    top = [0.0]
    for band in range(count // IN_BAND):
        top.append(round(top[-1] + bands[band] + GAP, 6))
    return {box: (x % IN_BAND, top[x // IN_BAND] + y) for box, (x, y) in spread.items()}


def _in_order(above: Mapping[int, frozenset[int]]) -> list[int]:
    """Boxes in an order in which what is read comes first, as far as there is one."""
    readers: dict[int, list[int]] = {}
    for box, found in above.items():
        for other in found:
            readers.setdefault(other, []).append(box)
    missing = {box: len(found) for box, found in above.items()}
    ready = sorted((box for box, count in missing.items() if not count), reverse=True)
    ordered: list[int] = []
    placed: set[int] = set()
    while len(ordered) < len(above):
        if not ready:  # a circle: begin with its first
            ready.append(min(box for box in above if box not in placed))
        box = ready.pop()
        if box in placed:
            continue
        placed.add(box)
        ordered.append(box)
        for reader in sorted(readers.get(box, ()), reverse=True):
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    return ordered


# -- what is told of them ----------------------------------------------------------


def state_of_box(box: Box) -> tuple[str, str]:
    """Name and colour of the state that a box shows.

    That of what went worst; while something is open and nothing went wrong, ``Running``
    if anything has ended, else ``Pending``.

    Examples
    --------
    >>> state_of_box(Box("load", True, 3, {0: 2}, frozenset()))[0]
    'Running'
    >>> state_of_box(Box("load", True, 3, {0: 2, 3: 1}, frozenset()))[0]
    'Failed'
    """
    done = sum(box.counts.values())
    worst = max(
        (code for code in box.counts if box.counts[code]), key=ORDER.index, default=None
    )
    is_open = box.length is None or done < box.length
    if worst is not None and (not is_open or ORDER.index(worst) > _WRONG_FROM):
        name = NAMES[worst]
        return name, COLORS[name]
    if is_open:
        return ("Running", COLORS["Running"]) if done else ("Pending", OPEN_COLOR)
    return "Completed", COLORS["Completed"]  # a fan-out of nothing


_WRONG_FROM: Final = ORDER.index(NAMES.index("AwaitingRetry"))
#: On these a dark text is read better than a white one.
_LIGHT: Final = frozenset(
    {"Pending", "Skipped", "TriggerFailed", "Running", "AwaitingRetry", "Paused"}
)


def _columns(
    boxes: Mapping[int, Box], places: Mapping[int, tuple[int, float]]
) -> Columns:
    names = ("x", "y", "name", "count", "bad", "state", "color", "ink", "line", "what")
    found: Columns = {name: [] for name in names}
    for key, box in boxes.items():
        state, color = state_of_box(box)
        x, y = places[key]
        done = sum(box.counts.values())
        length = "?" if box.length is None else f"{box.length:,}"
        counts = Counter(box.counts)
        told = ", ".join(
            f"{counts[code]:,} {NAMES[code]}" for code in ORDER if counts[code]
        )
        values = (
            x,
            y,
            cut(box.name, NAME_LENGTH),
            f"{done:,} / {length}" if box.mapped else state,
            _what_went_wrong(box),
            state,
            color,
            "#1a1a1a" if state in _LIGHT else "#ffffff",
            3 if box.mapped else 1,
            f"{box.name}: {told or 'nothing has ended yet'}",
        )
        for name, value in zip(names, values, strict=True):
            found[name].append(value)
    return found


def _what_went_wrong(box: Box) -> str:
    """How many of several task runs failed, or else did not run because of failures."""
    if not box.mapped:
        return ""
    failed = sum(box.counts.get(code, 0) for code in FAILED)
    if failed:
        return f"{failed:,} failed"
    refused = box.counts.get(REFUSED, 0)
    return f"{refused:,} not run" if refused else ""


def _lines(
    boxes: Mapping[int, Box], places: Mapping[int, tuple[int, float]]
) -> Columns:
    found: Columns = {name: [] for name in ("x0", "y0", "x1", "y1")}
    for key, box in boxes.items():
        for other in sorted(box.above):
            if other in places:
                ends = (*places[other], *places[key])
                for name, value in zip(found, ends, strict=True):
                    found[name].append(value)
    return found
