"""``dask flow runs``, ``show`` and ``resume``: what a ledger knows, and going on."""

import json
import sys
import time
from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from distributed import Client

from prefect_dask_core import ThreadPoolTaskRunner
from prefect_dask_core.commands import flow
from prefect_dask_core.commands.ledgers import told_time
from prefect_dask_core.commands.loading import load_flow
from prefect_dask_core.ledger import (
    PLAIN,
    Batch,
    DetailRecord,
    Ledger,
    NodeRecord,
    RunRecord,
    RunWriter,
    Span,
)
from prefect_dask_core.ledger.columns import indexes_in
from prefect_dask_core.monitor.texts import duration

SOURCE = """
from pathlib import Path
from prefect_dask_core import Flow, Parameter, flow, task

HERE = Path(__file__).parent

@task(persist_result=True, result_storage=str(HERE / "store"))
def double(x):
    with open(HERE / "begins", "a") as file:
        print(x, file=file)
    if x == 3 and not (HERE / "mended").exists():
        raise ValueError("three is too much")
    return 2 * x

with Flow("doubling") as graph:
    double.map(Parameter("xs"))

@flow
def function(n: int, password="no"):
    return double.map(range(n))

@flow
async def later(n):
    return sum(double.map(range(n)).result())
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "flows_to_record.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop(path.stem, None)


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "ledger.sqlite")


def ran(*arguments):
    return CliRunner().invoke(flow, list(map(str, arguments)))


def begun(file):
    return sorted(map(int, (file.parent / "begins").read_text().split()))


def test_runs_are_listed(file, url):
    ran("run", f"{file}:graph", "--param", "xs=[1, 2]", "--ledger", url)
    ran("run", f"{file}:function", "--param", "n=4", "--ledger", url)

    told = ran("runs", "--ledger", url)

    assert told.exit_code == 0, told.output
    head, first, second = told.output.splitlines()
    assert head.split()[:3] == ["RUN", "FLOW", "STATE"]
    assert first.split()[1:3] == ["function", "Failed"]
    assert first.endswith("1 Failed, 3 Completed")
    assert second.split()[1:3] == ["doubling", "Completed"]
    assert first.split()[0] == Ledger(url).runs()[0].id[:8]


def test_a_run_that_is_resumed_keeps_its_begin(file, url):
    ran("run", f"{file}:graph", "--param", "xs=[1, 2]", "--ledger", url)
    (first,) = Ledger(url).runs()
    ran("run", f"{file}:graph", "--param", "xs=[1]", "--ledger", url)
    for _ in range(2):  # it had completed: there is nothing to do
        told = ran("resume", first.id, "--ledger", url)
        assert told.exit_code == 0, told.output

    resumed, between = Ledger(url).runs()
    assert (resumed.id, resumed.begin, resumed.attempt) == (first.id, first.begin, 3)
    attempts = Ledger(url).run(first.id).attempts
    assert resumed.end == attempts[-1].end > between.end
    assert resumed.attempt_begin == attempts[-1].begin > between.begin
    together = sum(attempt.end - attempt.begin for attempt in attempts)
    assert resumed.seconds() == pytest.approx(together)
    assert attempts[0].begin == first.begin

    head, line, _ = ran("runs", "--ledger", url).output.splitlines()
    for column, value in {
        "BEGAN": told_time(first.begin),
        "ENDED": told_time(resumed.end),
        "TOOK": duration(together),
        "ATTEMPTS": "3",
    }.items():
        assert line[head.index(column) :].startswith(value)
    shown = ran("show", first.id, "--ledger", url).output
    assert f"began: {told_time(first.begin)}" in shown
    assert f"3 attempts took {duration(together)} together" in shown
    page = ran("report", first.id, "--text", "--ledger", url).output
    for told in (shown, page):
        assert f"flow 'doubling' Completed in {duration(together)}" in told


def test_runs_are_picked_and_told_as_json(file, url):
    for _ in range(2):
        ran("run", f"{file}:graph", "--param", "xs=[1, 3]", "--ledger", url)
    ran("run", f"{file}:graph", "--param", "xs=[1]", "--ledger", url)

    told = ran("runs", "--ledger", url, "--state", "Failed", "--limit", 1, "--json")

    (line,) = told.output.splitlines()
    assert json.loads(line)["counts"] == {"Completed": 2, "Failed": 1}
    assert ran("runs", "--ledger", url, "--flow", "other").output == "no runs\n"


def test_a_state_is_named_in_either_case_and_must_be_one(file, url):
    ran("run", f"{file}:graph", "--param", "xs=[1]", "--ledger", url)
    told = ran("runs", "--ledger", url, "--state", "completed", "--json")
    assert json.loads(told.output)["state"] == "Completed"
    told = ran("runs", "--ledger", url, "--state", "complete")
    assert told.exit_code == 2
    assert "'complete' is not one of" in told.output


def test_a_run_is_shown_with_its_failures(file, url):
    ran("run", f"{file}:function", "--param", "n=4", "--ledger", url)
    (record,) = Ledger(url).runs()

    told = ran("show", record.id[:6], "--ledger", url)

    assert told.exit_code == 0, told.output
    assert f"run {record.id}" in told.output
    assert f"defined in: {file}:function" in told.output
    assert "parameters: n=4, password=not kept" in told.output
    assert "flow 'function' Failed in" in told.output
    assert "\ndouble[3]: Failed: ValueError: three is too much" in told.output
    assert 'raise ValueError("three is too much")' in told.output


def test_a_run_is_resumed_where_it_was_defined(file, url):
    ran("run", f"{file}:graph", "--param", "xs=[1, 2, 3]", "--ledger", url)
    (record,) = Ledger(url).runs()
    (file.parent / "mended").touch()

    told = ran("resume", record.id[:8], "--ledger", url)

    assert told.exit_code == 0, told.output
    assert "flow 'doubling' Completed" in told.output
    assert begun(file) == [1, 2, 3, 3]
    run = Ledger(url).run(record.id)
    assert [attempt.state for attempt in run.attempts] == ["Failed", "Completed"]
    shown = ran("show", record.id, "--ledger", url).output
    assert "ATTEMPT  STATE" in shown
    assert "three is too much" not in shown


@pytest.mark.parametrize("name", ["function", "later"])
def test_a_function_flow_is_resumed_by_the_file_that_is_named(file, url, name):
    ran("run", f"{file}:{name}", "--param", "n=5", "--ledger", url)
    (record,) = Ledger(url).runs()
    (file.parent / "mended").touch()
    again = ["resume", record.id, f"{file}:{name}", "--ledger", url]
    if name == "function":
        told = ran(*again)
        assert told.exit_code == 1
        assert "without its parameter 'password'" in told.output
        assert "my_flow.resume(run_id, {'password': ...})" in told.output
        assert "--param password=VALUE" in told.output
        again += ["--param", "password=no"]

    told = ran(*again)

    assert told.exit_code == 0, told.output
    assert begun(file) == [0, 1, 2, 3, 3, 4]


def test_a_run_that_fails_again_says_so(file, url):
    ran("run", f"{file}:graph", "--param", "xs=[3]", "--ledger", url)
    (record,) = Ledger(url).runs()

    assert ran("resume", record.id, "--ledger", url).exit_code == 1


def lost_run(url):
    """Write a run whose client is gone without a word."""
    record = RunRecord("ab" * 16, "doubling", "ab" * 16, "graph", host="elsewhere")
    record = replace(record, begin=time.time() - 100, seen=time.time() - 60)
    writer = RunWriter(Ledger(url).engine, record)
    writer.begin()
    writer.close()


def test_a_run_whose_client_died_is_lost(url):
    lost_run(url)

    assert ran("runs", "--ledger", url).output.splitlines()[1].split()[2] == "Lost"
    for told in (["show", "abab"], ["report", "abab", "--text"]):
        lines = ran(*told, "--ledger", url).output
        assert "flow 'doubling' Lost in 40.0 s: its client died" in lines
    assert "abab" in ran("runs", "--ledger", url, "--state", "Lost").output
    assert ran("runs", "--ledger", url, "--state", "Running").output == "no runs\n"


def test_the_page_of_a_lost_run_says_so(url, tmp_path):
    lost_run(url)
    path = tmp_path / "page.html"

    assert ran("report", "abab", "-o", path, "--ledger", url).exit_code == 0

    assert "<title>doubling: Lost</title>" in path.read_text("utf-8")


def test_a_resumed_run_began_with_its_first_attempt(file, url):
    lost_run(url)
    record = Ledger(url).runs()[0]
    again = replace(record, begin=time.time(), seen=time.time(), attempt=2)
    writer = RunWriter(Ledger(url).engine, again)
    writer.begin(after=1)
    writer.close()

    assert (
        f"began: {told_time(record.begin)}"
        in ran("show", "abab", "--ledger", url).output
    )


def test_an_attempt_that_died_took_until_its_last_sign_of_life(url):
    lost_run(url)
    record = Ledger(url).runs()[0]
    for attempt, began in ((2, record.begin + 60), (3, record.begin + 70)):
        again = replace(record, begin=began, seen=began + 7, attempt=attempt)
        writer = RunWriter(Ledger(url).engine, again)
        writer.begin(after=attempt - 1)
        writer.close()

    first, second, third = Ledger(url).run("abab").attempts
    assert (first.state, second.state, third.state) == ("Lost", "Lost", "Running")
    assert first.end - first.begin == pytest.approx(40.0)
    assert (second.end - second.begin, third.end) == (pytest.approx(7.0), None)
    head, *rows = ran("show", "abab", "--ledger", url).output.splitlines()[-4:]
    assert [row[head.index("TOOK") :] for row in rows] == ["40.0 s", "7.00 s", "7.00 s"]
    assert all(" Lost " in row for row in rows)


def test_failures_are_shown_by_task_and_index_under_the_names_of_the_summary(url):
    record = RunRecord("cd" * 16, "many", "cd" * 16, "graph", host="elsewhere")
    record = replace(record, begin=time.time() - 9, seen=time.time())
    writer = RunWriter(Ledger(url).engine, record)
    writer.begin()
    names = ("Failed",)
    nodes = [
        NodeRecord(0, "work-1", "work", True, 12),
        NodeRecord(1, "load-1", "load", False),
        NodeRecord(2, "load-2", "load", False),
    ]
    for places in ([(2, ""), (0, "11")], [(0, "2,4"), (1, ""), (0, "3")]):
        batch = Batch(names=names)
        batch.nodes, nodes = nodes, []
        for node, told in places:
            for index in indexes_in(told) or [PLAIN]:
                moments = array("d", [1.0])
                batch.spans.append(Span(node, index, b"\0", moments, moments, {}, None))
            detail = DetailRecord(node, told, 1, "Failed", "Failed", "no")
            batch.details.append(detail)
        writer.write(batch, {"Failed": 6}, time.time())
    writer.close()

    shown = ran("show", "cdcd", "--ledger", url, "--failures", 9).output

    told = [line for line in shown.splitlines() if line.endswith(": Failed: no")]
    assert [line.partition(":")[0] for line in told] == [
        "work[2,4]",
        "work[3]",
        "work[11]",
        "load-1",
        "load-2",
    ]


@pytest.mark.parametrize("name", ["show", "report", "resume"])
def test_an_id_that_is_too_short_is_told_so_first(name, url):
    lost_run(url)
    told = ran(name, "aba", "--ledger", url).output
    assert told.startswith("Error: the id of a run needs at least 4 characters")
    assert "'aba' has 3" in told


def test_the_runner_is_told_that_a_function_flow_had(file, url):
    function = load_flow(f"{file}:function")
    with Client(n_workers=1, processes=False, dashboard_address=None) as client:
        for made in (function, load_flow(f"{file}:graph")):
            given = {"n": 2} if made is function else {"parameters": {"xs": [1]}}
            if made is function:
                made.with_options(ledger=url)(**given)
            else:
                made.run(**given, ledger=url)
            told = ran("show", Ledger(url).runs()[0].id, "--ledger", url).output
            address = client.scheduler.address
            assert f"ran on: DaskTaskRunner at {address}, from process" in told
    function.with_options(ledger=url)(2)
    assert Ledger(url).runs()[0].runner == "ThreadPoolTaskRunner"


def test_a_resume_says_so_where_the_run_was_elsewhere(file, url):
    with Client(n_workers=1, processes=False, dashboard_address=None) as client:
        address = client.scheduler.address
        load_flow(f"{file}:graph").run(xs=[3], ledger=url)
    (record,) = Ledger(url).runs()

    told = ran("resume", record.id, "--ledger", url)

    assert (
        f"attempt 1 ran on DaskTaskRunner at {address}; this one runs on "
        "ThreadPoolTaskRunner here; give --address or --n-workers to run on a cluster\n"
    ) in told.output
    assert "ran on" not in ran("resume", record.id, "--ledger", url).output

    told = ran("resume", record.id, "--ledger", url, "--n-workers", 1)
    assert (
        "attempt 3 ran on ThreadPoolTaskRunner; this one runs on DaskTaskRunner here\n"
    ) in told.output


def test_a_run_of_which_nobody_knows_the_flow_needs_its_name(url):
    lost_run(url)

    told = ran("resume", "abab", "--ledger", url)

    assert told.exit_code == 2
    assert "dask flow resume abab FILE.py:FLOW" in told.output


@pytest.mark.parametrize("name", ["runs", "show", "resume", "report"])
def test_what_is_wrong_is_told_without_a_traceback(name, url):
    run = [] if name == "runs" else ["ffff"]
    told = ran(name, *run, "--ledger", url)
    assert told.exit_code == 1
    assert told.output.startswith("Error: there is no ledger at")
    assert told.output.endswith(" Name another one with --ledger.\n")
    lost_run(url)
    if run:
        told = ran(name, *run, "--ledger", url)
        assert told.exit_code == 1
        assert "has no run 'ffff'" in told.output


def test_a_flow_of_a_file_tells_where_it_is(file, url):
    load_flow(f"{file}:graph").run(
        xs=[1], ledger=url, task_runner=ThreadPoolTaskRunner(1)
    )

    (record,) = Ledger(url).runs()
    assert record.source == f"{Path(file)}:graph"
