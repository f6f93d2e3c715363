"""What Dask has yet to compute is refused, however it is given."""

from collections import deque

import dask
import dask.bag
import pytest

from prefect_dask_core import (
    Flow,
    Parameter,
    Task,
    apply_map,
    case,
    flatten,
    task,
    unmapped,
)
from prefect_dask_core.lazy import lazy_among
from prefect_dask_core.tasks import Constant

LAZY = dask.delayed(1)


class Wrapper:
    """As xarray has it: with the method of a collection, and plain data."""

    def __dask_graph__(self):
        return None


@pytest.mark.parametrize(
    "value",
    [
        LAZY,
        [1, LAZY],
        (LAZY,),
        {"a": [LAZY]},
        [[1], [2, {LAZY}]],
        {LAZY: 1},
        deque([LAZY]),
        {1: LAZY}.values(),
    ],
)
def test_what_dask_has_yet_to_compute_is_found(value):
    assert lazy_among(value) is LAZY


@pytest.mark.parametrize(
    "value", [1, None, [1, "a"], {"a": [{}]}, Wrapper(), {"a": 1}.items()]
)
def test_plain_values_are_not_lazy(value):
    assert lazy_among(value) is None


@pytest.mark.parametrize(
    ("value", "kind"),
    [(LAZY, "Delayed.*"), (dask.bag.from_sequence([1]), "Bag"), ([LAZY], "Delayed.*")],
)
def test_what_dask_has_yet_to_compute_is_refused_when_bound(value, kind):
    double = Task(lambda x: 2 * x, name="double")
    told = rf"{kind} was given as 'x' to task 'double'; .* x.compute\(\), or make it in"
    with Flow("f") as flow:
        with pytest.raises(TypeError, match=told):
            double(value)
        with pytest.raises(TypeError, match=told):
            double.map(value)
        with pytest.raises(TypeError, match="comes before task 'double'"):
            double(1, upstream_tasks=[value])
    assert len(flow) == 0


@pytest.mark.parametrize("put", [lambda f: f, lambda f: [f], lambda f: {"a": f}])
def test_a_future_is_refused_when_bound(client, put):
    future = client.submit(int, 3)
    with Flow("f"), pytest.raises(TypeError, match=r"Future was .* future.result\(\)"):
        Task(lambda x: x, name="same")(put(future))


def test_a_task_may_make_what_dask_computes(run):
    with Flow("f") as flow:
        lazy = Task(lambda: dask.delayed(5), name="lazy")()
        computed = Task(lambda x: x.compute(scheduler="sync"), name="computed")(lazy)
    assert run(flow)[computed].result() == 5


@task
def same(x):
    return x


@pytest.mark.parametrize(
    "spelling",
    [
        lambda lazy: same.map(value for value in [lazy]),
        lambda lazy: same.map(iter([lazy])),
        lambda lazy: same.map(map(dask.delayed, [1, 2])),
        lambda lazy: same.map({1: lazy}.values()),
        lambda lazy: same.map({lazy: 1}.keys()),
        lambda lazy: same.map(unmapped(lazy), upstream_tasks=[[1]]),
        lambda lazy: same.map(flatten([[lazy]])),
        lambda lazy: same.map(flatten([iter([lazy])])),
        lambda lazy: same({lazy: 1}),
        lambda lazy: same([same(1), {"a": lazy}]),
        lambda lazy: same(1).set_upstream(lazy),
        lambda lazy: same.bind(x=lazy),
        lambda lazy: apply_map(same, [lazy]),
        lambda lazy: apply_map(same, iter([lazy])),
        lambda lazy: Constant(lazy),
        lambda lazy: same(Constant([lazy])),
        lambda lazy: Parameter("p", default=lazy),
        lambda lazy: case(same(1), lazy),
    ],
)
def test_no_spelling_takes_what_dask_has_yet_to_compute(spelling):
    with Flow("f"), pytest.raises(TypeError, match=r"Delayed.* not computed for"):
        spelling(LAZY)


def test_no_run_is_given_what_dask_has_yet_to_compute():
    with Flow("f") as flow:
        same(Parameter("p", default=1))
    told = "Delayed.* was given as parameter 'p' of flow 'f'"
    for start in (flow.run, flow.compile):
        with pytest.raises(TypeError, match=told):
            start(p=LAZY)
        with pytest.raises(TypeError, match=told):
            start({"p": [LAZY]})


def test_a_default_that_was_put_into_a_copy_is_refused_by_the_run():
    parameter = Parameter("p", default=1).copy("q", default=LAZY)
    with Flow("f") as flow:
        same(parameter)
    with pytest.raises(TypeError, match=r"Delayed.* was given as parameter 'q'"):
        flow.run()
