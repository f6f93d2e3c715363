"""Flows, states and futures as a notebook shows them."""

import shutil

import pytest

from prefect_dask_core import Flow, SequentialTaskRunner, flow, task
from prefect_dask_core import drawing as drawing_module
from prefect_dask_core.states import Completed, Failed


@task
def invert(x):
    return 1 / x


@task
def total(xs):
    return sum(xs)


def inverses():
    with Flow("inverses <1>") as made:
        total(invert.map([0, 1, 2]))
    return made


@pytest.mark.skipif(shutil.which("dot") is None, reason="the program dot is missing")
def test_a_graph_flow_is_shown_as_its_picture():
    pytest.importorskip("graphviz")
    shown = inverses()._repr_html_()
    assert shown.startswith("<div><b>inverses &lt;1&gt;</b></div><svg")
    assert "invert &lt;map&gt;" in shown


def test_without_graphviz_a_flow_is_shown_as_text(monkeypatch):
    def missing(*arguments):
        raise ImportError("no graphviz")

    monkeypatch.setattr(drawing_module, "digraph", missing)
    assert "<pre>flowchart TD" in inverses()._repr_html_()


def test_a_large_flow_is_not_drawn_unasked():
    with Flow("large") as made:
        for _ in range(101):
            invert(1)
    assert "101 tasks: too many to draw here" in made._repr_html_()


def test_a_function_flow_is_shown_by_its_signature():
    @flow
    def etl(n: int, text="<x>"):
        """Load & store."""

    shown = etl._repr_html_()
    assert "etl(n: int" in shown
    assert "&#x27;&lt;x&gt;&#x27;" in shown
    assert "Load &amp; store." in shown


@pytest.mark.parametrize("state", [Completed(), Failed("no <luck>")])
def test_a_state_is_shown_with_its_colour_and_message(state):
    shown = state._repr_html_()
    assert state.color in shown
    assert state.name in shown
    assert "<luck>" not in shown


def test_the_state_of_a_run_is_shown_as_a_table_of_its_tasks():
    state = inverses().run(task_runner=SequentialTaskRunner())
    shown = state._repr_html_()
    for text in (
        *("inverses &lt;1&gt;", "1 Failed", "2 Completed", "1 TriggerFailed"),
        *("invert[0]", "ZeroDivisionError: division by zero"),
    ):
        assert text in shown
    assert "2 Completed" in state["invert"]._repr_html_()
    assert str(state.states.view).startswith("flow 'inverses <1>' Failed in")


def test_futures_are_shown_with_their_states():
    shown = []

    @flow(task_runner=SequentialTaskRunner())
    def looked_at():
        one = invert.submit(1)
        many = invert.map([0, 1, 2])
        shown.extend(found._repr_html_() for found in (one, many, many[0], many[:2]))
        return one

    looked_at()
    one, many, child, some = shown
    assert "invert-0" in one
    assert "Completed" in one
    assert "1 Failed" in many
    assert "2 Completed" in many
    assert "Failed" in child
    assert "2 futures" in some


def test_children_are_shown_as_their_counts():
    state = inverses().run(task_runner=SequentialTaskRunner())
    shown = state["invert"].states._repr_html_()
    assert "1 Failed" in shown
    assert "2 Completed" in shown
