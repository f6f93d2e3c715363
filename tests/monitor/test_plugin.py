"""What is collected on a real scheduler while flows run on it."""

from __future__ import annotations

import os
import threading
import time

import dask
import pytest
from distributed import Client, LocalCluster

from prefect_dask_core import DaskTaskRunner, Flow, flow, task, triggers, unmapped
from prefect_dask_core.monitor.columns import about_run, about_tasks, texts_of_failures
from prefect_dask_core.monitor.dashboard import register
from prefect_dask_core.monitor.failures import MOST_FAILURES
from prefect_dask_core.monitor.plugin import NAME, MonitorPlugin, plugin_of


@task
def load(x):
    if x % 10 == 7:
        raise ValueError(f"cannot load {x}")
    return x


@task(retries=1, retry_delay_seconds=0.2)
def fetch(x, api_token):
    raise OSError(f"no answer for {x} from https://ann:pa55@host, token={api_token}")


@task(trigger=triggers.all_finished)
def total(xs):
    return len(xs)


@task
def double(x):
    return 2 * x


@pytest.fixture
def plugin(watched, watched_client):
    """The plugin of the watched cluster, which a first run puts there."""
    with Flow("first") as first:
        double(1)
    first.run(task_runner=DaskTaskRunner(cluster=watched_client))
    return plugin_of(watched.scheduler)


@pytest.fixture
def run_watched(plugin, watched_client):
    """Run a flow, and give its state and what the scheduler knows of the run."""

    def run(given):
        state = given.run(task_runner=DaskTaskRunner(cluster=watched_client))
        return state, plugin.newest()

    return run


def test_the_counts_of_a_run_are_those_of_its_states(run_watched):
    with Flow("sums") as sums:
        loaded = load.map(list(range(100)))
        total(double.map(loaded))
    state, run = run_watched(sums)
    assert run.counts() == state.states.counts()
    assert run.counts() == {"Completed": 181, "Failed": 10, "TriggerFailed": 10}
    about = about_run(run, time.time())
    assert about["state"] == type(state).__name__
    assert (about["done"], about["task_runs"]) == (201, 201)
    tasks = {found["task"]: found for found in about_tasks(run, time.time())}
    assert tasks["load"]["counts"] == {"Completed": 90, "Failed": 10}
    assert tasks["total"]["counts"] == {"Completed": 1}


@pytest.mark.parametrize("bad", [False, True])
def test_a_run_is_told_to_have_ended_as_it_did(run_watched, bad):
    with Flow("either") as either:
        total(load.map([6, 7 if bad else 8]))
        last = double(load(7 if bad else 8))
    either.set_reference_tasks([last])
    state, run = run_watched(either)
    assert (run.ended.state, run.ended.message) == (type(state).__name__, state.message)
    assert run.ended.state == ("Failed" if bad else "Completed")
    assert run.counts() == state.states.counts()


def test_before_the_end_is_told_the_counts_are_those_of_the_reports(run_watched):
    # What the last message says would hide what the others say wrongly.
    with Flow("sums") as sums:
        total(double.map(load.map(list(range(100)))))
        double(double(3))
    counts = {}
    end = MonitorPlugin._take_told

    def look_first(self, run, told):
        if "end" in told:
            counts.update(run.counts())
        end(self, run, told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MonitorPlugin, "_take_told", look_first)
        state, _ = run_watched(sums)
    assert counts == state.states.counts()


def test_a_failure_is_told_with_its_place_and_without_secrets(run_watched):
    with Flow("fetching") as fetching:
        fetch.map([1, 2], api_token=unmapped("abc"))
    _, run = run_watched(fetching)
    first, _ = texts_of_failures(run)
    assert first["run"] == "fetch[0]"
    assert first["attempts"] == 2
    assert first["message"].startswith("OSError: no answer for 1 from https://ann:")
    assert first["arguments"] == "x=1, api_token=<hidden>"
    assert "in fetch" in first["traceback"]
    assert "prefect_dask_core/" not in first["traceback"]
    assert first["worker"].startswith(("inproc://", "tcp://"))
    assert "pa55" not in str(first)
    assert "abc" not in first["message"] + first["arguments"]


def test_a_wait_for_a_retry_is_a_bar_of_its_own(run_watched):
    with Flow("fetching") as fetching:
        fetch(1, "abc")
    _, run = run_watched(fetching)
    (wait,) = [bar for row, bar in run.bars if not row.of]
    (ran,) = [bar for row, bar in run.bars if row.of]
    assert ran.begin <= wait.begin < wait.end <= ran.end
    assert wait.end - wait.begin >= 0.15
    assert ran.retries == 1


def test_of_many_failures_the_first_are_kept(run_watched):
    with Flow("failing") as failing:
        load.map([7] * 100)
    _, run = run_watched(failing)
    assert run.counts() == {"Failed": 100}
    found = texts_of_failures(run)
    assert [one["run"] for one in found] == [f"load[{n}]" for n in range(MOST_FAILURES)]


def test_a_function_flow_is_shown_with_the_state_it_gave_itself(plugin, watched_client):
    @flow(name="careless", task_runner=DaskTaskRunner(cluster=watched_client))
    def careless():
        futures = [load.submit(n) for n in range(20)]
        mapped = double.map(list(range(30)))
        for future in futures:
            future.wait()
        mapped.wait()
        return "whatever happened"

    assert careless() == "whatever happened"
    run = plugin.newest()
    about = about_run(run, time.time())
    assert (about["flow"], about["state"]) == ("careless", "Completed")
    assert about["counts"] == {"Completed": 48, "Failed": 2}


def test_a_function_flow_that_raises_is_shown_as_failed(plugin, watched_client):
    @flow(name="raising", task_runner=DaskTaskRunner(cluster=watched_client))
    def raising():
        double.submit(1).wait()
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        raising()
    about = about_run(plugin.newest(), time.time())
    assert (about["state"], about["message"]) == ("Failed", "RuntimeError: no more")


def test_a_run_inside_a_run_names_its_parent(plugin, watched_client):
    with Flow("inner") as inner:
        double(2)

    @task
    def outer_task():
        return inner.run().is_successful()

    with Flow("outer") as outer:
        outer_task()
    state = outer.run(task_runner=DaskTaskRunner(cluster=watched_client))
    assert state.is_successful()
    runs = {about["flow"]: about for about in abouts(plugin)}
    assert runs["inner"]["parent"] == runs["outer"]["id"]


def abouts(plugin):
    return [about_run(run, time.time()) for run in plugin.runs.values()]


def test_two_runs_at_once_are_counted_apart(plugin, watched_client):
    flows = []
    for number in (30, 50):
        with Flow(f"of {number}") as made:
            load.map(list(range(number)))
        flows.append(made)
    runner = DaskTaskRunner(cluster=watched_client)
    threads = [
        threading.Thread(target=made.run, kwargs={"task_runner": runner})
        for made in flows
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = {about["flow"]: about["counts"] for about in abouts(plugin)}
    assert counts["of 30"] == {"Completed": 27, "Failed": 3}
    assert counts["of 50"] == {"Completed": 45, "Failed": 5}


def test_only_the_newest_ended_runs_are_kept_and_all_are_counted(run_watched, plugin):
    with Flow("again") as again:
        double(1)
    before = plugin.task_runs()["again", "double", "Completed"]
    kept, plugin._most_runs = plugin._most_runs, 2
    try:
        for _ in range(4):
            run_watched(again)
        assert len(plugin.runs) == 2
    finally:
        plugin._most_runs = kept
    assert plugin.task_runs()["again", "double", "Completed"] == before + 4


def test_many_clients_share_one_plugin(watched, plugin):
    pages = len(watched.scheduler.http_application.applications)
    with Flow("once") as once:
        double(1)
    for _ in range(3):
        with Client(watched, set_as_default=False) as client:
            once.run(task_runner=DaskTaskRunner(cluster=client))
    assert plugin_of(watched.scheduler) is plugin
    assert register(watched.scheduler) is plugin
    assert len(watched.scheduler.http_application.applications) == pages


def test_nobody_is_told_where_the_pages_are_switched_off(plugin, watched_client):
    seen = plugin.version
    with Flow("secret") as secret:
        double.map([1, 2])
        for number in range(20):
            double(number)
    runs = set(plugin.runs)
    with dask.config.set({"prefect-dask-core.monitor.enabled": False}):
        state = secret.run(task_runner=DaskTaskRunner(cluster=watched_client))
    assert state.is_successful()
    assert set(plugin.runs) == runs
    assert plugin.version - seen <= 1  # the end of the client of another test


def test_a_scheduler_without_dashboard_has_no_pages_and_runs_flows():
    with Flow("bare") as bare:
        double.map([1, 2, 3])
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            dashboard_address=":0",  # where its other routes are
            scheduler_kwargs={"dashboard": False},
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        state = bare.run(task_runner=DaskTaskRunner(cluster=client))
        assert state.is_successful()
        plugin = cluster.scheduler.plugins[NAME]
        assert plugin.newest().counts() == {"Completed": 3}


def test_a_run_whose_client_goes_away_counts_as_crashed(watched, plugin):
    from prefect_dask_core.runners._private import TOPIC_PREFIX

    begin = ("left behind", "", time.time(), "Client-gone", "")
    told = {"begin": begin, "nodes": [(0, "load", True, False, ())]}
    plugin.log_event(f"{TOPIC_PREFIX}feed", ("told", "", told))
    plugin.remove_client(watched.scheduler, "Client-other")
    assert plugin.runs["feed"].ended is None
    plugin.remove_client(watched.scheduler, "Client-gone")
    assert plugin.runs["feed"].ended.state == "Crashed"


@task
def kill(x):
    if x == 3:
        os._exit(1)
    return x


@pytest.mark.slow
def test_a_crash_is_shown_with_its_worker(process_cluster, process_client):
    with Flow("deadly") as deadly:
        kill.map(list(range(6)))
    state = deadly.run(task_runner=DaskTaskRunner(cluster=process_client))
    plugin = plugin_of(process_cluster.scheduler)
    run = plugin.newest()
    assert run.counts() == state.states.counts() == {"Completed": 5, "Crashed": 1}
    died = [death for death in run.deaths if not death.block]
    assert {death.tasks for death in died} == {"kill"}
    assert all(death.worker.startswith("tcp://") for death in died)
    assert about_run(run, time.time())["worker_deaths"] == len(died) >= 1
