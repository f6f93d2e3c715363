"""Caching: values of earlier runs, what a run leaves for later ones, and who keeps it.

What is kept in a store is found there; what is kept in the memory of the client's
process is handed to the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from prefect_dask_core.cache_validators import is_expired, tokens
from prefect_dask_core.engine.children import Children
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.results.keeping import FlowKeeping, Keeper
from prefect_dask_core.results.policies import NoCache, ValidatorPolicy
from prefect_dask_core.results.store import as_store
from prefect_dask_core.states import Cached, State
from prefect_dask_core.tasks import Task

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


# -- who keeps ---------------------------------------------------------------------


class Within(NamedTuple):
    """A task as it runs in a flow that says something of keeping values.

    Parameters
    ----------
    options : TaskOptions
        Its options; the very same object where the flow changes nothing.
    keeper : Keeper or None
        How its values are kept; `None` if they are not.
    """

    options: TaskOptions
    keeper: Keeper | None


def within(task: Task, flow: FlowKeeping | None) -> Within:
    """A task in a flow, worked out once and not for each of many blocks.

    Parameters
    ----------
    task : Task
        The task. It stays as it is: handlers are given the task of the flow, which
        people compare with those they have.
    flow : FlowKeeping or None
        What the flow says.

    Raises
    ------
    OptionValueError
        If the task cannot have the result of the flow.
    """
    options = task.options
    if flow is None and not options.persists and options.target is None:
        return Within(options, None)
    known = task.__dict__.get("_within")
    if (
        known is None
        or known[0] is not options
        or (known[1] is not flow and known[1] != flow)
    ):
        known = options, flow, _within(task, flow or FlowKeeping())
        task.__dict__["_within"] = known
    found: Within = known[2]
    return found


def prepared(task: Task, flow: FlowKeeping | None) -> Within:
    """A task in a flow, ready to be sent: its source is known here, if at all.

    Where it runs, the text of a function that was sent by value is not to be had.
    """
    found = within(task, flow)
    if found.keeper is not None and found.keeper.policy is not None:
        task.note_source()
    return found


def _within(task: Task, flow: FlowKeeping) -> Within:
    options = task.options
    # What is made anew each time, or was given, is not worth keeping.
    is_kept = not (
        task.auto_generated or task.is_resource or isinstance(task, Parameter)
    )
    may_take = options.result is None and not options.says_how
    if is_kept and flow.result is not None and may_take:
        options = replace(options, result=flow.result)
    if not is_kept and options.persist_result is None:
        flow = FlowKeeping()
    return Within(options, _keeper(options, flow))


def _keeper(options: TaskOptions, flow: FlowKeeping) -> Keeper | None:
    writes = options.persists
    if writes is None:
        writes = flow.persist
    if options.result is not None and not options.result.is_stored:
        writes = False
    target = options.target or options.result_storage_key
    if not writes and target is None:
        return None
    refresh = options.refresh_cache
    if refresh is None:
        refresh = flow.refresh
    by_target = options.target is not None and not (
        options.needs_record or flow.says_where
    )
    if options.result is not None or by_target:
        return Keeper(
            None,
            options.result,
            options.target,
            writes=writes,
            refresh=refresh,
            folder=flow.folder,
        )
    policy, length = options.policy, options.cache_expiration
    if length is None and isinstance(policy, ValidatorPolicy):
        length = options.cache_for
    store = options.result_storage or flow.store
    serializer = options.result_serializer
    if options.result_storage is not None and serializer is None:
        serializer = flow.serializer
    return Keeper(
        as_store(store, serializer).at_one_of(flow.places),
        target=target,
        policy=None if target is not None else policy,
        writes=writes,
        expiration=None if length is None else length.total_seconds(),
        # A name that a template gives may be that of others' values, too.
        refresh=refresh or (target is not None and isinstance(policy, NoCache)),
        in_memory=options.cache_result_in_memory,
        is_of_flow=options.target is not None and options.result_storage is None,
    )
