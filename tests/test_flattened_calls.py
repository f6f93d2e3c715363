"""`flatten` in function flows: alike on every runner, and as in graph flows."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_dask_core import (
    DaskTaskRunner,
    SequentialTaskRunner,
    Task,
    ThreadPoolTaskRunner,
    allow_failure,
    flatten,
    flow,
    mapped,
    task,
)
from prefect_dask_core.signals import SKIP
from tests.engine.random_flows import seen, told
from tests.engine.test_flat_flows import SHAPES, TRIGGERS, give, nested


@task
def members(group):
    if group == 1:
        raise ValueError(f"group {group}")
    if group == "skip":
        raise SKIP("told to")
    return (
        group
        if isinstance(group, str | dict)
        else [f"{group}.{n}" for n in range(group)]
    )


@task
def save(member):
    return seen(member)


@task
def count(members):
    return len(members)


def states_of(runner, function):
    """States and values of the children that a flow returns, and what refused them."""
    state = flow(function, task_runner=runner)(return_state=True)
    last = max(key for key in state.states if key.startswith("save"))
    return [told(child)[1::2] for child in state[last]]


def test_a_failed_child_is_one_element_that_is_refused(flow_runner):
    found = states_of(
        flow_runner, lambda: save.map(flatten(members.map([0, 1, 2, "skip", "text"])))
    )
    assert [name for name, _ in found] == [
        "TriggerFailed",
        "Completed",
        "Completed",
        "Skipped",
        "Completed",
    ]
    assert [value for _, value in found[1:3]] == ["2.0", "2.1"]


def test_children_that_ended_before_are_flattened_too(flow_runner):
    def around():
        lists = members.map([2, 1, 0, 3])
        lists.wait()
        return save.map(flatten(lists))

    names = [name for name, _ in states_of(flow_runner, around)]
    assert names == ["Completed"] * 2 + ["TriggerFailed"] + ["Completed"] * 3


def test_the_refused_element_names_the_child_that_failed(flow_runner):
    made = flow(
        lambda: save.map(flatten(members.map([0, 1, 2]))), task_runner=flow_runner
    )
    state = made(return_state=True)
    assert "members-0[1] failed" in state["save-0"][0].message
    assert sorted(state.states) == ["members-0", "save-0"]


def test_an_allowed_failure_gives_its_exception(flow_runner):
    def around():
        return save.map(allow_failure(flatten(members.map([1, 2]))))

    values = [value for _, value in states_of(flow_runner, around)]
    assert values == ["ValueError(group 1)", "2.0", "2.1"]


def test_a_flattened_fan_out_is_given_whole(flow_runner):
    @flow(task_runner=flow_runner)
    def around():
        lists = members.map([2, 3])
        return count.submit(flatten(lists)), count(flatten(lists))

    assert around() == (5, 5)


def test_a_value_mapped_over_before_is_flattened_as_well(flow_runner):
    @task
    def slow(n):
        time.sleep(0.2)
        return n

    @task
    def rows(given):
        (n,) = given
        return [[1] * n, [2] * n]

    @flow(task_runner=flow_runner)
    def around():
        found = rows.submit(slow.map([2]))
        first = count.map(found)
        first.wait()
        return first, save.map(flatten(found))

    assert around() == ([2, 2], ["1", "1", "2", "2"])


LISTS = {
    "futures": lambda: [members.submit(2), members.submit(3)],
    "tuple": lambda: (members.submit(2), members.submit(3)),
    "generator": lambda: (members.submit(n) for n in (2, 3)),
    "children": lambda: members.map([2, 3])[:],
    "listed": lambda: list(members.map([2, 3])),
    "mixed": lambda: [members.submit(2), ["3.0", "3.1"], "3.2"],
    "nested": lambda: [(save.submit("2.0"), "2.1"), members.submit(3)],
    "one child": lambda: members.map([3, 5])[1],
}


@pytest.mark.parametrize("kind", LISTS)
def test_futures_in_a_collection_are_flattened(flow_runner, kind):
    made = flow(lambda: save.map(flatten(LISTS[kind]())), task_runner=flow_runner)
    expected = ["2.0", "2.1", "3.0", "3.1", "3.2"]
    if kind == "one child":
        expected = [f"5.{n}" for n in range(5)]
    assert made() == expected


def test_a_failed_future_in_a_list_is_one_element_that_is_refused(flow_runner):
    def around(given=lambda x: x):
        return save.map(
            flatten(
                given([members.submit(n) for n in (2, 1)] + [(members.submit(1), "x")])
            )
        )

    found = states_of(flow_runner, around)
    assert [name for name, _ in found] == [
        *["Completed"] * 2,
        *["TriggerFailed"] * 2,
        "Completed",
    ]
    allowed = states_of(flow_runner, lambda: around(allow_failure))
    assert [value for _, value in allowed] == [
        "2.0",
        "2.1",
        "ValueError(group 1)",
        "ValueError(group 1)",
        "x",
    ]


def test_a_skipped_future_in_a_list_skips_its_own_child(flow_runner):
    def around(wrap):
        return save.map(wrap([members.submit("skip"), members.submit("x")]))

    for wrap in (flatten, list):
        found = states_of(flow_runner, lambda wrap=wrap: around(wrap))
        assert [name for name, _ in found] == ["Skipped", "Completed"]


def test_a_list_of_futures_is_flattened_for_a_plain_argument(flow_runner):
    @flow(task_runner=flow_runner)
    def around():
        lists = [members.submit(2), members.submit(3), "x"]
        return (
            count.submit(flatten(lists)),
            count(flatten(lists)),
            count(flatten([[1, 2], [3]])),
            count.submit(flatten([[1, 2], [3]])),
            save.submit(mapped(flatten(lists))),
        )

    assert around() == (6, 6, 3, 3, ["2.0", "2.1", "3.0", "3.1", "3.2", "x"])


class Broken:
    """What can be iterated only until it is tried."""

    def __iter__(self):
        raise RuntimeError("no items today")

    def __str__(self):
        return "broken"


def test_a_value_that_cannot_be_iterated_over_is_one_element(flow_runner):
    @task
    def made(n):
        return Broken() if n == 1 else iter([n, n])

    def around():
        found = made.map([0, 1, 2])
        found.wait()
        return save.map(flatten(found))

    values = [value for _, value in states_of(flow_runner, around)]
    assert values == ["0", "0", "broken", "2", "2"]


def levels(shape, triggers, waits, kind):
    """A function flow of three levels, each mapped over the flattened one before."""
    first, second = (
        Task(give, name=f"level{number}", trigger=trigger)
        for number, trigger in enumerate(triggers)
    )
    body = Task(give, name="first")

    @flow(name="levels", timeout_seconds=60)
    def around():
        if kind == "fan-out" or not shape:
            found = body.map(shape)
        else:
            found = [body.submit(one) for one in shape]
        if waits[0] and kind == "fan-out":
            found.wait()
        below = first.map(flatten(found))
        if waits[1]:
            below.wait()
        return second.map(flatten(below))

    return around


def ends(made, runner):
    state = made.with_options(task_runner=runner)(return_state=True)
    # Values of what nobody returned are let go.
    return {
        name: told(found, values=name == "level1-0")
        for name, found in state.states.items()
    }


settled = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
RUNS = (
    SHAPES,
    st.tuples(TRIGGERS, TRIGGERS),
    st.tuples(st.booleans(), st.booleans()),
    st.sampled_from(["fan-out", "futures"]),
)


@settings(settled, max_examples=60)
@given(*RUNS)
def test_threads_end_as_the_sequential_runner(shape, triggers, waits, kind):
    made = levels(shape, triggers, waits, kind)
    expected = ends(made, SequentialTaskRunner())
    assert ends(made, ThreadPoolTaskRunner(2)) == expected


@settings(settled, max_examples=25)
@given(*RUNS)
def test_dask_ends_as_the_sequential_runner(client, shape, triggers, waits, kind):
    made = levels(shape, triggers, waits, kind)
    expected = ends(made, SequentialTaskRunner())
    assert ends(made, DaskTaskRunner(cluster=client)) == expected


@settings(settled, max_examples=60)
@given(SHAPES, st.tuples(TRIGGERS, TRIGGERS))
def test_a_function_flow_ends_as_the_graph_flow(shape, triggers):
    graph, tasks = nested(shape, triggers)
    state = graph.run(task_runner=SequentialTaskRunner())
    known = [[type(child).__name__ for child in state[one]] for one in tasks[:3]]
    made = levels(shape, triggers, (False, False), "fan-out")
    found = made.with_options(task_runner=ThreadPoolTaskRunner(2))(return_state=True)
    runs = [found[name] for name in ("first-0", "level0-0", "level1-0")]
    assert [[type(child).__name__ for child in run] for run in runs] == known
