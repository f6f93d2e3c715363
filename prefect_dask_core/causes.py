"""Causes: the first failure above a run that did not start because of it."""

from __future__ import annotations

from collections.abc import Mapping

from prefect_dask_core.engine.session import Session
from prefect_dask_core.engine.summary import first_failure_of
from prefect_dask_core.errors import UpstreamTaskError
from prefect_dask_core.states import NO_DATA, State, TriggerFailed


def error_of(
    session: Session,
    parents: Mapping[int, tuple[int, ...]],
    looked: set[int],
    node: int,
    index: int | None,
    name: str,
    state: State,
) -> BaseException:
    """What made a run fail; for one that did not start, with the failure above it.

    Parameters
    ----------
    session : Session
        Where it ran.
    parents : mapping of int to tuple of int
        By node, the nodes it reads or comes after; one that has none may be missing.
    looked : set of int
        Nodes that somebody has asked how they ended; those whose failure is told are
        added.
    node : int
        Its node.
    index : int or None
        Which child it is.
    name : str
        Its name.
    state : State
        Its final state, which is no success.

    Returns
    -------
    BaseException
        `UpstreamTaskError` for `TriggerFailed`, with the error of the first run above
        that failed by itself as its cause (decisions C24, F3 and F14); else the run's
        own.
    """
    if not isinstance(state, TriggerFailed) or state.data is not NO_DATA:
        found: BaseException = state.result(raise_on_failure=False)
        return found
    error = UpstreamTaskError(f"{name} did not run: {state.message}")
    cause = _first_failure(session, parents, looked, node, index)
    if cause is not None:
        found = cause.result(raise_on_failure=False)
        error.__cause__ = found
    return error


def _first_failure(
    session: Session,
    parents: Mapping[int, tuple[int, ...]],
    looked: set[int],
    node: int,
    index: int | None,
) -> State | None:
    """The failure that a run did not start because of, however far above it is."""
    found: State | None = None
    while True:
        for above in parents.get(node, ()):
            state = _failed(session.state(above), index)
            if state is not None:
                node, found = above, state
                looked.add(above)
                break
        else:
            return found
        if not isinstance(found, TriggerFailed):
            return found


def _failed(state: State, index: int | None) -> State | None:
    """The state, or that of a child, if it failed; that of the index before others."""
    if not state.is_mapped():
        return state if state.is_final() and not state.is_successful() else None
    children = state.states or ()
    if index is not None and index < len(children):
        child = state[index]
        if child.is_final() and not child.is_successful():
            return child
    return first_failure_of(state)
