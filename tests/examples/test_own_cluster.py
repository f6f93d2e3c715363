"""The example on a scheduler and workers that were started by their commands."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import Client

import own_cluster


@contextlib.contextmanager
def dask_command(*arguments):
    """Run a `dask` command in the background and stop it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


@pytest.fixture
def address(tmp_path):
    """Address of a scheduler in a process of its own, with two workers in theirs."""
    file = tmp_path / "scheduler.json"
    connect = ["--scheduler-file", file, "--no-dashboard"]
    worker = ["worker", *connect, "--nthreads", 1, "--local-directory", tmp_path]
    with contextlib.ExitStack() as started:
        scheduler = ["scheduler", "--host", "127.0.0.1", "--port", 0, *connect]
        started.enter_context(dask_command(*scheduler))
        wait_for(file)
        for _ in range(2):
            started.enter_context(dask_command(*worker))
        address = json.loads(file.read_text("utf-8"))["address"]
        with Client(address) as client:
            client.wait_for_workers(2, timeout=60)
        yield address


def wait_for(file, seconds=60):
    deadline = time.monotonic() + seconds
    while not (file.exists() and file.read_text("utf-8").endswith("}")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{file} was not written within {seconds} s")
        time.sleep(0.1)


@pytest.mark.slow
def test_the_example_runs_on_workers_started_by_hand(address):
    done = subprocess.run(
        [sys.executable, str(Path(own_cluster.__file__)), "--address", address],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    state, *words = done.stdout.splitlines()
    assert state == "Completed"
    assert len(words) == 5
    assert words[0].split()[1] == "the"
    with Client(address) as client:
        assert len(client.scheduler_info()["workers"]) == 2, "they are left running"
