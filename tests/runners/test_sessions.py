"""Sessions: what they mean, node by node, whatever the runner."""

import pytest

from prefect_dask_core import Task, context, triggers
from prefect_dask_core.engine.plan import Input
from prefect_dask_core.engine.session import Request
from prefect_dask_core.engine.templates import Hole, Part, Template, part_input
from prefect_dask_core.errors import MissingResult
from prefect_dask_core.states import (
    Cancelled,
    Completed,
    Failed,
    Mapped,
    State,
    TriggerFailed,
)

RUN_ID = "0" * 32
double = Task(lambda x: 2 * x, name="double")
total = Task(lambda x: sum(x), name="total")
fail = Task(lambda x: 1 / 0, name="fail")


@pytest.fixture
def session(flow_runner):
    made = flow_runner.session("flow", {"flow_name": "flow"}, RUN_ID)
    yield made
    made.close()


def constant(value, mapped=False, key="x"):
    return Input(key, None, value, mapped, False, None)


def from_node(node, mapped=False, key="x", flattened=False):
    return Input(key, node, None, mapped, flattened, None)


def template(value, *parts, key="x"):
    nodes = dict.fromkeys(p.node for p in parts if isinstance(p, Part))
    held = Input(key, None, Template(value, parts), False, False, None)
    return (held, *map(part_input, nodes))


def add(session, task, *inputs, mapped=False, **more):
    return session.add(Request(task, f"{task.name}-n", inputs, mapped, **more))


def result(session, node):
    assert session.wait([node])
    return session.value(node)


def test_nodes_are_numbered_and_read_each_other(session):
    first = add(session, double, constant(1))
    second = add(session, double, from_node(first))
    assert (first, second) == (0, 1)
    assert result(session, second) == 4
    assert isinstance(session.state(second), Completed)


def test_a_mapped_node_has_children(session):
    first = add(session, double, constant([1, 2, 3], mapped=True), mapped=True)
    second = add(session, double, from_node(first, mapped=True), mapped=True)
    assert session.wait([second])
    assert session.child_count(second) == 3
    assert session.value(second, 1) == 8
    assert session.child_state(second, 2).result() == 12
    assert isinstance(session.state(second), Mapped)
    assert result(session, add(session, total, from_node(second))) == 24


def test_the_items_of_a_value_are_mapped_over(session):
    same = Task(lambda x: x, name="same")
    lists = add(session, same, constant([[1, 2], [3]]))
    each = add(session, same, from_node(lists, mapped=True), mapped=True)
    flat = add(
        session, double, from_node(each, mapped=True, flattened=True), mapped=True
    )
    assert result(session, each) == [[1, 2], [3]]
    assert result(session, flat) == [2, 4, 6]


def test_an_empty_map_has_no_children(session):
    empty = add(session, double, constant([], mapped=True), mapped=True)
    assert session.wait([empty])
    assert session.child_count(empty) == 0
    assert result(session, add(session, total, from_node(empty))) == 0


def test_a_template_is_filled(session):
    one = add(session, double, constant(1))
    children = add(session, double, constant([5, 6], mapped=True), mapped=True)
    parts = (Part(one), Part(children, 1), Part(children))
    same = Task(lambda x: x, name="same")
    node = add(session, same, *template([Hole(0), {"a": Hole(1)}, Hole(2)], *parts))
    assert result(session, node) == [2, {"a": 12}, [10, 12]]


def test_templates_are_filled_child_by_child(session):
    one, bad = add(session, double, constant(1)), add(session, fail, constant(1))
    items = [Template(Hole(0), (Part(one),)), 7, Template(Hole(0), (Part(bad),))]
    node = add(
        session,
        double,
        constant(items, mapped=True),
        part_input(one),
        part_input(bad),
        mapped=True,
    )
    assert session.wait([node])
    kinds = [type(session.child_state(node, n)) for n in range(3)]
    assert kinds == [Completed, Completed, TriggerFailed]
    assert [session.value(node, n) for n in range(2)] == [4, 14]


def test_a_failure_refuses_what_reads_it_in_any_way(session):
    bad = add(session, fail, constant(1))
    below = [
        add(session, double, from_node(bad)),
        add(session, double, constant(1), from_node(bad, key=None)),
        add(session, double, *template([Hole(0)], Part(bad))),
        add(session, double, *template([Hole(0)], Failed("by hand"))),
    ]
    session.wait(below)
    assert [type(session.state(node)) for node in below] == [TriggerFailed] * 4
    assert "fail-n failed" in session.state(below[0]).message


def test_a_failure_is_tolerated_by_node_and_by_part(session):
    shown = Task(lambda x: repr(x), name="shown")
    bad = add(session, fail, constant(1))
    whole = add(session, shown, from_node(bad), tolerated=frozenset({bad}))
    part = add(session, shown, *template([Hole(0)], Part(bad, None, True)))
    order = add(
        session,
        double,
        constant(1),
        from_node(bad, key=None),
        tolerated=frozenset({bad}),
    )
    assert result(session, whole) == "ZeroDivisionError('division by zero')"
    assert result(session, part) == "[ZeroDivisionError('division by zero')]"
    assert result(session, order) == 2


def seen(upstream):
    raise ValueError(sorted(type(state).__name__ for state in upstream.values()))


def test_a_trigger_sees_what_a_template_refers_to(session):
    one, bad = add(session, double, constant(1)), add(session, fail, constant(1))
    look = Task(
        lambda x: x,
        name="look",
        trigger=seen,
    )
    node = add(session, look, *template([Hole(0), Hole(1)], Part(one), Part(bad)))
    session.wait([node])
    assert "['Completed', 'Failed']" in session.state(node).message


def test_a_run_sees_its_variables(session):
    look = Task(lambda: (context.color, context.flow_name), name="look")
    node = add(session, look, variables={"color": "blue"})
    assert result(session, node) == ("blue", "flow")


def test_a_dropped_value_is_gone_and_its_state_stays(session):
    node = add(session, double, constant(1))
    below = add(session, double, from_node(node))
    session.drop(node)
    assert result(session, below) == 4
    states = session.close()
    assert isinstance(states[node], Completed)
    with pytest.raises(MissingResult):
        states[node].result()
    assert states[below].result() == 4


def test_an_end_is_told(session):
    seen = []
    node = add(session, double, constant(1))
    session.on_final(node, lambda: seen.append(session.state(node)))
    session.wait([node])
    session.close()
    assert [state.result() for state in seen] == [2]


def test_a_child_is_waited_for_alone(session):
    node = add(session, double, constant([1, 2], mapped=True), mapped=True)
    assert session.wait_child(node, None)
    assert session.child_count(node) == 2
    assert session.wait_child(node, 1)
    assert session.value(node, 1) == 4


def test_the_end_of_a_child_is_told(session):
    seen = []
    node = add(session, double, constant([1, 2, 3], mapped=True), mapped=True)
    session.on_child_final(node, 1, lambda: seen.append(session.value(node, 1)))
    session.wait([node])
    session.on_child_final(node, 2, lambda: seen.append(session.value(node, 2)))
    session.close()
    assert sorted(seen) == [4, 6]


def test_nobody_waits_for_children_that_cannot_be(session):
    bad = add(session, fail, constant(1))
    node = add(session, double, from_node(bad, mapped=True), mapped=True)
    seen = []
    session.on_child_final(node, 0, lambda: seen.append(0))
    assert session.wait_child(node, None)
    assert session.wait_child(node, 0)
    assert session.child_count(node) is None
    session.close()
    assert seen == [0]


def test_nothing_starts_after_it_was_cancelled(session):
    first = add(session, double, constant(1))
    session.wait([first])
    session.cancel("enough")
    second = add(session, double, constant(1))
    third = add(
        session, double.with_options(trigger=triggers.all_finished), from_node(second)
    )
    states = session.close()
    assert [type(state) for state in states] == [Completed, Cancelled, Cancelled]
    assert states[1].message == "enough"
    assert all(isinstance(state, State) for state in states)
    assert third == 2
