"""Runs of either kind get into the ledger, on each runner, and never suffer from it."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time

import dask
import pytest
import sqlalchemy as sa

from prefect_dask_core import (
    Asset,
    DaskTaskRunner,
    Flow,
    Parameter,
    SequentialTaskRunner,
    ThreadPoolTaskRunner,
    add_asset_metadata,
    flow,
    materialize,
    tags,
    task,
    unmapped,
)
from prefect_dask_core.errors import LedgerError, OptionTypeError
from prefect_dask_core.ledger import InputRecord, Ledger
from prefect_dask_core.ledger.schema import tables
from prefect_dask_core.monitor.recorded_run import recorded_run
from prefect_dask_core.recording import LARGEST_PARAMETER
from prefect_dask_core.results.policies import INPUTS
from prefect_dask_core.signals import SKIP


@task
def numbers(n):
    return list(range(n))


@task(retries=1)
def invert(x, above):
    if x == 3:
        raise SKIP("not three")
    return above / x


@task
def total(values):
    return len(values)


def inverses():
    with Flow("inverses") as made:
        found = invert.map(numbers(Parameter("n")), unmapped(Parameter("above", 1)))
        total(found)
    return made


@pytest.fixture
def ledger(ledger_url):
    return Ledger(ledger_url)


def only_run(ledger):
    (record,) = ledger.runs()
    return ledger.run(record.id)


def test_a_graph_flow_is_recorded(runner, ledger):
    before = time.time()
    state = inverses().run(n=5, task_runner=runner, ledger=ledger)

    run = only_run(ledger)
    record = run.record
    assert (record.flow, record.kind) == ("inverses", "graph")
    assert (record.state, record.message) == (state.name, state.message)
    assert before <= record.begin <= record.end <= time.time()
    assert (record.host, record.process) == (socket.gethostname(), os.getpid())
    assert type(runner).__name__ in record.runner
    assert run.parameters() == {"n": 5, "above": 1}
    assert run.parameters_told == {"n": "5", "above": "1"}
    assert run.states("invert") == [
        "Failed",
        "Completed",
        "Completed",
        "Skipped",
        "Completed",
    ]
    assert run.columns("invert").attempts == [2, 1, 1, 1, 1]
    assert run.states("total") == ["Skipped"]
    assert run.counts() == state.states.counts()
    assert run.nodes["invert-1"].length == 5
    assert run.nodes["invert-1"].inputs == (
        InputRecord("x", "numbers-1", mapped=True),
        InputRecord("above", "above"),
    )
    details = {(slug, d.state): d for slug, d in run.details()}
    failed = details["invert-1", "Failed"]
    assert (failed.indexes, failed.error, failed.text) == (
        "0",
        "ZeroDivisionError",
        "division by zero",
    )
    assert "return above / x" in failed.traceback
    assert details["invert-1", "Skipped"].message == "not three"


def test_a_function_flow_is_recorded(flow_runner, ledger):
    @task
    def double(x):
        return 2 * x

    @flow(task_runner=flow_runner, ledger=ledger, version="7")
    def doubled(n):
        first = double(n)
        return double.map([double.submit(first), 1]).result()

    assert doubled(1) == [8, 2]

    run = only_run(ledger)
    assert (run.record.flow, run.record.kind) == ("doubled", "function")
    assert (run.record.state, run.record.version) == ("Completed", "7")
    assert run.states("double-0") == ["Completed"]
    assert run.states("double-2") == ["Completed", "Completed"]
    assert run.counts()["Completed"] >= 4


def with_many_ends(scene):
    @task
    def fail():
        raise ValueError("no")

    @task
    def leave_out():
        raise SKIP("not today")

    @task
    def refused(x, y=None):
        return x

    @task
    def passed_over(x, y=None):
        return x

    @task(cache_policy=INPUTS, result_storage=scene / "store")
    def stored(x):
        return x

    @task(retries=1)
    def retried(x):
        if not (scene / "tried").exists():
            (scene / "tried").touch()
            raise ValueError("once")
        return x

    with Flow("many ends") as made:
        some = Parameter("some", [1, 2])
        nothing, left_out = fail(), leave_out()
        refused.map(some, y=unmapped(nothing))
        refused.copy(name="refused one")(nothing)
        passed_over.map(some, y=unmapped(left_out))
        passed_over.copy(name="passed over one")(left_out)
        stored.map(some)
        retried(some)
    return made


def attempts_in(state):
    """Attempts by slug, as every place tells them that knows of them."""
    found = {}
    view = state.states.view
    for node in view.nodes:
        children = view.children(node.number)
        ended = view.state_of(node.number) if children is None else None
        found[node.slug] = [child.run.attempts for child in children or [ended]]
        if children is not None:
            counted = [children.attempts(index) for index in range(len(children))]
            assert counted == found[node.slug]
    return found


def attempts_told(run):
    """The same, as the ledger tells it."""
    found = {slug: run.columns(slug).attempts for slug in run.nodes}
    # What is made of it: the page of a run, the summary of a command.
    view = recorded_run(run)
    for node in view.nodes:
        segments = view.segments(node.number)
        made = [s.attempts_of(offset) for s in segments for offset in range(len(s))]
        assert made == found[node.slug]
    return found


def test_a_run_whose_body_was_not_called_made_no_attempt(runner, ledger, tmp_path):
    made = with_many_ends(tmp_path)
    ended = made.run(task_runner=runner, ledger=ledger)
    first = attempts_in(ended)
    assert first == {
        "some": [1],
        "fail-1": [1],
        "leave_out-1": [1],
        "refused-1": [0, 0],
        "refused one-1": [0],
        "passed_over-1": [0],  # as a whole: there is nothing to map over
        "passed over one-1": [0],
        "stored-1": [1, 1],
        "retried-1": [2],
    }
    run = only_run(ledger)
    assert attempts_told(run) == first
    # What is kept has the attempts that it had, what runs again has new ones.
    resumed = made.run(task_runner=runner, resume=ended)
    assert attempts_in(resumed) == first
    resumed = made.run(task_runner=runner, ledger=ledger, resume=run.record.id)
    assert attempts_in(resumed) == first
    assert attempts_told(only_run(ledger)) == first
    # A value that another run has stored needs no attempt at all.
    anew = made.run(task_runner=runner, ledger=ledger)
    assert attempts_in(anew) == {**first, "stored-1": [0, 0], "retried-1": [1]}


def test_a_flow_inside_of_another_is_recorded_as_part_of_it(ledger):
    @flow
    def inner():
        return 1

    @flow(ledger=ledger)
    def outer():
        return inner() + inner()

    with tags("nightly"):
        outer()

    records = {record.name: record for record in ledger.runs()}
    (top,) = (r for r in records.values() if r.flow == "outer")
    below = [r for r in records.values() if r.flow == "inner"]
    assert len(below) == 2
    assert {(r.parent, r.root) for r in below} == {(top.id, top.id)}
    assert top.tags == ("nightly",)


def test_what_was_done_to_assets_is_recorded(ledger):
    @materialize(Asset("s3://b/sales"), asset_deps=["s3://b/raw"], by="dbt")
    def sales():
        return 1

    @flow(ledger=ledger)
    def etl():
        sales()

    etl()

    first, second = only_run(ledger).assets
    assert (first.key, first.event, first.by) == ("s3://b/sales", "succeeded", "dbt")
    assert first.upstream == ("s3://b/raw",)
    assert (second.key, second.event) == ("s3://b/raw", "referenced")


def test_the_worker_of_each_child_and_the_waits_are_known(client, ledger):
    failed = []

    @task(retries=1, retry_delay_seconds=0.01)
    def once(x):
        failed.append(x)
        if failed.count(x) == 1:
            raise ValueError(x)
        return x

    with Flow("waits") as made:
        once.map([1, 2])
    made.run(task_runner=DaskTaskRunner(client), ledger=ledger)

    columns = only_run(ledger).columns("once")
    assert set(columns.workers) <= set(client.scheduler_info()["workers"])
    assert columns.attempts == [2, 2]
    for index in (0, 1):
        ((begin, end),) = columns.waits[index]
        assert columns.begins[index] <= begin < end <= columns.ends[index]


def test_where_values_are_stored_is_known_and_no_value_is_there(ledger, tmp_path):
    @task(persist_result=True, result_storage=str(tmp_path / "store"))
    def secret(x):
        return f"secret {x}"

    with Flow("stored") as made:
        secret.map([1, 2])
    made.run(task_runner=ThreadPoolTaskRunner(2), ledger=ledger)

    columns = only_run(ledger).columns("secret")
    assert columns.stores == [str(tmp_path / "store")] * 2
    assert all(columns.keys)
    for table in tables().metadata.sorted_tables:
        with ledger.engine.connect() as connection:
            rows = connection.execute(sa.select(table)).all()
        assert "secret 1" not in repr(rows)


def test_parameters_that_are_secret_large_or_of_this_process_are_not_kept(ledger):
    @flow(ledger=ledger, validate_parameters=False)
    def etl(n, api_token, table, lock):
        return None

    etl(1, "hush", b"x" * (LARGEST_PARAMETER + 1), __import__("threading").Lock())

    run = only_run(ledger)
    assert run.parameters() == {"n": 1}
    told = run.parameters_told
    assert told["api_token"] == "not kept: its name is that of a secret"
    assert "bytes are too many" in told["table"]
    assert "cannot pickle" in told["lock"]


def test_nothing_is_recorded_unless_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    url = str(tmp_path / "configured.sqlite")

    inverses().run(n=1, task_runner=SequentialTaskRunner())
    assert list(tmp_path.iterdir()) == []

    with dask.config.set({"prefect-dask-core.ledger.url": url}):
        inverses().run(n=1, task_runner=SequentialTaskRunner())
        inverses().run(n=1, task_runner=SequentialTaskRunner(), ledger=False)
        inverses().run(n=1, task_runner=SequentialTaskRunner(), ledger=True)
    assert len(Ledger(url).runs()) == 2

    inverses().run(n=1, task_runner=SequentialTaskRunner(), ledger=True)
    default = tmp_path / ".local/share/prefect-dask-core/ledger.sqlite"
    assert len(Ledger(default, must_exist=True).runs()) == 1


def test_the_environment_can_name_the_ledger(tmp_path):
    url = str(tmp_path / "ledger.sqlite")
    name = "DASK_PREFECT_DASK_CORE__LEDGER__URL"
    key = "prefect-dask-core.ledger.url"
    found = dask.config.get(key, config=dask.config.collect_env({name: url}))
    with dask.config.set({key: found}):
        inverses().run(n=1, task_runner=SequentialTaskRunner())

    assert len(Ledger(url).runs()) == 1


@pytest.mark.parametrize("asked", [3, ["x"]])
def test_what_is_no_ledger_is_refused(asked):
    with pytest.raises(OptionTypeError, match="expected a Ledger, the path or URL"):
        inverses().run(n=1, ledger=asked)
    with pytest.raises(OptionTypeError, match="expected a Ledger, the path or URL"):
        flow(lambda: 1, name="no", ledger=asked)


def test_a_ledger_that_cannot_be_opened_is_told_before_anything_runs(tmp_path):
    (tmp_path / "notes").write_text("these are notes, and no database " * 20)
    begun = []

    @task
    def note():
        begun.append(1)

    with Flow("notes") as made:
        note()
    with pytest.raises(LedgerError, match="cannot be opened"):
        made.run(ledger=tmp_path / "notes", task_runner=SequentialTaskRunner())

    assert begun == []


def test_a_ledger_that_breaks_down_harms_no_run(ledger_url, caplog):
    ledger = Ledger(ledger_url)

    @task
    def destroy():
        name = tables().runs.name  # one lock: who drops all may be in a deadlock
        with ledger.engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {name} RENAME TO {name}_gone")
        return 1

    with Flow("destruction") as made:
        result = destroy()
    state = made.run(task_runner=ThreadPoolTaskRunner(1), ledger=ledger)

    assert state[result].result() == 1
    assert "the ledger cannot be written" in caplog.text
    assert "the ledger could not be told" in caplog.text


def test_a_file_that_is_removed_harms_no_run_and_the_next_one_makes_another(
    tmp_path, caplog
):
    path = tmp_path / "ledger.sqlite"

    @task
    def destroy():
        while not path.stat().st_size or not Ledger(path).runs():
            time.sleep(0.01)
        path.unlink()

    with Flow("destruction") as made:
        destroy()
    asked = {"task_runner": ThreadPoolTaskRunner(1), "ledger": str(path)}
    assert made.run(**asked).is_successful()
    assert f"the file {path} is gone" in caplog.text
    assert "the ledger could not be told" in caplog.text
    caplog.clear()

    inverses().run(n=0, **asked)  # in the same process
    assert caplog.text == ""
    assert [record.flow for record in Ledger(path).runs()] == ["inverses"]


SCRIPT = """
import os, sys
from prefect_dask_core import Flow, SequentialTaskRunner, task

@task
def one():
    return 1

with Flow("short") as made:
    one()

def run():
    made.run(task_runner=SequentialTaskRunner(), ledger=sys.argv[1], progress=False)

run()
"""

IN_A_CHILD = """
child = os.fork()
run()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run_script(text, path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text, str(path)], timeout=100
    )
    assert done.returncode == 0


def test_the_file_of_a_ledger_is_whole_when_the_process_has_ended(tmp_path):
    path = tmp_path / "ledger.sqlite"
    for _ in range(3):
        run_script(SCRIPT, path)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert len(Ledger(path).runs()) == 3


def test_a_process_may_fork_right_after_a_run(tmp_path):
    path = tmp_path / "ledger.sqlite"
    run_script(SCRIPT + IN_A_CHILD, path)
    assert [found.state for found in Ledger(path).runs()] == ["Completed"] * 3


def test_what_is_told_of_an_asset_need_not_be_json(ledger):
    asset = Asset(key="file://told")

    @materialize(asset)
    def make():
        add_asset_metadata(asset, {(1, 2): "x"})

    @flow(ledger=ledger)
    def told():
        make()

    told()
    run = only_run(ledger)
    assert run.record.state == "Completed"
    assert [one.metadata for one in run.assets] == [{"(1, 2)": "'x'"}]


class Large(list):
    """What takes long to be told."""

    told = False

    def __repr__(self):
        self.told = True
        return "..."


def test_a_large_parameter_is_not_told(ledger):
    with Flow("large") as made:
        total(Parameter("values"))
    values = Large(range(LARGEST_PARAMETER // 8))
    made.run(values=values, task_runner=SequentialTaskRunner(), ledger=ledger)
    assert "are too many" in only_run(ledger).parameters_told["values"]
    assert not values.told


def test_the_files_of_the_logs_are_known(ledger, tmp_path):
    handler = logging.FileHandler(tmp_path / "all.log")
    logging.getLogger().addHandler(handler)
    try:
        with dask.config.set({"prefect-dask-core.log-dir": str(tmp_path / "runs")}):
            inverses().run(n=0, task_runner=SequentialTaskRunner(), ledger=ledger)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()

    run = only_run(ledger)
    own = tmp_path / "runs" / f"inverses-{run.record.id}.log"
    assert run.record.logs == (str(own), str(tmp_path / "all.log"))


def test_a_run_that_is_interrupted_has_an_end(ledger):
    @task
    def interrupt():
        raise KeyboardInterrupt

    with Flow("interrupted") as made:
        interrupt()
    with pytest.raises(KeyboardInterrupt):
        made.run(task_runner=SequentialTaskRunner(), ledger=ledger)

    assert only_run(ledger).record.state == "Cancelled"
