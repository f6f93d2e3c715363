"""What failed above a run that did not start."""

import pickle
from collections.abc import Mapping

import pytest

from prefect_dask_core import Flow, task
from prefect_dask_core.engine.columns import Children, Segment
from prefect_dask_core.engine.summary import failed_by_itself, flow_state
from prefect_dask_core.engine.upstream import with_causes
from prefect_dask_core.errors import FailedRun
from prefect_dask_core.planning import make_plan
from prefect_dask_core.states import Completed, Failed, Mapped, TriggerFailed


@task
def odd_only(x):
    if x % 2 == 0:
        raise ValueError(f"{x} is even")
    return x


@task
def add(x, y=0):
    return x + y


@task
def total(values):
    return sum(values)


def flow_of_refusals():
    with Flow("refusals") as flow:
        odd = odd_only.map([1, 2, 3, 4])
        more = add.map(add.map(odd))
        total(more)
    return flow


def test_the_state_of_a_flow_says_what_it_began_with(run):
    state = run(flow_of_refusals())
    assert state.message == (
        "reference tasks failed: total; it began with odd_only[1]: ValueError: 2 is "
        "even"
    )


def test_what_a_refused_run_raises_has_the_first_failure_above_as_its_cause(run):
    state = run(flow_of_refusals())
    for told in (
        state,
        state["total"],
        state["add-1"][1],
        state["add-2"][1],
        dict(state.states.failures())["total"],
        state["add-2"].states.failures()[0][1],
    ):
        with pytest.raises(FailedRun) as caught:
            told.result()
        assert repr(caught.value.__cause__) == "ValueError('2 is even')"


def test_a_child_is_refused_because_of_that_child_above_whichever_argument_it_is(run):
    with Flow("two") as flow:
        one = odd_only.map([1, 2, 3])
        other = odd_only.map([7, 9, 8])
        both = add.map(one, other)
    state = run(flow)
    causes = [
        child.result(raise_on_failure=False).__cause__
        for child in state[both]
        if isinstance(child, TriggerFailed)
    ]
    assert [str(cause) for cause in causes] == ["2 is even", "8 is even"]


def test_causes_travel_with_the_state_of_a_run_and_with_that_of_a_child(run):
    state = run(flow_of_refusals())
    copy = pickle.loads(pickle.dumps(state))
    child = pickle.loads(pickle.dumps(state["add-2"][3]))
    again = pickle.loads(pickle.dumps(child))
    for found in (copy["add-2"][3], child, again):
        error = found.result(raise_on_failure=False)
        assert isinstance(error, FailedRun)
        assert repr(error.__cause__) == "ValueError('4 is even')"
    assert repr(copy["total"].result(False).__cause__) == "ValueError('2 is even')"


def test_a_cause_that_cannot_travel_is_left_behind(run):
    class Stuck(Exception):
        def __reduce__(self):
            raise TypeError("stays here")

    @task
    def stick():
        raise Stuck("mine")

    with Flow("stuck") as flow:
        last = add(stick())
    state = run(flow)
    assert "mine" in str(state[last].result(raise_on_failure=False).__cause__)
    assert pickle.loads(pickle.dumps(state[last])) == state[last]


def test_failures_are_listed_with_the_facts_of_their_runs(run):
    failures = dict(run(flow_of_refusals()).states.failures())
    assert failures["odd_only[1]"].run.attempts == 1


class Unread(Mapping):
    """Details of which only the first may be looked at."""

    def __init__(self, details):
        self.details = details

    def __getitem__(self, offset):
        assert offset == min(self.details), "nobody asked for this one"
        return self.details[offset]

    def __iter__(self):
        return iter(self.details)

    def __len__(self):
        return len(self.details)

    def items(self):
        raise AssertionError("nobody asked for all of them")

    values = items


def test_how_a_run_ended_is_told_without_a_look_at_every_failure():
    segment = Segment(0)
    segment.open(100)
    for offset in range(100):
        bad = Failed("no", data=ValueError("no")) if offset % 10 == 5 else Completed()
        segment.put(offset, bad, 1.0, 2.0)
    segment.details = Unread(segment.details)
    with Flow("failures") as flow:
        many = odd_only.map(range(100))
        add.map(many)
    plan = make_plan(flow)
    refused = Segment(0)
    refused.open(100)
    for offset in range(100):
        state = TriggerFailed("refused") if offset % 10 == 5 else Completed()
        refused.put(offset, state, 1.0, 2.0)
    refused.details = Unread(refused.details)
    ended = [Mapped(states=Children(100, [one])) for one in (segment, refused)]
    constants, *states = with_causes(plan, [Completed(data=range(100)), *ended])
    assert flow_state(plan, [constants, *states]).is_failed()
    assert failed_by_itself("odd_only", states[0]) == (
        "odd_only[5]",
        states[0][5],
        9,
    )
    assert failed_by_itself("add", states[1]) is None
    assert states[1][5].result(raise_on_failure=False).__cause__ is not None
