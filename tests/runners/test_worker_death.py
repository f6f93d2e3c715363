"""Worker processes die; each death is a state, and everything else goes on."""

import os
import threading
import time

import dask
import pytest
from distributed import Client, LocalCluster

from prefect_dask_core import DaskTaskRunner, Flow, Task, context, task
from prefect_dask_core.ledger import Ledger
from prefect_dask_core.monitor.recorded_run import recorded_run
from prefect_dask_core.monitor.report_columns import runs_of, timeline
from prefect_dask_core.runners import dask_run, outbox
from prefect_dask_core.triggers import all_finished, any_successful

PROCESSES = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@task
def inc(x):
    return x + 1


@task
def total(xs):
    return sum(xs)


@task(trigger=all_finished)
def clean(x=None):
    return "clean"


@task
def die(x=None):
    time.sleep(0.05)  # so that what ran before it has been reported
    os._exit(1)


def kinds(state):
    return [type(child).__name__ for child in state]


def kind(state):
    return type(state).__name__


@pytest.fixture
def run(process_client):
    runner = DaskTaskRunner(cluster=process_client)
    return lambda flow: flow.run(task_runner=runner)


def test_a_plain_body_that_kills_its_process_crashes_alone(run):
    #  die - below - cleanup
    #  one - two              an independent branch
    with Flow("death") as flow:
        killed = die()
        below = inc(killed)
        cleanup = clean(below)
        two = inc(inc(0))
    state = run(flow)
    assert kind(state[killed]) == "Crashed"
    assert "died while running it" in state[killed].message
    assert kind(state[below]) == "TriggerFailed"
    assert state[below].message == "trigger 'all_successful' refused: die failed"
    assert state[cleanup].result() == "clean"
    assert state[two].result() == 2
    assert kind(state) == "Completed"


def test_what_ran_before_a_crash_in_a_chain_is_completed(run):
    with Flow("chain") as flow:
        first = inc(0)
        killed = die(first)
        cleanup = clean(killed)
    state = run(flow)
    assert state[first].is_successful()
    assert kind(state[killed]) == "Crashed"
    assert state[cleanup].result() == "clean"


def test_a_crash_is_judged_by_several_readers(run):
    with Flow("readers") as flow:
        killed = die()
        left, right = inc(killed), clean(killed)
        some = Task(lambda x, y: y, name="some", trigger=any_successful)(left, right)
    state = run(flow)
    assert kind(state[killed]) == "Crashed"
    assert kind(state[left]) == "TriggerFailed"
    assert state[right].result() == "clean"
    assert state[some].result() == "clean"


def test_what_is_mapped_over_a_crash_is_refused(run):
    with Flow("mapped") as flow:
        killed = die()
        many = inc.map(killed)
        cleanup = clean(many)
    state = run(flow)
    assert kind(state[killed]) == "Crashed"
    assert kind(state[many]) == "TriggerFailed"
    assert state[cleanup].result() == "clean"


def test_the_worker_that_died_with_a_run_is_known(process_client, tmp_path):
    with Flow("whose deaths") as flow:
        killed = die()
        many = Task(lambda x: os._exit(1) if x else x, name="many").map([0, 1])
    # Workers that were replaced have others in their place by the end.
    ledger = Ledger(tmp_path / "ledger.sqlite")
    runner = DaskTaskRunner(cluster=process_client)
    state = flow.run(task_runner=runner, ledger=ledger)
    for crashed in (state[killed], state[many][1]):
        assert kind(crashed) == "Crashed"
        assert crashed.run.worker.startswith("tcp://")
        assert crashed.run.worker in crashed.message
        assert (crashed.run.attempts, crashed.run.begin) == (0, None)
    recorded = ledger.run(state.run_id)
    for found, crashed in (("die", state[killed]), ("many", state[many][1])):
        columns = recorded.columns(found)
        assert columns.workers[-1] == crashed.run.worker
    for view in (state.states.view, recorded_run(recorded)):
        runs = runs_of(view)
        assert {runs.workers[worker] for _, worker, _, _ in runs.lost} == {
            state[killed].run.worker,
            state[many][1].run.worker,
        }
        shown = timeline(runs, by_worker=True)
        assert sorted(shown.crashes["name"]) == ["die", "many[1]"]
        rows = {shown.rows[int(-y - 0.5)] for y in shown.crashes["y"]}
        assert rows == {state[killed].run.worker, state[many][1].run.worker}


@pytest.mark.parametrize("count", [4, 40])
def test_one_child_that_kills_its_process_crashes_alone(run, count):
    culprit = count // 2

    @task
    def maybe_die(x):
        if x == culprit:
            os._exit(1)
        return x

    with Flow("children") as flow:
        many = maybe_die.map(range(count))
        again = inc.map(many)
        cleanup = Task(lambda xs: len(xs), name="cleanup", trigger=all_finished)(again)
        apart = inc(1)
    state = run(flow)
    assert kinds(state[many]) == [
        "Crashed" if i == culprit else "Completed" for i in range(count)
    ]
    assert "died while running it" in state[many][culprit].message
    # They ran in one block, which is lost as a whole.
    assert kinds(state[again]) in (
        [c if c == "Completed" else "Crashed" for c in kinds(state[many])],
        [c if c == "Completed" else "TriggerFailed" for c in kinds(state[many])],
    )
    assert state[cleanup].result() == count
    assert state[apart].result() == 2


def test_a_worker_that_is_killed_from_outside_costs_nobody_a_state(
    process_client, tmp_path
):
    @task
    def note(x):
        time.sleep(0.01)
        # Who ran it, as often as it ran.
        (tmp_path / f"{x}-{os.getpid()}-{time.monotonic_ns()}").touch()
        return x, os.getpid()

    with Flow("outside") as flow:
        many = note.map(range(400))
        values = Task(lambda xs: [x for x, _ in xs], name="values")(many)
    runner = DaskTaskRunner(cluster=process_client)
    killed = []

    def kill_one():
        while len(list(tmp_path.iterdir())) < 60:
            time.sleep(0.01)
        pid = int(next(tmp_path.iterdir()).name.split("-")[1])
        killed.append(pid)
        os.kill(pid, 9)

    killer = threading.Thread(target=kill_one)
    killer.start()
    # A death from outside is no fault of the block that happened to run there.
    with process_client.as_current():
        process_client.run_on_scheduler(set_allowed_failures, 3)
        try:
            state = flow.run(task_runner=runner)
        finally:
            process_client.run_on_scheduler(set_allowed_failures, 0)
    killer.join()
    assert killed
    assert kinds(state[many]) == ["Completed"] * 400
    assert state[values].result() == list(range(400))
    assert [x for x, _ in state[many].result()] == list(range(400))
    ran = {int(path.name.split("-")[0]) for path in tmp_path.iterdir()}
    assert ran == set(range(400))


def set_allowed_failures(number, dask_scheduler=None):
    dask_scheduler.allowed_failures = number


def test_a_result_whose_worker_dies_is_computed_again(process_client, tmp_path):
    @task
    def numbers():
        (tmp_path / str(time.monotonic_ns())).touch()
        # Large, so that it stays on its worker.
        return [b"x" * 100_000 for _ in range(5)], os.getpid()

    @task
    def kill(pair):
        _, pid = pair
        if len(list(tmp_path.iterdir())) == 1:
            os.kill(pid, 9)
            time.sleep(1)
        return 1

    @task
    def sizes(pair, one):
        return [len(x) for x in pair[0]]

    with Flow("again") as flow:
        made = numbers()
        last = sizes(made, kill(made))
    process_client.run_on_scheduler(set_allowed_failures, 3)
    try:
        state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    finally:
        process_client.run_on_scheduler(set_allowed_failures, 0)
    assert state[last].result() == [100_000] * 5


def gather_reports(seconds):
    outbox.UNHURRIED = seconds


def test_a_report_that_a_dying_worker_takes_along_is_asked_for(tmp_path):
    """One that waits for others, of a node whose value nobody needs any more."""

    @task
    def fail(x, y):
        (tmp_path / "failed").touch()
        raise ValueError("no")

    @task
    def die_after():
        while not (tmp_path / "failed").exists():
            time.sleep(0.01)
        time.sleep(0.5)  # the failure is told at once, and what it read forgotten
        os._exit(1)

    with Flow("untold") as flow:
        dying = die_after()
        first, second = inc(1), inc(2)
        failed = fail(first, second)
    with (
        LocalCluster(**{**PROCESSES, "n_workers": 1, "threads_per_worker": 2}) as made,
        Client(made, set_as_default=False) as own,
    ):
        own.run(gather_reports, 1_000.0)
        state = flow.run(task_runner=DaskTaskRunner(cluster=own))
    assert [kind(state[node]) for node in (first, second)] == ["Completed"] * 2
    assert (state[first].result(), state[second].result()) == (2, 3)
    assert kind(state[failed]) == "Failed"
    assert kind(state[dying]) == "Crashed"


def test_a_lost_report_of_what_is_still_there_costs_no_second_run(
    process_client, tmp_path, monkeypatch
):
    monkeypatch.setattr(dask_run, "CERTAINLY_LOST", 0.1)

    @task
    def note(x):
        (tmp_path / f"{x}-{time.monotonic_ns()}").touch()
        return x

    @task
    def slow(x, y):
        time.sleep(3)
        return x + y

    with Flow("untold") as flow:
        first, second = note(1), note(2)
        last = slow(first, second)
    process_client.run(gather_reports, 1_000.0)
    try:
        state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    finally:
        process_client.run(gather_reports, outbox.UNHURRIED)
    assert [state[node].result() for node in (first, second, last)] == [1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_crash_on_a_temporary_cluster_is_a_state_too():
    with Flow("temporary") as flow:
        killed = die()
        many = Task(lambda x: os._exit(1) if x else x, name="many").map([0, 1])
        cleanup = clean([killed, many])
    runner = DaskTaskRunner(cluster_kwargs={**PROCESSES, "n_workers": 1})
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        state = flow.run(task_runner=runner, return_tasks=[killed, many])
    assert kind(state[killed]) == "Crashed"
    assert kinds(state[many]) == ["Completed", "Crashed"]
    assert state[cleanup].result() == "clean"


def test_a_worker_that_retires_costs_nobody_an_attempt():
    @task
    def slow(x):
        time.sleep(0.02)
        return context.task_run_count

    with Flow("retire") as flow:
        many = slow.map(range(100))
    with (
        LocalCluster(**PROCESSES) as made,
        Client(made, set_as_default=False) as own,
    ):
        addresses = list(own.scheduler_info()["workers"])
        timer = threading.Timer(
            0.5, own.retire_workers, kwargs={"workers": addresses[:1]}
        )
        timer.start()
        state = flow.run(task_runner=DaskTaskRunner(cluster=own))
        timer.join()
        assert state[many].result() == [1] * 100
