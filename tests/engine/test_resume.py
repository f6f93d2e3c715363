import pytest

from prefect_dask_core import Flow, SequentialTaskRunner, Task
from prefect_dask_core.engine.resume import NOTHING_EARLIER, given_states, resume_after
from prefect_dask_core.planning import make_plan
from prefect_dask_core.signals import PAUSE, WAIT
from prefect_dask_core.states import (
    Cached,
    Completed,
    Failed,
    Mapped,
    Missing,
    Paused,
    Pending,
    Skipped,
    TriggerFailed,
)
from prefect_dask_core.testing import scripted, scripted_children


def chain():
    """A plan of a -> b -> c."""
    with Flow("chain") as flow:
        above = Task(lambda: 1, name="a")()
        for name in "bc":
            above = Task(lambda x: x, name=name)(above)
    return make_plan(flow)


def kept(plan, states, changed=()):
    return set(resume_after(plan, states, dict.fromkeys(changed)).kept)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], set()),
        ([Completed(data=1)], {0}),
        ([Completed(data=1), Completed(data=1), Completed(data=1)], {0, 1, 2}),
        ([Completed(data=1), Failed("no"), TriggerFailed("no")], {0}),
        ([Cached(data=1), Skipped("no"), Pending()], {0, 1}),
        # What read something that runs again runs again too.
        ([Failed("no"), Completed(data=1), Completed(data=1)], set()),
        ([Paused("?"), Pending(), Completed(data=1)], set()),
        # A value that is not at hand is made once more where it is needed.
        ([Completed(data=Missing("a")), Failed("no")], set()),
        ([Completed(data=Missing("a")), Completed(data=1), Failed("no")], {0, 1}),
    ],
)
def test_what_completed_and_is_at_hand_stands(states, expected):
    assert kept(chain(), dict(enumerate(states))) == expected


def test_what_reads_a_changed_value_does_not_stand():
    states = {number: Completed(data=1) for number in range(3)}
    assert kept(chain(), states, {0}) == set()
    assert kept(chain(), states, {1}) == {0}


def test_children_stand_one_by_one():
    with Flow("lane") as flow:
        first = scripted_children({1: [ValueError()], 3: [PAUSE("?")]}, 5).map(range(5))
        second = Task(lambda x: x, name="second").map(first)
    state = flow.run(task_runner=SequentialTaskRunner(), return_tasks=[first])
    plan = make_plan(flow)
    (one, two) = (n.index for n in plan.nodes if n.mapped)
    assert isinstance(state[first], Mapped)
    found = resume_after(plan, {one: state[first], two: state[second]}, {})
    for index in (one, two):
        assert found.kept[index].length == 5
        assert found.kept[index].todo == ((1, 2), (3, 4))
        spans = [(part.start, part.stop) for part in found.kept[index].segments]
        assert spans == [(0, 1), (2, 3), (4, 5)]
        assert not found.kept[index].is_whole
    assert found.paused == {one: {3: "Paused"}}


def test_the_names_of_pauses_are_known():
    with Flow("paused") as flow:
        waiting, paused = scripted(WAIT())(), scripted(PAUSE())()
    state = flow.run(task_runner=SequentialTaskRunner())
    states = {0: state[waiting], 1: state[paused], 2: Completed()}
    found = resume_after(make_plan(flow), states, {})
    assert found.paused == {0: {0: "Waiting"}, 1: {0: "Paused"}}
    assert not found.kept


def test_only_finished_states_are_given():
    states = {0: Pending(), 1: Failed("no"), 2: Completed(data=1)}
    found = given_states(chain(), states)
    assert set(found.kept) == {1, 2}
    assert all(whole.is_whole for whole in found.kept.values())
    assert given_states(chain(), {}) == NOTHING_EARLIER
