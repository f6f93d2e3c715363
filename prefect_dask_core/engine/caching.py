"""Caching: values of earlier runs, and what a run leaves for later ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prefect_dask_core.cache_validators import is_expired, tokens
from prefect_dask_core.engine.columns import Children
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.states import Cached, State

#: States that earlier runs left, by cache key.
Caches = Mapping[str, Iterable[Cached]]


def cache_name(options: TaskOptions) -> str:
    """Name under which a task's cached states are shared."""
    return options.cache_key or options.name


def to_cache(
    options: TaskOptions,
    state: State,
    inputs: Mapping[str, Any],
    parameters: Mapping[str, Any],
    now: float,
) -> Cached:
    """The state that a successful run with `cache_for` ends in."""
    assert options.cache_for is not None
    return Cached(
        state.message,
        data=state.data,
        hashed_inputs=tokens(inputs),
        cached_parameters=dict(parameters),
        cached_result_expiration=now + options.cache_for.total_seconds(),
        timestamp=now,
    )


def merge_caches(
    caches: dict[str, list[Cached]], found: Iterable[tuple[str, Cached]], now: float
) -> None:
    """Take in what a run left; the newest first, and none that has expired.

    Parameters
    ----------
    caches : dict of str to list of Cached
        Changed in place.
    found : iterable of (str, Cached)
        By cache key.
    now : float
        Seconds since the epoch.
    """
    for name, state in found:
        known = caches.setdefault(name, [])
        known[:] = [old for old in known if not _replaces(state, old)]
        known.insert(0, state)
    for name in list(caches):
        caches[name] = [state for state in caches[name] if not is_expired(state, now)]
        if not caches[name]:
            del caches[name]


def _replaces(new: Cached, old: Cached) -> bool:
    return (
        new.hashed_inputs == old.hashed_inputs
        and new.cached_parameters == old.cached_parameters
    )


def cached_among(state: State, load: Callable[[State], Any]) -> Iterable[Cached]:
    """Cached states of a node, with their values.

    Parameters
    ----------
    state : State
        Of a plain node, or of the parent of children.
    load : callable
        Gives the value of a state.
    """
    if isinstance(state.states, Children):
        for child in state.states:
            if isinstance(child, Cached):
                yield _with_value(child, load)
    elif isinstance(state, Cached):
        yield _with_value(state, load)


def _with_value(state: Cached, load: Callable[[State], Any]) -> Cached:
    found = state.replace(data=load(state))
    assert isinstance(found, Cached)
    return found
