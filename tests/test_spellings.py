import pickle
from datetime import timedelta

import pytest
from hypothesis import given

from prefect_dask_core import Task, task
from prefect_dask_core.cache_validators import all_inputs, duration_only, never_use
from prefect_dask_core.errors import (
    OptionTypeError,
    OptionValueError,
    UnknownOptionError,
)
from prefect_dask_core.options import OPTION_NAMES, TaskOptions
from prefect_dask_core.results import HandlerResult, LocalResult
from prefect_dask_core.results.policies import INPUTS, NO_CACHE
from prefect_dask_core.retries import RetryOn
from prefect_dask_core.spellings import (
    OLDER,
    OnFailure,
    change_options,
    make_options,
    read_older,
)
from prefect_dask_core.states import Completed, Failed, Running, TriggerFailed
from tests.strategies import task_options


def handler(task, old, new):
    """Look at a change of state."""


class Shelf:
    """A result handler of the graph generations."""

    def read(self, location):
        """Value of a place."""

    def write(self, value):
        """Place of a value."""


SHELF = Shelf()


@given(task_options())
def test_changing_nothing_gives_the_very_same_options(options):
    assert change_options(options, {}) is options
    again = {name: getattr(options, name) for name in OPTION_NAMES}
    assert change_options(options, again) is options


# Any two options may not go well together, which is told and changes nothing.
@pytest.mark.filterwarnings("ignore:task:UserWarning")
@given(task_options(), task_options())
def test_changing_everything_gives_the_other_options(options, other):
    wanted = {name: getattr(other, name) for name in OPTION_NAMES}
    assert change_options(options, wanted) == other


def test_every_older_name_leads_to_an_option_of_today():
    for name, spelling in OLDER.items():
        assert spelling.canonical in OPTION_NAMES
        assert name not in OPTION_NAMES


@pytest.mark.parametrize(
    ("older", "today"),
    [
        ({"max_retries": 0}, {"retries": 0}),
        ({"timeout": 30}, {"timeout_seconds": 30.0}),
        ({"timeout": timedelta(seconds=0.5)}, {"timeout_seconds": 0.5}),
        ({"timeout": None}, {}),
        ({"propagate_skip": False}, {"skip_on_upstream_skip": False}),
        ({"max_retries": None, "retry_delay": None}, {}),
        ({"checkpoint": True}, {"persist_result": True, "cache_policy": NO_CACHE}),
        ({"checkpoint": False}, {"persist_result": False}),
        ({"log_stdout": True}, {"log_prints": True}),
        ({"result_handler": SHELF}, {"result": HandlerResult(SHELF)}),
        ({"result_handler": LocalResult("a")}, {"result": LocalResult("a")}),
        ({"result_handler": None, "checkpoint": None, "log_stdout": None}, {}),
        (
            {"max_retries": 2, "retry_delay": timedelta(minutes=1)},
            {"retries": 2, "retry_delay_seconds": 60},
        ),
        (
            {"max_retries": 2, "retry_delay_seconds": 5},
            {"retries": 2, "retry_delay_seconds": 5},
        ),
    ],
)
def test_an_older_name_means_an_option_of_today(older, today):
    assert make_options(older, "t") == make_options(today, "t")


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        ("max_retries", {"retries": 2}, 2),
        ("retry_delay", {"retry_delay_seconds": 2}, timedelta(seconds=2)),
        (
            "retry_delay",
            {"retry_delay_seconds": [1, 2]},
            (timedelta(seconds=1), timedelta(seconds=2)),
        ),
        ("timeout", {"timeout_seconds": 2}, 2),
        ("timeout", {"timeout_seconds": 2.5}, 2.5),
        ("timeout", {}, None),
        ("propagate_skip", {"skip_on_upstream_skip": False}, False),
        ("checkpoint", {"persist_result": True}, True),
        ("log_stdout", {"log_prints": True}, True),
        ("result_handler", {"result": HandlerResult(SHELF)}, SHELF),
        ("result_handler", {"result": LocalResult("a")}, None),
    ],
)
def test_an_option_of_today_can_be_read_under_its_older_name(name, options, value):
    assert read_older(TaskOptions("t", **options), name) == value


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("retires", "retries"),
        ("max_retry", "max_retries"),
        ("retry_delay_second", "retry_delay_seconds"),
        ("timeouts", "timeout"),
        ("tag", "tags"),
        ("retry", "retries"),
    ],
)
def test_an_unknown_option_names_the_nearest_known_one(wrong, meant):
    said = rf"task 'load' has no option '{wrong}'; did you mean '{meant}'\?"
    with pytest.raises(UnknownOptionError, match=said) as raised:
        make_options({wrong: 1}, "load")
    assert isinstance(raised.value, TypeError)


def test_two_spellings_that_disagree_are_refused():
    with pytest.raises(UnknownOptionError, match="max_retries and retries are two"):
        make_options({"max_retries": 2, "retries": 3}, "load")
    with pytest.raises(UnknownOptionError, match="give timeout_seconds only"):
        make_options({"timeout_seconds": 1, "timeout": 2}, "load")


def test_two_spellings_that_agree_are_one():
    options = make_options({"timeout": 2, "timeout_seconds": 2.0}, "load")
    assert options.timeout_seconds == 2


@pytest.mark.parametrize("value", [1.5, "30"])
def test_the_older_timeout_takes_whole_seconds(value):
    with pytest.raises(OptionTypeError, match="for fractions write timeout_seconds"):
        make_options({"timeout": value}, "load")


def test_the_older_delay_takes_a_timedelta():
    with pytest.raises(OptionTypeError, match="write retry_delay_seconds"):
        make_options({"max_retries": 1, "retry_delay": 5}, "load")


def test_older_retries_without_a_delay_are_refused():
    with pytest.raises(OptionValueError, match="max_retries=2 without a delay"):
        make_options({"max_retries": 2}, "load")


@pytest.mark.parametrize("retries", [{}, {"max_retries": 0}])
def test_an_older_delay_without_retries_is_refused(retries):
    given = {"retry_delay": timedelta(seconds=1), **retries}
    with pytest.raises(OptionValueError, match="without retries; add max_retries=1"):
        make_options(given, "load")


def test_the_names_of_today_are_not_checked_against_each_other():
    assert make_options({"retries": 2}, "t").retry_delay_seconds == 0
    assert make_options({"retry_delay_seconds": 2}, "t").retries == 0


def test_on_failure_becomes_the_last_state_handler():
    seen = []
    given = {
        "on_failure": lambda task, state: seen.append((task, state)),
        "state_handlers": [handler],
    }
    first, last = make_options(given, "t").state_handlers
    assert first is handler
    for new in (Running(), Completed(), Failed(), TriggerFailed()):
        assert last("a task", Running(), new) is None
    assert seen == [("a task", Failed()), ("a task", TriggerFailed())]


def test_a_changed_on_failure_takes_the_place_of_the_former():
    options = make_options({"on_failure": max, "state_handlers": [handler]}, "t")
    changed = change_options(options, {"on_failure": print})
    assert changed.state_handlers == (handler, OnFailure(print))


def test_on_failure_pickles_with_its_function():
    assert pickle.loads(pickle.dumps(OnFailure(len))) == OnFailure(len)


def test_on_failure_takes_one_callable_or_a_list_of_hooks():
    made = make_options({"on_failure": [len]}, "t")
    assert (made.on_failure, made.state_handlers) == ((len,), ())
    with pytest.raises(OptionTypeError, match="expected a list of callables"):
        make_options({"on_failure": 3}, "t")


@pytest.mark.parametrize("kinds", [ValueError, [ValueError, KeyError], (KeyError,)])
def test_retry_on_becomes_a_condition_and_is_read_as_classes(kinds):
    options = make_options({"retry_on": kinds, "retries": 1}, "t")
    expected = (kinds,) if isinstance(kinds, type) else tuple(kinds)
    assert options.retry_condition_fn == RetryOn(expected)
    assert read_older(options, "retry_on") == expected
    failed = Failed(data=KeyError("k"))
    assert options.retry_condition_fn(None, None, failed) is (KeyError in expected)


@pytest.mark.parametrize("kinds", [3, "ValueError", BaseException, [int]])
def test_retry_on_takes_subclasses_of_exception(kinds):
    with pytest.raises(OptionTypeError, match="an exception class"):
        make_options({"retry_on": kinds, "retries": 1}, "t")


def test_retry_on_without_retries_is_refused():
    with pytest.raises(OptionValueError, match="without retries"):
        make_options({"retry_on": ValueError}, "t")


def test_a_wrong_list_of_handlers_is_refused_beside_on_failure_too():
    with pytest.raises(OptionTypeError, match="expected a list of callables"):
        make_options({"on_failure": print, "state_handlers": 3}, "t")


@pytest.mark.parametrize("value", [3, "folder", object()])
def test_a_result_handler_reads_and_writes(value):
    with pytest.raises(OptionTypeError, match=r"read\(location\) and write\(value\)"):
        make_options({"result_handler": value}, "t")


def test_a_validator_without_a_time_is_told():
    with pytest.warns(UserWarning, match="'t': cache_validator without cache_for"):
        made = make_options({"cache_validator": all_inputs}, "t")
    assert made.validator is all_inputs
    with pytest.warns(UserWarning, match="add cache_for"):
        change_options(
            made, {"cache_key": "a", "cache_for": None, "cache_validator": len}
        )


def test_a_validator_that_goes_unused_is_told_once():
    with pytest.warns(UserWarning, match="cache_validator without cache_for"):
        made = make_options({"cache_validator": all_inputs}, "t")
    changed = change_options(made, {"tags": ["a"], "retries": 1})
    assert changed.validator is all_inputs


def test_never_to_use_a_cache_needs_no_time():
    assert make_options({"cache_validator": never_use}, "t").validator is never_use


def test_a_changed_time_changes_the_validator_that_was_not_given():
    plain = make_options({}, "t")
    cached = change_options(plain, {"cache_for": 60})
    assert (plain.validator, cached.validator) == (never_use, duration_only)
    assert change_options(cached, {"cache_for": None}).validator is never_use


def test_a_changed_time_leaves_the_validator_that_was_given():
    given = {"cache_for": 60, "cache_validator": never_use}
    assert change_options(make_options(given, "t"), {"cache_for": 9}).validator is (
        never_use
    )


def test_a_target_beside_another_location_is_told():
    given = {"target": "a.pkl", "result": LocalResult("dir", location="b.pkl")}
    with pytest.warns(UserWarning, match="target='a.pkl' is used instead of .*'b.pkl'"):
        make_options(given, "t")
    agreed = {"target": "b.pkl", "result": LocalResult("dir", location="b.pkl")}
    make_options(agreed, "t")


def test_a_removed_target_leaves_nothing_to_persist():
    made = make_options({"target": "a.pkl"}, "t")
    assert made.persists
    assert not change_options(made, {"target": None}).persists


@pytest.mark.parametrize(
    "how",
    [{"cache_policy": INPUTS}, {"result_storage_key": "a"}, {"cache_for": 3}],
)
def test_an_older_checkpoint_takes_values_if_it_is_said_which(how):
    options = make_options({"checkpoint": True, **how}, "t")
    assert options == make_options({"persist_result": True, **how}, "t")
    later = change_options(make_options(how, "t"), {"checkpoint": True})
    assert later == options


@pytest.mark.parametrize("hook", [lambda task, run, state: None, lambda: None])
def test_a_single_callable_that_is_no_callback_is_refused(hook):
    with pytest.raises(
        OptionTypeError, match=r"\(task, task_run, state\) stands in a l"
    ):
        make_options({"on_failure": hook}, "t")


class Wrapped(Task):
    def __init__(self):
        super().__init__(len, persist_result=False, cache_policy=INPUTS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: task(len, persist_result=False, cache_policy=INPUTS),
        lambda: task(persist_result=False, cache_policy=INPUTS)(len),
        lambda: Task(len, persist_result=False, cache_policy=INPUTS),
        lambda: task(len, cache_policy=INPUTS).with_options(persist_result=False),
        Wrapped,
    ],
)
def test_a_warning_points_at_the_line_that_made_the_task(make):
    with pytest.warns(UserWarning, match="finds and keeps nothing") as found:
        make()
    assert {warning.filename for warning in found} == {__file__}
