from datetime import timedelta

import pytest

from prefect_dask_core.cache_validators import all_inputs, all_parameters, tokens
from prefect_dask_core.engine.caching import (
    cache_name,
    cached_among,
    merge_caches,
    to_cache,
)
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.states import Cached, Completed, Failed


def cached(x=1, until=100.0, parameters=None, data=None):
    return Cached(
        data=data,
        hashed_inputs=tokens({"x": x}),
        cached_parameters=parameters or {},
        cached_result_expiration=until,
    )


@pytest.mark.parametrize(("key", "name"), [(None, "load"), ("shared", "shared")])
def test_states_are_shared_by_key_else_by_name(key, name):
    assert cache_name(TaskOptions("load", cache_key=key)) == name


def test_a_cached_state_knows_inputs_parameters_and_its_end():
    options = TaskOptions("load", cache_for=timedelta(seconds=60))
    state = to_cache(options, Completed("done", data=5), {"x": 1}, {"p": 2}, 1_000.0)
    assert (state.message, state.data) == ("done", 5)
    assert (state.timestamp, state.cached_result_expiration) == (1_000.0, 1_060.0)
    assert all_inputs.accepts(state, {"x": 1}, {}, now=1_059.0)
    assert not all_inputs.accepts(state, {"x": 1}, {}, now=1_060.0)
    assert not all_inputs.accepts(state, {"x": 2}, {}, now=1_000.0)
    assert all_parameters.accepts(state, {}, {"p": 2}, now=1_000.0)
    assert not all_parameters.accepts(state, {}, {"p": 3}, now=1_000.0)


def test_the_newest_state_stands_first_and_replaces_its_like():
    caches = {}
    old, other, new = cached(1, data="old"), cached(2), cached(1, data="new")
    merge_caches(caches, [("load", old), ("load", other)], now=0.0)
    assert caches == {"load": [other, old]}
    merge_caches(caches, [("load", new)], now=0.0)
    assert [state.data for state in caches["load"]] == ["new", None]
    assert caches["load"][1] is other


def test_states_of_other_parameters_stand_side_by_side():
    caches = {}
    first, second = cached(parameters={"p": 1}), cached(parameters={"p": 2})
    merge_caches(caches, [("load", first), ("load", second)], now=0.0)
    assert caches["load"] == [second, first]


def test_what_has_expired_is_dropped_under_every_key():
    caches = {"gone": [cached(until=5.0)], "kept": [cached(until=50.0)]}
    merge_caches(caches, [("late", cached(until=10.0))], now=10.0)
    assert list(caches) == ["kept"]


def test_only_cached_states_are_found():
    state = cached(data=3)
    assert list(cached_among(Completed(data=3), lambda s: s.data)) == []
    assert list(cached_among(Failed("no"), lambda s: s.data)) == []
    (found,) = cached_among(state, lambda s: s.data + 1)
    assert found.data == 4
