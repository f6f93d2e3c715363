"""Causes: the first failure above a run of a session that did not start for it."""

from __future__ import annotations

from collections.abc import Mapping

from prefect_dask_core.engine.session import Session
from prefect_dask_core.engine.upstream import Failure, failure_in, first_failure
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
        error: BaseException = state.result(raise_on_failure=False)
        return error
    found = first_above(session, parents, looked, node, index)
    told = "" if found is None else found.told(name_of(session, found.node))
    upstream = UpstreamTaskError(f"{name} did not run: {state.message}{told}")
    if found is not None:
        upstream.__cause__ = found.state.result(raise_on_failure=False)
    return upstream


def first_above(
    session: Session,
    parents: Mapping[int, tuple[int, ...]],
    looked: set[int],
    node: int,
    index: int | None,
) -> Failure | None:
    """The failure that a run did not start because of; see `error_of`."""

    def failure_of(above: int, index: int | None) -> Failure | None:
        found = failure_in(above, session.state(above), index)
        if found is not None:
            looked.add(above)
        return found

    return first_failure(lambda one: parents.get(one, ()), failure_of, node, index)


def name_of(session: Session, node: int) -> str:
    """Name of the run that a node of a session is."""
    return session.look().nodes()[node].slug
