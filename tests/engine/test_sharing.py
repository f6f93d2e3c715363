"""Maps all of whose children would have one value are warned of."""

import warnings

import pytest

from prefect_dask_core import Flow, SequentialTaskRunner, Task, flow
from prefect_dask_core.engine.sharing import shared_by_children
from prefect_dask_core.results import (
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
)

SHARED = [
    {"cache_policy": RUN_ID},
    {"cache_policy": TASK_SOURCE + FLOW_PARAMETERS},
    {"cache_policy": INPUTS - "x"},
    {"result_storage_key": "const"},
    {"result_storage_key": "{flow_run_id}/squares"},
]
OWN = [
    {"persist_result": True},
    {"cache_policy": INPUTS},
    {"cache_policy": RUN_ID + INPUTS - "y"},
    {"cache_policy": NO_CACHE, "persist_result": True},
    {"cache_key_fn": lambda run, given: str(given)},
    {"cache_policy": CachePolicy.from_cache_key_fn(lambda run, given: "k") + RUN_ID},
    {"result_storage_key": "{x}"},
    {"result_storage_key": "{parameters[day]}-{task_run.map_index}"},
    {"result_storage_key": lambda **known: "any"},
]


def square(x, y=1):
    return x * x


def in_graph(made):
    with Flow("squares") as squares:
        made.map([1, 2])
    squares.run(task_runner=SequentialTaskRunner(), parameters={})


def in_function(made):
    @flow(task_runner=SequentialTaskRunner())
    def squares():
        made.map([1, 2]).wait()
        made.map([1, 2]).wait()

    squares()


@pytest.mark.parametrize("run_in", [in_graph, in_function])
@pytest.mark.parametrize("options", SHARED)
def test_children_that_share_one_value_are_warned_of_once(options, run_in, tmp_path):
    made = Task(square, name="square", result_storage=tmp_path, **options)
    with pytest.warns(UserWarning, match="is mapped with") as caught:
        run_in(made)
    (warning,) = caught
    assert next(iter(options)) in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.parametrize("run_in", [in_graph, in_function])
@pytest.mark.parametrize("options", OWN)
def test_children_with_values_of_their_own_are_not(options, run_in, tmp_path):
    made = Task(square, name="square", result_storage=tmp_path, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if "day" in str(options.get("result_storage_key")):
            assert not shared_by_children(made.options, None, ["x"])
        else:
            run_in(made)


def test_a_policy_of_what_is_not_kept_is_not_warned_of():
    made = Task(square, name="square", persist_result=False, result_storage_key="a{b}")
    assert not shared_by_children(made.options, None, ["x"])
