"""Remembering: the states that the nodes of a run had, from the ledger and the store.

The values are not in the ledger: those that were stored are read from the store when
somebody asks.
"""

from __future__ import annotations

from typing import Final

from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.segments import Segment, is_success
from prefect_dask_core.ledger import LedgerRun, NodeColumns
from prefect_dask_core.monitor.recorded_run import segments_of
from prefect_dask_core.results.kept import KeptValues, StoredValues
from prefect_dask_core.results.store import ResultStore
from prefect_dask_core.states import Mapped, Missing, Pending, State

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
    details = run.details_of.get(slug, [])
    segments = list(segments_of(columns, details))
    if columns.is_mapped:
        if store is not None:
            for segment in segments:
                _put_values(segment, columns, store)
        return Mapped(states=Children(len(columns.states), segments))
    if not segments:
        return Pending()
    state = segments[0].state(0).replace(timestamp=columns.ends[0])
    if not state.is_successful():
        return state
    key = columns.keys[0]
    if store is None or key is None or columns.stores[0] != store.url:
        return state.replace(data=_MISSING)
    kept = KeptValues(store, "", None)
    kept.note(0, key)
    return state.replace(data=kept.item(0))


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
