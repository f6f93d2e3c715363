"""Runs that no worker may run: who waits in vain is told, once."""

import logging

import pytest

from prefect_dask_core import DaskTaskRunner, Flow, flow, task
from prefect_dask_core.runners import stranded
from prefect_dask_core.runners._private import find_stranded
from prefect_dask_core.runners.stranded import Strandings, stranded_message


@task
def train(x=None):
    return x


on_gpu = train.with_options(annotations={"resources": {"GPU": 2, "RAM": 1e9}})
elsewhere = train.with_options(name="place", annotations={"workers": ["gpu-box"]})


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(stranded.Strandings.__init__, "__defaults__", (0.1,))


def told(caplog):
    return [r.getMessage() for r in caplog.records if r.name == stranded.__name__]


def test_tasks_that_no_worker_may_run_are_told_of_once(client, impatient, caplog):
    @flow(task_runner=DaskTaskRunner(cluster=client), timeout_seconds=2.5)
    def body():
        train.submit(1)
        on_gpu.submit(1)
        on_gpu.map([1, 2])
        elsewhere.submit(1)

    with caplog.at_level(logging.WARNING):
        state = body(return_state=True)
    assert state.states["train-0"].is_successful()
    gpu, place = sorted(told(caplog), reverse=True)
    assert gpu.startswith("task 'train' waits: none of the ")
    assert "has the resources GPU=2 RAM=1000000000.0. Start one that does" in gpu
    assert "task 'place' waits" in place
    assert "is among ['gpu-box']" in place


def test_a_graph_flow_is_told_of_too(client, impatient, caplog):
    with Flow("trains") as trains:
        on_gpu(1)
    looked = []
    found = Strandings.look

    def look(self, client, now):
        found(self, client, now)
        looked.append(1)
        if told(caplog) or len(looked) > 40:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(Strandings, "look", look)
        with pytest.raises(KeyboardInterrupt):
            trains.run(task_runner=DaskTaskRunner(cluster=client))
    assert len(told(caplog)) == 1


def test_nothing_is_asked_of_the_scheduler_for_runs_that_ask_for_nothing():
    watch = Strandings(patience=0.0)
    watch.note("key", "load", {"priority": 3, "resources": {}}, 0.0)
    watch.look(None, 1e9)  # would fail on a client that is none


def test_what_is_told_says_what_to_do():
    both = {"resources": {"GPU": 1}, "workers": "box"}
    assert stranded_message("train", both, 3) == (
        "task 'train' waits: none of the 3 workers has the resources GPU=1 and is "
        "among 'box'. Start one that does, as `dask worker <scheduler> --resources "
        "'GPU=1'`, or change the annotations of the task."
    )


def test_the_scheduler_knows_what_is_stranded(client):
    future = client.submit(abs, -1, resources={"NONE": 1}, key="stranded-key")
    try:
        for _ in range(100):
            workers, keys = client.run_on_scheduler(find_stranded)
            if "stranded-key" in keys:
                break
        assert workers == len(client.nthreads())
        assert "stranded-key" in keys
    finally:
        future.cancel()
