"""Random graphs: every way to run one ends as the sequential runner does."""

import dask
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    SequentialTaskRunner,
    Task,
    ThreadPoolTaskRunner,
)
from tests.engine.random_flows import build, is_valid, random_flows, told_all

# The fixtures are clusters, which no example changes.
shared_cluster = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def sequential(flow, tasks):
    return told_all(flow.run(task_runner=SequentialTaskRunner()), tasks)


@settings(deadline=None, max_examples=150)
@given(random_flows())
def test_threads_end_as_the_sequential_runner_does(drawn):
    assume(is_valid(drawn))
    flow, tasks = build(drawn)
    state = flow.run(task_runner=ThreadPoolTaskRunner(2))
    assert told_all(state, tasks) == sequential(flow, tasks)


@settings(deadline=None, max_examples=150)
@given(random_flows())
def test_the_compiled_graph_ends_as_the_sequential_runner_does(drawn):
    assume(is_valid(drawn))
    flow, tasks = build(drawn)
    (state,) = dask.compute(flow.compile(), scheduler="sync")
    assert told_all(state, tasks) == sequential(flow, tasks)


@settings(shared_cluster, max_examples=30)
@given(random_flows())
def test_dask_ends_as_the_sequential_runner_does(client, drawn):
    assume(is_valid(drawn))
    flow, tasks = build(drawn)
    state = flow.run(task_runner=DaskTaskRunner(cluster=client))
    assert told_all(state, tasks) == sequential(flow, tasks)


@settings(deadline=None, max_examples=50)
@given(random_flows(max_size=12, mapped=False))
def test_plain_graphs_end_alike(drawn):
    flow, tasks = build(drawn)
    expected = sequential(flow, tasks)
    assert told_all(flow.run(task_runner=ThreadPoolTaskRunner(2)), tasks) == expected
    (state,) = dask.compute(flow.compile(), scheduler="threads")
    assert told_all(state, tasks) == expected


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(), max_size=300), st.integers(1, 4))
def test_fan_out_then_reduce_equals_a_plain_loop(numbers, levels):
    with Flow("loop") as flow:
        level = Task(lambda n: n, name="numbers")(numbers)
        for _ in range(levels):
            level = Task(lambda x: 2 * x + 1, name="step").map(level)
        summed = Task(lambda xs: sum(xs), name="sum")(level)
    expected = 0
    for number in numbers:
        for _ in range(levels):
            number = 2 * number + 1
        expected += number
    state = flow.run(task_runner=ThreadPoolTaskRunner(3))
    assert state[summed].result() == expected
    (state,) = dask.compute(flow.compile(), scheduler="sync")
    assert state[summed].result() == expected


@pytest.mark.parametrize("count", [0, 1, 2, 1_000, 5_000])
def test_a_long_fan_out_on_dask_equals_a_plain_loop(client, count):
    with Flow("loop") as flow:
        level = Task(lambda x: x * x, name="square").map(range(count))
        level = Task(lambda x: x + 1, name="step").map(level)
        summed = Task(lambda xs: sum(xs), name="sum")(level)
    state = flow.run(task_runner=DaskTaskRunner(cluster=client))
    assert state[summed].result() == sum(x * x + 1 for x in range(count))


@pytest.mark.slow
@settings(shared_cluster, max_examples=10)
@given(random_flows())
def test_processes_end_as_the_sequential_runner_does(process_client, drawn):
    assume(is_valid(drawn))
    flow, tasks = build(drawn)
    state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    assert told_all(state, tasks) == sequential(flow, tasks)
