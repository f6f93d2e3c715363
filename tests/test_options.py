import dataclasses
import pickle
from datetime import timedelta

import pytest
from hypothesis import given

from prefect_dask_core.errors import (
    DeclarationError,
    OptionTypeError,
    OptionValueError,
)
from prefect_dask_core.options import OPTION_NAMES, TaskOptions
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
