"""Fault runs: jobs whose workers die all the time, and whose children kill them."""

import os
import random
import signal
import threading
import time

import dask
import pytest
from distributed import Client, LocalCluster

from prefect_dask_core import DaskTaskRunner, Flow, task
from prefect_dask_core.triggers import all_finished

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def start(**options):
    return LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", **options
    )


class Killer(threading.Thread):
    """Kills a worker every two seconds; which one is drawn from a seed."""

    def __init__(self, client, seed):
        super().__init__(daemon=True)
        self._client = client
        self._random = random.Random(seed)
        self._over = threading.Event()
        self.kills = 0

    def run(self):
        while not self._over.wait(2.0):
            found = self._client.run(os.getpid, on_error="ignore")
            pids = [pid for _, pid in sorted(found.items())]
            if pids:
                os.kill(self._random.choice(pids), signal.SIGKILL)
                self.kills += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self._over.set()
        self.join(30)


@pytest.mark.parametrize("seed", [1])
def test_all_children_end_once_while_workers_are_killed(seed):
    count = 20_000

    @task
    def square(x):
        time.sleep(0.001)
        return x * x

    @task
    def total(xs):
        return sum(xs), len(xs)

    with Flow("killed") as flow:
        squares = square.map(range(count))
        result = total(squares)
    with start() as cluster, Client(cluster) as client, Client(cluster) as other:
        with Killer(other, seed) as killer:
            runner = DaskTaskRunner(cluster=client)
            state = flow.run(task_runner=runner, progress=False)
        assert killer.kills >= 3
        assert state.is_successful()
        children = state[squares].states
        assert children.counts() == {"Completed": count}
        assert [child.result() for child in children] == [x * x for x in range(count)]
        assert state[result].result() == (sum(x * x for x in range(count)), count)


def test_children_that_kill_their_workers_crash_and_nothing_else_does():
    count = 10_000
    leave, hog = {1_234, 5_000, 9_998}, {3_333, 7_777}

    @task
    def maybe_die(x):
        if x in leave:
            os._exit(1)
        if x in hog:
            kept = b"x" * 900_000_000  # the nanny kills what is over its limit
            time.sleep(60)
            return len(kept)
        return x

    @task(trigger=all_finished)
    def clean_up(xs):
        return len(xs)

    with Flow("poison") as flow:
        many = maybe_die.map(range(count))
        cleaned = clean_up(many)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        start(memory_limit="700MB") as cluster,
        Client(cluster) as client,
    ):
        state = flow.run(task_runner=DaskTaskRunner(cluster=client), progress=False)
        children = state[many].states
        assert children.counts() == {
            "Completed": count - len(leave | hog),
            "Crashed": len(leave | hog),
        }
        for index in leave | hog:
            assert type(children[index]).__name__ == "Crashed"
            assert "died while running it" in children[index].message
        assert state[cleaned].result() == count
