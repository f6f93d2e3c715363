import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_dask_core.options import TaskOptions
from prefect_dask_core.retries import (
    MOST_DELAYS,
    delay_before_retry,
    exponential_backoff,
)
from prefect_dask_core.tasks import Task
from tests.strategies import task_options


@given(task_options())
def test_attempts_never_exceed_the_limit(options):
    attempts = 1
    while delay_before_retry(options, attempts) is not None:
        attempts += 1
    assert attempts == options.retries + 1


@given(task_options(), st.integers(1, 10))
def test_a_delay_is_never_negative(options, run_count):
    delay = delay_before_retry(options, run_count)
    assert delay is None or delay >= 0


def test_without_a_delay_the_next_attempt_is_due_at_once():
    assert delay_before_retry(TaskOptions("t", retries=1), 1) == 0


def test_one_delay_serves_for_all_attempts():
    options = TaskOptions("t", retries=2, retry_delay_seconds=5)
    assert [delay_before_retry(options, n) for n in (1, 2, 3)] == [5, 5, None]


def test_the_last_of_several_delays_repeats():
    options = TaskOptions("t", retries=4, retry_delay_seconds=[1, 2])
    assert [delay_before_retry(options, n) for n in (1, 2, 3, 4)] == [1, 2, 2, 2]


def test_delays_without_retries_are_never_used():
    options = TaskOptions("t", retry_delay_seconds=[1, 2])
    assert delay_before_retry(options, 1) is None


def test_an_exponential_backoff_doubles_and_is_worked_out_once():
    options = TaskOptions("t", retries=3, retry_delay_seconds=exponential_backoff(0.5))
    assert options.retry_delay_seconds == (0.5, 1.0, 2.0)


@pytest.mark.parametrize("retries", [0, 10, 1000])
def test_an_exponential_backoff_never_has_too_many_delays(retries):
    assert len(exponential_backoff(1)(retries)) == min(retries, MOST_DELAYS)


# -- retry_on ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        (OSError, (OSError,)),
        ([OSError, KeyError], (OSError, KeyError)),
        (iter([OSError]), (OSError,)),
        ([], ()),
    ],
)
def test_failures_to_retry_are_named_by_their_classes(given, kept):
    assert Task("t", retries=1, retry_on=given).retry_on == kept


@pytest.mark.parametrize(
    "wrong", [3, "OSError", OSError(), [OSError()], int, BaseException, [int]]
)
def test_what_is_no_class_of_exceptions_is_refused(wrong):
    with pytest.raises(TypeError, match=r"retry_on=.*an exception class such as"):
        Task("t", retries=1, retry_on=wrong)


def test_failures_to_retry_need_retries():
    with pytest.raises(ValueError, match=r"retry_on=.* without retries; add retries=1"):
        Task("t", retry_on=OSError)
