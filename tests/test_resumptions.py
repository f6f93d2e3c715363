"""Which runs can go on under their ids, and with which parameters."""

import subprocess
import sys
import time
import types
from dataclasses import replace

import pytest

from prefect_dask_core import (
    Flow,
    Parameter,
    SequentialTaskRunner,
    ThreadPoolTaskRunner,
    task,
)
from prefect_dask_core.errors import ResumeError
from prefect_dask_core.ledger import Ledger
from prefect_dask_core.resumptions import is_alive


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.sqlite")


def last(ledger):
    return ledger.runs()[0].id


def test_a_run_that_still_runs_is_refused(ledger):
    refused = []

    @task
    def resume_oneself():
        while not ledger.runs():  # it is entered beside the run
            time.sleep(0.01)
        try:
            made.run(resume=last(ledger), ledger=ledger)
        except ResumeError as error:
            refused.append(str(error))

    with Flow("itself") as made:
        resume_oneself()
    made.run(ledger=ledger, task_runner=ThreadPoolTaskRunner(1))

    assert "still runs, in process" in refused[0]


def test_a_run_is_alive_while_its_process_is(ledger):
    with Flow("short") as made:
        made.add_task(Parameter("x", 1))
    made.run(ledger=ledger, task_runner=SequentialTaskRunner())
    record = replace(ledger.runs()[0], end=None)
    now = time.time()
    assert is_alive(record, now)
    assert not is_alive(replace(record, end=now), now)
    elsewhere = replace(record, host="elsewhere", seen=now - 10)
    assert is_alive(elsewhere, now)
    assert not is_alive(elsewhere, now + 10)
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    ) as p:
        began = replace(record, process=p.pid, attempt_begin=time.time())
        assert is_alive(began, now)
        # However long ago the attempts before it began.
        assert is_alive(replace(began, begin=now - 100), now)
        # Another process has the number of one that ended before it began.
        assert not is_alive(replace(began, attempt_begin=now - 100), now)
        p.kill()
        p.wait()
        assert not is_alive(began, now)


def test_a_parameter_that_was_not_kept_has_to_be_given(ledger):
    @task
    def fail(token):
        raise ValueError(token)

    with Flow("secret") as made:
        fail(Parameter("api_token", default="none"))
    runner = SequentialTaskRunner()
    made.run(api_token="hush", ledger=ledger, task_runner=runner)

    with pytest.raises(ResumeError, match=r"parameters=\{'api_token': \.\.\.\}"):
        made.run(resume=last(ledger), ledger=ledger, task_runner=runner)
    state = made.run(
        api_token="hush", resume=last(ledger), ledger=ledger, task_runner=runner
    )
    assert state.is_failed()


def test_a_parameter_whose_class_is_gone_has_to_be_given(ledger, monkeypatch):
    module = types.ModuleType("days_of_the_user")
    exec("class Day:\n    pass", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    @task
    def fail(day):
        raise ValueError(day)

    with Flow("daily") as made:
        fail(Parameter("day"))
    how = {"ledger": ledger, "task_runner": SequentialTaskRunner()}
    made.run(day=module.Day(), **how)
    monkeypatch.delitem(sys.modules, module.__name__)

    with pytest.raises(ResumeError, match=r"'day' .* cannot be unpickled .*; give it"):
        made.run(resume=last(ledger), **how)
    assert made.run(day="monday", resume=last(ledger), **how).is_failed()
    assert ledger.run(last(ledger)).parameters() == {"day": "monday"}
