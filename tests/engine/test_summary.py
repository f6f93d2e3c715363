"""What the state of a flow run tells of its task runs."""

import logging
import pickle

from prefect_dask_core import Flow, Parameter, Task, task, unmapped
from prefect_dask_core.engine.summary import TaskStates


@task
def invert(x):
    return 1 / x


@task
def total(values):
    return sum(values)


def flow_of_failures():
    with Flow("failures") as flow:
        many = invert.map([1, 0, 2, 0])
        total(many)
        Task(lambda x, y: x, name="pair").map(many, y=unmapped(1))
    return flow


def test_runs_are_counted_by_their_states_child_by_child(run):
    counts = run(flow_of_failures()).states.counts()
    assert counts == {"Completed": 4, "Failed": 2, "TriggerFailed": 3}


def test_constants_are_no_runs_and_an_empty_fan_out_has_none(run):
    with Flow("few") as flow:
        invert.map([])
        total([1, 2])
    assert run(flow).states.counts() == {"Completed": 1}


def test_what_failed_is_listed_with_the_children_by_their_index(run):
    state = run(flow_of_failures())
    failures = state.states.failures()
    assert [name for name, _ in failures if "pair" not in name] == [
        "invert[1]",
        "invert[3]",
        "total",
    ]
    assert [name for name, _ in failures if "pair" in name] == ["pair[1]", "pair[3]"]
    found = dict(failures)
    assert isinstance(found["invert[3]"].result(raise_on_failure=False), Exception)
    assert type(found["total"]).__name__ == "TriggerFailed"
    counts = state.states.counts()
    assert len(failures) == counts["Failed"] + counts["TriggerFailed"]


def test_a_run_without_failures_lists_none(run):
    with Flow("good") as flow:
        total([Parameter("x", default=1), 2])
    state = run(flow)
    assert state.states.failures() == []


def test_tasks_of_one_name_are_told_apart_by_their_slugs(run):
    with Flow("twins") as flow:
        invert(0)
        invert.map([0])
    names = [name for name, _ in run(flow).states.failures()]
    assert sorted(names) == ["invert-1", "invert-2[0]"]


def test_pickled_states_tell_the_same(run):
    state = run(flow_of_failures())
    copy = pickle.loads(pickle.dumps(state))
    assert isinstance(copy.states, TaskStates)
    assert copy.states.counts() == state.states.counts()
    assert [n for n, _ in copy.states.failures()] == [
        n for n, _ in state.states.failures()
    ]


def test_the_warning_of_failed_children_names_the_first_of_them(runner, caplog):
    with caplog.at_level(logging.WARNING, "prefect_dask_core"):
        flow_of_failures().run(task_runner=runner)
    (record,) = (r for r in caplog.records if r.name == "prefect_dask_core.execution")
    assert record.getMessage() == (
        "flow 'failures', task 'invert[1]': Failed('ZeroDivisionError: division by "
        "zero') (and 1 more of its children)"
    )
