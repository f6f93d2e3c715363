"""Logs: what bodies log or print on workers is heard at the client, once."""

import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    ThreadPoolTaskRunner,
    context,
    flow,
    get_run_logger,
    task,
)
from prefect_dask_core.runners import logs
from prefect_dask_core.runners.logs import Collector

NAME = "prefect_dask_core.task_runs"


@pytest.fixture(params=["processes", "threads"])
def runner(request):
    """Runner of workers in processes of their own, and of some in this one."""
    threads = request.param == "threads"
    fixture = "client" if threads else "process_client"
    return DaskTaskRunner(cluster=request.getfixturevalue(fixture))


@pytest.fixture
def apart(process_client):
    return DaskTaskRunner(cluster=process_client)


@pytest.fixture
def heard(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record for record in caplog.records if record.name == NAME]


def messages(records):
    return [record.getMessage() for record in records]


@task
def speak(x):
    get_run_logger().info("x is %d", x)
    return x


@task(log_prints=True)
def chat(x):
    print("x is", x)
    print("and so on")


# -- what is heard -----------------------------------------------------------------


@pytest.mark.slow
def test_a_log_is_heard_once_with_run_and_task_and_index(runner, heard):
    @flow(task_runner=runner)
    def talks():
        speak.submit(7).wait()
        speak.map([0, 1, 2]).wait()
        return context.flow_run_id

    run_id = talks()
    found = heard()
    assert sorted(messages(found)) == [
        "Task 'speak-0': x is 7",
        "Task 'speak-1[0]': x is 0",
        "Task 'speak-1[1]': x is 1",
        "Task 'speak-1[2]': x is 2",
    ]
    assert {record.flow_run_id for record in found} == {run_id}
    assert {record.task_name for record in found} == {"speak"}
    indexes = {record.task_full_name: record.map_index for record in found}
    assert indexes == {
        "speak-0": None,
        "speak-1[0]": 0,
        "speak-1[1]": 1,
        "speak-1[2]": 2,
    }
    assert {record.levelname for record in found} == {"INFO"}
    assert {record.funcName for record in found} == {"speak"}


@pytest.mark.slow
def test_prints_are_heard_once(runner, heard):
    @flow(task_runner=runner)
    def talks():
        chat.map([0, 1]).wait()

    talks()
    assert sorted(messages(heard())) == [
        "Task 'chat-0[0]': and so on",
        "Task 'chat-0[0]': x is 0",
        "Task 'chat-0[1]': and so on",
        "Task 'chat-0[1]': x is 1",
    ]


@pytest.mark.slow
def test_logs_of_graph_flows_are_heard_once(runner, heard):
    with Flow("talks") as talks:
        chat(speak.map([1, 2]))
    talks.run(task_runner=runner)
    assert sorted(messages(heard())) == [
        "Task 'chat': and so on",
        "Task 'chat': x is [1, 2]",
        "Task 'speak[0]': x is 1",
        "Task 'speak[1]': x is 2",
    ]


@pytest.mark.slow
def test_bodies_of_all_kinds_are_heard(runner, heard):
    @task(timeout_seconds=30)
    def limited():
        get_run_logger().info("limited")

    @task
    async def awaited():
        get_run_logger().info("awaited")

    @task(log_prints=True)
    def generated():
        print("generated")
        yield 1

    @flow(task_runner=runner)
    def talks():
        for one in (limited, awaited, generated):
            one.submit()

    talks()
    assert sorted(messages(heard())) == [
        "Task 'awaited-0': awaited",
        "Task 'generated-0': generated",
        "Task 'limited-0': limited",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [False, True], ids=["cluster", "threads"])
def test_what_runs_inside_of_a_task_is_heard(runner, heard, threads):
    @task
    def outer(x):
        speak.submit(x).wait()
        get_run_logger().info("outer")
        inner = flow(lambda: speak.submit(x + 1).result(), name="inner")
        if threads:
            inner = inner.with_options(task_runner=ThreadPoolTaskRunner(1))
        return inner()

    @flow(task_runner=runner)
    def talks():
        outer.submit(1).result()

    talks()
    assert sorted(messages(heard())) == [
        "Task 'outer-0': outer",
        "Task 'speak-0': x is 1",
        "Task 'speak-0': x is 2",
    ]


@pytest.mark.slow
def test_many_lines_are_all_heard_in_order(apart, heard):
    @task(log_prints=True)
    def count(n):
        for number in range(n):
            print(number)

    @flow(task_runner=apart)
    def talks():
        count.submit(5_000)

    talks()
    assert messages(heard()) == [f"Task 'count-0': {n}" for n in range(5_000)]


@pytest.mark.slow
@pytest.mark.parametrize("level", ["info", "warning"])
def test_a_log_is_heard_while_its_body_still_runs(apart, heard, level):
    @task
    def slow():
        getattr(get_run_logger(), level)("begun")
        time.sleep(2)

    @flow(task_runner=apart)
    def talks():
        future = slow.submit()
        until = time.monotonic() + 1.5
        while not heard() and time.monotonic() < until:
            time.sleep(0.02)
        return messages(heard()), future.done()

    assert talks() == (["Task 'slow-0': begun"], False)


@pytest.mark.slow
def test_what_was_logged_before_a_death_is_heard(apart, heard):
    @task
    def dying():
        get_run_logger().info("I feel unwell")
        time.sleep(1)
        os._exit(1)

    @flow(task_runner=apart)
    def talks():
        future = dying.submit()
        future.wait()
        return type(future.state).__name__

    assert talks() == "Crashed"
    assert "Task 'dying-0': I feel unwell" in messages(heard())


class Odd:
    def __reduce__(self):
        raise TypeError("not to be pickled")

    def __repr__(self):
        return "<odd>"


@pytest.mark.slow
def test_what_cannot_travel_is_heard_as_text(apart, heard):
    @task
    def odd():
        logger = get_run_logger()
        logger.info("it is %r", Odd(), extra={"more": Odd(), "number": 10**30})
        try:
            raise ValueError(Odd())
        except ValueError:
            logger.exception("failed")
        logger.info("%d", "no number")  # a mistake in the call

    @flow(task_runner=apart)
    def talks():
        odd.submit().result()

    talks()
    first, second = heard()
    assert first.getMessage() == "Task 'odd-0': it is <odd>"
    assert (first.more, first.number) == ("<odd>", 10**30)
    assert "ValueError: <odd>" in second.exc_text


# -- what is not heard -------------------------------------------------------------


@pytest.mark.slow
def test_what_the_client_does_not_take_in_does_not_travel(apart, caplog):
    @task
    def talk():
        logger = get_run_logger()
        logger.info("low")
        logger.warning("high")
        return logger.isEnabledFor(logging.INFO)

    @flow(task_runner=apart)
    def talks():
        return talk.submit().result()

    with caplog.at_level(logging.WARNING):
        assert talks() is False
    assert [r.getMessage() for r in caplog.records if r.name == NAME] == [
        "Task 'talk-0': high"
    ]
    with caplog.at_level(logging.INFO):
        logging.disable(logging.WARNING)
        try:
            talks()
        finally:
            logging.disable(logging.NOTSET)
    assert len([r for r in caplog.records if r.name == NAME]) == 1


def test_a_run_that_logs_nothing_sends_nothing(monkeypatch):
    sent, scheduled = [], []
    made = Collector(NAME, 0, sent.append, lambda delay, call: scheduled.append(delay))
    made.flush()
    assert (sent, scheduled) == ([], [])


def test_a_handler_that_raises_ends_no_flow(apart, caplog):
    class Raising(logging.Filter):
        def filter(self, record):
            raise RuntimeError("out of order")

    @flow(task_runner=apart)
    def talks():
        return speak.submit(1).result()

    refuse = Raising()
    logger = logging.getLogger(NAME)
    with caplog.at_level(logging.INFO):
        logger.addFilter(refuse)
        try:
            assert talks() == 1
        finally:
            logger.removeFilter(refuse)
    assert "logs of task runs could not be handled" in caplog.text


UNCONFIGURED = """
from distributed import LocalCluster
from prefect_dask_core import DaskTaskRunner, flow, task

@task(log_prints=True)
def talk(x):
    print("heard", x)

@flow(task_runner=DaskTaskRunner(cluster_kwargs={
    "n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}))
def talks():
    talk.map([0, 1])

if __name__ == "__main__":
    talks()
"""


@pytest.mark.slow
def test_without_handlers_logs_go_to_the_stderr_of_the_client(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(UNCONFIGURED)
    found = subprocess.run([sys.executable, path], capture_output=True, text=True)
    lines = [line for line in found.stderr.splitlines() if "heard" in line]
    assert sorted(lines) == [
        "INFO Task 'talk-0[0]': heard 0",
        "INFO Task 'talk-0[1]': heard 1",
    ], found.stderr


# -- batches -----------------------------------------------------------------------


def collector():
    sent, scheduled = [], []
    made = Collector(
        NAME,
        logging.INFO,
        lambda blobs: sent.append([logs.unpacked(b).getMessage() for b in blobs]),
        lambda delay, call: scheduled.append((delay, call)),
    )
    return made, sent, scheduled


def test_records_wait_for_others_and_not_for_long():
    made, sent, scheduled = collector()
    made.logger.info("a")
    made.logger.info("b")
    made.logger.debug("nobody wants this")
    assert [delay for delay, _ in scheduled] == [logs.LONGEST_WAIT]
    scheduled.pop()[1]()
    assert sent == [["a", "b"]]
    made.logger.info("c")
    assert [delay for delay, _ in scheduled] == [logs.LONGEST_WAIT]


def test_a_warning_goes_at_once_with_those_before_it():
    made, sent, scheduled = collector()
    made.logger.info("a")
    made.logger.warning("b")
    assert [delay for delay, _ in scheduled] == [logs.LONGEST_WAIT, 0.0]
    for _, call in reversed(scheduled):
        call()
    assert sent == [["a", "b"]]


def test_many_records_do_not_wait():
    made, sent, scheduled = collector()
    for _ in range(logs.MOST_TOGETHER):
        made.logger.info("a")
    assert [delay for delay, _ in scheduled] == [logs.LONGEST_WAIT, 0.0]
    scheduled[1][1]()
    assert len(sent[0]) == logs.MOST_TOGETHER


def test_records_of_several_threads_are_all_there():
    made, sent, scheduled = collector()
    threads = [
        threading.Thread(target=lambda: [made.logger.info("a") for _ in range(300)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _, call in scheduled:
        call()
    assert sum(map(len, sent)) == 2_400
