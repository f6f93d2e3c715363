"""What tasks log is kept for the report of their run, and written into its file."""

import logging

import dask
import pytest

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    SequentialTaskRunner,
    ThreadPoolTaskRunner,
    context,
    flow,
    get_run_logger,
    task,
)
from prefect_dask_core.runners import run_log
from prefect_dask_core.runners.run_log import RunLog, run_log_of


@pytest.fixture
def folder(tmp_path):
    with dask.config.set({"prefect-dask-core.log-dir": str(tmp_path / "logs")}):
        yield tmp_path / "logs"


@pytest.fixture(params=["sequential", "threads", "dask", "processes"])
def runner(request):
    if request.param == "sequential":
        return SequentialTaskRunner()
    if request.param == "threads":
        return ThreadPoolTaskRunner(2)
    fixture = "client" if request.param == "dask" else "process_client"
    return DaskTaskRunner(cluster=request.getfixturevalue(fixture))


@task(retries=1, retry_delay_seconds=0, log_prints=True)
def work(x):
    get_run_logger().info("working on %d", x)
    print("printed", x)
    if x == 1 and context.get("task_run_count") == 1:
        raise ValueError("once more")


@task
def quiet():
    return 1


def tags(lines):
    """Level, tags and text of lines, without the time and the id of the run."""
    return sorted(
        line.split(" ", 1)[1].split(" run=")[0] + line[line.index(" task=") :]
        for line in lines
    )


EXPECTED = sorted(
    f"INFO task=work map_index={index} attempt={attempt} | Task 'work[{index}]': {text}"
    for index, attempt in ((0, 1), (1, 1), (1, 2))
    for text in (f"working on {index}", f"printed {index}")
)


def test_a_file_has_every_line_with_run_task_child_and_attempt(runner, folder):
    with Flow("a flow/of mine") as made:
        work.map([0, 1])
    state = made.run(task_runner=runner)
    view = state.states.view
    (path,) = folder.iterdir()
    assert path == view.log_file
    assert path.name == f"a-flow-of-mine-{view.info.run_id}.log"
    lines = path.read_text("utf-8").splitlines()
    assert tags(lines) == EXPECTED
    assert {line.split(" run=")[1][:8] for line in lines} == {view.info.run_id[:8]}
    assert list(view.log_lines()) == lines


def test_a_function_flow_writes_its_own_lines_too(runner, folder):
    @flow(task_runner=runner)
    def logging_flow():
        get_run_logger().warning("in the flow")
        work(0)
        work.submit(5).result()

    view = logging_flow(return_state=True).states.view
    lines = [line.split(" ", 2)[1:] for line in view.log_lines()]
    told = [rest.split("| ")[1] for _, rest in lines]
    assert any(text.endswith(": in the flow") for text in told)
    assert any("working on 0" in text for text in told)
    assert any("printed 5" in text for text in told)
    assert view.log_file.read_text("utf-8").splitlines() == list(view.log_lines())


def test_no_file_is_made_where_nothing_is_logged(folder):
    with Flow("silent") as made:
        quiet()
    made.run(task_runner=SequentialTaskRunner())
    assert not folder.exists()


def test_without_a_folder_what_is_handled_is_kept_and_no_more(caplog):
    with Flow("kept") as made:
        work(0)
    caplog.set_level(logging.WARNING)
    assert made.run().states.view.log_lines() == []
    caplog.set_level(logging.INFO)
    view = made.run().states.view
    assert [line.split("| ")[1] for line in view.log_lines()] == [
        "Task 'work': working on 0",
        "Task 'work': printed 0",
    ]
    assert view.log_file is None
    assert "Task 'work': working on 0" in caplog.messages  # and whoever else listens


def test_a_hook_of_the_end_is_still_heard(folder):
    def tell(flow, run, state):
        get_run_logger().info("the hook was called")

    @flow(task_runner=SequentialTaskRunner(), on_completion=[tell])
    def hooked():
        return 1

    view = hooked(return_state=True).states.view
    assert view.log_file.read_text("utf-8").endswith("the hook was called\n")
    assert run_log_of(view.info.run_id) is None


def test_a_log_keeps_its_last_lines_and_says_how_many_it_left(tmp_path, monkeypatch):
    monkeypatch.setattr(run_log, "KEPT", 3)
    log = RunLog("etl", "0" * 32, str(tmp_path))
    log._lines = run_log.deque(maxlen=3)
    for number in range(5):
        log.take(logging.makeLogRecord({"msg": f"line {number}"}))
    first, *rest = log.lines()
    assert first.startswith("(2 earlier lines are not here: all are in ")
    assert [line.split("| ")[1] for line in rest] == ["line 2", "line 3", "line 4"]
    assert len(log.path.read_text("utf-8").splitlines()) == 5
    log.close()


def test_a_traceback_is_logged_with_its_line(folder):
    @task
    def fails():
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            get_run_logger().exception("it went wrong")

    with Flow("traced") as made:
        fails()
    view = made.run(task_runner=SequentialTaskRunner()).states.view
    text = view.log_file.read_text("utf-8")
    assert "it went wrong\nTraceback" in text
    assert "ZeroDivisionError" in text


def test_a_folder_that_cannot_be_written_harms_no_run(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    place = str(tmp_path / "file" / "below")
    with dask.config.set({"prefect-dask-core.log-dir": place}):
        with Flow("unwritable") as made:
            work(0)
        state = made.run(task_runner=SequentialTaskRunner())
    assert state.is_successful()
    told = [text for text in caplog.messages if "nothing more is written" in text]
    assert len(told) == 1
    assert "Not a directory" in told[0]


def test_a_flow_of_a_long_name_has_a_file(tmp_path):
    log = RunLog("long " * 100, "0123", str(tmp_path))
    log.take(logging.makeLogRecord({"msg": "hello"}))
    log.close()
    (path,) = tmp_path.iterdir()
    assert path.name.endswith("-0123.log")
    assert "hello" in path.read_text("utf-8")


def test_a_file_that_cannot_be_written_is_told_of_once(tmp_path, caplog):
    (tmp_path / "in the way").write_text("a file")
    log = RunLog("etl", "0123", str(tmp_path / "in the way"))
    for number in range(3):
        log.take(logging.makeLogRecord({"msg": f"line {number}"}))
    assert [line.split("| ")[1] for line in log.lines()] == [
        "line 0",
        "line 1",
        "line 2",
    ]
    (told,) = caplog.messages
    assert "nothing more is written to" in told
