"""Resume: what completed stands, child by child; the rest runs again."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    Parameter,
    SequentialTaskRunner,
    ThreadPoolTaskRunner,
    context,
    resource_manager,
    task,
    unmapped,
)
from prefect_dask_core.errors import GraphError
from prefect_dask_core.signals import PAUSE, SKIP, WAIT
from prefect_dask_core.states import Completed, Failed, Pending
from prefect_dask_core.triggers import all_finished, manual_only
from tests.engine.random_flows import Body, build, is_valid, random_flows, told

#: What ran, in order; the workers of the shared cluster are in this process.
LOG = []
#: Inputs that bodies refuse for now.
BAD = set()


@pytest.fixture(autouse=True)
def _fresh():
    _fresh_lists()


def _fresh_lists():
    LOG.clear()
    BAD.clear()


@task
def load(x):
    LOG.append(f"load {x}")
    if x in BAD:
        raise ValueError(f"bad {x}")
    return x


@task
def inc(x):
    LOG.append(f"inc {x}")
    return x + 1


@task
def add(x, y):
    LOG.append(f"add {x} {y}")
    return x + y


@task
def total(numbers):
    LOG.append(f"total {sum(numbers)}")
    return sum(numbers)


@task
def numbers_up_to(n):
    LOG.append(f"numbers {n}")
    return list(range(n))


@task
def confirm(x=None):
    LOG.append(f"confirm {bool(context.get('resume'))}")
    if not context.get("resume"):
        raise PAUSE("is this right?")
    return "confirmed"


@task
def confirm_odd(x):
    LOG.append(f"confirm {x}")
    if x % 2 and not context.get("resume"):
        raise PAUSE(f"is {x} right?")
    return x


@task
def poll():
    waiting = bool(context.get("is_waiting"))
    LOG.append(f"poll {waiting}")
    if not waiting:
        raise WAIT("not there yet")
    return "there"


def kind(state):
    return type(state).__name__


def kinds(state):
    return [kind(child) for child in state]


def ran():
    """What ran since the last question, in the order of its text."""
    found = sorted(LOG)
    LOG.clear()
    return found


# -- failures ----------------------------------------------------------------------


def test_a_failed_task_runs_again_and_what_reads_it(runner):
    #  load(1) -> inc ---> add
    #  load(5) fails -------^
    with Flow("resumed") as flow:
        good = inc(load(1))
        both = add(good, load(5))
    BAD.add(5)
    state = flow.run(task_runner=runner)
    assert state.is_failed()
    assert kind(state[both]) == "TriggerFailed"
    assert ran() == ["inc 1", "load 1", "load 5"]
    BAD.clear()
    state = flow.run(task_runner=runner, resume=state)
    # Where the value of `inc` had not come home, it is made once more.
    assert set(ran()) >= {"add 2 5", "load 5"}
    assert state.is_successful()
    assert state[both].result() == 7


def test_what_completed_and_came_home_does_not_run_again(runner):
    with Flow("resumed") as flow:
        good = inc(load(1))
        both = add(good, load(5))
    BAD.add(5)
    state = flow.run(task_runner=runner, return_tasks=[good])
    ran()
    BAD.clear()
    state = flow.run(task_runner=runner, resume=state)
    assert ran() == ["add 2 5", "load 5"]
    assert state[both].result() == 7


def test_children_run_again_one_by_one(runner):
    with Flow("resumed") as flow:
        loaded = load.map([0, 1, 2, 3])
        incs = inc.map(loaded)
        summed = total(incs)
    BAD.update({1, 3})
    state = flow.run(task_runner=runner, return_tasks=[loaded, incs])
    assert kinds(state[loaded]) == ["Completed", "Failed", "Completed", "Failed"]
    ran()
    BAD.remove(1)
    state = flow.run(task_runner=runner, resume=state, return_tasks=[loaded, incs])
    assert ran() == ["inc 1", "load 1", "load 3"]
    assert kinds(state[incs]) == ["Completed"] * 3 + ["TriggerFailed"]
    assert kind(state[summed]) == "TriggerFailed"
    BAD.clear()
    state = flow.run(task_runner=runner, resume=state)
    assert ran() == ["inc 3", "load 3", "total 10"]
    assert state[loaded].result() == [0, 1, 2, 3]
    assert state[incs].result() == [1, 2, 3, 4]
    assert state.is_successful()


def test_a_task_that_reads_a_failure_runs_again(runner):
    @task(trigger=all_finished)
    def told_of(x):
        return type(x).__name__

    with Flow("resumed") as flow:
        told_type = told_of(load(5))
    BAD.add(5)
    state = flow.run(task_runner=runner)
    assert state[told_type].result() == "ValueError"
    BAD.clear()
    again = flow.run(task_runner=runner, resume=state)
    assert again[told_type].result() == "int"


def test_a_skipped_task_stands(runner):
    @task
    def skip_it(x):
        LOG.append("skip")
        raise SKIP("not today")

    with Flow("resumed") as flow:
        skipped = skip_it(1)
        below = inc(skipped)
        failed = load(5)
    BAD.add(5)
    state = flow.run(task_runner=SequentialTaskRunner(), return_tasks=[skipped])
    ran()
    BAD.clear()
    again = flow.run(task_runner=runner, resume=state)
    assert ran() == ["load 5"]
    assert kind(again[skipped]) == kind(again[below]) == "Skipped"
    assert again[failed].result() == 5


def test_a_run_that_completed_runs_nothing(runner):
    with Flow("resumed") as flow:
        summed = total(inc.map(numbers_up_to(3)))
    state = flow.run(task_runner=runner)
    assert len(ran()) == 5
    again = flow.run(task_runner=runner, resume=state)
    assert ran() == []
    assert again[summed].result() == 6
    assert flow.run(task_runner=runner, resume=again)[summed].result() == 6
    assert ran() == []


def test_the_runner_may_be_another_one(client):
    with Flow("resumed") as flow:
        loaded = load.map([0, 1, 2])
        summed = total(loaded)
    BAD.add(1)
    state = flow.run(task_runner=DaskTaskRunner(cluster=client), return_tasks=[loaded])
    BAD.clear()
    ran()
    state = flow.run(task_runner=SequentialTaskRunner(), resume=state)
    assert ran() == ["load 1", "total 3"]
    assert state[summed].result() == 3


def test_an_unmapped_failure_runs_all_children_again(runner):
    with Flow("resumed") as flow:
        factor = load(5)
        sums = add.map([1, 2], unmapped(factor))
    BAD.add(5)
    state = flow.run(task_runner=runner)
    assert kinds(state[sums]) == ["TriggerFailed"] * 2
    BAD.clear()
    ran()
    state = flow.run(task_runner=runner, resume=state)
    assert ran() == ["add 1 5", "add 2 5", "load 5"]
    assert state[sums].result() == [6, 7]


# -- pauses ------------------------------------------------------------------------


def test_a_paused_run_is_resumed(runner):
    with Flow("paused") as flow:
        first = load(1)
        confirmed = confirm(first)
        below = load(confirmed)
    state = flow.run(task_runner=runner, return_tasks=[first])
    assert kind(state) == kind(state[confirmed]) == "Paused"
    assert state[confirmed].message == "is this right?"
    assert (kind(state[below]), state[below].name) == ("Pending", "WaitingForUpstream")
    assert ran() == ["confirm False", "load 1"]
    state = flow.run(task_runner=runner, resume=state)
    assert ran() == ["confirm True", "load confirmed"]
    assert state.is_successful()
    assert state[below].result() == "confirmed"


def test_paused_children_are_resumed(runner):
    with Flow("paused") as flow:
        confirmed = confirm_odd.map([0, 1, 2, 3])
        incs = inc.map(confirmed)
        summed = total(incs)
    state = flow.run(task_runner=runner, return_tasks=[confirmed, incs])
    assert kinds(state[confirmed]) == ["Completed", "Paused", "Completed", "Paused"]
    assert kinds(state[incs]) == ["Completed", "Pending", "Completed", "Pending"]
    assert kind(state[summed]) == "Pending"
    assert kind(state) == "Paused"
    ran()
    state = flow.run(task_runner=runner, resume=state)
    assert ran() == ["confirm 1", "confirm 3", "inc 1", "inc 3", "total 10"]
    assert state[summed].result() == 10


def test_manual_only_waits_for_a_resumption(runner):
    with Flow("paused") as flow:
        first = load(1)
        manual = inc.with_options(trigger=manual_only)(first)
    state = flow.run(task_runner=runner, return_tasks=[first])
    assert kind(state[manual]) == kind(state) == "Paused"
    assert ran() == ["load 1"]
    state = flow.run(task_runner=runner, resume=state)
    assert ran() == ["inc 1"]
    assert state[manual].result() == 2


def test_a_waiting_task_finds_that_it_was_waiting(runner):
    with Flow("waiting") as flow:
        polled = poll()
        below = load(polled)
    state = flow.run(task_runner=runner)
    assert (kind(state[polled]), state[polled].name) == ("Paused", "Waiting")
    assert (kind(state[below]), state[below].name) == ("Pending", "WaitingForUpstream")
    assert kind(state) == "Paused"
    state = flow.run(task_runner=runner, resume=state)
    assert ran() == ["load there", "poll False", "poll True"]
    assert state[below].result() == "there"


# -- changes -----------------------------------------------------------------------


def test_a_changed_parameter_runs_what_depends_on_it(runner):
    with Flow("parameters") as flow:
        a, b = Parameter("a"), Parameter("b", default=10)
        left, right = load(a), inc(b)
        both = add(left, right)
    state = flow.run(a=1, task_runner=runner, return_tasks=[left, right])
    assert state[both].result() == 12
    ran()
    again = flow.run(a=1, task_runner=runner, resume=state)
    assert ran() == []
    changed = flow.run(a=5, task_runner=runner, resume=again)
    assert ran() == ["add 5 11", "load 5"]
    assert changed[both].result() == 16


def test_parameters_are_those_of_the_earlier_run_unless_given(runner):
    with Flow("parameters") as flow:
        loaded = load(Parameter("a"))
    BAD.add(3)
    state = flow.run(a=3, task_runner=runner)
    BAD.clear()
    assert flow.run(task_runner=runner, resume=state)[loaded].result() == 3
    assert flow.run(a=4, task_runner=runner, resume=state)[loaded].result() == 4


@pytest.mark.parametrize("numbers", [[0, 1], [0, 1, 2, 3], [7, 1, 2], []])
def test_a_list_that_changed_is_mapped_over_anew(runner, numbers):
    with Flow("parameters") as flow:
        loaded = load.map(Parameter("numbers"))
        incs = inc.map(loaded)
    BAD.add(1)
    returned = [loaded, incs]
    state = flow.run(numbers=[0, 1, 2], task_runner=runner, return_tasks=returned)
    ran()
    BAD.clear()
    state = flow.run(numbers=numbers, task_runner=runner, resume=state)
    assert ran() == sorted(f"{name} {x}" for x in numbers for name in ("inc", "load"))
    assert state[incs].result() == [x + 1 for x in numbers]


def test_a_length_that_changes_because_its_task_failed_before(runner):
    @task
    def length(x):
        return [1] if isinstance(x, ValueError) else [1, 2, 3]

    with Flow("lengths") as flow:
        loaded = load(5)
        lengths = length.with_options(trigger=all_finished)(loaded)
        incs = inc.map(lengths)
    BAD.add(5)
    state = flow.run(task_runner=runner, return_tasks=[incs])
    assert state[incs].result() == [2]
    BAD.clear()
    assert flow.run(task_runner=runner, resume=state)[incs].result() == [2, 3, 4]


# -- states that are given ---------------------------------------------------------


def test_given_states_are_taken_as_they_are(runner):
    with Flow("given") as flow:
        first = load(1)
        second = inc(first)
    state = flow.run(task_runner=runner, task_states={first: Completed(data=41)})
    assert ran() == ["inc 41"]
    assert state[second].result() == 42
    state = flow.run(
        task_runner=runner, task_states={first: Failed(data=OSError("given"))}
    )
    assert ran() == []
    assert kind(state[second]) == "TriggerFailed"


def test_a_given_list_is_mapped_over(runner):
    with Flow("given") as flow:
        numbers = numbers_up_to(2)
        incs = inc.map(numbers)
    given_list = {numbers: Completed(data=[5, 6, 7])}
    state = flow.run(task_runner=runner, task_states=given_list)
    assert state[incs].result() == [6, 7, 8]
    assert ran() == ["inc 5", "inc 6", "inc 7"]


def test_unfinished_given_states_are_not_taken(runner):
    with Flow("given") as flow:
        first = load(1)
    state = flow.run(task_runner=runner, task_states={first: Pending()})
    assert state[first].result() == 1


def test_given_states_name_tasks_of_the_flow():
    with Flow("given") as flow:
        load(1)
    with pytest.raises(GraphError, match="which is not a task of flow 'given'"):
        flow.run(task_states={inc: Completed()})


@pytest.mark.parametrize("wrong", [Completed(), Failed("no"), 3, {}])
def test_only_a_state_of_a_flow_run_is_resumed(wrong):
    with Flow("wrong") as flow:
        load(1)
    with pytest.raises(GraphError, match="give the state that an earlier"):
        flow.run(resume=wrong)


# -- resources ---------------------------------------------------------------------


@resource_manager
class Connection:
    def setup(self):
        LOG.append("open")
        return 10

    def cleanup(self, connection):
        LOG.append("close")


def test_a_resource_is_set_up_anew_for_what_runs_again(runner):
    with Flow("resource") as flow, Connection() as connection:
        left = add(connection, load(1))
        right = add(connection, load(2))
    BAD.add(2)
    state = flow.run(task_runner=runner, return_tasks=[left])
    assert ran() == ["add 10 1", "close", "load 1", "load 2", "open"]
    BAD.clear()
    state = flow.run(task_runner=runner, resume=state)
    assert ran() == ["add 10 2", "close", "load 2", "open"]
    assert (state[left].result(), state[right].result()) == (11, 12)


def test_a_resource_is_not_set_up_for_nothing(runner):
    with Flow("resource") as flow, Connection() as connection:
        add(connection, load(1))
    state = flow.run(task_runner=runner)
    assert ran() == ["add 10 1", "close", "load 1", "open"]
    assert flow.run(task_runner=runner, resume=state).is_successful()
    assert ran() == []


# -- laws --------------------------------------------------------------------------

shared_cluster = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def each_runner(client):
    return st.sampled_from(
        [
            SequentialTaskRunner(),
            ThreadPoolTaskRunner(2),
            DaskTaskRunner(cluster=client),
        ]
    )


class Counting(Body):
    """A body that notes its name, and fails at first where it is told to."""

    def __init__(self, body, failing):
        super().__init__(body.__name__, width=body.width)
        self.failing = failing

    def __call__(self, **inputs):
        LOG.append(self.__name__)
        if BAD and (context.map_index or 0) in self.failing:
            raise ValueError(f"{self.__name__} fails for now")
        return super().__call__(**inputs)


def calm(drawn, failing):
    """The same flow with bodies that count and fail only while `BAD` is not empty."""
    for spec in drawn:
        spec.body = Counting(spec.body, failing.get(spec.name, ()))
        spec.options["retries"] = 0
    return build(drawn)


@settings(shared_cluster, max_examples=40)
@given(random_flows(troubles=False), st.data())
def test_a_random_run_that_completed_runs_nothing_again(client, drawn, data):
    assume(is_valid(drawn))
    _fresh_lists()
    flow, tasks = calm(drawn, {})
    runner = data.draw(each_runner(client))
    state = flow.run(task_runner=runner)
    assume(all(successful(state[task]) for task in tasks))
    LOG.clear()
    again = flow.run(task_runner=runner, resume=state)
    assert LOG == []
    assert again.is_successful()
    last = flow.terminal_tasks()
    assert [told(again[t])[:2] for t in last] == [told(state[t])[:2] for t in last]


@settings(shared_cluster, max_examples=60)
@given(random_flows(troubles=False), st.data())
def test_a_random_run_resumed_equals_a_fresh_one(client, drawn, data):
    assume(is_valid(drawn))
    _fresh_lists()
    names = st.sampled_from([spec.name for spec in drawn])
    where = st.sets(st.integers(0, 3), min_size=1)
    flow, tasks = calm(drawn, data.draw(st.dictionaries(names, where)))
    runner = data.draw(each_runner(client))
    home = data.draw(st.sampled_from([(), tasks]))
    BAD.add("now")
    failed = flow.run(task_runner=runner, return_tasks=home)
    BAD.clear()
    resumed = flow.run(task_runner=runner, resume=failed, return_tasks=tasks)
    fresh = flow.run(task_runner=SequentialTaskRunner(), return_tasks=tasks)
    assert [told(resumed[t]) for t in tasks] == [told(fresh[t]) for t in tasks]
    assert (kind(resumed), resumed.message) == (kind(fresh), fresh.message)


def successful(state):
    return state.is_successful() and all(
        child.is_successful() for child in (state if state.is_mapped() else ())
    )
