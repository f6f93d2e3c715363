import warnings

import pytest

from prefect_dask_core import Flow, Task, task
from prefect_dask_core.results.policies import INPUTS, NO_CACHE, RUN_ID, TASK_SOURCE


def load(path, debug=False):
    return path


def gather(*parts, **named):
    return parts


def pour(first, *rest):
    return rest


MISTAKE = (
    r"task 'load': its cache_policy leaves out the argument 'debgu', but the arguments "
    r"of the task are 'debug', 'path'; did you mean 'debug'\?"
)


@pytest.mark.parametrize(
    "make",
    [
        lambda policy: task(load, cache_policy=policy),
        lambda policy: Task(load, cache_policy=policy),
        lambda policy: Task(load).copy(cache_policy=policy),
        lambda policy: Task(load).with_options(cache_policy=policy),
    ],
)
@pytest.mark.parametrize(
    "policy", [INPUTS - "debgu", TASK_SOURCE + INPUTS - "debgu" - "debug" + RUN_ID]
)
def test_a_policy_that_leaves_out_what_a_task_does_not_have_is_told(make, policy):
    with pytest.warns(UserWarning, match=MISTAKE) as told:
        made = make(policy)
    # At the line of the user's; and the policy holds.
    assert [warning.filename for warning in told] == [__file__]
    assert made.cache_policy == policy


def test_what_is_far_from_any_name_gets_no_proposal():
    with pytest.warns(UserWarning, match="of the task are 'debug', 'path'\\.$"):
        Task(load, cache_policy=INPUTS - "nope")
    with pytest.warns(UserWarning, match="the arguments of the task are none\\.$"):
        Task(lambda: 1, name="empty", cache_policy=INPUTS - "nope")


def test_a_policy_that_fits_is_not_told_nor_one_again_for_each_copy():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Task(load, cache_policy=INPUTS - "debug")
        Task(pour, cache_policy=INPUTS - "rest" - "first")
        # It may be given any name.
        Task(gather, cache_policy=INPUTS - "nope")
        # It has no inputs to leave one out of.
        Task(load, cache_policy=NO_CACHE - "nope")
    with pytest.warns(UserWarning, match="'debgu'"):
        made = Task(load, cache_policy=INPUTS - "debgu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.copy(name="other")
        made.with_options(retries=1)
        with Flow("loads"):
            made("a")
            made.map(["a"])
