"""In what a node differs from what it was, and what that makes of those below."""

import pytest

from prefect_dask_core import Flow, task
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.ledger import InputRecord, NodeRecord
from prefect_dask_core.made_of import Change
from prefect_dask_core.outdating import Edge, difference, stale_nodes
from prefect_dask_core.planning import make_plan
from prefect_dask_core.states import Completed, Failed, Mapped, TriggerFailed

BEFORE = NodeRecord(3, "load-1", "load", True, 2, (InputRecord("x", "list-1", True),))
SAME = frozenset({Edge("x", "list-1", True, False)})


@pytest.mark.parametrize(
    ("task_name", "mapped", "edges", "told"),
    [
        ("load", True, SAME, None),
        ("read", True, SAME, "it was a run of task 'load' and is one of 'read'"),
        ("load", False, SAME, "it was mapped and is not"),
        ("load", True, frozenset(), "it read list-1 as x"),
        (
            "load",
            True,
            frozenset({Edge("x", "other-1", True, False)}),
            "it read list-1 as x and it reads other-1 as x now",
        ),
        (
            "load",
            True,
            SAME | {Edge(None, "first-1", False, False)},
            "it reads first-1 as what comes first now",
        ),
    ],
)
def test_a_difference_is_told_in_words(task_name, mapped, edges, told):
    assert difference(task_name, mapped, edges, BEFORE) == told


@task
def inc(x):
    return x + 1


@task
def total(xs):
    return sum(xs)


def plan_of_three():
    #  many ─▶ more ─▶ sum
    with Flow("three") as made:
        many = inc.map([1, 2, 3])
        more = inc.map(many)
        total(more)
    plan = make_plan(made)
    return plan, [n.index for n in plan.nodes if not n.constant]


def children(*states):
    segment = Segment(0)
    segment.open(len(states))
    for offset, state in enumerate(states):
        segment.put(offset, state, 1.0, 2.0)
    return Mapped(states=Children(len(states), [segment]))


def test_a_child_that_differs_makes_its_readers_stale_and_no_other():
    plan, (many, more, summed) = plan_of_three()
    states = {
        many: children(*3 * [Completed(data=1)]),
        more: children(*3 * [Completed(data=2)]),
        summed: Completed(data=6),
    }
    changes = {many: Change(("another item",), frozenset({1}))}
    assert stale_nodes(plan, states, changes) == {
        many: frozenset({1}),
        more: frozenset({1}),
        summed: None,
    }
    assert stale_nodes(plan, states, {}) == {}


def test_what_read_a_failure_is_stale_and_the_failure_itself_is_not():
    plan, (many, more, summed) = plan_of_three()
    states = {
        many: children(Completed(data=1), Failed("no"), Completed(data=1)),
        more: children(Completed(data=2), TriggerFailed(), Completed(data=2)),
        summed: TriggerFailed(),
    }
    assert stale_nodes(plan, states, {}) == {more: frozenset({1}), summed: None}
