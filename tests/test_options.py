import dataclasses
import pickle
from datetime import timedelta

import pytest
from hypothesis import given

from prefect_dask_core.cache_validators import (
    all_inputs,
    duration_only,
    never_use,
    partial_inputs_only,
)
from prefect_dask_core.errors import (
    DeclarationError,
    OptionTypeError,
    OptionValueError,
)
from prefect_dask_core.options import OPTION_NAMES, TaskOptions
from prefect_dask_core.results import (
    ConstantResult,
    HandlerResult,
    LocalResult,
    PrefectResult,
    Result,
)
from prefect_dask_core.results.policies import INPUTS, NO_CACHE
from prefect_dask_core.tasks import Task
from prefect_dask_core.triggers import all_finished, all_successful
from tests.strategies import task_options


def handler(task, old, new):
    """Look at a change of state."""


@given(task_options())
def test_pickling_changes_nothing(options):
    assert pickle.loads(pickle.dumps(options)) == options


@given(task_options())
def test_options_checked_again_are_the_same(options):
    assert dataclasses.replace(options) == options


def test_every_option_but_the_name_has_a_default():
    assert TaskOptions("t") == TaskOptions(
        "t",
        tags=(),
        retries=0,
        retry_delay_seconds=0,
        timeout_seconds=None,
        trigger=all_successful,
        skip_on_upstream_skip=True,
    )


def test_none_stands_for_the_default_of_every_option():
    nothing = dict.fromkeys(set(OPTION_NAMES) - {"name"})
    assert TaskOptions("t", **nothing) == TaskOptions("t")


def test_options_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TaskOptions("t").retries = 3


@pytest.mark.parametrize(
    ("option", "value", "kept"),
    [
        ("tags", ["a", "b", "a"], frozenset("ab")),
        ("retry_delay_seconds", 3, 3.0),
        ("retry_delay_seconds", [1, 2.5], (1.0, 2.5)),
        ("retry_delay_seconds", [], 0.0),
        ("retry_delay_seconds", timedelta(minutes=1), 60.0),
        ("timeout_seconds", timedelta(minutes=1), 60.0),
        ("timeout_seconds", 0.5, 0.5),
        ("timeout_seconds", 0, None),
        ("trigger", all_finished, all_finished),
        ("state_handlers", [handler], (handler,)),
        ("nout", 0, 0),
        ("cache_for", 90, timedelta(seconds=90)),
        ("cache_for", timedelta(days=1), timedelta(days=1)),
        ("cache_for", 0, timedelta(0)),
        ("cache_validator", partial_inputs_only, partial_inputs_only()),
        ("persist_result", False, False),
        ("target", "{x}.pkl", "{x}.pkl"),
        ("target", handler, handler),
        ("log_prints", False, False),
    ],
)
def test_values_are_kept_in_one_form(option, value, kept):
    assert getattr(TaskOptions("t", **{option: value}), option) == kept


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("slug", 3, "a string"),
        ("description", 3, "a string"),
        ("version", 3, "a string"),
        ("tags", "abc", r"an iterable of strings such as \['abc'\]"),
        ("tags", 3, "an iterable of strings"),
        ("tags", [3], "an iterable of strings"),
        ("retries", "3", "an int, the number of attempts after the first"),
        ("retries", 1.5, "an int"),
        ("retries", True, "an int"),
        ("retry_delay_seconds", "5", "a number of seconds or a timedelta"),
        ("retry_delay_seconds", ["5"], "a number of seconds or a timedelta"),
        ("retry_delay_seconds", {1, 2}, "a number of seconds or a timedelta"),
        ("timeout_seconds", "5", "a number of seconds or a timedelta"),
        ("timeout_seconds", True, "a number of seconds or a timedelta"),
        ("trigger", "all_finished", "a trigger such as triggers.all_finished"),
        ("skip_on_upstream_skip", 1, "True or False"),
        ("state_handlers", handler, r"a list of callables \(task, old_state"),
        ("state_handlers", {handler}, "a list of callables"),
        ("state_handlers", [3], "a list of callables"),
        ("nout", 2.0, "an int, the number of outputs"),
        ("nout", True, "an int"),
        ("cache_for", "1d", "a number of seconds or a timedelta"),
        ("cache_validator", "all_inputs", "a validator such as cache_validators"),
        ("cache_key", 3, "a string"),
        ("persist_result", 1, "True, False or None"),
        ("result", "folder", r"a Result, such as results\.LocalResult\(\)"),
        ("target", 3, "a template string, or a callable"),
        ("task_run_name", ["a"], "a template string, or a callable"),
        ("task_run_name", str, "a template string, or a callable"),
        ("log_prints", "yes", "True, False or None"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(option, value, expected):
    with pytest.raises(OptionTypeError, match=rf"task 'load': {option}=") as raised:
        TaskOptions("load", **{option: value})
    raised.match(f"but expected .*{expected}")
    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, DeclarationError)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("retries", -1, "cannot be negative; give 0 for none"),
        ("retry_delay_seconds", -1, "not negative"),
        ("retry_delay_seconds", float("nan"), "a finite number of seconds"),
        ("retry_delay_seconds", [1] * 51, "has 51 delays, and at most 50"),
        ("timeout_seconds", -1, "not negative"),
        ("timeout_seconds", float("inf"), "a finite number of seconds"),
        ("nout", -1, "the number of outputs cannot be negative"),
        ("cache_for", -1, "not negative"),
        ("cache_for", 1e15, "longer than a timedelta can be"),
        ("target", "{}.pkl", "a field without a name"),
        ("target", "", "is no template: it is empty"),
        ("task_run_name", "{0}", "a field without a name"),
        ("task_run_name", "{x", "is no template"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(option, value, reason):
    with pytest.raises(OptionValueError, match="task 'load': ") as raised:
        TaskOptions("load", **{option: value})
    raised.match(reason)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_name_is_a_string_with_something_in_it(name):
    with pytest.raises(OptionTypeError, match="the name of a task is a string"):
        TaskOptions(name)


class Shelf:
    """A result handler."""

    def read(self, location):
        """Value of a place."""

    def write(self, value):
        """Place of a value."""


@pytest.mark.parametrize(
    ("options", "validator"),
    [
        ({}, never_use),
        ({"cache_for": 1}, duration_only),
        ({"cache_for": 0}, duration_only),
        ({"cache_for": 1, "cache_validator": all_inputs}, all_inputs),
        ({"cache_validator": all_inputs}, all_inputs),
    ],
)
def test_the_validator_depends_on_the_time_unless_it_is_given(options, validator):
    assert TaskOptions("t", **options).validator is validator


@pytest.mark.parametrize(
    ("options", "persists"),
    [
        ({}, None),
        ({"cache_policy": NO_CACHE}, None),
        ({"cache_policy": INPUTS}, True),
        ({"cache_key_fn": len}, True),
        ({"result_storage": "a"}, True),
        ({"result_storage_key": "a"}, True),
        ({"result_serializer": "json"}, True),
        ({"persist_result": False, "result_storage": "a"}, False),
        ({"cache_expiration": 3}, None),
        ({"persist_result": True}, True),
        ({"target": "a.pkl"}, True),
        ({"result": LocalResult("a")}, True),
        ({"result": PrefectResult()}, True),
        ({"result": HandlerResult(Shelf())}, True),
        ({"result": Result()}, None),
        ({"result": ConstantResult(3)}, None),
        ({"persist_result": False, "target": "a.pkl"}, False),
        ({"persist_result": False, "result": LocalResult("a")}, False),
    ],
)
def test_a_value_is_kept_if_there_is_a_place_unless_it_is_said(options, persists):
    assert TaskOptions("t", **options).persists is persists


@pytest.mark.parametrize(
    "result", [Result(), ConstantResult(3), PrefectResult(), HandlerResult(Shelf())]
)
def test_a_target_needs_a_result_that_takes_a_location(result):
    with pytest.raises(OptionValueError, match="values are not kept where one says"):
        TaskOptions("load", target="a.pkl", result=result)


@pytest.mark.parametrize("result", [Result(), ConstantResult(3)])
def test_a_value_cannot_be_persisted_by_a_result_that_stores_nothing(result):
    with pytest.raises(OptionValueError, match="which does not store values"):
        TaskOptions("load", persist_result=True, result=result)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({"resources": 3}, "amounts by name"),
        ({"resources": {"GPU": "one"}}, "amounts by name"),
        ({"resources": {"GPU": -1}}, "amounts by name"),
        ({"priority": "high"}, "a number"),
        ({"workers": 3}, "the address or name of a worker"),
        ({"workers": [3]}, "the address or name of a worker"),
        ({"retries": -1}, "a number of retries"),
        ({"retries": True}, "a number of retries"),
        ({"allow_other_workers": "yes"}, "True or False"),
    ],
)
def test_an_annotation_of_a_wrong_type_is_refused(annotations, expected):
    (name,) = annotations
    message = rf"task 't': annotations\['{name}'\]=.*, but expected {expected}"
    with pytest.raises(OptionTypeError, match=message):
        TaskOptions(name="t", annotations=annotations)


def test_right_annotations_are_taken_as_they_are():
    right = {
        "resources": {"GPU": 1, "RAM": 0.5},
        "priority": -3,
        "workers": ["a", "b"],
        "retries": 2,
        "allow_other_workers": True,
    }
    assert TaskOptions(name="t", annotations=right).annotations == right
    chosen = {"priority": lambda key: 1, "workers": "a"}
    assert TaskOptions(name="t", annotations=chosen).annotations == chosen


@pytest.mark.parametrize("length", [0, -1, timedelta(0), timedelta(seconds=-1)])
def test_a_cache_expiration_that_nothing_outlives_is_refused(length):
    with pytest.raises(OptionValueError, match="cache_expiration"):
        Task("load", cache_expiration=length)
