"""Recorded run: a run of the ledger as one that can be reported.

Long after the cluster and the process of the run are gone its page can still be made:
states, times, attempts, waits, workers and failures are in the ledger.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.codes import CODE_BY_STATE
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.views import EdgeView, NodeView, RunInfo, SegmentLook
from prefect_dask_core.errors import RemoteTaskError
from prefect_dask_core.ledger import DetailRecord, LedgerRun, NodeColumns, NodeRecord
from prefect_dask_core.ledger.columns import indexes_in
from prefect_dask_core.monitor.run_lines import last_lines
from prefect_dask_core.monitor.texts import Told
from prefect_dask_core.monitor.watched_run import WatchedRun
from prefect_dask_core.states import (
    Crashed,
    Pending,
    Running,
    State,
    usual_attempts,
)

_CLASSES: Final = {found.__name__: found for found in State.children(True)}
#: Message of a run whose client died.
LOST: Final = "its client died; `dask flow resume` goes on"
_PENDING: Final = CODE_BY_STATE[Pending]


class RecordedError(RemoteTaskError):
    """Stands for an exception that the ledger tells of.

    Parameters
    ----------
    told : str
        Class and text of the exception.
    traceback_text : str
        Its traceback.
    """

    def __init__(self, told: str, traceback_text: str = "") -> None:
        super().__init__(told)
        self.traceback_text = traceback_text

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.args[0], self.traceback_text)


def recorded_run(run: LedgerRun, *, is_lost: bool = False) -> WatchedRun:
    """A run of the ledger as it was at its last sign of life.

    Parameters
    ----------
    run : LedgerRun
        The run.
    is_lost : bool
        Whether its client died: the ledger has its last sign of life and no end.
    """
    record = run.record
    info = RunInfo(
        run_id=record.id,
        flow_name=record.flow,
        run_name=record.name,
        begin=record.begin,
        parameters={name: Told(t) for name, t in run.parameters_told.items()},
        parent_run_id=record.parent,
        parent_task_run_id=record.parent_task,
    )
    nodes = list(run.nodes.values())
    numbers = {node.slug: number for number, node in enumerate(nodes)}
    details: dict[str, list[DetailRecord]] = {}
    for slug, detail in run.details():
        details.setdefault(slug, []).append(detail)
    children: dict[int, Children] = {}
    plain: dict[int, Segment] = {}
    for node in nodes:
        columns = run.columns(node.slug)
        segments = list(segments_of(columns, details.get(node.slug, ())))
        if columns.is_mapped:
            children[numbers[node.slug]] = Children(len(columns.states), segments)
        elif segments:
            plain[numbers[node.slug]] = segments[0]
    views = [_view(node, numbers) for node in nodes]
    found = WatchedRun(info, views, SegmentLook(children, plain))
    found.seconds_between = record.seconds_between
    kind = _CLASSES.get(record.state, Running)
    found.state = kind(record.message, timestamp=record.end)
    if is_lost:
        found.state = Crashed(LOST, name="Lost")
    found.end = record.seen if record.end is None else record.end
    # Other files have lines of other runs as well.
    own = [Path(name) for name in record.logs if record.id in Path(name).name]
    found.log_lines = lambda: last_lines(own)
    found.log_file = own[0] if own else None
    return found


def _view(node: NodeRecord, numbers: dict[str, int]) -> NodeView:
    edges = tuple(
        EdgeView(numbers[item.above], item.key, item.mapped)
        for item in node.inputs
        if item.above in numbers
    )
    return NodeView(
        numbers[node.slug], node.task, node.slug, node.mapped, edges, node.helper
    )


def segments_of(
    columns: NodeColumns, details: Sequence[DetailRecord]
) -> Iterator[Segment]:
    """Segments of a node: consecutive children that one worker ran.

    Parameters
    ----------
    columns : NodeColumns
        What the ledger has of the node.
    details : sequence of DetailRecord
        What is told of those that did not simply complete.
    """
    told: dict[int, State] = {}
    for detail in details:
        state = _state_of(detail)
        for index in indexes_in(detail.indexes) or [0]:
            # A later attempt may have ended otherwise.
            if columns.states[index : index + 1] == [detail.state]:
                told[index] = state
    codes = [_code(name) for name in columns.states]
    start, count = 0, len(codes)
    while start < count:
        worker, known = columns.workers[start], codes[start] != _PENDING
        stop = start + 1
        while (
            stop < count
            and columns.workers[stop] == worker
            and (codes[stop] != _PENDING) == known
        ):
            stop += 1
        if known:
            segment = Segment(start)
            segment.codes = bytearray(codes[start:stop])
            segment.begins = array("d", columns.begins[start:stop])
            segment.ends = array("d", columns.ends[start:stop])
            inside = range(start, stop)
            made = columns.attempts
            segment.attempts = {
                n - start: made[n]
                for n in inside
                if made[n] != usual_attempts(columns.states[n])
            }
            segment.details = {n - start: told[n] for n in inside if n in told}
            waits = {n - start: w for n, w in columns.waits.items() if n in inside}
            segment.waits = {n: tuple(found) for n, found in waits.items()} or None
            segment.values, segment.worker = None, worker
            yield segment
        start = stop


def _code(name: str) -> int:
    """The code of a state by the name of its class."""
    for cls in _CLASSES.get(name, Pending).__mro__:
        code = CODE_BY_STATE.get(cls)
        if code is not None:
            return code
    return _PENDING


def _state_of(detail: DetailRecord) -> State:
    kind = _CLASSES.get(detail.state, Pending)
    state: State = kind(detail.message, name=detail.name)
    if detail.error is None:
        return state
    told = f"{detail.error}: {detail.text}" if detail.text else detail.error
    return state.replace(data=RecordedError(told, detail.traceback or ""))
