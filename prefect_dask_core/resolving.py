"""Resolving: values in the place of futures and states, waited for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_dask_core.annotations import AllowFailure, Quote
from prefect_dask_core.edges import Annotation
from prefect_dask_core.engine.plan import flattened, items_of
from prefect_dask_core.engine.templates import rebuild
from prefect_dask_core.errors import UpstreamTaskError
from prefect_dask_core.future_lists import FutureList, node_of
from prefect_dask_core.futures import Handle, PrefectFuture, child_of, has_ended
from prefect_dask_core.states import NO_DATA, State, TriggerFailed
from prefect_dask_core.waiting import resolve_futures_to_results

#: Name and state of a run above, and whether it may have failed.
Above = tuple[str, State, bool]


def with_results(value: Any) -> Any:
    """A value with results in the place of futures; see decision F2.

    Raises
    ------
    Exception
        If the value is a future, or holds nothing but futures: what made the first
        run fail that did not succeed.
    """
    strict = isinstance(value, PrefectFuture | FutureList) or (
        isinstance(value, list | tuple | set)
        and bool(value)
        and all(isinstance(item, PrefectFuture | FutureList) for item in value)
    )
    return resolve_futures_to_results(value) if strict else rebuild(value, _told_of)


def _told_of(leaf: Any) -> Any:
    """The result of a future that succeeded, the state of another."""
    if not isinstance(leaf, PrefectFuture | FutureList):
        return leaf
    leaf.wait()
    if isinstance(leaf, FutureList):
        if leaf.is_single() and not leaf.state.is_mapped():
            return leaf.state  # it failed before it had children
        if not all(state.is_successful() for state in leaf.states):
            return [_told_of(future) for future in leaf]
        return leaf.result()
    state = leaf.state
    return leaf.result() if state.is_successful() else state


def resolve(
    bound: Mapping[str, Any], wait_for: Any
) -> tuple[dict[str, Any], list[Above]]:
    """Arguments with values in the place of futures and states, waited for.

    Returns
    -------
    dict of str to object
        The arguments; a run that did not succeed gives its exception.
    list of (str, State, bool)
        Name and state of each run above, and whether it may have failed.
    """
    above: list[Above] = []
    found = {key: _resolved(value, above, False) for key, value in bound.items()}
    if wait_for is not None:
        given = wait_for
        if not isinstance(given, PrefectFuture | FutureList | AllowFailure | State):
            given = list(given)
        _resolved(given, above, False)
    return found, above


def _resolved(value: Any, above: list[Above], tolerant: bool) -> Any:
    def looked_up(leaf: Any) -> Any:
        if isinstance(leaf, Annotation):
            found = _resolved(leaf.value, above, tolerant)
            return _unnested(leaf.value, found) if leaf.flattened else found
        if isinstance(leaf, Quote):
            return leaf.value
        if isinstance(leaf, AllowFailure):
            return _resolved(leaf.value, above, True)
        if isinstance(leaf, PrefectFuture | FutureList):
            leaf.wait()
            return _value_of(leaf, above, tolerant)
        if isinstance(leaf, State):
            above.append((leaf.name, leaf, tolerant))
            return leaf.result(raise_on_failure=False) if has_ended(leaf) else None
        return leaf

    return rebuild(value, looked_up)


def _value_of(
    future: PrefectFuture[Any] | FutureList[Any],
    above: list[Above],
    tolerant: bool,
) -> Any:
    if isinstance(future, FutureList):
        handle = node_of(future)
        if handle is None:
            return [_value_of(one, above, tolerant) for one in future]
        state = future.state
        children = state.states if state.is_mapped() else None
        if children is None:
            above.append((handle.name, state, tolerant))
            return state.result(raise_on_failure=False) if state.is_final() else None
        told = False
        for number, child in enumerate(children):
            if not told and not child.is_successful():
                # The first one is told of; the others need not be looked into.
                told, child = True, _explained(handle, number, child)
            above.append((f"{handle.name}[{number}]", child, tolerant))
        if not all(child.is_final() for child in children):
            return None  # one of them is paused
        return future.result(raise_on_failure=False)
    state = _explained(*child_of(future), future.state)
    above.append((future.name, state, tolerant))
    if state.is_paused() or not state.is_final():
        return None
    return future.result(raise_on_failure=False)


def _explained(handle: Handle, index: int | None, state: State) -> State:
    """State of a run; one that did not start has what failed above it as its data."""
    if isinstance(state, TriggerFailed) and state.data is NO_DATA:
        return state.replace(data=handle.error(state, index))
    return state


def holds_future(value: Any) -> bool:
    """Whether there is a future or a state anywhere in a value."""
    found = False

    def look(leaf: Any) -> Any:
        nonlocal found
        if isinstance(leaf, State | PrefectFuture | FutureList):
            found = True
        if isinstance(leaf, AllowFailure | Annotation):
            rebuild(leaf.value, look)
        return leaf

    rebuild(value, look)
    return found


def bare(value: Any) -> Any:
    """An argument without its annotations, unnested if one of them says so."""
    flat = False
    while isinstance(value, Annotation | AllowFailure | Quote):
        flat = flat or (isinstance(value, Annotation) and value.flattened)
        value = value.value
    return flattened(value) if flat else value


def nested_items(value: Any) -> Any:
    """Items of a collection with futures inside, such that each can be unnested.

    A future stands for the collection that it gives. Of a list or tuple that is there
    already each item becomes a list of its own, so that each may end in its own way.

    Examples
    --------
    >>> nested_items(["future", [1, 2]])
    ['future', [1, 2]]
    """
    items = items_of(value)
    if items is None:
        return value
    found: list[Any] = []
    for item in items:
        if type(item) in (list, tuple) and holds_future(item):
            found += [[one] for one in item]
        else:
            found.append(item)
    return found


def _unnested(given: Any, found: Any) -> Any:
    """A flattened argument: what was given, with its futures' values found."""
    given = bare(given)
    items = items_of(found)
    several = isinstance(given, FutureList) or not isinstance(given, PrefectFuture)
    if items is None or not (several and holds_future(given)):
        return flattened(found)
    # As of the children of a fan-out: what is no collection stays one element.
    parts = [items_of(item) for item in items]
    return [
        element
        for item, part in zip(items, parts, strict=True)
        for element in ([item] if part is None else part)
    ]


def by_name(above: list[Above]) -> dict[Any, State]:
    """States of the runs above, as a trigger is given them."""
    return {name: state for name, state, _ in above}


def upstream_error(name: str, state: State, above: list[Above]) -> UpstreamTaskError:
    """Why a run did not start, with the first failure above as its cause."""
    error = UpstreamTaskError(f"{name} did not run: {state.message}")
    for label, found, tolerant in above:
        if not tolerant and has_ended(found) and not found.is_paused():
            cause = found.result(raise_on_failure=False)
            if not found.is_successful() and isinstance(cause, BaseException):
                told = f"it began with {label}: {found.message}"
                if isinstance(cause, UpstreamTaskError):
                    told = str(cause)  # which says what it began with
                error = UpstreamTaskError(f"{error}; {told}")
                error.__cause__ = cause
                break
    return error
