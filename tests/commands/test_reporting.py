"""``dask flow report`` makes the page of a run that only the ledger knows of."""

import dask
import pytest
from click.testing import CliRunner

from prefect_dask_core import DaskTaskRunner, Flow, get_run_logger, task
from prefect_dask_core.commands import flow
from prefect_dask_core.ledger import Ledger
from prefect_dask_core.monitor.recorded_run import recorded_run


@task(retries=1, retry_delay_seconds=0)
def invert(x):
    get_run_logger().info("inverting %d", x)
    return 1 / x


@task
def total(xs):
    return sum(xs)


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "ledger.sqlite")


@pytest.fixture
def state(url, client, tmp_path):
    pytest.importorskip("sqlalchemy")
    with Flow("inverses") as made:
        total(invert.map(list(range(5))))
    with dask.config.set({"prefect-dask-core.log-dir": str(tmp_path / "logs")}):
        return made.run(
            task_runner=DaskTaskRunner(cluster=client), ledger=url, progress=False
        )


def reported(*arguments):
    return CliRunner().invoke(flow, ["report", *map(str, arguments)])


def test_the_page_of_a_recorded_run_is_that_of_the_run(state, url, tmp_path):
    view = state.states.view
    path = tmp_path / "page.html"
    told = reported(view.info.run_id[:8], "-o", path, "--ledger", url)
    assert told.exit_code == 0, told.output
    assert told.output.strip() == str(path)
    page = path.read_text("utf-8")
    for text in (
        *("inverses", "invert[0]", "ZeroDivisionError: division by zero"),
        *("return 1 / x", "inverting 4", "TriggerFailed"),
    ):
        assert text in page


def test_a_recorded_run_is_seen_as_it_was(state, url):
    view = state.states.view
    twin = recorded_run(Ledger(url).run(view.info.run_id))
    assert twin.info.flow_name == view.info.flow_name
    assert [node.slug for node in twin.nodes] == [node.slug for node in view.nodes]
    assert [node.edges for node in twin.nodes] == [node.edges for node in view.nodes]
    assert twin.children(0).counts() == view.children(0).counts()
    for index in range(5):
        assert twin.children(0).times(index) == pytest.approx(
            view.children(0).times(index), abs=0.01
        )
        assert twin.children(0).attempts(index) == view.children(0).attempts(index)
    workers = {segment.worker for segment in twin.segments(0)}
    assert workers == {segment.worker for segment in view.segments(0)}
    assert twin.state.name == view.state.name == "Failed"
    assert twin.summary().failed == view.summary().failed == 1
    assert list(twin.log_lines()) == list(view.log_lines())


def test_a_summary_can_be_printed(state, url):
    told = reported(state.states.view.info.run_id, "--text", "--ledger", url)
    assert told.exit_code == 0, told.output
    assert "1 Failed, 4 Completed" in told.output


def test_a_report_makes_the_folder_that_it_goes_to(state, tmp_path):
    path = state.report(tmp_path / "new" / "pages" / "page.html")
    assert path.is_file()
