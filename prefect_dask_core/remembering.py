"""Remembering: what the ledger knows of a run, as states and as a view of it.

The values are not in the ledger: those that were stored are read from there when
somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from prefect_dask_core.engine.columns import STATE_BY_CODE, Children, Segment
from prefect_dask_core.engine.feeds import is_success
from prefect_dask_core.engine.views import (
    EdgeView,
    NodeView,
    RunInfo,
    RunView,
    SegmentLook,
)
from prefect_dask_core.errors import RemoteTaskError
from prefect_dask_core.ledger import LedgerRun, NodeColumns
from prefect_dask_core.ledger.columns import indexes_in
from prefect_dask_core.results.kept import KeptValues, StoredValues
from prefect_dask_core.results.store import ResultStore
from prefect_dask_core.states import Mapped, Missing, Pending, State

_CLASS_BY_NAME: Final = {state.__name__: state for state in STATE_BY_CODE}
_CODE_BY_NAME: Final = {
    state.__name__: code for code, state in enumerate(STATE_BY_CODE)
}
_MISSING: Final = Missing(
    "the run completed in an earlier attempt, and its value was not stored; with "
    "persist_result=True it would have been."
)


def state_of(run: LedgerRun, slug: str, store: ResultStore | None = None) -> State:
    """State that a node had at the last that is known of it.

    Parameters
    ----------
    run : LedgerRun
        The run.
    slug : str
        Slug of the node.
    store : ResultStore, optional
        Where its values may be; those that are kept there are read when somebody
        asks, all others are missing.

    Returns
    -------
    State
        `Mapped` with the states of its children if it had any; `Pending` of a node
        that has not ended.
    """
    columns = run.columns(slug)
    details = _details_of(run, slug, columns)
    if columns.is_mapped:
        segments = segments_of(columns, details, store)
        return Mapped(states=Children(len(columns.states), list(segments)))
    return _single(columns, details.get(0), store)


def segments_of(
    columns: NodeColumns,
    details: Mapping[int, State],
    store: ResultStore | None = None,
) -> Iterator[Segment]:
    """Segments of all that has ended of a node, each of one worker."""
    names, workers = columns.states, columns.workers
    start = 0
    for stop in range(1, len(names) + 1):
        begun = names[start] != "Pending"
        if (
            stop < len(names)
            and (names[stop] != "Pending") == begun
            and (not begun or workers[stop] == workers[start])
        ):
            continue
        if begun:
            yield _segment(columns, details, start, stop, store)
        start = stop


def _segment(
    columns: NodeColumns,
    details: Mapping[int, State],
    start: int,
    stop: int,
    store: ResultStore | None,
) -> Segment:
    segment = Segment(start)
    segment.codes = bytearray(_CODE_BY_NAME[n] for n in columns.states[start:stop])
    segment.begins = columns.begins[start:stop]
    segment.ends = columns.ends[start:stop]
    inside = range(start, stop)
    made = columns.attempts
    segment.attempts = {n - start: made[n] for n in inside if made[n] != 1}
    segment.details = {n - start: details[n] for n in inside if n in details}
    waits = {n: tuple(w) for n, w in columns.waits.items() if n in inside}
    segment.waits = {n - start: found for n, found in waits.items()} or None
    segment.worker = columns.workers[start]
    segment.values = None
    if store is not None:
        _put_values(segment, columns, store)
    return segment


def _put_values(segment: Segment, columns: NodeColumns, store: ResultStore) -> None:
    """Let a segment find its values, if all of them are in the store."""
    kept = KeptValues(store, "", segment.start)
    for offset in range(len(segment)):
        index = segment.start + offset
        key = columns.keys[index]
        if key is not None and columns.stores[index] == store.url:
            kept.note(offset, key)
        elif is_success(segment, offset):
            return
    segment.kept = kept
    segment.values = StoredValues(kept, len(segment))


def _single(
    columns: NodeColumns, detail: State | None, store: ResultStore | None
) -> State:
    if columns.states[0] == "Pending":
        return Pending()
    kind = _CLASS_BY_NAME[columns.states[0]]
    state = kind() if detail is None else detail
    state = state.replace(timestamp=columns.ends[0])
    if not state.is_successful():
        return state
    key = columns.keys[0]
    if store is None or key is None or columns.stores[0] != store.url:
        return state.replace(data=_MISSING)
    kept = KeptValues(store, "", None)
    kept.note(0, key)
    return state.replace(data=kept.item(0))


def _details_of(run: LedgerRun, slug: str, columns: NodeColumns) -> dict[int, State]:
    """States of which the ledger knows more than their name, by index."""
    found: dict[int, State] = {}
    for other, detail in run.details():
        if other != slug:
            continue
        state = _CLASS_BY_NAME[detail.state](detail.message, name=detail.name)
        if detail.error is not None:
            told = detail.traceback or f"{detail.error}: {detail.text}"
            state = state.replace(data=RemoteTaskError(told))
        for index in indexes_in(detail.indexes) or [0]:
            if index < len(columns.states) and columns.states[index] == detail.state:
                found[index] = state
    return found


def view_of(run: LedgerRun) -> RunView:
    """What is shown of a run, for reports and summaries of one that has ended.

    Parameters
    ----------
    run : LedgerRun
        The run.
    """
    record = run.record
    number_of = {slug: number for number, slug in enumerate(run.nodes)}
    nodes = [
        NodeView(
            number_of[slug],
            node.task,
            slug,
            node.mapped,
            tuple(
                EdgeView(number_of[i.above], i.key, i.mapped, i.flattened)
                for i in node.inputs
                if i.above in number_of
            ),
            node.helper,
        )
        for slug, node in run.nodes.items()
    ]
    children: dict[int, Children] = {}
    plain: dict[int, Segment] = {}
    for slug, number in number_of.items():
        columns = run.columns(slug)
        details = _details_of(run, slug, columns)
        found = list(segments_of(columns, details))
        if columns.is_mapped:
            children[number] = Children(len(columns.states), found)
        elif found:
            plain[number] = found[0]
    info = RunInfo(
        run_id=record.id,
        flow_name=record.flow,
        run_name=record.name,
        begin=record.begin,
        parameters={name: _Told(told) for name, told in run.parameters_told.items()},
        parent_run_id=record.parent,
        parent_task_run_id=record.parent_task,
    )
    view = RunView(info, nodes, SegmentLook(children, plain))
    view.end = record.end
    if record.end is not None:
        kind = _CLASS_BY_NAME.get(record.state, State)
        view.state = kind(record.message, name=record.state, timestamp=record.end)
    lines = _lines_of(record.logs[:1])
    view.log_lines = lambda: lines
    return view


class _Told(str):
    """Text of a value that is not there; it reads as the value would."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _lines_of(files: tuple[str, ...]) -> list[str]:
    """Lines of the log of a run, if its file is on this machine."""
    found: list[str] = []
    for file in files:
        path = Path(file)
        if path.is_file():
            found += path.read_text("utf-8", "replace").splitlines()
    return found
