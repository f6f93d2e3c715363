"""Drawings of function flows: calls of tasks are taken down, and do not run."""

import asyncio

import pytest

from prefect_dask_core import flow, get_run_logger, task
from prefect_dask_core.errors import VisualizationUnsupportedError
from prefect_dask_core.flow_drawing import picture_of_flow

pytestmark = pytest.mark.filterwarnings("ignore:while flow")


@task
def load(path):
    raise AssertionError("it does not run")


@task
def join(left, right):
    raise AssertionError("it does not run")


@task(viz_return_value=[1, 2])
def rows():
    raise AssertionError("it does not run")


def arrows(function, *args):
    picture = picture_of_flow(flow(function), dict(args))
    return [node.id for node in picture.nodes], [
        (e.start, e.end) for e in picture.edges
    ]


def test_an_argument_that_a_task_gave_is_an_arrow():
    def body():
        one, two = load("a"), load("b")
        join(one, {"b": [two]})
        join(rows(), 3)

    assert arrows(body) == (
        ["load-0", "load-1", "join-0", "rows-0", "join-1"],
        [("load-0", "join-0"), ("load-1", "join-0"), ("rows-0", "join-1")],
    )


def test_code_outside_of_tasks_runs_with_what_stands_for_values():
    def body():
        for row in rows():
            load(row)

    assert arrows(body)[0] == ["rows-0", "load-0", "load-1"]


def test_a_value_that_is_needed_is_asked_for():
    with pytest.raises(VisualizationUnsupportedError, match="give the task viz_return"):
        arrows(lambda: load("a") + 1)
    with pytest.raises(VisualizationUnsupportedError):
        arrows(lambda: load("a").upper())


@pytest.mark.parametrize(
    "use",
    [
        lambda x: 1 - x,
        lambda x: x // 2,
        lambda x: -x,
        lambda x: x <= 1,
        lambda x: 1 in x,
        lambda x: x[0],
        lambda x: [*x],
        lambda x: int(x),
        lambda x: range(x),
        lambda x: x or 1,
        lambda x: x | {},
    ],
)
def test_a_value_that_is_needed_in_any_way_is_asked_for(use):
    with pytest.raises(VisualizationUnsupportedError, match="give the task viz_return"):
        arrows(lambda: use(load("a")))


def test_a_value_can_be_printed_and_handed_on():
    def body():
        found = load(f"{'a'}")
        join(found, f"from {found}")

    assert arrows(body)[1] == [("load-0", "join-0")]


@pytest.mark.parametrize("method", ["submit", "map"])
def test_only_calls_can_be_drawn(method):
    with pytest.raises(VisualizationUnsupportedError, match="only calls"):
        arrows(lambda: getattr(load, method)(["a"]))


def test_asynchronous_flows_are_drawn():
    @task
    async def fetch(x): ...

    @flow
    async def body():
        await fetch(await fetch(1))

    picture = picture_of_flow(body, {})
    assert [(e.start, e.end) for e in picture.edges] == [("fetch-0", "fetch-1")]
    graphviz = pytest.importorskip("graphviz")
    assert isinstance(asyncio.run(body.avisualize()), graphviz.Digraph)


def test_asynchronous_flows_are_drawn_where_an_event_loop_runs():
    @task
    async def fetch(x): ...

    @flow
    async def body():
        await fetch(1)

    @flow
    async def numbers():
        yield await fetch(2)

    async def notebook():
        return [made.generate_mermaid_graph() for made in (body, numbers)]

    assert ["fetch-0" in text for text in asyncio.run(notebook())] == [True, True]


def test_a_function_that_logs_is_drawn(caplog):
    @flow
    def logs(x):
        get_run_logger().warning("begins with %d", x)
        return load(x)

    with pytest.warns(UserWarning, match="while flow 'logs' is drawn"):
        text = logs.generate_mermaid_graph(3)
    assert "load" in text
    assert "begins with 3" in caplog.messages


def test_a_warning_says_that_the_rest_runs():
    with pytest.warns(UserWarning, match="its tasks do not run"):
        flow(lambda: 1).generate_mermaid_graph()
