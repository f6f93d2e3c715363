import pickle

import dask
import pytest
from dask.base import tokenize
from dask.core import get_dependencies, toposort

from prefect_dask_core import Flow, Parameter, Task, task, unmapped
from prefect_dask_core.engine.book import Book
from prefect_dask_core.engine.compile import (
    MOST_SPANS,
    GraphBuilder,
    RunRecord,
    block_name,
)
from prefect_dask_core.engine.driver import Driver
from prefect_dask_core.engine.events import Started
from prefect_dask_core.engine.packing import OWN_KEY_BYTES
from prefect_dask_core.errors import FlowParameterError
from prefect_dask_core.planning import make_plan


@task
def extract(n=3):
    return list(range(n))


@task
def transform(x, rate=1):
    return x * rate


@task
def load(xs):
    return sum(xs)


def key_names(collection):
    """Names of the tasks in the keys, without payloads."""
    names = [key[0] for key in collection.__dask_graph__() if isinstance(key, tuple)]
    return [name.rpartition("-")[0] for name in names]


# -- the collection ----------------------------------------------------------------


@pytest.fixture
def flow():
    with Flow("etl") as made:
        load(transform.map([1, 2, 3]))
        transform(Parameter("x", default=4))
    return made


def test_a_compiled_flow_is_a_dask_collection(flow):
    collection = flow.compile()
    assert dask.is_dask_collection(collection)
    count = len(collection.__dask_graph__())
    assert repr(collection) == f"<FlowCollection 'etl': {count} keys>"


def test_keys_carry_the_names_of_tasks(flow):
    names = key_names(flow.compile())
    assert sorted(names) == ["load", *["transform"] * 4, "x"]


def test_the_graph_is_one_that_dask_can_order(flow):
    graph = flow.compile().__dask_graph__()
    order = toposort(graph)
    assert set(order) == set(graph)
    for key in graph:
        assert get_dependencies(graph, key) <= set(graph)


def test_every_key_asked_for_is_in_the_graph(flow):
    collection = flow.compile()
    keys = [key for keys in collection.__dask_keys__() for key in keys]
    assert set(keys) <= set(collection.__dask_graph__())
    assert len(keys) == len(set(keys))


def test_two_compilations_have_no_key_in_common(flow):
    first, second = flow.compile(), flow.compile()
    shared = set(first.__dask_graph__()) & set(second.__dask_graph__())
    assert not {key for key in shared if isinstance(key, tuple)}
    assert tokenize(first) != tokenize(second)


@pytest.mark.parametrize("count", [1, 3, MOST_SPANS, 10 * MOST_SPANS + 1])
def test_a_fan_out_of_known_length_is_some_keys_of_consecutive_children(count):
    with Flow("fan-out") as flow:
        first = transform.map(range(count))
        second = transform.map(first, unmapped(2))
        total = load(second)
    collection = flow.compile()
    keys = collection.__dask_keys__()
    spans = min(count, MOST_SPANS)
    assert [len(found) for found in keys[-3:]] == [
        pytest.approx(spans, abs=spans / 2 + 1),
        len(keys[-3]),
        1,
    ]
    graph = collection.__dask_graph__()
    for above, below in zip(keys[-3], keys[-2], strict=True):
        assert get_dependencies(graph, below) == {above}
    (state,) = dask.compute(collection, scheduler="sync")
    assert state[total].result() == 2 * sum(range(count))


def test_a_fan_out_of_unknown_length_is_one_key():
    with Flow("fan-out") as flow:
        total = load(transform.map(extract(5)))
    collection = flow.compile()
    assert [len(found) for found in collection.__dask_keys__()] == [1, 1, 1]
    (state,) = dask.compute(collection, scheduler="threads")
    assert state[total].result() == 10


def test_a_large_constant_is_one_key_for_all():
    large = list(range(50_000))
    with Flow("large") as flow:
        lengths = Task(lambda x, xs: len(xs), name="length").map(
            range(20), unmapped(large)
        )
    graph = flow.compile().__dask_graph__()
    payloads = [key for key in graph if "payload" in str(key)]
    assert 1 <= len(payloads) <= 2
    (state,) = dask.compute(flow.compile(), scheduler="sync")
    assert state[lengths].result() == [50_000] * 20


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_any_scheduler_of_dask_computes_it(flow, scheduler):
    (state,) = dask.compute(flow.compile(x=5), scheduler=scheduler)
    assert state["load"].result() == 6
    assert state["x"].result() == 5


def test_it_is_computed_with_other_collections(flow):
    number = dask.delayed(lambda: 5)()
    state, five = dask.compute(flow.compile(), number, scheduler="sync")
    assert (state["load"].result(), five) == (6, 5)


def test_parameters_are_checked_when_it_is_compiled(flow):
    with pytest.raises(FlowParameterError, match="has no parameter 'y'"):
        flow.compile(y=1)


def test_optimization_leaves_it_alone(flow):
    collection = flow.compile()
    (optimized,) = dask.optimize(collection)
    assert dask.compute(optimized, scheduler="sync")[0]["load"].result() == 6


def test_dask_draws_it(flow, tmp_path):
    graphviz = pytest.importorskip("graphviz")
    try:
        dask.visualize(flow.compile(), filename=str(tmp_path / "flow"), format="dot")
    except (graphviz.ExecutableNotFound, RuntimeError) as error:
        pytest.skip(f"the program dot is missing: {error}")


# -- on a client -------------------------------------------------------------------


def test_a_client_computes_it(client, flow):
    state = client.compute(flow.compile(x=7), sync=True)
    assert state["load"].result() == 6
    assert state["x"].result() == 7
    assert state.is_successful()


def test_what_a_client_computed_is_found_by_task(client):
    with Flow("by task") as flow:
        total = load([1, 2])
    assert client.compute(flow.compile(), sync=True)[total].result() == 3


def test_it_persists_on_a_client(client, flow):
    collection = client.persist(flow.compile())
    assert dask.is_dask_collection(collection)
    state = client.compute(collection, sync=True)
    assert state["load"].result() == 6


def test_it_persists_in_threads(flow):
    (collection,) = dask.persist(flow.compile(), scheduler="threads")
    (state,) = dask.compute(collection, scheduler="sync")
    assert state["load"].result() == 6


# -- blocks ------------------------------------------------------------------------


def graphs_of(flow, variables=()):
    """The first graph that the runner would send, and its builder."""
    driver = Driver(Book(make_plan(flow), frozenset()))
    (submit, *_) = driver.handle(Started(4))
    record = RunRecord("0123456789abcdef", dict(variables), "topic", 1_000)
    builder = GraphBuilder(record, lambda *arguments: arguments)
    return builder, builder.graph(submit.assignments), submit.assignments


def test_a_scheduler_has_what_the_blocks_of_a_run_share_only_once():
    with Flow("shared") as flow:
        transform.map([1, 2, 3])
    _, graph, _ = graphs_of(flow)
    arrived = [pickle.loads(pickle.dumps(found.args)) for found in graph.values()]
    for _, inline, record, *_ in arrived:
        assert inline[0] is arrived[0][1][0]
        assert record is arrived[0][2]


def test_the_keys_of_blocks_carry_names_and_the_run():
    with Flow("keys") as flow:
        transform.map([1, 2, 3])
    builder, graph, assignments = graphs_of(flow)
    assert set(graph) == {("transform-01234567", n) for n in range(3)}
    assert builder.key(assignments[0].block.number) == ("transform-01234567", 0)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a"], "a"),
        (["a", "b", "c"], "a+b+c"),
        (["a", "b", "c", "d"], "a+..+d"),
    ],
)
def test_the_name_of_a_block(names, expected):
    assert block_name(names) == expected


def test_blocks_refer_to_what_they_share_by_one_key():
    large = "x" * (2 * OWN_KEY_BYTES)
    with Flow("shared") as flow:
        transform.map([1, 2, 3, 4], unmapped(large))
    _, graph, _ = graphs_of(flow, {"parameters": {"p": large}})
    payloads = {key for key in graph if str(key[0]).startswith("payload-")}
    # One for the argument, one for what is the same in the whole run.
    assert len(payloads) == 2
    for key in set(graph) - payloads:
        assert get_dependencies(graph, key) == payloads
        assert len(str(graph[key])) < 5_000


def test_a_later_graph_brings_the_payloads_that_are_not_there():
    large = "x" * (2 * OWN_KEY_BYTES)
    with Flow("shared") as flow:
        transform.map([1, 2], unmapped(large))
    builder, first, assignments = graphs_of(flow)
    second = builder.graph(assignments[:1])
    payloads = [key for key in first if str(key[0]).startswith("payload-")]
    assert all(key in second for key in payloads)
    builder.there = payloads
    third = builder.graph(assignments[:1])
    assert not any(key in third for key in payloads)
    assert builder.needed[payloads[0]] == {
        step.node for assignment in assignments for step in assignment.block.steps
    }
