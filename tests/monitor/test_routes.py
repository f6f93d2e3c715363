"""What a scheduler tells those who have no browser."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from distributed import Client

from prefect_dask_core import DaskTaskRunner, Flow, task


@task
def load(x):
    if x == 3:
        raise ValueError("odd")
    return x


@pytest.fixture
def finished(watched, watched_client):
    """State of a run, and how to ask the scheduler for a path."""
    with Flow("asked about") as flow:
        load.map(list(range(10)))
    state = flow.run(task_runner=DaskTaskRunner(cluster=watched_client))
    base = f"http://localhost:{watched.scheduler.http_server.port}"
    return state, lambda path: asked(f"{base}/{path}")


def asked(address):
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read().decode()


def test_the_json_of_all_runs_has_the_counts_of_the_states(finished):
    state, ask = finished
    newest = json.loads(ask("json/flow-runs.json"))["runs"][0]
    assert (newest["flow"], newest["state"]) == ("asked about", "Failed")
    assert newest["counts"] == state.states.counts()


def test_the_json_of_one_run_has_its_tasks_and_failures(finished):
    _, ask = finished
    newest = json.loads(ask("json/flow-runs.json"))["runs"][0]
    found = json.loads(ask(f"json/flow-runs/{newest['id']}.json"))
    (told,) = found["tasks"]
    assert (told["task"], told["done"], told["failed"]) == ("load", 10, 1)
    (failure,) = found["failures"]
    assert failure["run"] == "load[3]"
    assert failure["arguments"] == "x=3"


def test_a_run_that_is_not_there_is_told_so(finished):
    _, ask = finished
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask("json/flow-runs/abc.json")


def test_prometheus_is_told_of_task_runs_and_flow_runs(finished):
    pytest.importorskip("prometheus_client")
    _, ask = finished
    lines = ask("metrics").splitlines()
    found = [
        line
        for line in lines
        if line.startswith("prefect_dask_core_task_runs_total{")
        and 'flow="asked about"' in line
        and 'state="Completed"' in line
    ]
    assert float(found[0].split()[-1]) % 9 == 0  # nine of each run
    assert any(
        line.startswith('prefect_dask_core_flow_runs{state="Failed"}') for line in lines
    )


@pytest.mark.slow
def test_a_scheduler_has_the_pages_from_its_start_by_preloading(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    command += ["--port", "0", "--dashboard-address", f"localhost:{port}"]
    command += ["--preload", "prefect_dask_core.monitor"]
    command += ["--scheduler-file", str(tmp_path / "scheduler.json")]
    with subprocess.Popen(
        command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    page = asked(f"http://localhost:{port}/status")
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
            assert '<a href="flow-runs">Flows</a>' in page
            runs = asked(f"http://localhost:{port}/json/flow-runs.json")
            assert json.loads(runs) == {"runs": []}
            with Client(scheduler_file=str(tmp_path / "scheduler.json")) as client:
                assert client.scheduler_info()["type"] == "Scheduler"
        finally:
            process.terminate()
            process.wait(30)
