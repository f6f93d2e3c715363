"""``dask flow run`` runs flows of either kind and says how they ended."""

import sys

import dask
import pytest
from click.testing import CliRunner

from prefect_dask_core.commands import flow
from prefect_dask_core.ledger import Ledger

SOURCE = """
from prefect_dask_core import Flow, Parameter, flow, task

@task
def double(x):
    if x == 3:
        raise ValueError("three is too much")
    return 2 * x

with Flow("doubling") as graph:
    double.map(Parameter("xs"))

@flow
def function(n: int, text="no"):
    return double.map(range(n))

@flow
async def later(n):
    return n

@flow
def stream(n):
    yield n
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "flows_to_run.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop(path.stem, None)


def ran(*arguments):
    return CliRunner().invoke(flow, ["run", *map(str, arguments)])


def test_a_graph_flow_runs_and_its_end_is_told(file):
    told = ran(f"{file}:graph", "--param", "xs=[1, 2]")
    assert told.exit_code == 0, told.output
    assert told.output.startswith("flow 'doubling' Completed in ")
    assert "double  2 runs  2 Completed" in told.output


def test_the_exit_code_and_the_lines_tell_of_a_failure(file):
    told = ran(f"{file}:function", "--param", "n=4")
    assert told.exit_code == 1
    assert "flow 'function' Failed" in told.output
    assert "double-0[3]: ValueError: three is too much" in told.output or (
        "double[3]: ValueError: three is too much" in told.output
    )


def test_nothing_is_printed_without_progress(file):
    told = ran(f"{file}:function", "--param", "n=2", "--no-progress")
    assert told.exit_code == 0
    assert told.output == ""


def test_a_failure_is_told_without_progress_too(file, caplog):
    told = ran(f"{file}:function", "--param", "n=4", "--no-progress")
    assert told.exit_code == 1
    assert told.output == ""
    assert caplog.messages[-1].startswith("flow run 'function-")
    assert "three is too much" in caplog.messages[-1]


def test_a_recorded_run_that_failed_says_at_last_how_it_goes_on(file, tmp_path):
    told = ran(f"{file}:function", "--param", "n=4", "--ledger", tmp_path / "l.sqlite")
    (record,) = Ledger(tmp_path / "l.sqlite").runs()
    assert told.output.splitlines()[-1] == (
        f"resume it with: dask flow resume {record.id} and the same --ledger"
    )


def test_an_asynchronous_flow_runs(file):
    assert ran(f"{file}:later", "--param", "n=4").exit_code == 0


@pytest.mark.slow
# Where the port of Dask's dashboard is taken it warns, and leaves a socket open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cluster_is_started_if_it_is_asked_for(file, tmp_path):
    page = tmp_path / "report.html"
    told = ran(
        *(f"{file}:function", "--param", "n=3", "--n-workers", 1),
        *("--threads-per-worker", 1, "--report", page),
    )
    assert told.exit_code == 0, told.output
    assert str(page) in told.output
    assert "tcp://" in page.read_text("utf-8")  # the worker's row


def test_a_scheduler_that_runs_is_used(file, cluster):
    address = cluster.scheduler_address
    told = ran(f"{file}:graph", "--param", "xs=[1]", "--address", address)
    assert told.exit_code == 0, told.output


@pytest.mark.parametrize(
    "address", ["nowhere", "htp://10.0.0.1:1", "tcp://localhost:1"]
)
def test_a_scheduler_that_is_not_there_is_told_without_a_traceback(file, address):
    with dask.config.set({"distributed.comm.timeouts.connect": "0.5s"}):
        told = ran(f"{file}:graph", "--param", "xs=[1]", "--address", address)
    assert told.exit_code == 1
    assert f"the scheduler at {address} cannot be reached: " in told.output
    assert isinstance(told.exception, SystemExit)


def test_a_report_that_cannot_be_written_is_told_after_the_run(file, tmp_path):
    (tmp_path / "in the way").write_text("a file")
    page = tmp_path / "in the way" / "run.html"
    told = ran(f"{file}:graph", "--param", "xs=[1]", "--report", page)
    assert told.exit_code == 1
    assert told.output.startswith("flow 'doubling' Completed in ")
    assert f"the report cannot be written to {page}" in told.output
    assert isinstance(told.exception, SystemExit)


def test_an_address_and_a_cluster_of_ones_own_exclude_each_other(file):
    told = ran(f"{file}:graph", "--address", "tcp://10.0.0.1:1", "--n-workers", 2)
    assert told.exit_code == 2
    assert "leave out --n-workers" in told.output


@pytest.mark.parametrize(
    ("target", "given", "told"),
    [
        ("graph", "ys=1", "has no parameter 'ys'"),
        ("graph", "n", "NAME=VALUE"),
        ("function", "m=1", "m"),
        ("stream", "n=1", "yields its values"),
    ],
)
def test_what_does_not_fit_is_a_mistake_of_the_call(file, target, given, told):
    found = ran(f"{file}:{target}", "--param", given)
    assert found.exit_code == 2
    assert told in found.output
