"""Hypothesis strategies for what the package is about."""

from __future__ import annotations

import os
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st

from prefect_dask_core.cache_validators import (
    all_inputs,
    all_parameters,
    duration_only,
    never_use,
    partial_inputs_only,
    partial_parameters_only,
)
from prefect_dask_core.edges import Edge
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.results import JSONSerializer, LocalResult, PickleSerializer
from prefect_dask_core.states import (
    NO_DATA,
    AwaitingRetry,
    Cached,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Looped,
    Mapped,
    Paused,
    Pending,
    Queued,
    Resume,
    Retrying,
    Running,
    Scheduled,
    Skipped,
    Submitted,
    TimedOut,
    TriggerFailed,
    ValidationFailed,
)
from prefect_dask_core.triggers import (
    Tally,
    all_failed,
    all_finished,
    all_successful,
    any_failed,
    any_successful,
    manual_only,
    not_all_skipped,
    some_failed,
    some_successful,
)

# No deadline: the machine that runs the suite may be busy, and the laws do not care.
# The same examples each time, so that a change is judged by what it changes;
# HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("calm", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "calm"))

SUCCESSES = (Completed, Cached, Mapped, Skipped)
FAILURES = (Failed, TimedOut, TriggerFailed, ValidationFailed, Crashed)
FINAL = (*SUCCESSES, *FAILURES, Cancelled)
UNFINISHED = (
    Pending,
    Submitted,
    Queued,
    Scheduled,
    Resume,
    Paused,
    AwaitingRetry,
    Running,
    Retrying,
    Cancelling,
    Looped,
)
SHIPPED_TRIGGERS = (
    all_successful,
    all_failed,
    any_successful,
    any_failed,
    all_finished,
    manual_only,
    not_all_skipped,
)

names = st.text("abcdefgh_", min_size=1, max_size=4)


def _states(classes):
    messages = st.none() | st.text(max_size=8)
    data = st.just(NO_DATA) | st.none() | st.integers() | st.text(max_size=4)
    return st.builds(
        lambda cls, message, data: cls(message, data),
        st.sampled_from(classes),
        messages,
        data,
    )


def cached_states():
    """States that hold the value of an earlier run."""
    return st.builds(
        Cached,
        data=st.integers(),
        hashed_inputs=st.none() | st.dictionaries(names, st.text(max_size=4)),
        cached_parameters=st.none() | st.dictionaries(names, st.integers()),
        cached_result_expiration=st.none() | st.floats(0, 1e10),
    )


def final_states():
    """States in which a run ends for good."""
    return _states(FINAL)


def successes():
    """States in which a run ends successfully."""
    return _states(SUCCESSES)


def states():
    """All states, final or not."""
    return _states((*FINAL, *UNFINISHED)) | cached_states()


def upstreams(of=None, min_size=0):
    """Final states by the name of their run."""
    found = final_states() if of is None else of
    return st.dictionaries(names, found, min_size=min_size, max_size=8)


def tallies():
    """Counts of upstream states."""
    return upstreams(states()).map(Tally.of)


def triggers():
    """Shipped triggers, with and without bounds."""
    bounds = st.none() | st.integers(0, 5) | st.floats(0, 0.99)
    return (
        st.sampled_from(SHIPPED_TRIGGERS)
        | st.builds(some_failed, bounds, bounds)
        | st.builds(some_successful, bounds, bounds)
    )


def validators():
    """Shipped cache validators."""
    chosen = st.none() | st.lists(names, max_size=3)
    return (
        st.sampled_from((never_use, duration_only, all_inputs, all_parameters))
        | st.builds(partial_inputs_only, chosen)
        | st.builds(partial_parameters_only, chosen)
    )


def results():
    """Results that are kept in files."""
    serializers = st.sampled_from((PickleSerializer(), JSONSerializer()))
    return st.builds(LocalResult, names, st.none() | names, serializers)


def task_options():
    """Options of a task."""
    delays = st.floats(0, 100)
    templates = st.none() | names | names.map("{{{}}}".format)
    return st.builds(
        TaskOptions,
        name=names,
        slug=st.none() | names,
        tags=st.frozensets(names, max_size=3),
        retries=st.integers(0, 5),
        retry_delay_seconds=delays | st.lists(delays, max_size=5),
        timeout_seconds=st.none() | st.floats(0, 100),
        trigger=triggers(),
        skip_on_upstream_skip=st.booleans(),
        nout=st.none() | st.integers(0, 3),
        cache_for=st.none() | st.timedeltas(timedelta(0), timedelta(days=9)),
        cache_validator=st.none() | validators(),
        cache_key=st.none() | names,
        persist_result=st.none() | st.booleans(),
        result=st.none() | results(),
        target=templates,
        task_run_name=templates,
        log_prints=st.none() | st.booleans(),
    )


@st.composite
def graphs(draw, acyclic=True, max_size=8):
    """Nodes ``0 .. n-1`` in any order, and pairs of them as edges.

    The edges of an acyclic graph point from a lower to a higher number.
    """
    size = draw(st.integers(1, max_size))
    nodes = draw(st.permutations(range(size)))
    ends = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))
    pairs = draw(st.lists(ends, max_size=2 * size))
    if acyclic:
        pairs = [tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1]]
    return nodes, pairs


def edges(tasks):
    """Edges between some tasks, with any flags."""
    return st.builds(
        Edge,
        st.sampled_from(tasks),
        st.sampled_from(tasks),
        st.none() | names,
        st.booleans(),
        st.booleans(),
    )
