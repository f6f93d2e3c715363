"""Flows that map over flattened fan-outs: alike on every runner, and read no more."""

from random import Random

import dask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    SequentialTaskRunner,
    Task,
    ThreadPoolTaskRunner,
    flatten,
)
from prefect_dask_core.engine.codes import COMPLETED
from prefect_dask_core.engine.sources import Each
from prefect_dask_core.engine.summary import flow_state
from prefect_dask_core.signals import SKIP
from prefect_dask_core.states import Completed
from prefect_dask_core.triggers import all_finished, all_successful, any_failed
from tests.engine.random_flows import seen, told_all
from tests.engine.simulation import WAITING, Simulation

calm = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

#: What a child gives: a collection of what the next level gives, one thing, or trouble.
LEAVES = st.one_of(
    st.lists(st.integers(), max_size=5),
    st.lists(st.integers(), max_size=2).map(tuple),
    st.dictionaries(st.text("ab", max_size=1), st.none(), max_size=2),
    st.integers(),
    st.just("text"),
    st.sampled_from(["fail", "skip", "once"]),
)
#: Many plain lists, so that there are many blocks, or children of every kind.
SHAPES = st.one_of(
    st.lists(st.lists(LEAVES, max_size=3), max_size=25),
    st.lists(st.one_of(LEAVES, st.lists(LEAVES, max_size=4)), max_size=12),
)
TRIGGERS = st.sampled_from([all_successful, all_finished, any_failed])


def give(what):
    """Give what stands in a shape."""
    if isinstance(what, BaseException) or what is None:
        return seen(what)
    if what == "fail":
        raise ValueError("told to")
    if what == "skip":
        raise SKIP("told to")
    if what == "once":
        return iter([1, "fail", (2, 3)])
    return what


def nested(shape, triggers=(all_successful, all_successful), skips=True):
    """A flow of three levels, each mapped over the flattened one before."""
    with Flow("nested") as flow:
        levels = [Task(give, name="first").map(shape)]
        for number, trigger in enumerate(triggers):
            task = Task(
                give,
                name=f"level{number}",
                trigger=trigger,
                skip_on_upstream_skip=skips,
            )
            levels.append(task.map(flatten(levels[-1])))
        levels.append(Task(lambda xs: seen(xs), trigger=all_finished)(levels[-1]))
    return flow, levels


def expected(flow, tasks):
    return told_all(flow.run(task_runner=SequentialTaskRunner()), tasks)


@settings(calm, max_examples=100)
@given(
    SHAPES,
    st.tuples(TRIGGERS, TRIGGERS),
    st.booleans(),
    st.integers(0, 10_000),
    st.sampled_from([(0.0,), (0.0001, 0.01, 0.4), (0.6, 1.2)]),
)
def test_blocks_of_any_size_end_as_the_sequential_runner(
    shape, triggers, skips, seed, speeds
):
    flow, tasks = nested(shape, triggers, skips)
    random = Random(seed)
    simulation = Simulation(flow, random, speeds=speeds, want_all=True)
    simulation.start()
    for _ in range(10_000):
        if simulation.finished:
            break
        done = [n for n, key in simulation.keys.items() if key.result is not None]
        if done and random.random() < 0.05:
            simulation.lose_result(random.choice(done))
        assert simulation.step()
    simulation.check_end()
    found = flow_state(simulation.plan, simulation.states())
    assert told_all(found, tasks) == expected(flow, tasks)


@settings(calm, max_examples=50)
@given(SHAPES, st.tuples(TRIGGERS, TRIGGERS), st.booleans())
def test_threads_and_compiled_graphs_end_as_the_sequential_runner(
    shape, triggers, skips
):
    flow, tasks = nested(shape, triggers, skips)
    known = expected(flow, tasks)
    assert told_all(flow.run(task_runner=ThreadPoolTaskRunner(2)), tasks) == known
    (state,) = dask.compute(flow.compile(), scheduler="sync")
    assert told_all(state, tasks) == known


@settings(calm, max_examples=25)
@given(SHAPES, st.tuples(TRIGGERS, TRIGGERS), st.booleans())
def test_dask_ends_as_the_sequential_runner(client, shape, triggers, skips):
    flow, tasks = nested(shape, triggers, skips)
    state = flow.run(task_runner=DaskTaskRunner(cluster=client))
    assert told_all(state, tasks) == expected(flow, tasks)


@settings(calm, max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=120), st.integers(0, 1000))
def test_a_block_reads_no_more_than_the_blocks_its_elements_lie_in(widths, seed):
    shape = [[number] * width for number, width in enumerate(widths)]
    with Flow("flat") as flow:
        lists = Task(give, name="lists").map(shape)
        Task(give, name="flat").map(flatten(lists))
    owner = [child for child, width in enumerate(widths) for _ in range(width)]
    simulation = Simulation(flow, Random(seed), speeds=(0.0, 0.02, 0.1))
    upstream = {node.index for node in simulation.plan.nodes if node.name == "lists"}
    spans, wanted, found = {}, [], []
    simulation.start()
    while not simulation.finished:
        for number, key in simulation.keys.items():
            block = key.assignment.block
            (step,) = block.steps
            source = step.inputs[0].source
            if key.result is not None and step.node in upstream:
                segment = key.result.segments[step.node]
                spans[number] = range(segment.start, segment.stop)
            elif isinstance(source, Each):
                children = set(owner[block.start : block.stop])
                wanted.append(
                    {n for n, span in spans.items() if children.intersection(span)}
                )
                found.append(set(key.assignment.reads))
        assert simulation.step()
    assert found == wanted


@settings(calm, max_examples=100)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=30),
    st.integers(0, 10_000),
    st.booleans(),
)
def test_whatever_is_lost_no_element_is_another(widths, seed, divisible):
    shape = [[(number, n) for n in range(w)] for number, w in enumerate(widths)]
    with Flow("flat") as flow:
        lists = Task(give, name="lists").map(shape)
        Task(give, name="flat").map(flatten(lists))
    random = Random(seed)
    simulation = Simulation(flow, random, speeds=(0.0, 0.02, 0.6), big=1.0)
    index_of = {node.name: node.index for node in simulation.plan.nodes}
    given = []  # elements, by index, that completed
    run = simulation.run

    def noted(number):
        run(number)
        result = simulation.keys[number].result if number in simulation.keys else None
        segment = result and result.segments.get(index_of["flat"])
        for offset in range(len(segment or ())):
            if segment.codes[offset] == COMPLETED:
                given.append((segment.start + offset, segment.values[offset]))

    simulation.run = noted
    simulation.start()
    for _ in range(10_000):
        if simulation.finished:
            break
        alive = [n for n, key in simulation.keys.items() if key.status == WAITING]
        if alive and random.random() < 0.1:
            simulation.kill(random.choice(alive), divisible=divisible)
        done = [n for n, key in simulation.keys.items() if key.result is not None]
        if done and random.random() < 0.2:
            simulation.lose_result(random.choice(done))
        if random.random() < 0.3:
            simulation.look()
        elif not simulation.finished:
            assert simulation.step()
    assert simulation.finished
    elements = []
    for state, items in zip(
        simulation.driver.state(index_of["lists"]), shape, strict=True
    ):
        elements += items if type(state) is Completed else [None]
    assert len(simulation.driver.state(index_of["flat"])) == len(elements)
    for index, value in given:
        assert value == elements[index]


def test_as_many_results_are_read_as_there_are_blocks_below_and_above():
    with Flow("flat") as flow:
        lists = Task(lambda x: [x] * 3, name="lists").map(range(300))
        flat = Task(lambda x: x, name="flat").map(flatten(lists))
    simulation = Simulation(flow, Random(0), speeds=(0.05,), want_all=True)
    above, below = [], []
    submit = simulation.submit

    def counted(assignments, hold):
        for assignment in assignments:
            name = assignment.block.steps[0].task.name
            (below if name == "flat" else above).append(len(assignment.reads))
        submit(assignments, hold)

    simulation.submit = counted
    simulation.start()
    simulation.to_the_end()
    assert len(above) > 20
    assert len(below) > 20
    # Each border between two blocks, above or below, is crossed once.
    assert sum(below) < len(above) + len(below)
    state = flow_state(simulation.plan, simulation.states())
    assert [child.result() for child in state[flat]] == [
        number for number in range(300) for _ in range(3)
    ]


class Broken:
    """What can be iterated only until it is tried."""

    def __iter__(self):
        raise RuntimeError("no items today")


@pytest.mark.parametrize(
    "runner",
    [SequentialTaskRunner(), ThreadPoolTaskRunner(2)],
    ids=["order", "threads"],
)
def test_a_child_that_cannot_be_iterated_over_has_failed_alone(runner):
    with Flow("broken") as flow:
        given = Task(lambda x: Broken() if x == 1 else [x], name="given").map(range(3))
        flat = Task(lambda x: x, name="flat").map(flatten(given))
        plain = Task(lambda: [[1], Broken()], name="plain")()
        below = Task(lambda x: x, name="below").map(flatten(plain))
    state = flow.run(task_runner=runner)
    assert [child.is_failed() for child in state[given]] == [False, True, False]
    assert "no items today" in state[given][1].message
    assert [child.is_failed() for child in state[flat]] == [False, True, False]
    assert state[plain].is_failed()
    assert state[below].name == "TriggerFailed"
