"""Reports of single plain nodes share messages; all else goes out at once."""

import itertools
import queue
import time

import pytest

from prefect_dask_core.runners._private import forget_topic
from prefect_dask_core.runners.outbox import DONE, PLAIN, Outbox


@pytest.fixture
def topic(client):
    name = f"outbox-of-a-test-{time.monotonic_ns()}"
    yield name
    forget_topic(client, name)


@pytest.fixture
def heard(client, topic):
    """Messages that arrive on the topic, without their times."""
    messages = queue.SimpleQueue()
    client.subscribe_topic(topic, lambda event: messages.put(event[1]))
    # The subscription takes another way to the scheduler than messages do.
    told = itertools.count(1)
    while messages.empty():
        client.log_event(topic, next(told))
        time.sleep(0.01)
    last = next(told) - 1
    while messages.get(timeout=30) != last:
        pass
    return messages


@pytest.fixture
def worker(cluster):
    return next(iter(cluster.workers.values()))


def test_reports_that_nobody_waits_for_come_together(worker, topic, heard):
    outbox = Outbox(worker)
    for number in range(3):
        outbox.add(topic, (number,), awaited=False)
    kind, address, reports = heard.get(timeout=30)
    assert (kind, address) == (PLAIN, worker.address)
    assert [tuple(report) for report in reports] == [(0,), (1,), (2,)]


def test_one_that_is_awaited_takes_those_before_along(
    worker, topic, heard, monkeypatch
):
    monkeypatch.setattr("prefect_dask_core.runners.outbox.UNHURRIED", 1_000.0)
    outbox = Outbox(worker)
    outbox.add(topic, ("early",), awaited=False)
    outbox.add(topic, ("awaited",), awaited=True)
    _, _, reports = heard.get(timeout=30)
    assert [tuple(report) for report in reports] == [("early",), ("awaited",)]
    assert heard.empty()


def test_all_else_goes_out_at_once(worker, topic, heard, monkeypatch):
    monkeypatch.setattr("prefect_dask_core.runners.outbox.UNHURRIED", 1_000.0)
    outbox = Outbox(worker)
    outbox.add(topic, ("early",), awaited=False)
    outbox.send(topic, DONE, b"report")
    assert tuple(heard.get(timeout=30)) == (DONE, worker.address, b"report")


def test_reports_of_several_runs_stay_apart(worker, client, topic, heard):
    outbox = Outbox(worker)
    outbox.add("another-topic-of-a-test", ("theirs",), awaited=False)
    outbox.add(topic, ("ours",), awaited=True)
    _, _, reports = heard.get(timeout=30)
    assert [tuple(report) for report in reports] == [("ours",)]
    forget_topic(client, "another-topic-of-a-test")


def test_a_worker_that_is_gone_is_told_nothing(topic):
    class Gone:
        address = "tcp://gone"

    outbox = Outbox(Gone())
    outbox.add(topic, (1,), awaited=True)
    outbox.send(topic, DONE, b"")
