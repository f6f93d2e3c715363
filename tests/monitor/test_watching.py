"""Watchers are told everything once, on every runner, and can break nothing."""

import logging
import pickle
import subprocess
import sys
import threading
import time

import pytest

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    Parameter,
    SequentialTaskRunner,
    ThreadPoolTaskRunner,
    flow,
    task,
)
from prefect_dask_core.monitor.watchers import makers_of, watched_by


class Witness:
    """Takes down what it is told."""

    def __init__(self, view):
        self.view = view
        self.told = []
        self.nodes = []
        self.fan_outs = []
        self.segments = []
        self.state = None
        self.may_close = threading.Event()
        self.may_close.set()
        self.closed = threading.Event()

    def began(self, view):
        self.told.append("began")

    def advanced(self, view, news):
        self.told.append("advanced")
        self.nodes += news.nodes
        self.fan_outs += news.fan_outs
        self.segments += news.segments
        self.last = news.are_last

    def ended(self, view, state):
        self.told.append("ended")
        assert self.last
        self.state = state

    def close(self):
        assert self.told[-1] in ("ended", "advanced")  # the latter of a broken one
        assert self.may_close.wait(10)
        self.closed.set()

    def children(self, name):
        """Indices that were told of the fan-outs of a task."""
        numbers = {node.number for node in self.nodes if node.name == name}
        return sorted(
            index
            for number, segment in self.segments
            if number in numbers
            for index in range(segment.start, segment.stop)
        )


@pytest.fixture
def witnesses():
    found = []

    def make(view):
        found.append(Witness(view))
        return found[-1]

    with watched_by(make):
        yield found


@pytest.fixture(params=["sequential", "threads", "dask"])
def runner(request):
    if request.param == "sequential":
        return SequentialTaskRunner()
    if request.param == "threads":
        return ThreadPoolTaskRunner(2)
    return DaskTaskRunner(cluster=request.getfixturevalue("client"))


@task
def double(x):
    if x == 3:
        raise ValueError("three")
    return 2 * x


@task
def keep(xs):
    return len(xs)


def doubling():
    with Flow("doubling") as made:
        doubled = double.map(Parameter("xs"))
        keep(doubled, upstream_tasks=[double(1)])
    return made


def test_a_watcher_of_a_graph_flow_is_told_everything_once(runner, witnesses):
    state = doubling().run(xs=list(range(40)), task_runner=runner)
    (witness,) = witnesses
    assert witness.told[0] == "began"
    assert witness.told[-2:] == ["advanced", "ended"]
    assert witness.state.type is state.type
    assert [node.name for node in witness.nodes] == ["xs", "double", "double", "keep"]
    mapped = next(node for node in witness.nodes if node.mapped)
    assert witness.fan_outs == [mapped.number]
    assert [edge.key for edge in mapped.edges] == ["x"]
    told = [number for number, _ in witness.segments]
    assert sorted(set(told)) == [0, 1, 2, 3]
    starts = [(number, segment.start) for number, segment in witness.segments]
    assert len(starts) == len(set(starts))
    assert witness.children("double") == sorted([0, *range(40)])  # and the plain one


def test_a_watcher_of_a_function_flow_sees_what_is_submitted_and_called(
    runner, witnesses
):
    @flow(task_runner=runner)
    def count(n):
        keep([1])
        found = double.map(range(n))
        return keep.submit(found.result(raise_on_failure=False))

    count(10, return_state=True)
    (witness,) = witnesses
    assert witness.view.info.flow_name == "count"
    assert witness.view.info.parameters == {"n": 10}
    assert sorted(node.slug for node in witness.nodes) == [
        "double-0",
        "keep-0",
        "keep-1",
    ]
    assert witness.children("double") == list(range(10))
    assert witness.children("keep") == [0, 0]


def test_a_flow_inside_of_another_is_a_run_of_its_own_with_a_parent(witnesses):
    @flow(task_runner=ThreadPoolTaskRunner(2))
    def inner():
        return keep.submit([1])

    @task
    def middle():
        return inner()

    @flow(task_runner=ThreadPoolTaskRunner(2))
    def outer():
        inner()
        return middle.submit().result()

    assert outer() == 1
    first, *rest = sorted(witnesses, key=lambda found: found.view.info.begin)
    assert first.view.info.flow_name == "outer"
    assert first.view.info.parent_run_id is None
    assert [found.view.info.flow_name for found in rest] == ["inner", "inner"]
    parents = {found.view.info.parent_run_id for found in rest}
    assert parents == {first.view.info.run_id}
    direct, in_task = rest
    assert direct.view.info.parent_task_run_id is None
    assert in_task.view.info.parent_task_run_id is not None


def test_a_graph_flow_in_a_task_has_a_parent(witnesses):
    @task
    def middle():
        doubling().run(xs=[1], task_runner=SequentialTaskRunner())

    with Flow("outer") as outer:
        middle()
    outer.run(task_runner=SequentialTaskRunner())
    first, second = sorted(witnesses, key=lambda found: found.view.info.begin)
    assert second.view.info.parent_run_id == first.view.info.run_id
    assert second.view.info.parent_task_run_id is not None


def test_news_come_while_a_run_goes_on(witnesses):
    @task
    def wait_for_news(x):
        if x:
            witness = witnesses[0]
            while 0 not in witness.children("wait-for-news"):
                time.sleep(0.01)

    with Flow("slow") as slow:
        wait_for_news.with_options(name="wait-for-news").map([0, 1])
    state = slow.run(task_runner=ThreadPoolTaskRunner(2))
    assert state.is_successful()


class Broken(Witness):
    def advanced(self, view, news):
        super().advanced(view, news)
        raise RuntimeError("the watcher is broken")


def test_nobody_waits_until_a_watcher_has_closed(witnesses):
    @task
    def hold():
        witnesses[0].may_close.clear()

    with Flow("held") as made:
        hold()
    assert made.run(task_runner=SequentialTaskRunner()).is_successful()
    (witness,) = witnesses
    assert not witness.closed.is_set()
    witness.may_close.set()
    assert witness.closed.wait(10)


def test_a_child_that_a_body_forks_off_may_leave(tmp_path):
    script = """
import os, sys
from prefect_dask_core import Flow, SequentialTaskRunner, task

@task
def leave():
    child = os.fork()
    if not child:
        sys.exit()  # ends the body and, in the child, the run
    os.waitpid(child, 0)

with Flow("forked") as made:
    leave()
parent = os.getpid()
state = made.run(task_runner=SequentialTaskRunner(), ledger=sys.argv[1])
assert state.is_successful() == (os.getpid() == parent), state
"""
    path = str(tmp_path / "ledger.sqlite")
    command = [sys.executable, "-W", "ignore", "-c", script, path]
    assert subprocess.run(command, timeout=60).returncode == 0


def test_a_watcher_that_fails_is_logged_and_harms_nothing(caplog):
    made = []

    def break_at_once(view):
        raise RuntimeError("there is no watcher")

    def make(view):
        made.append(Broken(view))
        return made[-1]

    with watched_by(break_at_once), watched_by(make):
        state = doubling().run(xs=[1, 2], task_runner=SequentialTaskRunner())
    assert state.is_successful()
    assert made[0].told == ["began", "advanced"]  # and nothing after it failed
    assert made[0].closed.wait(10)
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "there is no watcher" in errors[0].exc_text
    assert "the watcher is broken" in errors[1].exc_text


def test_an_interrupted_run_ends_as_cancelled_for_its_watchers(witnesses):
    @task
    def interrupt():
        raise KeyboardInterrupt

    with Flow("interrupted") as interrupted:
        interrupt()

    class Runner(SequentialTaskRunner):
        def run(self, flow_run):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.run(task_runner=Runner())
    (witness,) = witnesses
    assert witness.told[-1] == "ended"
    assert witness.state.is_cancelled()


def test_a_function_flow_that_is_refused_ends_for_its_watchers(witnesses):
    @flow(flow_run_name="{nothing}", task_runner=SequentialTaskRunner())
    def named():
        return 1

    state = named(return_state=True)
    assert state.is_failed()
    assert witnesses[0].told[0] == "began"
    assert witnesses[0].state is state


def test_the_view_of_an_ended_run_travels_without_tasks_and_values(runner):
    with Flow("doubling") as made:
        doubled = double.map([1, 2, 3])
        keep(doubled)
    state = made.run(task_runner=runner)
    view = pickle.loads(pickle.dumps(state.states.view))
    assert view.info.flow_name == "doubling"
    assert view.children(0).counts() == {"Completed": 2, "Failed": 1}
    assert view.children(0).times(0)[1] >= view.info.begin
    assert all(segment.values is None for segment in view.segments(0))
    assert view.state_of(1).is_failed()
    assert view.end >= view.info.begin
    assert view.state.is_failed()
    assert view.state.states is None


def test_a_view_travels_whatever_the_parameters_are():
    @flow(task_runner=SequentialTaskRunner())
    def locked(lock):
        return 1

    view = locked(threading.Lock(), return_state=True).states.view
    with pytest.raises(TypeError):
        pickle.dumps(view.info.parameters["lock"])
    assert "lock" in pickle.loads(pickle.dumps(view)).info.parameters["lock"]


def test_the_states_of_a_run_keep_its_view_when_pickled():
    @flow(task_runner=SequentialTaskRunner())
    def count():
        return keep.submit([1])

    for state in (
        count(return_state=True),
        doubling().run(xs=[1], task_runner=SequentialTaskRunner()),
    ):
        twin = pickle.loads(pickle.dumps(state))
        assert twin.states.view.info == state.states.view.info
        assert twin.states.view.nodes == state.states.view.nodes


class OwnRunner:
    """A runner of a user's, who knows nothing of views."""

    def run(self, flow_run):
        inner = SequentialTaskRunner()
        return inner.run(type(flow_run)(flow_run.plan, flow_run.variables, frozenset()))


def test_of_an_unknown_runner_the_end_is_seen(witnesses):
    doubling().run(xs=[1, 2], task_runner=OwnRunner())
    (witness,) = witnesses
    assert witness.children("double") == [0, 0, 1]


def test_nobody_watches_after_the_block():
    def make(view):
        raise AssertionError

    with watched_by(make):
        assert make in makers_of(None)
    assert make not in makers_of(None)


@pytest.mark.parametrize("given", ["yes", 1, []])
def test_progress_is_yes_or_no(given):
    with pytest.raises(TypeError, match="flow 'doubling': progress="):
        doubling().run(xs=[1], progress=given)
    with pytest.raises(TypeError, match="flow 'count': progress="):
        flow(progress=given, name="count")(len)
