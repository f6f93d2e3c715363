import copy
import pickle
import time

import cloudpickle
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.cache_validators import (
    CacheValidator,
    all_inputs,
    all_parameters,
    duration_only,
    is_expired,
    never_use,
    partial_inputs_only,
    partial_parameters_only,
    tokens,
)
from prefect_dask_core.states import Cached
from tests.strategies import cached_states, names, validators

values = st.dictionaries(names, st.integers(0, 2), max_size=4)


def of(inputs=None, parameters=None, end=None):
    return Cached(
        data="old",
        hashed_inputs=None if inputs is None else tokens(inputs),
        cached_parameters=parameters,
        cached_result_expiration=end,
    )


@given(cached_states(), values, values, st.floats(0, 1e10))
def test_never_use_accepts_nothing(state, inputs, parameters, now):
    assert not never_use.accepts(state, inputs, parameters, now)


@given(cached_states(), values, values, st.floats(0, 1e10))
def test_duration_only_asks_for_the_time_alone(state, inputs, parameters, now):
    accepted = duration_only.accepts(state, inputs, parameters, now)
    assert accepted != is_expired(state, now)


@given(validators(), values, values)
def test_no_validator_accepts_what_has_expired(validator, inputs, parameters):
    state = of(inputs, parameters, end=100.0)
    assert not validator.accepts(state, inputs, parameters, now=100.0)


@given(values, values)
def test_all_inputs_accepts_exactly_equal_inputs(before, now):
    assert all_inputs.accepts(of(before), now, {}, 0.0) == (before == now)


@given(values, values)
def test_all_parameters_accepts_exactly_equal_parameters(before, now):
    accepted = all_parameters.accepts(of(parameters=before), {}, now, 0.0)
    assert accepted == (before == now)


@given(values, values, st.lists(names, max_size=3))
def test_a_partial_validator_looks_at_the_named_values_alone(before, now, chosen):
    same = all(before.get(name) == now.get(name) for name in chosen)
    by_inputs = partial_inputs_only(chosen)
    by_parameters = partial_parameters_only(chosen)
    assert by_inputs.accepts(of(before), now, {}, 0.0) == same
    assert by_parameters.accepts(of(parameters=before), {}, now, 0.0) == same


@given(values, values)
def test_a_partial_validator_without_names_accepts_everything(before, now):
    assert partial_inputs_only().accepts(of(before), now, {}, 0.0)
    assert partial_parameters_only().accepts(of(parameters=before), {}, now, 0.0)


def test_a_state_without_a_record_of_its_inputs_stands_for_no_inputs_only():
    assert all_inputs.accepts(of(), {}, {}, 0.0)
    assert not all_inputs.accepts(of(), {"x": 1}, {}, 0.0)
    assert all_parameters.accepts(of(), {}, None, 0.0)
    assert not all_parameters.accepts(of(), {}, {"x": 1}, 0.0)


def test_arrays_are_compared_by_what_is_in_them():
    before = {"x": numpy.arange(4)}
    assert all_inputs.accepts(of(before), {"x": numpy.arange(4)}, {}, 0.0)
    assert not all_inputs.accepts(of(before), {"x": numpy.ones(4)}, {}, 0.0)
    state = of(parameters=before)
    assert all_parameters.accepts(state, {}, {"x": numpy.arange(4)}, 0.0)
    assert not all_parameters.accepts(state, {}, {"x": numpy.ones(4)}, 0.0)


def test_the_token_of_an_input_that_nobody_asks_about_is_not_made():
    class Large:
        def __dask_tokenize__(self):
            raise AssertionError("asked for")

    chosen = partial_inputs_only(["x"])
    assert chosen.accepts(of({"x": 1}), {"x": 1, "y": Large()}, {}, 0.0)


def test_a_state_expires_at_its_end_and_not_before():
    assert not is_expired(of(end=10.0), 9.9)
    assert is_expired(of(end=10.0), 10.0)
    assert not is_expired(of(), 1e12)


def test_a_call_takes_the_time_of_the_clock(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 50.0)
    assert duration_only(of(end=51.0), {}, {})
    assert not duration_only(of(end=50.0), {}, {})


@pytest.mark.parametrize("make", [partial_inputs_only, partial_parameters_only])
def test_names_are_given_in_a_list(make):
    with pytest.raises(TypeError, match=r"give names in a list, \['xy'\]"):
        make(validate_on="xy")
    with pytest.raises(TypeError, match="are strings, not 3"):
        make(validate_on=[3])


@pytest.mark.parametrize(
    "validator", [never_use, duration_only, all_inputs, all_parameters]
)
@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_a_shipped_validator_stays_one_object(validator, library):
    assert library.loads(library.dumps(validator)) is validator
    assert copy.deepcopy(validator) is validator


@given(validators())
def test_pickling_changes_nothing(validator):
    assert pickle.loads(pickle.dumps(validator)) == validator


def test_a_validator_of_the_same_name_is_not_taken_for_the_shipped_one():
    mine = CacheValidator("never_use", duration_only.rule)
    assert pickle.loads(pickle.dumps(mine)) == mine != never_use
